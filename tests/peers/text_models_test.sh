#!/usr/bin/env bash
# Prompts and token ids of real models' templates and tokenizers against Python's jinja2 and
# tokenizers.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd -P)
status=0
"$root/tools/text-models" || status=$?
if [ "$status" -eq 3 ]; then
  echo "skip text_models: tokenizers or the Python packages cannot be had (see above)"
  exit 0
fi
[ "$status" -eq 0 ] || { echo "not ok text_models: tools/text-models failed"; exit 1; }
exec "$root/.setup/text/venv/bin/python" -B "$root/tests/peers/text/models.py" "$@"
