# llmd::rust_text: the crate rust/llmd-text as a static library behind include/llmd_text.h.
#
# cargo builds it once for all presets, into build/rust of the source tree: nothing in it depends on
# the C++ flags. It is optimised everywhere and carries no sanitizer.
set(LLMD_RUST_DIR ${CMAKE_SOURCE_DIR}/rust/llmd-text)
set(LLMD_RUST_TARGET_DIR ${CMAKE_SOURCE_DIR}/build/rust)

function(llmd_find_cargo)
  file(STRINGS ${LLMD_RUST_DIR}/Cargo.toml line REGEX "^rust-version")
  string(REGEX MATCH "[0-9.]+" wanted "${line}")
  set(remedy "Remedy: tools/setup build (on Debian 12 it installs cargo-web), or ./run.")
  find_program(LLMD_CARGO cargo HINTS $ENV{CARGO_HOME}/bin $ENV{HOME}/.cargo/bin)
  if(NOT LLMD_CARGO)
    message(FATAL_ERROR "llmd needs cargo with Rust ${wanted} or newer, found none. ${remedy}")
  endif()
  execute_process(COMMAND ${LLMD_CARGO} --version OUTPUT_VARIABLE answer
                  OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  string(REGEX MATCH "[0-9]+\\.[0-9]+\\.[0-9]+" found "${answer}")
  if(NOT found OR found VERSION_LESS wanted)
    # Not cached, so that a newer one is found once it is there.
    set(cargo ${LLMD_CARGO})
    unset(LLMD_CARGO CACHE)
    message(FATAL_ERROR
      "llmd needs Rust ${wanted} or newer; ${cargo} is '${answer}'. ${remedy}")
  endif()
endfunction()

function(llmd_add_rust)
  llmd_find_cargo()
  set(library ${LLMD_RUST_TARGET_DIR}/release/libllmd_text_rs.a)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${LLMD_RUST_DIR}/src/*.rs)
  add_custom_command(
    OUTPUT ${library}
    COMMAND ${LLMD_CARGO} build --quiet --locked --release --lib
            --manifest-path ${LLMD_RUST_DIR}/Cargo.toml --target-dir ${LLMD_RUST_TARGET_DIR}
    # cargo leaves a library alone that would not change; ninja goes by its time.
    COMMAND ${CMAKE_COMMAND} -E touch ${library}
    DEPENDS ${sources} ${LLMD_RUST_DIR}/Cargo.toml ${LLMD_RUST_DIR}/Cargo.lock
    WORKING_DIRECTORY ${CMAKE_SOURCE_DIR}  # .cargo/config.toml holds from here on
    COMMENT "Building the Rust crate llmd-text"
    VERBATIM)
  add_custom_target(llmd_rust_text_build DEPENDS ${library})

  add_library(llmd_rust_text INTERFACE)
  add_library(llmd::rust_text ALIAS llmd_rust_text)
  set(installed ${CMAKE_INSTALL_LIBDIR}/llmd)
  target_include_directories(llmd_rust_text INTERFACE $<BUILD_INTERFACE:${LLMD_RUST_DIR}/include>)
  target_link_libraries(llmd_rust_text INTERFACE
    $<BUILD_INTERFACE:${library}>
    $<INSTALL_INTERFACE:$<INSTALL_PREFIX>/${installed}/libllmd_text_rs.a>
    ${CMAKE_DL_LIBS})
  # Programs wait for the crate when they are linked, and are linked again when it has changed. A
  # dependency between targets would have every file of the rooms above text wait for cargo.
  set_property(TARGET llmd_rust_text PROPERTY INTERFACE_LINK_DEPENDS
               $<BUILD_INTERFACE:${library}>)
  set_target_properties(llmd_rust_text PROPERTIES EXPORT_NAME rust_text)
  set_property(GLOBAL APPEND PROPERTY LLMD_ROOM_TARGETS llmd_rust_text)
  install(FILES ${library} DESTINATION ${installed})
endfunction()
