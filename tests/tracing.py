"""What llmd gateway and llmd epp tell a collector and the engine; tracing_test.sh starts it.

The collector is grpcio with OpenTelemetry's own protobufs (or an HTTP server that reads them), the
engine a small HTTP server that keeps the headers it gets.
"""

import contextlib
import http.server
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from concurrent import futures

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from harness import LLMD, ROOT, Program, free_ports, report, wait_for_http

TMP = pathlib.Path(os.environ.get("LLMD_TMP") or tempfile.mkdtemp())
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{CALLER}-01", f"00-{TRACE}-{CALLER}-00"
CHAT = json.dumps({"model": "llama", "messages": [{"role": "user", "content": "Hello"}]}).encode()
SPANS = 8 + 1  # of one request with the default profile's three scorers
ROOT_SPAN, DECISION, PROFILE = ("gateway.request", "gateway.request_orchestration",
                                "run_scheduler_profile")
PARENTS = {
    DECISION: ROOT_SPAN,
    PROFILE: DECISION,
    "filter_endpoints": PROFILE,
    "llm_d.epp.scoring": PROFILE,
    "llm_d.epp.scorer.queue-scorer": "llm_d.epp.scoring",
    "llm_d.epp.scorer.kv-cache-utilization-scorer": "llm_d.epp.scoring",
    "llm_d.epp.scorer.prefix-cache-scorer": "llm_d.epp.scoring",
    "pick_endpoints": PROFILE,
}
INTERNAL, SERVER = 1, 2


def value_of(any_value):
    kind = any_value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(v) for v in any_value.array_value.values]
    return getattr(any_value, kind)


def attributes_of(holder):
    return {pair.key: value_of(pair.value) for pair in holder.attributes}


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self):
        self.spans, self.resources, self.metadata = [], [], []

    def take(self, request):
        for resource_spans in request.resource_spans:
            self.resources.append(attributes_of(resource_spans.resource))
            for scope_spans in resource_spans.scope_spans:
                assert scope_spans.scope.name == "llm-d-router"
                self.spans.extend(scope_spans.spans)
        return trace_service_pb2.ExportTraceServiceResponse()

    def Export(self, request, context):
        self.metadata.append(dict(context.invocation_metadata()))
        return self.take(request)

    @contextlib.contextmanager
    def over_grpc(self, port=0, credentials=None):
        server = grpc.server(futures.ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, server)
        address = f"127.0.0.1:{port}"
        bound = (server.add_secure_port(address, credentials) if credentials
                 else server.add_insecure_port(address))
        server.start()
        try:
            yield bound
        finally:
            server.stop(None).wait()

    @contextlib.contextmanager
    def over_http(self):
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.metadata.append({k.lower(): v for k, v in self.headers.items()})
                good = (self.path == "/base/v1/traces" and
                        self.headers["content-type"] == "application/x-protobuf")
                reply = b""
                if good:
                    reply = collector.take(trace_service_pb2.ExportTraceServiceRequest.FromString(
                        body)).SerializeToString()
                self.send_response(200 if good else 404)
                self.send_header("content-length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *arguments):
                pass

        with serving(Handler) as port:
            yield port

    def wait_for(self, count, program):
        deadline = time.monotonic() + 20
        while len(self.spans) < count and time.monotonic() < deadline:
            assert not program.ended(), f"{program.name} ended"
            time.sleep(0.02)
        assert len(self.spans) == count, f"{len(self.spans)} spans came, not {count}"


@contextlib.contextmanager
def serving(handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Engine:
    """Answers every chat; `seen` are the headers of each."""

    REPLY = json.dumps({"model": "llama", "choices": [],
                        "usage": {"prompt_tokens": 7, "completion_tokens": 3}}).encode()

    def __init__(self):
        self.seen = []

    @contextlib.contextmanager
    def run(self):
        engine = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def reply(self, body, content_type):
                self.send_response(200)
                self.send_header("content-type", content_type)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                self.reply(b"vllm:num_requests_waiting 0\nvllm:num_requests_running 0\n",
                           "text/plain")

            def do_POST(self):
                self.rfile.read(int(self.headers["content-length"]))
                engine.seen.append([(k.lower(), v) for k, v in self.headers.items()])
                self.reply(engine.REPLY, "application/json")

            def log_message(self, *arguments):
                pass

        with serving(Handler) as port:
            yield port


@contextlib.contextmanager
def environment(**variables):
    old = {name: value for name, value in os.environ.items() if name.startswith("OTEL_")}
    for name in old:
        del os.environ[name]
    os.environ.update({name: str(value) for name, value in variables.items()})
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]
        os.environ.update(old)


def to(port, **more):
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_BSP_SCHEDULE_DELAY": 20, "OTEL_TRACES_SAMPLER_ARG": 0, **more}


class Door:
    """A running gateway, or what else answers on these ports."""

    def __init__(self, program, port, metrics_port):
        self.program, self.port, self.metrics_port = program, port, metrics_port

    def ask(self, **headers):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/chat/completions", CHAT,
            {"Content-Type": "application/json", **headers})
        with urllib.request.urlopen(request, timeout=10) as reply:
            return json.load(reply)

    def spans(self, result):
        page = wait_for_http(f"http://127.0.0.1:{self.metrics_port}/metrics", self.program)
        for line in page.decode().splitlines():
            if line.startswith(f'llmd_trace_spans_total{{result="{result}"}}'):
                return int(float(line.split()[-1]))
        return None


@contextlib.contextmanager
def gateway(engine_port, *flags, **variables):
    port = free_ports(2)
    metrics_port = port + 1
    with environment(**variables):
        program = Program([LLMD, "gateway", "--listen", f"127.0.0.1:{port}", "--metrics-port",
                           metrics_port, "--endpoints", f"127.0.0.1:{engine_port}",
                           "--access-log", "", *flags])
        program.__enter__()
    try:
        wait_for_http(f"http://127.0.0.1:{metrics_port}/readyz", program)
        yield Door(program, port, metrics_port)
    finally:
        program.__exit__(*sys.exc_info())


def header(pairs, name):
    values = [value for key, value in pairs if key == name]
    assert len(values) <= 1, f"{name} came {len(values)} times"
    return values[0] if values else None


def check_tree(spans, request_id, traceparent):
    """The spans of one request that a sampled caller made; `traceparent` is the engine's."""
    by_name = {span.name: span for span in spans}
    assert sorted(by_name) == sorted([ROOT_SPAN, *PARENTS]), sorted(by_name)
    root = by_name[ROOT_SPAN]
    assert root.parent_span_id.hex() == CALLER
    assert traceparent == f"00-{TRACE}-{root.span_id.hex()}-01", traceparent
    assert len({span.span_id for span in spans}) == len(spans), "span ids repeat"
    now = time.time_ns()
    for span in spans:
        assert span.trace_id.hex() == TRACE, span.name
        assert span.trace_state == "vendor=1", span.trace_state
        assert span.status.code == 0, span
        assert span.kind == (SERVER if span.name in (ROOT_SPAN, DECISION) else INTERNAL), span
        assert now - 60e9 < span.start_time_unix_nano <= span.end_time_unix_nano <= now, span
    for name, parent in PARENTS.items():
        child, above = by_name[name], by_name[parent]
        assert child.parent_span_id == above.span_id, f"{name} is no child of {parent}"
        assert above.start_time_unix_nano <= child.start_time_unix_nano, name
        assert child.end_time_unix_nano <= above.end_time_unix_nano, name
    check_attributes({name: attributes_of(span) for name, span in by_name.items()}, request_id)


def check_attributes(found, request_id):
    of_request = {"gen_ai.request.model": "llama", "gen_ai.request.id": request_id}
    assert found[DECISION] == {"target_model": "llama", "request_prio": 0}, found[DECISION]
    assert found[PROFILE] == {"llm_d.epp.scheduling.profile.name": "default"}, found[PROFILE]
    assert found["filter_endpoints"] == {"llm_d.epp.filter.candidate_endpoints": 1,
                                         "llm_d.epp.filter.filtered_endpoints": 1, **of_request}
    assert found["llm_d.epp.scoring"] == {"llm_d.epp.scorer.count": 3,
                                          "llm_d.epp.scoring.candidate_endpoints": 1, **of_request}
    scorer = found["llm_d.epp.scorer.prefix-cache-scorer"]
    assert scorer == {"llm_d.epp.scorer.type": "prefix-cache-scorer",
                      "llm_d.epp.scorer.name": "prefix-cache-scorer",
                      "llm_d.epp.scorer.weight": 3.0, "llm_d.epp.scorer.candidate_endpoints": 1,
                      "llm_d.epp.scorer.score.max": 0.0, "llm_d.epp.scorer.score.avg": 0.0,
                      "llm_d.epp.scorer.endpoints_scored": 1}, scorer
    pick = found["pick_endpoints"]
    assert pick["llm_d.epp.picker.candidate_endpoints"] == 1
    assert len(pick["llm_d.epp.picker.top_endpoints"]) == 1
    assert isinstance(pick["llm_d.epp.picker.top_scores"][0], float)
    assert found[ROOT_SPAN].items() >= {**of_request, "http.response.status_code": 200}.items()


# --- the gateway --------------------------------------------------------------------------------

def test_gateway_over_grpc():
    engine, collector = Engine(), Collector()
    with engine.run() as engine_port, collector.over_grpc() as port, gateway(
            engine_port, **to(port, OTEL_SERVICE_NAME="door",
                              OTEL_RESOURCE_ATTRIBUTES="k8s.pod.name=door-0",
                              OTEL_EXPORTER_OTLP_HEADERS="x-tenant=t%201")) as door:
        door.ask(traceparent=SAMPLED, tracestate="vendor=1", baggage="k=v",
                 **{"x-request-id": "r1"})
        collector.wait_for(SPANS, door.program)
        check_tree(collector.spans, "r1", header(engine.seen[-1], "traceparent"))
        assert header(engine.seen[-1], "tracestate") == "vendor=1"
        assert header(engine.seen[-1], "baggage") == "k=v"
        assert collector.resources == [{"service.name": "door", "k8s.pod.name": "door-0"}]
        assert collector.metadata[0]["x-tenant"] == "t 1"
        usage = attributes_of(next(s for s in collector.spans if s.name == ROOT_SPAN))
        assert usage["gen_ai.usage.input_tokens"] == 7
        assert usage["gen_ai.usage.output_tokens"] == 3
        assert door.spans("exported") == SPANS and door.spans("dropped") == 0

        # A caller that is not sampled passes untouched; where there is none, the engine learns
        # that the trace is not sampled. Neither makes spans.
        door.ask(traceparent=UNSAMPLED)
        assert header(engine.seen[-1], "traceparent") == UNSAMPLED
        door.ask()
        fresh = header(engine.seen[-1], "traceparent").split("-")
        assert (fresh[0], len(fresh[1]), len(fresh[2]), fresh[3]) == ("00", 32, 16, "00"), fresh
        assert fresh[1] != TRACE
        # A name that is no UTF-8 arrives, mended.
        door.ask(traceparent=SAMPLED, **{"x-request-id": "gr\xfc\xdf"})
        collector.wait_for(2 * SPANS, door.program)
        assert attributes_of(collector.spans[-1])["gen_ai.request.id"] == "gr??"


def test_gateway_over_http():
    engine, collector = Engine(), Collector()
    with engine.run() as engine_port, collector.over_http() as port, gateway(
            engine_port,
            **to(f"{port}/base", OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf")) as door:
        for count in (1, 2):  # the second over the connection of the first
            door.ask(traceparent=SAMPLED, tracestate="vendor=1", **{"x-request-id": "r1"})
            collector.wait_for(count * SPANS, door.program)
        check_tree(collector.spans[:SPANS], "r1", header(engine.seen[0], "traceparent"))


def test_gateway_over_tls():
    engine, collector = Engine(), Collector()
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
                    "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout",
                    TMP / "key.pem", "-out", TMP / "cert.pem"], check=True, capture_output=True)
    credentials = grpc.ssl_server_credentials(
        [((TMP / "key.pem").read_bytes(), (TMP / "cert.pem").read_bytes())])
    with engine.run() as engine_port, collector.over_grpc(credentials=credentials) as port, gateway(
            engine_port, **to(port, OTEL_EXPORTER_OTLP_ENDPOINT=f"https://localhost:{port}",
                              OTEL_EXPORTER_OTLP_CERTIFICATE=TMP / "cert.pem")) as door:
        door.ask(traceparent=SAMPLED, tracestate="vendor=1", **{"x-request-id": "r1"})
        collector.wait_for(SPANS, door.program)
        check_tree(collector.spans, "r1", header(engine.seen[-1], "traceparent"))


def test_collector_that_comes_late():
    engine, collector = Engine(), Collector()
    port = free_ports(1)
    with engine.run() as engine_port, gateway(engine_port, **to(port)) as door:
        door.ask(traceparent=SAMPLED)
        time.sleep(0.3)
        assert door.spans("exported") == 0 and door.spans("failed") == 0
        with collector.over_grpc(port):
            collector.wait_for(SPANS, door.program)


def test_sigterm_exports_what_waits():
    engine, collector = Engine(), Collector()
    with engine.run() as engine_port, collector.over_grpc() as port, gateway(
            engine_port, **to(port, OTEL_BSP_SCHEDULE_DELAY=600_000)) as door:
        door.ask(traceparent=SAMPLED)
        assert collector.spans == []
        door.program.process.send_signal(signal.SIGTERM)
        door.program.process.wait(timeout=20)
        assert len(collector.spans) == SPANS, len(collector.spans)


def test_sampler_and_off():
    engine, collector = Engine(), Collector()
    with engine.run() as engine_port, collector.over_grpc() as port:
        with gateway(engine_port, **to(port, OTEL_TRACES_SAMPLER_ARG="1.0")) as door:
            door.ask()
            collector.wait_for(SPANS, door.program)
            root = next(span for span in collector.spans if span.name == ROOT_SPAN)
            assert root.parent_span_id == b""
            assert header(engine.seen[-1], "traceparent") == (
                f"00-{root.trace_id.hex()}-{root.span_id.hex()}-01")
        for flags, variables in ((["--tracing=false"], to(port)), ([], {}),
                                 ([], to(port, OTEL_TRACES_EXPORTER="none"))):
            with gateway(engine_port, *flags, **variables) as door:
                door.ask(traceparent=SAMPLED)
                assert header(engine.seen[-1], "traceparent") == SAMPLED
                door.ask()
                assert header(engine.seen[-1], "traceparent") is None
                assert door.spans("exported") is None
    assert len(collector.spans) == SPANS


# --- the picker ---------------------------------------------------------------------------------

def ext_proc_modules():
    protos = ROOT / "conformance/protos"
    sources = [str(path.relative_to(protos)) for path in protos.rglob("*.proto")]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{protos}",
                    f"--python_out={TMP}", *sources], check=True)
    sys.path.insert(0, str(TMP))
    from envoy.service.ext_proc.v3 import external_processor_pb2
    return external_processor_pb2


def picker_config(engine_port):
    (TMP / "endpoints.yaml").write_text(
        f'endpoints:\n- {{name: e0, address: 127.0.0.1, port: "{engine_port}"}}\n')
    config = TMP / "epp.yaml"
    config.write_text(f"""apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: file-discovery
  parameters: {{path: {TMP / "endpoints.yaml"}}}
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
schedulingProfiles:
- name: default
  plugins:
  - {{pluginRef: queue-scorer, weight: 2}}
  - {{pluginRef: kv-cache-utilization-scorer, weight: 2}}
  - {{pluginRef: prefix-cache-scorer, weight: 3}}
dataLayer:
  discovery: {{pluginRef: file-discovery}}
""")
    return config


def process(ep, port, headers):
    """One request as Envoy shows it, to its end; the headers that the picker sets."""
    def message(**fields):
        return ep.ProcessingRequest(**fields)

    def header_map(pairs):
        found = ep.HttpHeaders()
        for key, value in pairs.items():
            found.headers.headers.add(key=key, raw_value=value.encode())
        return found

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.stream_stream(
            "/envoy.service.ext_proc.v3.ExternalProcessor/Process",
            request_serializer=ep.ProcessingRequest.SerializeToString,
            response_deserializer=ep.ProcessingResponse.FromString)
        replies = call(iter([
            message(request_headers=header_map({
                ":method": "POST", ":path": "/v1/chat/completions",
                "content-type": "application/json", **headers})),
            message(request_body=ep.HttpBody(body=CHAT, end_of_stream=True)),
            message(response_headers=header_map({":status": "200",
                                                 "content-type": "application/json"})),
            message(response_body=ep.HttpBody(body=Engine.REPLY, end_of_stream=True)),
        ]))
        route = next(reply for reply in replies if reply.HasField("request_headers"))
        for _ in replies:
            pass
    mutation = route.request_headers.response.header_mutation
    return [(option.header.key.lower(), option.header.raw_value.decode())
            for option in mutation.set_headers]


def test_picker():
    ep = ext_proc_modules()
    collector, engine = Collector(), Engine()
    first = free_ports(3)
    with engine.run() as engine_port, collector.over_grpc() as port:
        with environment(**to(port)):
            program = Program([LLMD, "epp", "--config-file", picker_config(engine_port),
                               "--secure-serving=false", "--grpc-port", first,
                               "--grpc-health-port", first + 1, "--metrics-port", first + 2,
                               "--metrics-endpoint-auth=false"], name="llmd epp")
            program.__enter__()
        try:
            wait_for_http(f"http://127.0.0.1:{first + 2}/metrics", program)
            time.sleep(0.2)
            sent = process(ep, first, {"traceparent": SAMPLED, "tracestate": "vendor=1",
                                       "x-request-id": "r1"})
            collector.wait_for(SPANS, program)
            check_tree(collector.spans, "r1", header(sent, "traceparent"))
            assert header(sent, "tracestate") is None, "what the client sent passes"
            assert collector.resources[0] == {"service.name": "llm-d-epp"}
            # Not sampled by the caller: nothing is set, so the proxy passes what came.
            assert header(process(ep, first, {"traceparent": UNSAMPLED}), "traceparent") is None
            assert header(process(ep, first, {}), "traceparent").endswith("-00")
            assert len(collector.spans) == SPANS
        finally:
            program.__exit__(*sys.exc_info())


if __name__ == "__main__":
    sys.exit(report([test_gateway_over_grpc, test_gateway_over_http, test_gateway_over_tls,
                     test_collector_that_comes_late, test_sigterm_exports_what_waits,
                     test_sampler_and_off, test_picker]))
