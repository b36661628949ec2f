# Headers that are parsed once for all rooms: those of the standard library that most files include,
# and for tests GoogleTest too. This halves the time of a build. Files still include what they use
# (a rule of tools/tidy), and no header of ours is here, so that a change rebuilds what it must.
set(LLMD_STD_HEADERS <algorithm> <array> <atomic> <charconv> <chrono> <cmath> <deque> <expected>
    <functional> <map> <memory> <mutex> <optional> <set> <span> <string> <string_view> <thread>
    <unordered_map> <utility> <variant> <vector>)
# Half of the time of compiling a test went into optimising it; what it tests is optimised all the
# same, but for inline functions.
set(LLMD_TEST_OPTIONS -O0)

# llmd_precompile(NAME HEADERS...): the target NAME that others name in
# target_precompile_headers(... REUSE_FROM NAME).
function(llmd_precompile NAME)
  add_library(${NAME} OBJECT EXCLUDE_FROM_ALL ${CMAKE_SOURCE_DIR}/cmake/precompiled.cc)
  target_precompile_headers(${NAME} PRIVATE ${ARGN})
  target_compile_options(${NAME} PRIVATE "SHELL:-Xclang -fno-pch-timestamp")
endfunction()

llmd_precompile(llmd_precompiled ${LLMD_STD_HEADERS})
llmd_precompile(llmd_precompiled_test ${LLMD_STD_HEADERS} <gmock/gmock.h> <gtest/gtest.h>)
target_compile_options(llmd_precompiled_test PRIVATE ${LLMD_TEST_OPTIONS})
