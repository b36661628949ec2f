#!/usr/bin/env python3
"""The index of KV blocks outlives its process: `llmd gateway` and `llmd epp` with
--kv-index-snapshot over engines of `llmd sim`, killed and started again; and it warms pickers that
start beside them (--kv-index-peer)."""

import contextlib
import copy
import functools
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from harness import LLMD, Program, free_ports, report, until, wait_for_http
from kv_routing_test import ENGINES, Fleet, background, check_homes, place, settle


class SnapshotFleet(Fleet):
    def __init__(self, folder):
        super().__init__(folder)
        self.file = self.folder / "index.snapshot"
        self.interval = "1s"
        self.flags = []
        self.program = None
        self.peer = free_ports(1)

    def start(self, replay=True):
        # Without replay nothing but the snapshot can tell what was published before the start.
        kv_events = "" if replay else "podDiscoveryConfig: {socketPort: %d}" % self.events
        path = self.folder / f"gateway-{self.admin}.yaml"
        path.write_text(self.config(kv_events=kv_events))
        self.program = Program(
            [LLMD, "gateway", "--config-file", path, "--endpoints",
             ",".join(f"127.0.0.1:{p}" for p in self.ports), "--listen",
             f"127.0.0.1:{self.listen}", "--metrics-port", self.admin, "--drain-timeout", "0s",
             *(["--kv-index-snapshot", self.file, "--kv-index-snapshot-interval", self.interval]
               if self.file else []), *self.flags],
            "gateway").__enter__()
        wait_for_http(f"http://127.0.0.1:{self.admin}/readyz", self.program)

    @contextlib.contextmanager
    def beside(self, *flags):
        """Room for a second picker over the same engines."""
        other = copy.copy(self)
        first = free_ports(4)
        other.listen, other.admin, other.health, other.peer = range(first, first + 4)
        other.file, other.flags, other.program = None, list(flags), None
        try:
            yield other
        finally:
            other.stop()

    @contextlib.contextmanager
    def runs(self, *flags):
        """A picker that others may have the index of, with blocks in it: yields who has what."""
        file, self.file = self.file, None
        self.flags = ["--kv-index-peer-listen", f"127.0.0.1:{self.peer}", *flags]
        try:
            self.start()
            until(self.trusted)
            homes = place(self)
            yield homes
        finally:
            self.stop()
            self.file, self.flags = file, []

    def kill(self):
        self.program.process.send_signal(signal.SIGKILL)
        self.stop()

    def stop(self):
        if self.program:
            self.program.__exit__(None, None, None)
        self.program = None

    def loads(self, result, source="file"):
        return self.metric("llmd_kv_snapshot_loads_total",
                           f'result="{result}",source="{source}"') or 0

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


def picker_config(fleet):
    """A file with the fleet's endpoints in another one, for roles without --endpoints."""
    endpoints = fleet.folder / "endpoints.yaml"
    endpoints.write_text("endpoints:\n" + "".join(
        f'- {{name: e{i}, address: 127.0.0.1, port: "{p}"}}\n'
        for i, p in enumerate(fleet.ports)))
    path = fleet.folder / "epp.yaml"
    path.write_text(fleet.config(f"- type: file-discovery\n  parameters: {{path: {endpoints}}}\n"
                                 "dataLayer: {discovery: {pluginRef: file-discovery}}"))
    return path


def test_the_endpoint_picker_and_the_index_service_keep_it_too(fleet):
    fleet.start()
    until(fleet.trusted)
    place(fleet)
    fleet.stop()
    whole = fleet.file.read_bytes()
    path = picker_config(fleet)
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


# ---- peers -------------------------------------------------------------------------------------


def test_a_picker_that_starts_is_warmed_by_one_that_runs(fleet):
    with fleet.runs() as homes, fleet.beside("--kv-index-peer", f"127.0.0.1:{fleet.peer}") as other:
        other.flags += ["--kv-index-peer-listen", f"127.0.0.1:{other.peer}"]
        other.start(replay=False)
        assert other.loads("loaded", "peer") == 1
        check_homes(other, homes, 70)  # before any new event
        fleet.kill()
        until(other.trusted)
        check_homes(other, homes, 71)
        # The other way round.
        fleet.flags = ["--kv-index-peer", f"localhost:{other.peer}"]
        fleet.start(replay=False)
        assert fleet.loads("loaded", "peer") == 1
        check_homes(fleet, homes, 72)


def test_a_peer_under_load_and_what_is_missed_meanwhile(fleet):
    stop = threading.Event()
    load = threading.Thread(target=background, args=(fleet, stop))
    with fleet.runs() as homes, fleet.beside("--kv-index-peer", f"127.0.0.1:{fleet.peer}") as other:
        load.start()
        try:
            time.sleep(0.5)
            other.start()
            assert other.loads("loaded", "peer") == 1
            until(other.trusted)
        finally:
            stop.set()
            load.join()
        settle(other)
        homes = {group: other.ask(group, 75)[0] for group in homes}
        settle(other)
        check_homes(other, homes, 76)
        check_homes(fleet, homes, 77)
        assert other.metric("llmd_kv_events_total", 'what="restarts"') == 0


class Middle:
    """Listens, connects on to `port`, and passes `limit` bytes of the answer before it hangs up, or
    then a byte every `pause` seconds; port None: says nothing."""

    def __init__(self, port=None, limit=0, pause=0.0):
        self.to, self.limit, self.pause = port, limit, pause
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.sockets = [self.listener]
        if port is not None:
            threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                near = self.listener.accept()[0]
                far = socket.create_connection(("127.0.0.1", self.to))
                self.sockets += [near, far]
                threading.Thread(target=self.copy, args=(near, far), daemon=True).start()
                self.answer(far, near)

    @staticmethod
    def copy(source, to):
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                to.sendall(piece)

    def answer(self, far, near):
        passed = 0
        with contextlib.suppress(OSError):
            while passed < self.limit or self.pause:
                piece = far.recv(self.limit - passed if passed < self.limit else 1)
                near.sendall(piece)
                passed += len(piece)
                if passed >= self.limit:
                    time.sleep(self.pause)
        for each in (far, near):
            each.shutdown(socket.SHUT_RDWR)

    def close(self):
        for each in self.sockets:
            each.close()


def test_a_peer_that_fails_costs_no_more_than_its_time(fleet):
    with fleet.runs() as homes, fleet.beside() as other:
        # The disk as a second choice: of a picker that had it all.
        other.file = fleet.folder / "other.snapshot"
        other.flags = ["--kv-index-peer", f"127.0.0.1:{fleet.peer}"]
        other.start()
        assert other.loads("loaded", "peer") == 1
        until(other.trusted)
        other.stop()
        whole = other.file.read_bytes()
        on_the_way = len(whole) // 2
        gone = Middle()
        gone.close()
        peers = {"nobody": gone, "silent": Middle(), "hangs up": Middle(fleet.peer, 0),
                 "killed on the way": Middle(fleet.peer, on_the_way),
                 "slow": Middle(fleet.peer, on_the_way, 0.1),
                 "HTTP/1": Middle(fleet.admin, 1 << 20)}
        for name, peer in peers.items():
            other.flags = ["--kv-index-peer", f"127.0.0.1:{peer.port}",
                           "--kv-index-peer-timeout", "2s"]
            other.file.write_bytes(whole)
            begin = time.monotonic()
            other.start(replay=False)
            took = time.monotonic() - begin
            assert took < 5, f"{name}: {took} s"
            assert other.loads("failed", "peer") == 1, name
            assert other.loads("loaded", "file") == 1, name
            check_homes(other, homes, 80, groups=[0, 1])
            other.kill()
            other.file.unlink()
            other.start(replay=False)
            assert other.loads("failed", "peer") == 1 and other.loads("none") == 1, name
            other.complete("it still serves", "c")
            other.kill()
            peer.close()


def test_a_peer_of_another_configuration_or_without_blocks_is_passed_over(fleet):
    with fleet.runs(), fleet.beside("--kv-index-peer", f"127.0.0.1:{fleet.peer}") as other:
        config = fleet.config
        other.config = lambda **more: config(**more).replace(
            "    kvEventsConfig",
            "    tokenProcessorConfig: {blockSizeTokens: 32}\n    kvEventsConfig")
        other.start()
        assert other.loads("refused", "peer") == 1 and other.loads("loaded", "peer") == 0
        other.complete("it still serves", "d")
        other.stop()
        del other.config
        fleet.kill()
        for i in range(ENGINES):
            fleet.kill_engine(i)
            fleet.start_engine(i)
        fleet.start()
        other.start()
        assert other.loads("none", "peer") == 1


def test_certificates_keep_strangers_out(fleet):
    folder = fleet.folder / "certificates"
    folder.mkdir()
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=peer",
                    "-addext", "subjectAltName=DNS:localhost", "-keyout", folder / "tls.key",
                    "-out", folder / "tls.crt"], check=True, capture_output=True)
    (folder / "ca.crt").write_bytes((folder / "tls.crt").read_bytes())
    certified = ["--kv-index-peer-cert-dir", folder]
    peer = ["--kv-index-peer", f"localhost:{fleet.peer}"]
    with fleet.runs(*certified) as homes, fleet.beside(*peer, *certified) as other:
        other.start(replay=False)
        assert other.loads("loaded", "peer") == 1
        check_homes(other, homes, 90, groups=[0, 1, 2])
        other.stop()
        other.flags = peer
        other.start()
        assert other.loads("failed", "peer") == 1


def test_the_endpoint_picker_and_the_index_service_warm_one_another(fleet):
    path = picker_config(fleet)

    def start(fleet, command, peer):
        addresses = {
            "epp": ["--secure-serving=false", "--grpc-port", fleet.listen, "--grpc-health-port",
                    fleet.health, "--metrics-port", fleet.admin, "--drain-timeout", "0s"],
            "index": ["--listen", f"127.0.0.1:{fleet.listen}", "--grpc-listen",
                      f"127.0.0.1:{fleet.health}", "--metrics-listen", f"127.0.0.1:{fleet.admin}"]}
        fleet.program = Program(
            [LLMD, command, *addresses[command], "--config-file", path, "--kv-index-peer",
             f"127.0.0.1:{peer}", "--kv-index-peer-listen", f"127.0.0.1:{fleet.peer}"],
            command).__enter__()
        wait_for_http(f"http://127.0.0.1:{fleet.admin}/readyz", fleet.program)
        assert fleet.loads("loaded", "peer") == 1, command

    with fleet.runs(), fleet.beside() as epp, fleet.beside() as index:
        start(epp, "epp", fleet.peer)
        start(index, "index", epp.peer)
        until(index.trusted)
        assert all(index.metric("llmd_kv_publisher_blocks", f":{p}") > 0 for p in fleet.ports)


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
                       test_the_endpoint_picker_and_the_index_service_keep_it_too,
                       test_a_picker_that_starts_is_warmed_by_one_that_runs,
                       test_a_peer_under_load_and_what_is_missed_meanwhile,
                       test_a_peer_that_fails_costs_no_more_than_its_time,
                       test_a_peer_of_another_configuration_or_without_blocks_is_passed_over,
                       test_certificates_keep_strangers_out,
                       test_the_endpoint_picker_and_the_index_service_warm_one_another)], fleet)


if __name__ == "__main__":
    sys.exit(main())
