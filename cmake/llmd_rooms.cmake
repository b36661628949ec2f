# llmd_room(NAME [DEPS room...] [LIBS external...] [TEST_DEPS room...] [TEST_LIBS external...]
#           [OPTIMISED_TESTS file...])
#
# One room is one static library of the room's *.cc (subfolders included; *_main.cc belong to
# programs that the room's CMakeLists.txt adds), one gtest binary
# NAME_test of its *_test.cc and the *_testing.cc that they share, one libFuzzer binary per
# *_fuzz.cc (asan build only) and one Google Benchmark binary per *_bench.cc. DEPS are rooms that
# the room's headers or sources include; the tidy program compares them with the #include lines and
# with src/floors.txt.
function(llmd_room NAME)
  cmake_parse_arguments(R "" "" "DEPS;LIBS;TEST_DEPS;TEST_LIBS;OPTIMISED_TESTS" ${ARGN})
  set(dir ${CMAKE_CURRENT_SOURCE_DIR})
  file(GLOB_RECURSE all CONFIGURE_DEPENDS ${dir}/*.cc)
  set(sources ${all})
  list(FILTER sources EXCLUDE REGEX "_(test|testing|fuzz|bench|main)\\.cc$")
  set(deps ${R_DEPS})
  list(TRANSFORM deps PREPEND llmd_)
  set(test_deps ${R_TEST_DEPS})
  list(TRANSFORM test_deps PREPEND llmd_)

  if(sources)
    add_library(llmd_${NAME} STATIC ${sources})
    target_precompile_headers(llmd_${NAME} REUSE_FROM llmd_precompiled)
    set(scope PUBLIC)
  else()
    add_library(llmd_${NAME} INTERFACE)
    set(scope INTERFACE)
  endif()
  add_library(llmd::${NAME} ALIAS llmd_${NAME})
  target_include_directories(llmd_${NAME} ${scope} $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/src>
                             $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/llmd>)
  target_link_libraries(llmd_${NAME} ${scope} ${deps} ${R_LIBS} Threads::Threads)
  set_target_properties(llmd_${NAME} PROPERTIES EXPORT_NAME ${NAME})
  set_property(GLOBAL APPEND PROPERTY LLMD_ROOM_TARGETS llmd_${NAME})

  set(tests ${all})
  list(FILTER tests INCLUDE REGEX "_test(ing)?\\.cc$")
  if(tests)
    add_executable(${NAME}_test ${tests})
    target_link_libraries(${NAME}_test PRIVATE llmd_${NAME} ${test_deps} ${R_TEST_LIBS}
                          gmock gtest gtest_main)
    target_precompile_headers(${NAME}_test REUSE_FROM llmd_precompiled_test)
    target_compile_options(${NAME}_test PRIVATE ${LLMD_TEST_OPTIONS})
    # Precompiled headers hold for one level of optimisation.
    set_source_files_properties(${R_OPTIMISED_TESTS} PROPERTIES COMPILE_OPTIONS -O2
                                SKIP_PRECOMPILE_HEADERS ON)
    target_compile_definitions(${NAME}_test PRIVATE LLMD_SOURCE_DIR="${CMAKE_SOURCE_DIR}"
                               LLMD_TESTING=1)
    set_target_properties(${NAME}_test PROPERTIES RUNTIME_OUTPUT_DIRECTORY
                          ${CMAKE_BINARY_DIR}/tests)
    set_property(GLOBAL APPEND PROPERTY LLMD_TEST_TARGETS ${NAME}_test)
  endif()

  set(fuzzers ${all})
  list(FILTER fuzzers INCLUDE REGEX "_fuzz\\.cc$")
  if(LLMD_SANITIZE STREQUAL "asan")
    foreach(f ${fuzzers})
      get_filename_component(target ${f} NAME_WE)
      add_executable(${target} ${f})
      target_link_libraries(${target} PRIVATE llmd_${NAME} ${test_deps} ${R_TEST_LIBS})
      target_precompile_headers(${target} REUSE_FROM llmd_precompiled)
      target_link_options(${target} PRIVATE -fsanitize=fuzzer)
      set_target_properties(${target} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz)
      set_property(GLOBAL APPEND PROPERTY LLMD_FUZZ_TARGETS ${target})
    endforeach()
  endif()

  set(benches ${all})
  list(FILTER benches INCLUDE REGEX "_bench\\.cc$")
  if(NOT LLMD_SANITIZE)
    foreach(b ${benches})
      get_filename_component(target ${b} NAME_WE)
      add_executable(${target} ${b})
      target_link_libraries(${target} PRIVATE llmd_${NAME} ${test_deps} ${R_TEST_LIBS} benchmark
                            benchmark_main)
      target_precompile_headers(${target} REUSE_FROM llmd_precompiled)
      set_target_properties(${target} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bench)
      set_property(GLOBAL APPEND PROPERTY LLMD_BENCH_TARGETS ${target})
    endforeach()
  endif()
endfunction()

# Adds every room of floors.txt whose folder exists, in file order (lines: floor room caption...).
# The groups `tests`, `fuzzers` and `benches` build all of a kind.
function(llmd_add_rooms FLOORS)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${FLOORS})
  file(STRINGS ${FLOORS} lines REGEX "^[0-9]+ ")
  foreach(line ${lines})
    string(REGEX MATCH "^[0-9]+ +([a-z]+)" _ "${line}")
    if(EXISTS ${CMAKE_SOURCE_DIR}/src/${CMAKE_MATCH_1}/CMakeLists.txt)
      add_subdirectory(src/${CMAKE_MATCH_1})
    endif()
  endforeach()
  foreach(kind test fuzz bench)
    string(TOUPPER ${kind} upper)
    get_property(targets GLOBAL PROPERTY LLMD_${upper}_TARGETS)
    add_custom_target(all_${kind} DEPENDS ${targets})
    string(REPLACE ";" "\n" list "${targets}")
    file(WRITE ${CMAKE_BINARY_DIR}/all_${kind}.txt "${list}\n")
  endforeach()
endfunction()

# Headers, libraries and find_package(llmd) for programs that add plugins of their own.
function(llmd_install)
  get_property(rooms GLOBAL PROPERTY LLMD_ROOM_TARGETS)
  install(TARGETS ${rooms} EXPORT llmd ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}/llmd)
  install(EXPORT llmd NAMESPACE llmd:: FILE llmd-targets.cmake
          DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/llmd)
  install(FILES ${CMAKE_SOURCE_DIR}/cmake/llmd-config.cmake
          DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/llmd)
  install(DIRECTORY ${CMAKE_SOURCE_DIR}/src/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/llmd
          FILES_MATCHING PATTERN "*.h")
endfunction()
