#!/usr/bin/env bash
# Precise routing over what a real vLLM (CPU, dummy weights) publishes of its prefix cache.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd -P)
status=0
"$root/tools/vllm" setup || status=$?
if [ "$status" -eq 3 ]; then
  echo "skip vllm: vLLM cannot be had or cannot run here (see above)"
  exit 0
fi
[ "$status" -eq 0 ] || { echo "not ok vllm: tools/vllm setup failed"; exit 1; }
exec "$root/.setup/venv/bin/python" -B "$root/tests/vllm_peer.py"
