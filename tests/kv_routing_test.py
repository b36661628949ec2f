#!/usr/bin/env python3
"""Requests go where the engines say their KV blocks are, and still do after a kill -9 of an engine
or of the picker: `llmd gateway` and `llmd epp` over engines of `llmd sim`, each a process."""

import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

from harness import LLMD, Program, free_ports, report, until, wait_for_http

ENGINES = 3
GROUPS = 9
MODEL = "sim"
CONFIG = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: token-producer
  parameters: {{modelName: sim, vllm: {{url: "http://127.0.0.1:{render}"}}}}
- type: precise-prefix-cache-producer
  parameters:
    kvEventsConfig: {{{kv_events}}}
- type: prefix-cache-scorer
  parameters: {{prefixMatchInfoProducerName: precise-prefix-cache-producer}}
- type: no-hit-lru-scorer
  parameters: {{prefixMatchInfoProducerName: precise-prefix-cache-producer}}
- type: queue-scorer
- type: max-score-picker
{discovery}
schedulingProfiles:
- name: default
  plugins:
  - {{pluginRef: prefix-cache-scorer, weight: 10}}
  - {{pluginRef: no-hit-lru-scorer, weight: 1}}
  - {{pluginRef: queue-scorer, weight: 1}}
"""


class Fleet:
    """Engines, a render server beside them, and room for a picker."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        first = free_ports(3 * ENGINES + 5)
        self.ports = [first + i for i in range(ENGINES)]
        self.events = first + ENGINES
        self.replay = first + 2 * ENGINES
        self.render, self.listen, self.admin, self.health = range(first + 3 * ENGINES,
                                                                  first + 3 * ENGINES + 4)
        self.engines = [None] * ENGINES
        self.renderer = None

    def __enter__(self):
        self.renderer = Program([LLMD, "sim", "--port", self.render, "--profile", "instant",
                                 "--model", MODEL], "render").__enter__()
        for i in range(ENGINES):
            self.start_engine(i)
        wait_for_http(f"http://127.0.0.1:{self.render}/health", self.renderer)
        return self

    def __exit__(self, *error):
        for program in [*self.engines, self.renderer]:
            program.__exit__(*error)

    def start_engine(self, i, endpoint=""):
        self.engines[i] = Program(
            [LLMD, "sim", "--port", self.ports[i], "--profile", "instant", "--model", MODEL,
             "--enable-kvcache", "--zmq-endpoint", endpoint or f"tcp://*:{self.events + i}",
             "--kv-events-replay-endpoint", f"tcp://*:{self.replay + i}"],
            f"engine {i}").__enter__()
        wait_for_http(f"http://127.0.0.1:{self.ports[i]}/health", self.engines[i])

    def kill_engine(self, i):
        self.engines[i].process.send_signal(signal.SIGKILL)
        self.engines[i].__exit__(None, None, None)

    def config(self, discovery="", kv_events=""):
        kv_events = kv_events or ("podDiscoveryConfig: {socketPort: %d, replaySocketPort: %d}"
                                  % (self.events, self.replay))
        return CONFIG.format(render=self.render, kv_events=kv_events, discovery=discovery)

    def gateway(self, kv_events=""):
        path = self.folder / "gateway.yaml"
        path.write_text(self.config(kv_events=kv_events))
        program = Program([LLMD, "gateway", "--config-file", path, "--endpoints",
                           ",".join(f"127.0.0.1:{p}" for p in self.ports), "--listen",
                           f"127.0.0.1:{self.listen}", "--metrics-port", self.admin,
                           "--drain-timeout", "0s"], "gateway")
        program.__enter__()
        wait_for_http(f"http://127.0.0.1:{self.admin}/readyz", program)
        return program

    def picker(self):
        endpoints = self.folder / "endpoints.yaml"
        endpoints.write_text("endpoints:\n" + "".join(
            f'- {{name: e{i}, address: 127.0.0.1, port: "{p}"}}\n'
            for i, p in enumerate(self.ports)))
        path = self.folder / "epp.yaml"
        discovery = (f"- type: file-discovery\n  parameters: {{path: {endpoints}}}\n"
                     "dataLayer: {discovery: {pluginRef: file-discovery}}")
        path.write_text(self.config(discovery))
        program = Program([LLMD, "epp", "--config-file", path, "--secure-serving=false",
                           "--grpc-port", self.listen, "--grpc-health-port", self.health,
                           "--metrics-port", self.admin, "--drain-timeout", "0s"], "epp")
        program.__enter__()
        wait_for_http(f"http://127.0.0.1:{self.admin}/readyz", program)
        return program

    # --- what the picker says ---

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=5) as reply:
            return reply.read().decode()

    def publishers(self):
        return json.loads(self.get("/debug/kv-events"))["precise-prefix-cache-producer"]

    def trusted(self):
        """All engines are heard and all of each is known."""
        states = {p["endpoint"]: p for p in self.publishers()}
        return len(states) == ENGINES and all(
            p["state"] == "complete" and p["confidence"] > 0.9 for p in states.values())

    def decisions(self, count):
        return json.loads(self.get(f"/debug/decisions?last={count}"))["decisions"]

    def metric(self, name, labels=""):
        for line in self.get("/metrics").splitlines():
            if line.startswith(name) and labels in line:
                return float(line.rsplit(" ", 1)[1])
        return None

    # --- requests ---

    def complete(self, prompt, name):
        body = json.dumps({"model": MODEL, "prompt": prompt, "max_tokens": 2}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.listen}/v1/completions", body,
            {"content-type": "application/json", "x-request-id": name})
        with urllib.request.urlopen(request, timeout=20) as reply:
            return json.load(reply)

    def ask(self, group, question):
        """(engine, decision) of one request of the group."""
        name = f"g{group}-{question}-{time.monotonic_ns()}"
        self.complete(prompt(group, question), name)
        found = until(lambda: json.loads(self.get(f"/debug/decisions?id={name}"))["decisions"])
        return found[0]["outcome"]["endpoint"].split()[-1], found[0]


def prompt(group, question):
    words = " ".join(f"word{group}x{i}" for i in range(400))
    return f"{words} question {question}"


def place(fleet):
    """Sends each group's first request, waits for its events; which engine has which group."""
    homes = {}
    for group in range(GROUPS):
        homes[group], _ = fleet.ask(group, 0)
    settle(fleet)
    return homes


def settle(fleet):
    """Until no more events come."""
    last = None
    while last != (last := [(p["endpoint"], p["applied"]) for p in fleet.publishers()]):
        time.sleep(0.7)  # longer than the page's interval


def check_homes(fleet, homes, question, groups=None):
    for group, home in homes.items():
        if groups is not None and group not in groups:
            continue
        engine, decision = fleet.ask(group, question)
        assert engine == home, f"group {group} is at {home}, went to {engine}: {decision}"
        assert decision["match_source"] == "precise", decision
        matched = {c["endpoint"].split()[-1]: c["matched_blocks"] for c in decision["candidates"]}
        assert matched[home] >= 0.9 * decision["total_blocks"], decision


def test_requests_go_where_the_blocks_are(fleet):
    program = fleet.gateway()
    try:
        until(fleet.trusted)
        homes = place(fleet)
        assert len(set(homes.values())) == ENGINES, f"cold groups are spread: {homes}"
        check_homes(fleet, homes, 1)
        check_homes(fleet, homes, 2)
        until(lambda: fleet.metric("llmd_kv_index_predicted_tokens_total") or 0)
        predicted = cached = 0
        for line in fleet.get("/metrics").splitlines():
            if line.startswith("llmd_kv_index_predicted_tokens_total{"):
                predicted += float(line.rsplit(" ", 1)[1])
            if line.startswith("llmd_kv_index_cached_tokens_total{"):
                cached += float(line.rsplit(" ", 1)[1])
        assert abs(predicted - cached) <= 0.02 * cached, f"{predicted} predicted, {cached} cached"
    finally:
        program.__exit__(None, None, None)


def test_a_killed_engine_is_forgotten_and_comes_back(fleet):
    program = fleet.gateway()
    stop = threading.Event()
    load = threading.Thread(target=background, args=(fleet, stop))
    try:
        until(fleet.trusted)
        homes = place(fleet)
        load.start()
        victim = fleet.ports.index(int(homes[0].rsplit(":", 1)[1]))
        fleet.kill_engine(victim)
        time.sleep(0.5)
        fleet.start_engine(victim)
        # Its cache is empty and the index knows it: what it held is computed somewhere, once.
        until(fleet.trusted)
        stop.set()
        load.join()
        settle(fleet)
        homes = {group: fleet.ask(group, 10)[0] for group in homes}
        settle(fleet)
        check_homes(fleet, homes, 11)
    finally:
        stop.set()
        if load.ident:
            load.join()
        program.__exit__(None, None, None)


def test_a_killed_picker_is_warm_again_by_replay(fleet):
    program = fleet.gateway()
    try:
        until(fleet.trusted)
        homes = place(fleet)
        check_homes(fleet, homes, 20)
        program.process.send_signal(signal.SIGKILL)
        program.__exit__(None, None, None)
        program = fleet.gateway()
        until(fleet.trusted)
        check_homes(fleet, homes, 21)
    finally:
        program.__exit__(None, None, None)


def test_the_endpoint_picker_decides_alike(fleet):
    load = ["--shared-prefix", "--num-groups", "6", "--prompts-per-group", "1",
            "--system-prompt-len", "400", "--requests", "6", "--model", MODEL, "--api",
            "completions", "--quiet"]
    program = fleet.picker()
    try:
        until(fleet.trusted)
        # The engine in the middle works on the prompts; the picker hears of it.
        home = f"http://127.0.0.1:{fleet.ports[1]}"
        subprocess.run([LLMD, "bench", home, *load], check=True, capture_output=True, timeout=60)
        settle(fleet)
        subprocess.run([LLMD, "bench", "--ext-proc", f"127.0.0.1:{fleet.listen}", *load],
                       capture_output=True, timeout=60)
        for decision in fleet.decisions(6):
            assert decision["match_source"] == "precise", decision
            assert decision["outcome"]["endpoint"].endswith(str(fleet.ports[1])), decision
    finally:
        program.__exit__(None, None, None)


def test_engines_may_connect_to_the_picker(fleet):
    address = f"tcp://127.0.0.1:{free_ports(1)}"
    for i in range(ENGINES):
        fleet.kill_engine(i)
        fleet.start_engine(i, address)
    program = fleet.gateway(f"zmqEndpoint: '{address}'")
    try:
        # An engine that has not connected yet publishes to nobody: until each was heard.
        fresh = iter(range(10_000, 20_000))

        def heard():
            fleet.ask(next(fresh), 0)
            return len(fleet.publishers()) == ENGINES

        until(heard, 30)
        settle(fleet)
        homes = {100 + g: fleet.ask(100 + g, 0)[0] for g in range(GROUPS)}
        settle(fleet)
        for group, home in homes.items():
            engine, decision = fleet.ask(group, 1)
            assert engine == home, f"group {group} is at {home}, went to {engine}: {decision}"
        states = {p["endpoint"]: p["state"] for p in fleet.publishers()}
        assert len(states) == ENGINES, states
    finally:
        program.__exit__(None, None, None)


def background(fleet, stop):
    """Requests of all groups, whatever becomes of them."""
    question = 1000
    while not stop.is_set():
        question += 1
        try:
            fleet.complete(prompt(question % GROUPS, question), f"load-{question}")
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.01)


def main():
    with tempfile.TemporaryDirectory() as folder, Fleet(folder) as fleet:
        return report([test_requests_go_where_the_blocks_are,
                       test_a_killed_engine_is_forgotten_and_comes_back,
                       test_a_killed_picker_is_warm_again_by_replay,
                       test_the_endpoint_picker_decides_alike,
                       test_engines_may_connect_to_the_picker], fleet)


if __name__ == "__main__":
    sys.exit(main())
