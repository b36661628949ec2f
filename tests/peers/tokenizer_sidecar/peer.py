"""`llmd gateway` with a token-producer that asks a tokenizer sidecar on a Unix socket, here a
server of Python's grpcio that reads requests as upstream's sidecar does."""

import concurrent.futures
import json
import pathlib
import sys
import tempfile
import time
import urllib.error
import urllib.request

import grpc
import grpc_tools.protoc
from google.protobuf.json_format import MessageToDict

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
from harness import LLMD, Program, free_ports, report, until, wait_for_http  # noqa: E402

MODEL = "org/model"
BYTES_MAX = 100 << 20
CONFIG = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: token-producer
  parameters: {{modelName: {model}, udsTokenizerConfig: {{socketFile: {socket}}}}}
- type: approx-prefix-cache-producer
- type: prefix-cache-scorer
- type: queue-scorer
- type: max-score-picker
"""


class Sidecar:
    """Answers with as many ids as it was told; keeps what it was asked."""

    def __init__(self, path, pb2, pb2_grpc):
        self.path, self.pb2, self.pb2_grpc = path, pb2, pb2_grpc
        self.asked, self.ids, self.features, self.silent = [], 7, None, False
        self.server = None

    def start(self):
        sidecar = self

        class Servicer(self.pb2_grpc.TokenizationServiceServicer):
            def InitializeTokenizer(self, request, context):
                return sidecar.initialize(request)

            def RenderChatCompletion(self, request, context):
                return sidecar.chat(request, context)

            def RenderCompletion(self, request, context):
                return sidecar.completion(request)

        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(4), options=[
            ("grpc.max_send_message_length", BYTES_MAX),
            ("grpc.max_receive_message_length", BYTES_MAX),
            ("grpc.http2.max_frame_size", 16384)])
        self.pb2_grpc.add_TokenizationServiceServicer_to_server(Servicer(), self.server)
        self.server.add_insecure_port(f"unix://{self.path}")
        self.server.start()

    def stop(self):
        self.server.stop(None).wait()

    def initialize(self, request):
        self.asked.append(("initialize", MessageToDict(request, preserving_proto_field_name=True)))
        return self.pb2.InitializeTokenizerResponse(success=True)

    def chat(self, request, context):
        asked = MessageToDict(request, preserving_proto_field_name=True)
        for message in asked.get("messages", []):
            if "content_parts" in message:
                message["content"] = message.pop("content_parts")
            calls = message.pop("tool_calls_json", None)
            if calls:
                message["tool_calls"] = json.loads(calls)
        for name in ("tools_json", "chat_template_kwargs"):
            if asked.get(name):
                asked[name] = json.loads(asked[name])
        self.asked.append(("chat", asked))
        if self.silent:
            context.abort(grpc.StatusCode.INTERNAL, "the template refuses")
        reply = self.pb2.RenderChatCompletionResponse(
            request_id="chatcmpl-1", token_ids=range(100, 100 + self.ids), success=True)
        if self.features:
            reply.features.CopyFrom(self.features)
        return reply

    def completion(self, request):
        self.asked.append(("completion", MessageToDict(request, preserving_proto_field_name=True)))
        return self.pb2.RenderCompletionResponse(token_ids=range(self.ids), success=True)


class Gateway:
    def __init__(self, folder, sidecar):
        self.folder, self.sidecar = folder, sidecar
        self.engine, self.listen, self.admin = range(first := free_ports(3), first + 3)
        self.programs = []

    def start(self):
        config = self.folder / "gateway.yaml"
        config.write_text(CONFIG.format(model=MODEL, socket=self.sidecar.path))
        for command, name in (
                ([LLMD, "sim", "--port", self.engine, "--profile", "instant", "--model", MODEL],
                 "engine"),
                ([LLMD, "gateway", "--config-file", config, "--endpoints",
                  f"127.0.0.1:{self.engine}", "--listen", f"127.0.0.1:{self.listen}",
                  "--metrics-port", self.admin, "--drain-timeout", "0s"], "gateway")):
            self.programs.append(Program(command, name).__enter__())
        wait_for_http(f"http://127.0.0.1:{self.engine}/health", self.programs[0])
        wait_for_http(f"http://127.0.0.1:{self.admin}/readyz", self.programs[1])

    def stop(self):
        for program in self.programs:
            program.__exit__(None, None, None)

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=5) as reply:
            return reply.read().decode()

    def state(self):
        return self.get("/debug/plugins/state")

    def send(self, path, body):
        """(what the sidecar was asked meanwhile, tokens of the prompt as the decision knew them)"""
        before = len(self.sidecar.asked)
        name = f"r{time.monotonic_ns()}"
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.listen}{path}", json.dumps(body).encode(),
            {"content-type": "application/json", "x-request-id": name})
        try:
            urllib.request.urlopen(request, timeout=20).read()
        except urllib.error.HTTPError as error:
            error.read()
        found = until(lambda: json.loads(self.get(f"/debug/decisions?id={name}"))["decisions"])
        return self.sidecar.asked[before:], found[0]["prompt_tokens_estimated"]


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"z": {"type": "x"}, "a": 1}}}


def test_the_model_is_loaded_first(gateway):
    until(lambda: '"initialized":true' in gateway.state())
    first = gateway.sidecar.asked[0]
    assert first == ("initialize", {"model_name": MODEL, "add_generation_prompt": True}), first
    until(lambda: len(gateway.sidecar.asked) > 1)
    kind, warmup = gateway.sidecar.asked[1]
    assert kind == "chat" and warmup["messages"] == [{"role": "user", "content": "warmup"}]


def test_a_chat_as_upstreams_sidecar_reads_it(gateway):
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{\"k\": 1}"}}]
    gateway.sidecar.ids = 4321
    asked, tokens = gateway.send("/v1/chat/completions", {
        "model": MODEL, "messages": [
            {"role": "system", "content": "Sei freundlich \u2764 \"sehr\""},
            {"role": "user", "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]},
            {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "tool", "content": "", "tool_call_id": "c"}],
        "tools": [TOOL], "chat_template_kwargs": {"enable_thinking": False},
        "add_generation_prompt": False, "temperature": 0.5})
    assert tokens == 4321, tokens
    assert asked == [("chat", {
        "model_name": MODEL,
        "messages": [
            {"role": "system", "content": "Sei freundlich \u2764 \"sehr\""},
            {"role": "user", "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]},
            {"role": "assistant", "tool_calls": calls},
            {"role": "tool", "content": ""}],
        "tools_json": [TOOL], "chat_template_kwargs": {"enable_thinking": False},
        "add_generation_prompt": False})], asked
    keys = list(asked[0][1]["tools_json"][0]["function"]["parameters"])
    assert keys == ["z", "a"], "the order of keys is what the template prints"


def test_messages_as_a_chat(gateway):
    gateway.sidecar.ids = 11
    asked, tokens = gateway.send("/v1/messages", {
        "model": MODEL, "max_tokens": 1, "system": [{"type": "text", "text": "S"}],
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": "c", "name": "f", "input": {"b": 1, "a": "\u00e9"}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "c", "content": "42"},
                {"type": "text", "text": "so?"}]}],
        "tools": [{"name": "f", "input_schema": {"z": 1, "a": 2}}]})
    assert tokens == 11, tokens
    assert asked == [("chat", {
        "model_name": MODEL,
        "messages": [
            {"role": "system", "content": "S"}, {"role": "user", "content": "Hi"},
            {"role": "assistant", "tool_calls": [
                {"id": "c", "type": "function",
                 "function": {"name": "f", "arguments": json.dumps({"b": 1, "a": "\u00e9"})}}]},
            {"role": "tool", "content": "42"}, {"role": "user", "content": "so?"}],
        "tools_json": [{"type": "function",
                        "function": {"name": "f", "parameters": {"z": 1, "a": 2}}}]})], asked


def test_a_completion_and_a_large_one(gateway):
    for prompt, ids in (("Hello \"world\"\n", 3), ("lorem ipsum " * 400_000, 1_000_000)):
        gateway.sidecar.ids = ids
        asked, tokens = gateway.send("/v1/completions", {"model": MODEL, "prompt": prompt})
        assert tokens == ids, tokens
        assert asked == [("completion", {"model_name": MODEL, "prompt": prompt})]
    gateway.sidecar.ids = 5
    asked, tokens = gateway.send("/v1/completions", {"model": MODEL, "prompt": ["a" * 40, "b"]})
    assert not asked and tokens == 11, f"two prompts are estimated: {tokens}"


def test_images_come_with_their_places(gateway):
    pb2 = gateway.sidecar.pb2
    gateway.sidecar.ids = 40
    gateway.sidecar.features = pb2.MultiModalFeatures(
        mm_hashes={"image": pb2.StringList(values=["aa"])},
        mm_placeholders={"image": pb2.PlaceholderRangeList(
            ranges=[pb2.PlaceholderRange(offset=3, length=30)])})
    _, tokens = gateway.send("/v1/chat/completions", {"model": MODEL, "messages": [
        {"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/x.png"}}]}]})
    gateway.sidecar.features = None
    assert tokens == 40, tokens


def chat(text):
    return {"model": MODEL, "messages": [{"role": "user", "content": text}]}


def test_a_sidecar_that_refuses_is_asked_again(gateway):
    gateway.sidecar.silent = True
    for _ in range(5):
        asked, tokens = gateway.send("/v1/chat/completions", chat("x" * 36))
        assert len(asked) == 1 and tokens == 10, (asked, tokens)
    gateway.sidecar.silent = False
    gateway.sidecar.ids = 6
    assert gateway.send("/v1/chat/completions", chat("x"))[1] == 6


def test_a_dead_sidecar_costs_nothing_and_is_found_again(gateway):
    gateway.sidecar.stop()
    began = time.monotonic()
    for _ in range(10):
        assert gateway.send("/v1/chat/completions", chat("x" * 36))[1] == 10, "the estimate"
    assert time.monotonic() - began < 5
    assert '"answers":false' in gateway.state(), gateway.state()
    gateway.sidecar.ids = 9
    gateway.sidecar.start()
    until(lambda: '"answers":true' in gateway.state())
    assert gateway.send("/v1/chat/completions", chat("x"))[1] == 9


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        assert grpc_tools.protoc.main(["", f"-I{HERE}", f"--python_out={folder}",
                                       f"--grpc_python_out={folder}", "tokenizer.proto"]) == 0
        sys.path.insert(0, str(folder))
        import tokenizer_pb2
        import tokenizer_pb2_grpc
        sidecar = Sidecar(folder / "t.sock", tokenizer_pb2, tokenizer_pb2_grpc)
        gateway = Gateway(folder, sidecar)
        sidecar.start()
        try:
            gateway.start()
            return report([test_the_model_is_loaded_first,
                           test_a_chat_as_upstreams_sidecar_reads_it,
                           test_messages_as_a_chat,
                           test_a_completion_and_a_large_one,
                           test_images_come_with_their_places,
                           test_a_sidecar_that_refuses_is_asked_again,
                           test_a_dead_sidecar_costs_nothing_and_is_found_again], gateway)
        finally:
            gateway.stop()
            sidecar.stop()


if __name__ == "__main__":
    sys.exit(main())
