#!/usr/bin/env python3
"""The index of KV blocks outlives its process: `llmd gateway` and `llmd epp` with
--kv-index-snapshot over engines of `llmd sim`, killed and started again."""

import functools
import signal
import sys
import tempfile
import threading
import time

from harness import LLMD, Program, report, wait_for_http
from kv_routing_test import ENGINES, Fleet, background, check_homes, place, settle, until


class SnapshotFleet(Fleet):
    def __init__(self, folder):
        super().__init__(folder)
        self.file = self.folder / "index.snapshot"
        self.interval = "1s"
        self.program = None

    def start(self, replay=True):
        # Without replay nothing but the snapshot can tell what was published before the start.
        kv_events = "" if replay else "podDiscoveryConfig: {socketPort: %d}" % self.events
        path = self.folder / "gateway.yaml"
        path.write_text(self.config(kv_events=kv_events))
        self.program = Program(
            [LLMD, "gateway", "--config-file", path, "--endpoints",
             ",".join(f"127.0.0.1:{p}" for p in self.ports), "--listen",
             f"127.0.0.1:{self.listen}", "--metrics-port", self.admin, "--drain-timeout", "0s",
             "--kv-index-snapshot", self.file, "--kv-index-snapshot-interval", self.interval],
            "gateway").__enter__()
        wait_for_http(f"http://127.0.0.1:{self.admin}/readyz", self.program)

    def kill(self):
        self.program.process.send_signal(signal.SIGKILL)
        self.stop()

    def stop(self):
        if self.program:
            self.program.__exit__(None, None, None)
        self.program = None

    def loads(self, result):
        return self.metric("llmd_kv_snapshot_loads_total", f'result="{result}"') or 0

    def writes(self):
        return self.metric("llmd_kv_snapshot_writes_total", 'result="ok"') or 0

    def saved(self):
        """Waits for a snapshot that was begun after this call."""
        settle(self)
        before = self.writes()
        until(lambda: self.writes() >= before + 2)


def test_a_killed_gateway_goes_on_from_its_snapshot(fleet):
    fleet.file.unlink(missing_ok=True)
    fleet.start(replay=False)
    assert fleet.loads("none") == 1
    time.sleep(1)  # until engines that publish have a subscriber
    homes = place(fleet)
    until(fleet.trusted)
    assert len(set(homes.values())) == ENGINES, homes
    fleet.saved()
    assert fleet.metric("llmd_kv_snapshot_bytes") > 0
    assert fleet.metric("llmd_kv_snapshot_age_seconds") < 5
    assert (fleet.file.stat().st_mode & 0o777) == 0o600, "it carries a secret"
    fleet.kill()
    fleet.start(replay=False)
    assert fleet.loads("loaded") == 1
    check_homes(fleet, homes, 1)  # before any new event
    until(fleet.trusted)
    check_homes(fleet, homes, 2)


def test_what_was_missed_is_replayed(fleet):
    fleet.start()
    until(fleet.trusted)
    homes = place(fleet)
    stop = threading.Event()
    load = threading.Thread(target=background, args=(fleet, stop))
    load.start()
    try:
        time.sleep(2.5)  # some snapshots, under load
        fleet.kill()
        fleet.start()
        assert fleet.loads("loaded") == 1
        until(fleet.trusted)
    finally:
        stop.set()
        load.join()
    settle(fleet)
    homes = {group: fleet.ask(group, 30)[0] for group in homes}
    settle(fleet)
    check_homes(fleet, homes, 31)
    restarts = fleet.metric("llmd_kv_events_total", 'what="restarts"')
    assert restarts == 0, f"{restarts} engines were taken for other ones"


def test_an_engine_that_restarted_meanwhile_is_found_out(fleet):
    fleet.start()
    until(fleet.trusted)
    homes = place(fleet)
    fleet.saved()
    fleet.kill()
    victim = fleet.ports.index(int(homes[0].rsplit(":", 1)[1]))
    fleet.kill_engine(victim)
    fleet.start_engine(victim)
    fleet.start()
    assert fleet.loads("loaded") == 1

    until(lambda: fleet.metric("llmd_kv_publisher_blocks", f'endpoint="{homes[0]}"') == 0)
    check_homes(fleet, {g: h for g, h in homes.items() if h != homes[0]}, 40)


def test_a_clean_stop_writes_the_last_word(fleet):
    fleet.file.unlink(missing_ok=True)
    fleet.interval = "1h"
    fleet.start()
    until(fleet.trusted)
    homes = place(fleet)
    assert not fleet.file.exists()
    fleet.stop()
    fleet.start()
    fleet.interval = "1s"
    assert fleet.loads("loaded") == 1
    check_homes(fleet, homes, 60)


def test_a_file_that_is_not_whole_is_refused(fleet):
    whole = fleet.file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 4
    foreign = whole[:8] + b"\x63" + whole[9:]  # of version 99
    for bytes_ in (whole[:-1], whole[:len(whole) // 2], b"", bytes(flipped), foreign,
                   b"not a snapshot"):
        fleet.file.write_bytes(bytes_)
        fleet.start()
        assert fleet.loads("refused") == 1 and fleet.loads("loaded") == 0, bytes_[:40]
        fleet.complete("it still serves", "r")
        fleet.kill()
    # Of another index: keys under another block size.
    fleet.file.write_bytes(whole)
    config = fleet.config
    fleet.config = lambda **more: config(**more).replace(
        "    kvEventsConfig", "    tokenProcessorConfig: {blockSizeTokens: 32}\n    kvEventsConfig")
    fleet.start()
    fleet.config = config
    assert fleet.loads("refused") == 1, fleet.loads("loaded")
    fleet.complete("it still serves", "r")
    fleet.kill()


def test_a_disk_that_refuses_is_told_of(fleet):
    file, fleet.file = fleet.file, fleet.folder / "missing" / "index.snapshot"
    fleet.start()
    until(lambda: fleet.metric("llmd_kv_snapshot_writes_total", 'result="failed"'))
    fleet.complete("it still serves", "r")
    fleet.stop()
    fleet.file = file


def test_the_endpoint_picker_and_the_index_service_keep_it_too(fleet):
    fleet.start()
    until(fleet.trusted)
    place(fleet)
    fleet.stop()
    whole = fleet.file.read_bytes()
    endpoints = fleet.folder / "endpoints.yaml"
    endpoints.write_text("endpoints:\n" + "".join(
        f'- {{name: e{i}, address: 127.0.0.1, port: "{p}"}}\n'
        for i, p in enumerate(fleet.ports)))
    path = fleet.folder / "epp.yaml"
    path.write_text(fleet.config(f"- type: file-discovery\n  parameters: {{path: {endpoints}}}\n"
                                 "dataLayer: {discovery: {pluginRef: file-discovery}}"))
    epp = ["epp", "--secure-serving=false", "--grpc-port", fleet.listen, "--grpc-health-port",
           fleet.health, "--metrics-port", fleet.admin, "--drain-timeout", "0s"]
    index = ["index", "--listen", f"127.0.0.1:{fleet.listen}", "--grpc-listen",
             f"127.0.0.1:{fleet.health}", "--metrics-listen", f"127.0.0.1:{fleet.admin}"]
    for command in (epp, index):
        fleet.file.write_bytes(whole)
        fleet.program = Program([LLMD, *command, "--config-file", path, "--kv-index-snapshot",
                                 fleet.file, "--kv-index-snapshot-interval", "1h"],
                                command[0]).__enter__()
        wait_for_http(f"http://127.0.0.1:{fleet.admin}/readyz", fleet.program)
        assert fleet.loads("loaded") == 1, command[0]
        until(fleet.trusted)
        assert all(fleet.metric("llmd_kv_publisher_blocks", f":{p}") > 0 for p in fleet.ports)
        fleet.stop()
        assert fleet.file.read_bytes() != whole, f"llmd {command[0]} wrote nothing at its end"


def ending(test):
    @functools.wraps(test)
    def run(fleet):
        try:
            test(fleet)
        finally:
            fleet.stop()
    return run


def main():
    with tempfile.TemporaryDirectory() as folder, SnapshotFleet(folder) as fleet:
        return report([ending(test) for test in (
                       test_a_killed_gateway_goes_on_from_its_snapshot,
                       test_what_was_missed_is_replayed,
                       test_an_engine_that_restarted_meanwhile_is_found_out,
                       test_a_clean_stop_writes_the_last_word,
                       test_a_file_that_is_not_whole_is_refused,
                       test_a_disk_that_refuses_is_told_of,
                       test_the_endpoint_picker_and_the_index_service_keep_it_too)], fleet)


if __name__ == "__main__":
    sys.exit(main())
