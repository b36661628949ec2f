#!/usr/bin/env bash
# cmake --install, then a program outside the tree that finds llmd and uses its headers.
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd -P)

cmake --install "$root/build/release" --prefix "$LLMD_TMP/prefix" >"$LLMD_TMP/install.log" 2>&1 || {
  tail -n 20 "$LLMD_TMP/install.log"
  echo "not ok install: cmake --install failed"
  exit 1
}
echo "ok install"

mkdir "$LLMD_TMP/outside"
cat >"$LLMD_TMP/outside/CMakeLists.txt" <<'END'
cmake_minimum_required(VERSION 3.25)
project(outside LANGUAGES CXX)
set(CMAKE_CXX_STANDARD 23)
find_package(llmd REQUIRED)
add_executable(outside main.cc)
target_link_libraries(outside llmd::main)
END
cat >"$LLMD_TMP/outside/main.cc" <<'END'
#include "main/commands.h"
#include "main/plugins.h"

int main(int argc, char** argv) { return llmd::Main(argc, argv, llmd::MakeCatalogue()); }
END
if cmake -S "$LLMD_TMP/outside" -B "$LLMD_TMP/outside/build" -G Ninja \
  -DCMAKE_CXX_COMPILER=clang++-19 -DCMAKE_PREFIX_PATH="$LLMD_TMP/prefix" &&
  cmake --build "$LLMD_TMP/outside/build" && "$LLMD_TMP/outside/build/outside" version; then
  echo "ok find_package"
else
  echo "not ok find_package: a program outside the tree cannot be built with the installed headers"
  exit 1
fi
