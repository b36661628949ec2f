#!/usr/bin/env bash
# Two independent gRPC clients, Python's grpcio and grpc++, talk to our gRPC server and picker.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd -P)
if ! "$root/tools/setup" peers sdk; then
  echo "skip grpc: the Python packages or Debian's grpc++ cannot be had (see above)"
  exit 0
fi
exec "$root/.setup/venv/bin/python" -B "$root/tests/peers/grpc/peers.py"
