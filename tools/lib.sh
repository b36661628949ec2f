# Sourced by run, test and the scripts in tools/: where the tree is, messages, progress, building.
# Messages go to standard error, so that a script's standard output stays its answer.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
SETUP_DIR=$ROOT/.setup
LOG_DIR=$ROOT/build/logs

say() { printf '%s\n' "$*" >&2; }

# die SENTENCE [REMEDY]: one clear line, the way out on the next, and the end.
die() {
  say "${0##*/}: $1"
  if [ $# -gt 1 ]; then say "  remedy: $2"; fi
  exit 1
}

# The last "[3/40]" of a build log, or nothing.
last_mark() { tail -c 4000 "$1" 2>/dev/null | grep -ao '^\[[0-9]*/[0-9]*\]' | tail -n 1 || true; }

# step TEXT COMMAND...: runs COMMAND with its output in build/logs and returns its status. Quiet
# when it takes less than two seconds; then shows TEXT, the seconds so far and the last "[n/m]".
# The log's path is in STEP_LOG afterwards.
step() {
  local text=$1 begin=$SECONDS next=2 pid status=0 elapsed
  shift
  mkdir -p "$LOG_DIR"
  STEP_LOG=$LOG_DIR/$(printf '%s' "$text" | tr -c 'a-zA-Z0-9\n' '-' | cut -c1-60).log
  "$@" >"$STEP_LOG" 2>&1 </dev/null &
  pid=$!
  trap 'kill -TERM '"$pid"' 2>/dev/null; wait '"$pid"' 2>/dev/null; exit 130' INT TERM
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.05
    elapsed=$((SECONDS - begin))
    if [ "$elapsed" -ge "$next" ]; then
      if [ -t 2 ]; then
        printf '\r\033[K%s: %d s %s' "$text" "$elapsed" "$(last_mark "$STEP_LOG")" >&2
        next=$((elapsed + 1))
      else
        say "$text: $elapsed s $(last_mark "$STEP_LOG")"
        next=$((elapsed + 10))
      fi
    fi
  done
  wait "$pid" || status=$?
  trap - INT TERM
  elapsed=$((SECONDS - begin))
  if [ "$next" -gt 2 ]; then
    if [ -t 2 ]; then printf '\r\033[K' >&2; fi
    if [ "$status" -eq 0 ]; then say "$text: done in $elapsed s"; fi
  fi
  return "$status"
}

# configure PRESET: once; ninja calls CMake again whenever the project changes.
configure() {
  if [ -e "$ROOT/build/$1/build.ninja" ]; then return; fi
  step "configure $1" env -C "$ROOT" cmake --preset "$1" || {
    rm -f "$ROOT/build/$1/build.ninja"
    tail -n 30 "$STEP_LOG" >&2
    die "cmake could not configure the $1 build (whole log: $STEP_LOG)" \
      "install what the lines above miss: tools/setup build test"
  }
}

# build PRESET TARGET...
build() {
  local preset=$1 dir=$ROOT/build/$1
  shift
  configure "$preset"
  step "build $preset" ninja -C "$dir" "$@" || {
    grep -av '^\[' "$STEP_LOG" | head -n 60 >&2
    die "the $preset build failed (whole log: $STEP_LOG)"
  }
}
