#!/usr/bin/env bash
# Prefix hits of routed traffic beside random picking and one large cache: see prefix_affinity.py.
set -euo pipefail
source "$(dirname "$(readlink -f "$0")")/../tools/lib.sh"
if [ -z "${LLMD:-}" ]; then
  build release llmd
  LLMD=$ROOT/build/release/llmd
fi
export LLMD
exec python3 -B "$ROOT/bench/prefix_affinity.py" "$@"
