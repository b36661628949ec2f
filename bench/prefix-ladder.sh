#!/usr/bin/env bash
# What knowing who holds what is worth, over a ladder of rates: see prefix_ladder.py.
set -euo pipefail
source "$(dirname "$(readlink -f "$0")")/../tools/lib.sh"
if [ -z "${LLMD:-}" ]; then
  build release llmd
  LLMD=$ROOT/build/release/llmd
fi
export LLMD
exec python3 -B "$ROOT/bench/prefix_ladder.py" "$@"
