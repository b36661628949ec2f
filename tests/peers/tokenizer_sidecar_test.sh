#!/usr/bin/env bash
# token-producer in front of a tokenizer sidecar made of Python's grpcio and protobuf.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd -P)
if ! "$root/tools/setup" sdk; then
  echo "skip tokenizer_sidecar: the Python packages cannot be had (see above)"
  exit 0
fi
exec "$root/.setup/venv/bin/python" -B "$root/tests/peers/tokenizer_sidecar/peer.py"
