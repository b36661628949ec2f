#!/usr/bin/env bash
# What the KV block index costs: see --help. The work is in kvindex.py.
set -euo pipefail
source "$(dirname "$(readlink -f "$0")")/../tools/lib.sh"

usage() {
  cat <<'END'
usage: bench/kvindex.sh [--quick] [--pairs N] [--json FILE] [--markdown FILE] [--lock FILE]
                        [--record]

Measures the KV block index of llmd at ten million blocks: storing and removing, from raw event
frames and from keys; looking up prompts of 600 blocks over 1,000 holders while idle and while it is
fed; bytes; hashing; a replay of real traffic. Prints one table: llmd, upstream, Dynamo, target.
About six minutes; nothing else should run on the machine, which needs 3 GiB of free memory.

  --quick          a tenth of the blocks: shows that it works, not how fast
  --pairs N        how many pairs of block and holder to index (default 10,000,000)
  --json FILE      the table and what every benchmark said
  --markdown FILE  the table, as it stands in docs/performance.md
  --lock FILE      hold a lock on FILE during each benchmark (for machines that are shared)
  --record         write the others' figures to bench/recorded/kvindex_others.json

LLMD_MOONCAKE_TRACE names Mooncake's conversation trace (FAST25-release/traces in its repository);
without it the replay is left out.
LLMD_REFERENCE_DIR names the folder with upstream's index driver `kvindex-bench`
(bench/reference/kvindex_upstream says how it is built). LLMD_DYNAMO_PYTHON names a Python with the
wheel ai-dynamo-runtime. Without them their columns are what was recorded; both index one million
blocks, because upstream needs 1.4 KB for each.
Exit status: 0 when the table was printed, whatever it says; 1 when a measurement failed.
END
}

for argument in "$@"; do
  case $argument in -h | --help) usage; exit 0 ;; esac
done
build release kv_index_bench kv_feed_bench kv_replay_bench token_chain_bench
exec python3 -B "$ROOT/bench/kvindex.py" "$@"
