#!/usr/bin/env bash
# What the gateway costs beside nginx: see --help. The work is in gateway.py.
set -euo pipefail
source "$(dirname "$(readlink -f "$0")")/../tools/lib.sh"

usage() {
  cat <<'END'
usage: bench/gateway.sh [--quick] [--row WORDS]... [--json FILE] [--markdown FILE] [--lock FILE]

Measures `llmd gateway` (2 workers, full default profile, scraping, access lines and decision
records on) against nginx (2 workers, buffering off) over the same four simulated servers, in turn
within each round, and prints one table: llmd, nginx, ratio, target. About six minutes on two cores;
nothing else should run on the machine meanwhile.

  --quick          a few seconds per row: shows that it works, not how fast
  --row WORDS      only rows whose name contains this, such as scraping or "128 KB"; repeatable
  --json FILE      the table and every single measurement
  --markdown FILE  the table, as it stands in docs/performance.md
  --lock FILE      hold a lock on FILE during each measurement (for machines that are shared)

LLMD names the binary to measure (default: build/release/llmd, which is built first).
Exit status: 0 when the table was printed, whatever it says; 1 when a measurement failed.
END
}

for argument in "$@"; do
  case $argument in -h | --help) usage; exit 0 ;; esac
done
command -v nginx >/dev/null || die "nginx, the yardstick, is not installed" "tools/setup build test"
if [ -z "${LLMD:-}" ]; then
  build release llmd
  LLMD=$ROOT/build/release/llmd
fi
export LLMD
exec python3 -B "$ROOT/bench/gateway.py" "$@"
