#!/usr/bin/env bash
# cmake --install, then the template of docs/extend outside the tree: it finds llmd, builds a
# program with a scorer of its own and passes its test; that program takes a config with the scorer.
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd -P)

fail() {
  echo "not ok $1"
  exit 1
}

cmake --install "$root/build/release" --prefix "$LLMD_TMP/prefix" >"$LLMD_TMP/install.log" 2>&1 || {
  tail -n 20 "$LLMD_TMP/install.log"
  fail "install: cmake --install failed"
}
"$LLMD_TMP/prefix/bin/epp" --help >/dev/null || fail "install: no program of the name epp"
echo "ok install"

cp -r "$root/docs/extend/template" "$LLMD_TMP/outside"
if ! { cmake -S "$LLMD_TMP/outside" -B "$LLMD_TMP/outside/build" -G Ninja \
  -DCMAKE_CXX_COMPILER=clang++-19 -DCMAKE_PREFIX_PATH="$LLMD_TMP/prefix" &&
  cmake --build "$LLMD_TMP/outside/build"; } >"$LLMD_TMP/outside.log" 2>&1; then
  tail -n 20 "$LLMD_TMP/outside.log"
  fail "find_package: a program outside the tree cannot be built with the installed headers"
fi
echo "ok find_package"

ctest --test-dir "$LLMD_TMP/outside/build" --output-on-failure >"$LLMD_TMP/ctest.log" 2>&1 || {
  tail -n 20 "$LLMD_TMP/ctest.log"
  fail "the template's own test"
}
echo "ok the template's own test"

config='
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: file-discovery, parameters: {path: endpoints.yaml}}
- {type: zone-scorer, parameters: {labelKey: rack}}
dataLayer: {discovery: {pluginRef: file-discovery}}'
"$LLMD_TMP/outside/build/my-llmd" epp --check --config-text "$config" |
  grep -q '^# profile default: zone-scorer' || fail "a profile with a scorer from outside"
echo "ok a profile with a scorer from outside"
