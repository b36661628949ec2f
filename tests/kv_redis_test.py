#!/usr/bin/env python3
"""Pickers that share their index of KV blocks in a Redis server: one hears the engines, the other
routes by what that one wrote. Slow and dead servers cost nothing but the other's knowledge, and
what they forgot is told to them again."""

import copy
import json
import pathlib
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import urllib.request

from harness import Program, free_ports, report, until
from kv_routing_test import GROUPS, MODEL, Fleet, place, settle

# As Go's encoding/json writes an entry, and in this order.
FIELD = ('{"PodIdentifier":"%s","DeviceTier":"gpu","Speculative":false,"HasGroup":true,'
         '"GroupIdx":0}')


class Redis:
    """A redis-server that forgets everything when it ends."""

    def __init__(self):
        self.port = free_ports(1)
        self.start()

    def start(self):
        self.program = Program(["redis-server", "--port", self.port, "--bind", "127.0.0.1",
                                "--save", "", "--appendonly", "no"]).__enter__()
        until(self.answers)

    def kill(self):
        self.program.process.send_signal(signal.SIGKILL)
        self.program.__exit__(None, None, None)

    def answers(self):
        try:
            return self.ask([["PING"]]) == ["PONG"]
        except OSError:
            return False

    def ask(self, commands):
        """Replies to a pipeline of commands."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            text = "".join(f"*{len(c)}\r\n" + "".join(f"${len(a.encode())}\r\n{a}\r\n" for a in c)
                           for c in commands)
            connection.sendall(text.encode())
            with connection.makefile("rb") as replies:
                return [self.read(replies) for _ in commands]

    def read(self, replies):
        line = replies.readline().decode().rstrip("\r\n")
        kind, rest = line[0], line[1:]
        if kind == "$":
            return replies.read(int(rest) + 2)[:-2].decode() if rest != "-1" else None
        if kind == "*":
            return [self.read(replies) for _ in range(int(rest))]
        return int(rest) if kind == ":" else rest

    def contents(self):
        """(hashes, sets): {key: fields}, {key: members}."""
        [keys] = self.ask([["KEYS", "*"]])
        blocks = [k for k in keys if not k.startswith("engine:")]
        engine = [k for k in keys if k.startswith("engine:")]
        fields = self.ask([["HKEYS", k] for k in blocks])
        members = self.ask([["ZRANGE", k, "0", "-1"] for k in engine])
        return dict(zip(blocks, fields)), dict(zip(engine, members))

    def blocks(self):
        """How many blocks each endpoint has."""
        counts = {}
        for fields in self.contents()[0].values():
            for field in fields:
                pod = json.loads(field)["PodIdentifier"]
                counts[pod] = counts.get(pod, 0) + 1
        return counts


class SlowProxy:
    """Passes bytes on to a server; what comes back waits for `delay` seconds."""

    def __init__(self, port):
        self.target, self.delay = port, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            for source, sink, back in ((client, server, False), (server, client, True)):
                threading.Thread(target=self.move, args=(source, sink, back), daemon=True).start()

    def move(self, source, sink, back):
        try:
            while data := source.recv(1 << 16):
                if back:
                    time.sleep(self.delay)
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Bed:
    """Engines, a server, a picker that hears the engines and one that does not."""

    def __init__(self, fleet):
        self.redis = Redis()
        self.proxy = SlowProxy(self.redis.port)
        self.hears = self.picker(fleet, "hears", self.redis.port, "")
        self.deaf = self.picker(fleet, "deaf", self.proxy.port, "discoverPods: false")
        self.kv_events = {self.hears: "", self.deaf: "discoverPods: false"}
        self.programs = {p: p.gateway(e) for p, e in self.kv_events.items()}
        until(self.hears.trusted)
        self.homes = place(self.hears)
        self.settle()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for program in self.programs.values():
            program.__exit__(*error)
        self.redis.kill()

    def picker(self, fleet, name, redis, kv_events):
        picker = copy.copy(fleet)
        picker.folder = fleet.folder / name
        picker.folder.mkdir()
        picker.listen = free_ports(2)
        picker.admin = picker.listen + 1
        shared = ('indexerConfig: {kvBlockIndexConfig: {redisConfig: {address: '
                  f'"redis://127.0.0.1:{redis}"}}}}}}\n    kvEventsConfig:')
        picker.config = lambda discovery="", kv_events="": Fleet.config(
            picker, discovery, kv_events).replace("kvEventsConfig:", shared)
        return picker

    def settle(self):
        """Until the server has what the picker that hears knows."""
        settle(self.hears)
        until(lambda: self.redis.blocks() == self.known())

    def known(self):
        return {p["endpoint"]: p["blocks"] for p in self.hears.publishers() if p["blocks"]}

    def check_shared(self, groups, question):
        for group in groups:
            engine, decision = self.deaf.ask(group, question)
            assert engine == self.homes[group], f"{group}: {self.homes[group]}, not {engine}"
            assert decision["match_source"] == "shared", decision
            matched = {c["endpoint"].split()[-1]: c["matched_blocks"]
                       for c in decision["candidates"]}
            assert matched[engine] >= 0.9 * decision["total_blocks"], decision

    def lookups(self, result):
        return self.deaf.metric("llmd_outside_total",
                                f'kind="redis",result="{result}"') or 0


def post(url, body):
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as reply:
        reply.read()


def test_a_picker_routes_by_what_another_heard(bed):
    assert bed.deaf.publishers() == [], "it hears nothing by itself"
    assert len(set(bed.homes.values())) > 1
    bed.check_shared(range(GROUPS), 1)
    assert bed.lookups("ok") >= GROUPS
    assert bed.deaf.metric("llmd_kv_index_matches_total", 'source="shared"') >= GROUPS
    assert bed.deaf.metric("llm_d_epp_kv_cache_index_lookup_latency_seconds_count") >= GROUPS


def test_the_server_holds_upstreams_layout(bed):
    hashes, sets = bed.redis.contents()
    endpoints = {f"127.0.0.1:{p}" for p in bed.hears.ports}
    for key, fields in hashes.items():
        assert key.isdecimal() and 0 < int(key) < 1 << 64, key
        for field in fields:
            pod = json.loads(field)["PodIdentifier"]
            assert field == FIELD % pod and pod in endpoints, field
    for key, members in sets.items():
        assert key.removeprefix("engine:").isdecimal(), key
        assert members and all(m in hashes for m in members), (key, members)
    assert {m for members in sets.values() for m in members} == set(hashes)


def test_a_cleared_engine_is_cleared_there(bed):
    port = bed.hears.ports[0]
    assert bed.redis.blocks()[f"127.0.0.1:{port}"] > 10
    post(f"http://127.0.0.1:{port}/reset_prefix_cache", b"")
    # An engine tells of it with its next step.
    post(f"http://127.0.0.1:{port}/v1/completions",
         json.dumps({"model": MODEL, "prompt": "word " * 40, "max_tokens": 1}).encode())
    until(lambda: bed.redis.blocks().get(f"127.0.0.1:{port}", 0) < 10)
    bed.homes = place(bed.hears)
    bed.settle()
    bed.check_shared(range(GROUPS), 2)


def test_a_slow_server_costs_its_time_budget(bed):
    before, bed.proxy.delay = bed.lookups("timeout"), 0.5
    for group in range(3):
        begin = time.monotonic()
        _, decision = bed.deaf.ask(group, 3)
        assert decision["match_source"] in ("approximate", "none"), decision
        assert time.monotonic() - begin < 2
    assert bed.lookups("timeout") == before + 3
    bed.proxy.delay = 0
    until(lambda: bed.deaf.ask(0, 4)[1]["match_source"] == "shared")
    bed.check_shared(range(3, GROUPS), 5)


def test_a_dead_server_is_done_without_and_told_everything_again(bed):
    bed.redis.kill()
    for group in range(GROUPS, GROUPS + 6):  # unknown to the server
        bed.homes[group], decision = bed.hears.ask(group, 0)
        assert decision["match_source"] in ("precise", "mixed"), decision
    for group in range(GROUPS):
        _, decision = bed.deaf.ask(group, 6)
        assert decision["match_source"] in ("approximate", "none"), decision
    bed.redis.start()
    bed.settle()
    until(lambda: bed.deaf.ask(0, 7)[1]["match_source"] == "shared")
    bed.settle()
    bed.check_shared(range(GROUPS, GROUPS + 6), 8)
    assert bed.hears.metric("llmd_kv_shared_index_total", 'what="told_again"') > 0
    assert bed.hears.metric("llmd_kv_shared_index_total", 'what="refused"') == 0


def test_a_killed_picker_finds_it_as_it_was(bed):
    before = bed.redis.blocks()
    bed.programs[bed.hears].process.send_signal(signal.SIGKILL)
    bed.programs[bed.hears].__exit__(None, None, None)
    bed.check_shared([1], 9)
    bed.programs[bed.hears] = bed.hears.gateway(bed.kv_events[bed.hears])
    until(bed.hears.trusted)
    bed.settle()
    after = bed.redis.blocks()
    assert all(after.get(pod, 0) >= blocks for pod, blocks in before.items()), (before, after)


TESTS = [test_a_picker_routes_by_what_another_heard,
         test_the_server_holds_upstreams_layout,
         test_a_cleared_engine_is_cleared_there,
         test_a_slow_server_costs_its_time_budget,
         test_a_dead_server_is_done_without_and_told_everything_again,
         test_a_killed_picker_finds_it_as_it_was]


def main():
    if not shutil.which("redis-server"):
        for test in TESTS:
            print(f"skip {test.__name__.removeprefix('test_')}: redis-server is not installed")
        return 0
    with tempfile.TemporaryDirectory() as folder, Fleet(pathlib.Path(folder)) as fleet:
        with Bed(fleet) as bed:
            return report(TESTS, bed)


if __name__ == "__main__":
    sys.exit(main())
