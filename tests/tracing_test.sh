#!/usr/bin/env bash
# Traces of both doors at an OpenTelemetry collector's stand-in, made of Python's own protobufs.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd -P)
if ! "$root/tools/setup" sdk; then
  echo "skip tracing: pip could not install opentelemetry-proto (see above)"
  exit 0
fi
exec "$root/.setup/venv/bin/python" -B "$root/tests/tracing.py"
