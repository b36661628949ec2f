#!/usr/bin/env bash
# Simulated servers' KV events as Python's pyzmq, msgpack and hashlib see them.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd -P)
if ! "$root/tools/setup" sdk; then
  echo "skip kv_events: the Python packages cannot be had (see above)"
  exit 0
fi
exec "$root/.setup/venv/bin/python" -B "$root/tests/peers/kv_events/peer.py"
