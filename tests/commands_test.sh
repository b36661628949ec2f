#!/usr/bin/env bash
# The commands a newcomer types first: they explain themselves and fail with a line and a remedy.
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd -P)
failures=0

# expect NAME STATUS WORDS COMMAND...: COMMAND ends with STATUS and says WORDS.
expect() {
  local name=$1 wanted=$2 words=$3 output status=0
  shift 3
  output=$("$@" 2>&1 </dev/null) || status=$?
  if [ "$status" -eq "$wanted" ] && grep -qF -- "$words" <<<"$output"; then
    echo "ok $name"
  else
    printf '%s\n' "$output"
    echo "not ok $name: status $status, wanted $wanted and '$words'"
    failures=1
  fi
}

for command in run test tools/setup tools/llama tools/fresh-machine tools/measure-dev; do
  expect "help of $command" 0 "usage:" "$root/$command" --help
done
expect "run refuses an unknown engine" 1 "remedy: sim or llama" "$root/run" --engine steam
expect "run refuses --engine without a value" 1 "remedy: sim or llama" "$root/run" --engine
expect "test refuses an unknown option" 1 "remedy: ./test --help" "$root/test" --everything
expect "setup refuses an unknown group" 1 "remedy: one of build" "$root/tools/setup" kitchen
expect "fresh-machine refuses a folder in use" 1 "not empty" \
  "$root/tools/fresh-machine" --only test --dir "$root/src"

# Without apt-get on the PATH (only what the script itself calls is there).
mkdir -p "$LLMD_TMP/bin"
for tool in bash env readlink dirname awk cat; do
  ln -s "$(command -v "$tool")" "$LLMD_TMP/bin/$tool"
done
expect "setup without apt-get names the way out" 1 "LLMD_SKIP_SETUP=1" \
  env PATH="$LLMD_TMP/bin" "$root/tools/setup" build
expect "setup can be skipped" 0 "" env LLMD_SKIP_SETUP=1 PATH="$LLMD_TMP/bin" "$root/tools/setup"

if command -v g++ >/dev/null; then
  expect "g++ is refused with the reason" 1 "llmd needs clang 19" \
    cmake -S "$root" -B "$LLMD_TMP/gcc" -DCMAKE_C_COMPILER=gcc -DCMAKE_CXX_COMPILER=g++
else
  echo "skip g++ is refused with the reason: there is no g++ here"
fi

begin=$(date +%s%N)
"$root/tools/setup" build test
took_ms=$((($(date +%s%N) - begin) / 1000000))
if [ "$took_ms" -lt 1000 ]; then
  echo "ok setup with nothing to do is quick"
else
  echo "not ok setup with nothing to do is quick: $took_ms ms"
  failures=1
fi
exit "$failures"
