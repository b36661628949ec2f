#!/usr/bin/env python3
"""Python's grpcio and small grpc++ programs against the gRPC server and the Endpoint Picker."""

import os
import pathlib
import socket
import ssl
import subprocess
import sys
import tempfile
import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))
from harness import LLMD, Program, free_ports, report  # noqa: E402

CONFORMANCE = HERE.parent.parent.parent / "conformance"
PROTOS = CONFORMANCE / "protos"
sys.path.insert(0, str(CONFORMANCE / "differential"))
import protos  # noqa: E402

TMP = pathlib.Path(os.environ.get("LLMD_TMP") or tempfile.mkdtemp())
SERVER = pathlib.Path(LLMD).resolve().parent / "tests" / "grpc_peer"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
EPP_CONFIG = """apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: file-discovery, parameters: {path: FILE}}
- {type: queue-scorer}
dataLayer: {discovery: {pluginRef: file-discovery}}
"""
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def build_cpp(source, include, protos):
    """Compiles `source` with what protoc makes of `protos`; returns the program."""
    out = TMP / source.removesuffix(".cc")
    out.mkdir()
    for to in (f"--cpp_out={out}", f"--grpc_out={out}"):
        subprocess.run(["protoc", f"-I{include}", to, *protos,
                        "--plugin=protoc-gen-grpc=/usr/bin/grpc_cpp_plugin"], check=True)
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "grpc++", "protobuf"], check=True,
                           capture_output=True, text=True).stdout.split()
    client = out / "client"
    subprocess.run(["clang++-19", "-std=c++17", "-O1", "-w", f"-I{out}", HERE / source,
                    *out.rglob("*.pb.cc"), "-o", client, *flags], check=True)
    return client


def wait_for_port(port, program):
    deadline = time.monotonic() + 20
    while True:
        assert not program.ended() and time.monotonic() < deadline, "the server did not start"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)


def process_tests(folder):
    """Process, Check and Watch of `llmd epp`; its endpoints need not be there to be chosen."""
    grpc_port = free_ports(6)
    cpp = build_cpp("process.cc", PROTOS, sorted(
        str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto")))
    python = protos.load(folder)
    (folder / "endpoints.yaml").write_text(
        'endpoints: [{name: a, address: 127.0.0.1, port: "9"}]\n')
    (folder / "epp.yaml").write_text(EPP_CONFIG.replace("FILE", str(folder / "endpoints.yaml")))

    def epp(first, *flags):
        return Program([LLMD, "epp", "--config-file", folder / "epp.yaml", "--grpc-port", first,
                        "--grpc-health-port", first + 1, "--metrics-port", first + 2, *flags])

    def test_cpp_process():
        for first, secure in ((grpc_port, False), (grpc_port + 3, True)):
            with epp(first, f"--secure-serving={str(secure).lower()}") as picker:
                wait_for_port(first, picker)
                pem, target = "-", f"127.0.0.1:{first}"
                if secure:
                    pem, target = folder / "epp.pem", f"localhost:{first}"
                    pem.write_text(ssl.get_server_certificate(("localhost", first)))
                for count, size in ((50, 1), (20, 100_000), (2, 4 << 20)):
                    done = subprocess.run([cpp, target, pem, str(count), str(size)], check=True,
                                          capture_output=True, text=True, timeout=60)
                    assert done.stdout.split("\n")[:-1] == [
                        f"127.0.0.1:9 {size} whole 0"] * count, done.stdout

    def test_grpcio_process_and_health():
        with epp(grpc_port, "--secure-serving=false") as picker:
            wait_for_port(grpc_port, picker)
            health = health_pb2_grpc.HealthStub(grpc.insecure_channel(f"127.0.0.1:{grpc_port + 1}"))
            assert health.Check(health_pb2.HealthCheckRequest(), timeout=10).status == SERVING
            watch = health.Watch(health_pb2.HealthCheckRequest(service="readiness"), timeout=30)
            assert next(watch).status == SERVING
            process = grpc.insecure_channel(f"127.0.0.1:{grpc_port}").stream_stream(
                f"/{protos.SERVICE}/Process",
                request_serializer=python.ProcessingRequest.SerializeToString,
                response_deserializer=python.ProcessingResponse.FromString)
            head = python.ProcessingRequest()
            for name, value in ((":method", b"POST"), (":path", b"/v1/completions")):
                head.request_headers.headers.headers.add(key=name, raw_value=value)
            body = python.ProcessingRequest()
            body.request_body.body = b'{"model":"m","prompt":"x"}'
            body.request_body.end_of_stream = True
            replies = list(process(iter([head, body]), timeout=10))
            assert [reply.WhichOneof("response") for reply in replies] == [
                "request_headers", "request_body"], replies
            echoed = replies[1].request_body.response.body_mutation.streamed_response
            assert echoed.body == body.request_body.body and echoed.end_of_stream
            picker.process.terminate()
            assert next(watch).status == NOT_SERVING

    return [test_cpp_process, test_grpcio_process_and_health]


def main():
    cpp = build_cpp("client.cc", HERE, ["health.proto"])
    plain_port = free_ports(2)
    tls_port = plain_port + 1
    plain, secure = f"127.0.0.1:{plain_port}", f"localhost:{tls_port}"
    with Program([SERVER, plain_port, tls_port]) as server:
        wait_for_port(plain_port, server)
        wait_for_port(tls_port, server)
        pem = TMP / "server.pem"
        pem.write_text(ssl.get_server_certificate(("localhost", tls_port)))
        channels = [grpc.insecure_channel(plain, UNLIMITED),
                    grpc.secure_channel(secure, grpc.ssl_channel_credentials(pem.read_bytes()),
                                        UNLIMITED)]
        raw = {name: channels[0].unary_unary(f"/test.Peer/{name}") for name in ("Set", "Echo")}

        def set_status(name, status):
            raw["Set"](f"{status}{name}".encode(), timeout=10)

        def cpp_run(*arguments, trust="-", target=plain):
            done = subprocess.run([cpp, target, trust, *map(str, arguments)], check=True,
                                  capture_output=True, text=True, timeout=60)
            return done.stdout.split("\n")[:-1]

        def test_grpcio_check():
            set_status("up", SERVING)
            set_status("down", NOT_SERVING)
            for channel in channels:
                stub = health_pb2_grpc.HealthStub(channel)
                for name, status in (("up", SERVING), ("down", NOT_SERVING)):
                    for compression in (None, grpc.Compression.Gzip):
                        reply = stub.Check(health_pb2.HealthCheckRequest(service=name),
                                           timeout=10, compression=compression)
                        assert reply.status == status, (name, reply)
                try:
                    stub.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=10)
                    raise AssertionError("an unknown name was found")
                except grpc.RpcError as error:
                    assert error.code() == grpc.StatusCode.NOT_FOUND, error

        def test_grpcio_list():
            statuses = health_pb2_grpc.HealthStub(channels[0]).List(
                health_pb2.HealthListRequest(), timeout=10).statuses
            assert {k: v.status for k, v in statuses.items()}.items() >= {
                "up": SERVING, "down": NOT_SERVING}.items(), statuses

        def test_grpcio_watch():
            for i, channel in enumerate(channels):
                name = f"watched{i}"
                watch = health_pb2_grpc.HealthStub(channel).Watch(
                    health_pb2.HealthCheckRequest(service=name), timeout=30)
                seen = [next(watch).status]
                for status in (SERVING, NOT_SERVING, SERVING):
                    set_status(name, status)
                    seen.append(next(watch).status)
                assert seen == [SERVICE_UNKNOWN, SERVING, NOT_SERVING, SERVING], seen
                watch.cancel()

        def test_grpcio_messages_of_every_size():
            sizes = [0, 1, 16_379, 16_380, 65_536, 1 << 20, 20 << 20]
            for channel in channels:
                echo = channel.stream_stream("/test.Peer/Echo")
                for compression in (None, grpc.Compression.Gzip):
                    sent = [os.urandom(1) * size for size in sizes]
                    assert list(echo(iter(sent), timeout=60, compression=compression)) == sent

        def test_grpcio_errors():
            for path, code in (("/test.None/None", grpc.StatusCode.UNIMPLEMENTED),
                               ("/test.Peer/Echo", grpc.StatusCode.DEADLINE_EXCEEDED)):
                hold = iter(lambda: time.sleep(5) or b"late", None)
                call = channels[0].stream_stream(path)(hold, timeout=0.2)
                try:
                    list(call)
                    raise AssertionError(f"{path} ended well")
                except grpc.RpcError as error:
                    assert error.code() == code, error

        def test_cpp_check():
            for trust, target in (("-", plain), (pem, secure)):
                for name, expected in (("up", "0 1"), ("down", "0 2"), ("nobody", "5 0")):
                    assert cpp_run("check", name, 1, trust=trust, target=target) == [expected]

        def test_cpp_watch():
            set_status("cpp", NOT_SERVING)
            with subprocess.Popen([cpp, plain, "-", "watch", "cpp", "3"], text=True,
                                  stdout=subprocess.PIPE) as watch:
                seen = [watch.stdout.readline().strip()]
                for status in (SERVING, NOT_SERVING):
                    set_status("cpp", status)
                    seen.append(watch.stdout.readline().strip())
                rest = watch.stdout.read().split("\n")
            assert seen == ["2", "1", "2"], seen
            assert rest[0] == "end 1", rest  # CANCELLED, by the client

        def test_cpp_messages():
            for size, count in ((0, 3), (100, 1000), (4 << 20, 8)):
                for trust, target in (("-", plain), (pem, secure)):
                    assert cpp_run("echo", size, count, trust=trust, target=target) == [
                        f"{count} 0"]

        return report([test_grpcio_check, test_grpcio_list, test_grpcio_watch,
                       test_grpcio_messages_of_every_size, test_grpcio_errors,
                       test_cpp_check, test_cpp_watch, test_cpp_messages, *process_tests(TMP)])


if __name__ == "__main__":
    sys.exit(main())
