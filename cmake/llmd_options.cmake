# Compiler, linker and sanitizer settings that hold for every room.
set(CMAKE_CXX_STANDARD 23)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -g1 -DNDEBUG")
set(CMAKE_CXX_FLAGS_DEBUG "-O1 -g1 -fno-omit-frame-pointer")
set(LLMD_SANITIZE "" CACHE STRING "asan (address + undefined, builds the fuzzers) or tsan")
set_property(CACHE LLMD_SANITIZE PROPERTY STRINGS "" asan tsan)

add_compile_options(-Wall -Wextra -Werror -Wthread-safety -Wno-unused-parameter
                    -Wno-missing-field-initializers -Wnon-virtual-dtor -Wimplicit-fallthrough
                    -Wshadow-uncaptured-local -fno-plt)
# Paths in binaries and diagnostics do not depend on where the checkout lies (ccache hits, privacy).
add_compile_options(-ffile-prefix-map=${CMAKE_SOURCE_DIR}/=)

if(LLMD_SANITIZE STREQUAL "asan")
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=all
                      -fsanitize=fuzzer-no-link)
  add_link_options(-fsanitize=address,undefined)
elseif(LLMD_SANITIZE STREQUAL "tsan")
  add_compile_options(-fsanitize=thread)
  add_link_options(-fsanitize=thread)
elseif(LLMD_SANITIZE)
  message(FATAL_ERROR "LLMD_SANITIZE=${LLMD_SANITIZE}: allowed are asan, tsan, or empty")
endif()

find_program(LLMD_CCACHE ccache)
if(LLMD_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # What it needs to know precompiled headers by their content.
  set(CMAKE_CXX_COMPILER_LAUNCHER env CCACHE_SLOPPINESS=pch_defines,time_macros ${LLMD_CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${LLMD_CCACHE})
endif()
find_program(LLMD_MOLD NAMES mold ld.mold)
if(LLMD_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
