"""Python modules for Envoy's ext_proc messages, generated from conformance/protos."""

import importlib
import pathlib
import sys

from grpc_tools import protoc

PROTOS = pathlib.Path(__file__).resolve().parent.parent / "protos"
SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"


def load(folder):
    """Generates into `folder` and returns the module of external_processor.proto."""
    sources = [str(path.relative_to(PROTOS)) for path in sorted(PROTOS.rglob("*.proto"))]
    include = pathlib.Path(protoc.__file__).parent / "_proto"
    status = protoc.main(["protoc", f"-I{PROTOS}", f"-I{include}", f"--python_out={folder}",
                          *sources])
    assert status == 0, f"protoc ended with {status}"
    sys.path.insert(0, str(folder))
    return importlib.import_module("envoy.service.ext_proc.v3.external_processor_pb2")
