#!/usr/bin/env bash
# The official OpenAI SDK, in .setup/venv, through the gateway to four simulated servers.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd -P)
if ! "$root/tools/setup" sdk; then
  echo "skip openai_sdk: pip could not install the SDK (see above)"
  exit 0
fi
exec "$root/.setup/venv/bin/python" -B "$root/tests/openai_sdk.py" sim
