#!/usr/bin/env python3
"""llmd index: what simulated servers publish of their caches, asked for over HTTP and gRPC."""

import hashlib
import json
import os
import pathlib
import sys
import time
import urllib.error
import urllib.request

from harness import LLMD, ROOT, Program, Skip, free_ports, report, wait_for_http

VENV = ROOT / ".setup/venv/bin/python"  # has grpcio
TMP = pathlib.Path(os.environ.get("LLMD_TMP", "/tmp"))
BLOCK = 16
KEY = "let-me-in"

CONFIG = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: precise-prefix-cache-producer
  parameters:
    tokenProcessorConfig: {blockSizeTokens: 16, hashAlgorithm: xxh64}
    kvEventsConfig: {podDiscoveryConfig: {socketPort: %d, replaySocketPort: %d}}
- type: prefix-cache-scorer
  parameters: {prefixMatchInfoProducerName: precise-prefix-cache-producer}
schedulingProfiles:
- name: default
  plugins: [{pluginRef: prefix-cache-scorer}]
"""


def post(url, body, key=KEY):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = "Bearer " + key
    try:
        request = urllib.request.Request(url, data, headers)
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def complete(server, tokens):
    """A prompt of these tokens, computed and cached by that server."""
    status, reply = post(f"http://{server}/v1/completions",
                         {"model": "m", "prompt": tokens, "max_tokens": 1}, key="")
    assert status == 200, reply


def eventually(seconds, look):
    """Waits until look() returns something true."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.02)


class Stand:
    """Two simulated servers and the index of their blocks."""

    def __init__(self):
        first = free_ports(9)
        self.servers = [f"127.0.0.1:{first}", f"127.0.0.1:{first + 1}"]
        events, replay, self.http, self.grpc, self.admin = range(first + 2, first + 12, 2)[:5]
        (TMP / "config.yaml").write_text(CONFIG % (events, replay))
        (TMP / "keys").write_text(f"me {hashlib.sha256(KEY.encode()).hexdigest()}\n")
        self.sim = [LLMD, "sim", "--host", "127.0.0.1", "--port", first, "--count", 2, "--model",
                    "m", "--block-size", BLOCK, "--enable-kvcache", "--zmq-endpoint",
                    f"tcp://*:{events}", "--kv-events-replay-endpoint", f"tcp://*:{replay}"]
        self.index = [LLMD, "index", "--config-file", TMP / "config.yaml", "--endpoints",
                      ",".join(self.servers), "--listen", f"127.0.0.1:{self.http}",
                      "--grpc-listen", f"127.0.0.1:{self.grpc}", "--metrics-listen",
                      f"127.0.0.1:{self.admin}", "--api-key-file", TMP / "keys"]

    def query(self, body, path="/query", key=KEY):
        return post(f"http://127.0.0.1:{self.http}{path}", body, key)

    def matched(self, tokens):
        """Tokens held, by server."""
        status, answer = self.query({"model": "m", "token_ids": tokens})
        assert status == 200, answer
        return {server: held["longest_matched"] for server, held in answer["instances"].items()}


def test_tells_who_holds_how_much(stand):
    one, other = stand.servers
    prompt = list(range(1000, 1100))
    complete(one, prompt)
    complete(other, prompt[:40] + [7] * 60)
    wanted = {one: 96, other: 32}
    assert eventually(5, lambda: stand.matched(prompt) == wanted), stand.matched(prompt)
    status, answer = stand.query({"model": "m", "token_ids": prompt, "instances": [other]})
    assert status == 200 and answer == {
        "block_size": BLOCK, "blocks": 6, "instances": {
            other: {"longest_matched": 32, "blocks": 2, "score": 2.0, "confidence": 1.0,
                    "ranks": {"1": 32}}}}, answer
    assert stand.matched([1] * 64) == {one: 0, other: 0}
    status, answer = stand.query({"model": "another", "token_ids": prompt})
    assert answer["instances"][one]["blocks"] == 0, "a block belongs to one model"


def test_forgets_what_is_evicted_and_reset(stand):
    one = stand.servers[0]
    prompt = list(range(5000, 5064))
    complete(one, prompt)
    assert eventually(5, lambda: stand.matched(prompt)[one] == 64)
    urllib.request.urlopen(urllib.request.Request(f"http://{one}/reset_prefix_cache",
                                                  method="POST"), timeout=5).close()
    complete(one, [9] * 20)  # engines tell with their next step
    assert eventually(5, lambda: stand.matched(prompt)[one] == 0), stand.matched(prompt)


def test_takes_block_keys(stand):
    status, answer = stand.query({"block_keys": [1, 2]}, "/query_by_hash")
    assert status == 200 and answer["blocks"] == 2, answer
    assert all(held["blocks"] == 0 for held in answer["instances"].values()), answer


def test_speaks_indexer_v1(stand):
    try:
        import grpc
    except ImportError:
        raise Skip("grpcio is not there: tools/setup sdk") from None
    channel = grpc.insecure_channel(f"127.0.0.1:{stand.grpc}")
    scores = channel.unary_unary("/indexer.v1.IndexerService/GetPodScores",
                                 request_serializer=bytes, response_deserializer=bytes)
    request = b"\x0a\x05hello\x12\x01m"
    for metadata, code in (((), grpc.StatusCode.UNAUTHENTICATED),
                           ((("authorization", "Bearer " + KEY),),
                            grpc.StatusCode.FAILED_PRECONDITION)):
        try:
            scores(request, timeout=5, metadata=metadata)
            raise AssertionError("a prompt was scored without a tokenizer")
        except grpc.RpcError as error:
            assert error.code() == code, error
    channel.close()


def test_refuses_what_is_wrong(stand):
    assert stand.query({"model": "m", "token_ids": [1]}, key="")[0] == 401
    assert stand.query({"model": "m", "token_ids": [1]}, key="wrong")[0] == 401
    status, answer = stand.query({"model": "m", "token_ids": [-1]})
    assert status == 400 and "token_ids" in answer["error"]["message"], answer
    assert stand.query(b"{")[0] == 400
    assert stand.query({}, "/elsewhere")[0] == 404
    status, answer = stand.query({"model": "m", "prompt": "x"})
    assert status == 412 and "--tokenizer" in answer["error"]["message"], answer


def test_knows_again_after_a_restart(stand):
    """A new index asks the servers for what they published before."""
    prompt = list(range(9000, 9080))
    complete(stand.servers[1], prompt)
    assert eventually(5, lambda: stand.matched(prompt)[stand.servers[1]] == 80)
    stand.program.__exit__(None, None, None)
    stand.program = Program(stand.index).__enter__()
    wait_for_http(f"http://127.0.0.1:{stand.admin}/healthz", stand.program)
    assert eventually(10, lambda: stand.matched(prompt)[stand.servers[1]] == 80)


def main():
    if VENV.exists() and pathlib.Path(sys.executable) != VENV:
        os.execv(VENV, [VENV, "-B", *sys.argv])
    stand = Stand()
    with Program(stand.sim) as sim:
        wait_for_http(f"http://{stand.servers[1]}/health", sim)
        stand.program = Program(stand.index).__enter__()
        try:
            wait_for_http(f"http://127.0.0.1:{stand.admin}/healthz", stand.program)
            tests = [test for name, test in globals().items() if name.startswith("test_")]
            return report(tests, stand)
        finally:
            stand.program.__exit__(None, None, None)


if __name__ == "__main__":
    sys.exit(main())
