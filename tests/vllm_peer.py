"""The gateway in front of a real vLLM: is what the index knows of its blocks what the engine does?

Called by tests/peers/vllm_test.sh. vLLM tells in each reply how much of the prompt it had cached;
the gateway counts that beside what its index predicted. The engine has room for 80 blocks, so
evictions are soon there.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.request

from harness import LLMD, ROOT, Program, free_ports, report, wait_for_http

TMP = pathlib.Path(os.environ.get("LLMD_TMP", "/tmp"))
BLOCK, BLOCKS = 32, 80
BYTE_HASHES = "VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES"

CONFIG = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: token-producer
  parameters: {modelName: tiny, local: {path: %s}}
- type: precise-prefix-cache-producer
  parameters:
    tokenProcessorConfig: {blockSizeTokens: %d}
    kvEventsConfig: {podDiscoveryConfig: {socketPort: %d, replaySocketPort: %d}}
- type: prefix-cache-scorer
  parameters: {prefixMatchInfoProducerName: precise-prefix-cache-producer}
- type: max-score-picker
schedulingProfiles:
- name: default
  plugins: [{pluginRef: prefix-cache-scorer}, {pluginRef: max-score-picker}]
"""

SYSTEM = "You answer questions about the harbour of Trondheim, its tides, ferries and pilots. " * 24


@contextlib.contextmanager
def engine(port, byte_hashes):
    """vLLM, serving; its whole process group is ended."""
    environment = os.environ | ({BYTE_HASHES: "0"} if byte_hashes else {})
    process = subprocess.Popen([ROOT / "tools/vllm", "serve", str(port),
                                "--num-gpu-blocks-override", str(BLOCKS)],
                               env=environment, start_new_session=True)
    try:
        subprocess.run([ROOT / "tools/vllm", "wait", str(port)], check=True)
        yield f"127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


def metrics(url, name):
    """Sum of the series of a metric."""
    with urllib.request.urlopen(url + "/metrics", timeout=10) as reply:
        lines = reply.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines
               if line.startswith((name + "{", name + " ")))


def eventually(seconds, look):
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)


class Stand:
    def __init__(self, address, gateway_port, admin_port):
        self.engine = "http://" + address
        self.gateway = f"http://127.0.0.1:{gateway_port}"
        self.admin = f"http://127.0.0.1:{admin_port}"

    def chat(self, question, system=SYSTEM):
        """Asks; returns the prompt's tokens, those that were cached, and those predicted to be."""
        before = self.predicted()
        body = {"model": "tiny", "max_tokens": 4, "temperature": 0,
                "messages": [{"role": "system", "content": system},
                             {"role": "user", "content": question}]}
        request = urllib.request.Request(self.gateway + "/v1/chat/completions",
                                         json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as reply:
            usage = json.load(reply)["usage"]
        self.settle()
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        return usage["prompt_tokens"], cached, self.predicted() - before

    def predicted(self):
        return int(metrics(self.admin, "llmd_kv_index_predicted_tokens_total"))

    def blocks(self):
        return int(metrics(self.admin, "llmd_kv_publisher_blocks"))

    def settle(self):
        """Until the index shows no change for longer than its numbers are old."""
        last, since = None, time.monotonic()
        while time.monotonic() - since < 1.5:
            now = (self.blocks(), metrics(self.admin, "llmd_kv_publisher_applied_messages"),
                   self.predicted())
            if now != last:
                last, since = now, time.monotonic()
            time.sleep(0.1)

    def ready(self):
        """The tokenizer is loaded and its ids are the engine's; the engine's events come."""
        with urllib.request.urlopen(self.admin + "/debug/plugins/state", timeout=10) as reply:
            return "agree" in reply.read().decode()


def test_prefixes_are_found(stand):
    prompt, cached, predicted = stand.chat("When does the first ferry leave?")
    assert (cached, predicted) == (0, 0), (prompt, cached, predicted)
    assert prompt > 8 * BLOCK
    for question in ("When does the last one leave?", "Who pilots tankers?", "How high is it?"):
        prompt, cached, predicted = stand.chat(question)
        assert cached >= 8 * BLOCK and predicted == cached, (prompt, cached, predicted)
    again, cached, predicted = stand.chat("How high is it?")
    assert again == prompt and predicted == cached >= (prompt - 1) // BLOCK * BLOCK, (cached,
                                                                                     predicted)


def test_evicted_prefixes_are_not(stand):
    for i in range(6):  # each a quarter of the engine's memory
        tale = f"Tale number {i}: " + "so it went on " * 160
        prompt, cached, predicted = stand.chat("Well?", tale)
        assert predicted == cached, (i, prompt, cached, predicted)
        assert stand.blocks() <= BLOCKS, stand.blocks()
    prompt, cached, predicted = stand.chat("When does the first ferry leave?")
    assert predicted == cached < 8 * BLOCK, (prompt, cached, predicted)


def test_the_engine_counts_the_same(stand):
    hits = metrics(stand.engine, "vllm:prefix_cache_hits_total")
    assert hits == metrics(stand.admin, "llmd_kv_index_cached_tokens_total") == stand.predicted()
    assert metrics(stand.admin, "llmd_kv_index_hit_error_ratio") == 0


def test_a_reset_is_heard(stand):
    stand.chat("Is it deep?")
    assert stand.chat("Is it deep?")[1] > 0
    urllib.request.urlopen(urllib.request.Request(stand.engine + "/reset_prefix_cache",
                                                  method="POST"), timeout=10).close()
    prompt, cached, predicted = stand.chat("Is it deep?")
    assert cached == 0, (prompt, cached, predicted)  # told with the next step: predicted may err
    prompt, cached, predicted = stand.chat("Is it deep?")
    assert predicted == cached > 0, (prompt, cached, predicted)


def named(test, name):
    def run_it(stand):
        test(stand)
    run_it.__name__ = name
    return run_it


def run(byte_hashes):
    first = free_ports(5)
    config = TMP / "config.yaml"
    config.write_text(CONFIG % (ROOT / ".setup/vllm/model", BLOCK, first + 1, first + 2))
    with engine(first, byte_hashes) as address:
        command = [LLMD, "gateway", "--listen", f"127.0.0.1:{first + 3}", "--metrics-port",
                   first + 4, "--config-file", config, "--endpoints", address,
                   "--access-log", ""]
        with Program(command) as gateway:
            stand = Stand(address, first + 3, first + 4)
            wait_for_http(stand.admin + "/healthz", gateway)
            eventually(60, stand.ready)
            stand.settle()
            kind = "byte" if byte_hashes else "integer"
            tests = [named(test, f"{name}_with_{kind}_hashes") for name, test in
                     globals().items() if name.startswith("test_")]
            return report(tests, stand)


if __name__ == "__main__":
    sys.exit(max([run(byte_hashes) for byte_hashes in (False, True)]))
