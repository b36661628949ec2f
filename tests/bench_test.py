#!/usr/bin/env python3
"""The load generator as a user meets it, and the benchmark scripts, so that they cannot rot."""

import json
import os
import shutil
import subprocess
import sys
import tempfile

from harness import LLMD, ROOT, Program, Skip, free_ports, report, wait_for_http


def bench(*arguments):
    return subprocess.run([LLMD, "bench", *map(str, arguments)], capture_output=True, text=True,
                          timeout=60)


class Simulated:
    """One simulated server for the length of a test."""

    def __init__(self, *flags):
        self.port = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self.program = Program([LLMD, "sim", "--host", "127.0.0.1", "--port", self.port, *flags])

    def __enter__(self):
        self.program.__enter__()
        wait_for_http(self.url + "/health", self.program)
        return self

    def __exit__(self, *exception):
        self.program.__exit__(*exception)


def test_help_teaches():
    done = bench("--help")
    assert done.returncode == 0
    for words in ("Closed or open loop?", "Examples:", "--shared-prefix", "--watch-pid"):
        assert words in done.stdout, words


def test_wrong_usage_is_refused():
    for arguments, words in (([], "no target"), (["http://x", "--rate", "0"], "--rate"),
                             (["http://x", "--rate", "1", "-c", "2"], "excludes"),
                             (["http://x", "--prompt-tokens", "many"], "allowed are"),
                             (["http://x", "--extra-body", "[]"], "--extra-body"),
                             (["http://x", "--watch-pid", "me"], "NAME=PID")):
        done = bench(*arguments)
        assert done.returncode == 2, (arguments, done)
        assert words in done.stdout + done.stderr, (arguments, done)


def test_nothing_there_ends_with_one_line():
    done = bench(f"http://127.0.0.1:{free_ports(1)}", "--requests", 1)
    assert done.returncode == 1
    assert "connect-failed" in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_streams_are_measured_event_by_event():
    with Simulated("--model", "demo", "--inter-token-latency", "5ms") as server:
        done = bench(server.url, "--stream", "-c", 4, "-n", 20, "--output-tokens", 10,
                     "--prompt-tokens", 32, "--json", "-",
                     "--watch-pid", f"sim={server.program.process.pid}")
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    assert got["config"]["model"] == "demo"
    assert got["successes"]["count"] == 20
    assert got["successes"]["stream_token_events"] == 200
    assert got["successes"]["output_tokens"]["total"] == 200
    gap = got["successes"]["latency"]["inter_token_latency"]["median"]
    assert 0.004 < gap < 0.03, gap
    assert got["successes"]["latency"]["time_per_output_token"]["median"] >= 0.004
    assert got["processes"]["sim"]["cpu_ms_per_request"] > 0
    assert "inter-token latency" in done.stderr, "the table moves to stderr"


def test_open_loop_reports_its_schedule():
    with Simulated("--profile", "instant") as server, tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "out.json")
        done = bench(server.url, "--rate", 200, "--duration", "1s", "--api", "completions",
                     "--json", path)
        assert done.returncode == 0, done.stderr
        assert "schedule delay" in done.stdout
        with open(path) as file:
            got = json.load(file)
    assert got["load_summary"]["requested_rate"] == 200
    assert 120 < got["load_summary"]["count"] < 280
    assert got["load_summary"]["schedule_delay"]["median"] < 0.05


def test_a_generator_that_falls_behind_says_so():
    with Simulated("--model", "demo", "--time-to-first-token", "100ms") as server:
        done = bench(server.url, "--rate", 200, "--duration", "1s", "--max-in-flight", 2)
    assert done.returncode == 0, done.stderr
    assert "fell behind its schedule" in done.stdout, done.stdout
    assert "--max-in-flight" in done.stdout, done.stdout


def test_gateway_benchmark_runs():
    if not shutil.which("nginx"):
        raise Skip("nginx, the yardstick, is not installed")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "out.json")
        done = subprocess.run([ROOT / "bench/gateway.sh", "--quick", "--json", path],
                              env={**os.environ, "LLMD": LLMD}, capture_output=True, text=True,
                              timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr
        with open(path) as file:
            rows = json.load(file)["rows"]
    assert len(rows) == 10, [row["name"] for row in rows]
    for row in rows:
        assert row["name"] in done.stdout
        assert row["ours"] is not None and row["target"], row


def test_picker_benchmark_runs():
    if subprocess.run([LLMD, "epp", "--help"], capture_output=True).returncode != 0:
        raise Skip("this llmd has no epp")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "out.json")
        rows = ("1 KB, 64 streams", "chunk", "alone", "memory", "idle")
        done = subprocess.run([ROOT / "bench/epp.sh", "--quick", "--json", path,
                               *(word for row in rows for word in ("--row", row))],
                              env={**os.environ, "LLMD": LLMD, "ENVOY": "none",
                                   "LLMD_REFERENCE_DIR": ""},
                              capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr
        with open(path) as file:
            rows = json.load(file)["rows"]
    assert len(rows) == 9, [row["name"] for row in rows]
    for row in rows:
        assert row["name"] in done.stdout
        assert row["ours"] is not None and row["target"], row


def test_wrong_picker_flags_are_refused():
    for arguments, words in ((["--connections", 2, "http://x"], "--ext-proc"),
                             (["--ext-proc", "localhost:1", "http://x"], "exclude each other"),
                             (["--ext-proc", "localhost:1", "--chunk-window", 0], "--chunk-window"),
                             (["--ext-proc", "localhost:1", "--response", "some"], "--response")):
        done = bench(*arguments)
        assert done.returncode == 2, (arguments, done)
        assert words in done.stdout + done.stderr, (arguments, done)


if __name__ == "__main__":
    sys.exit(report([test_help_teaches, test_wrong_usage_is_refused,
                     test_nothing_there_ends_with_one_line,
                     test_streams_are_measured_event_by_event,
                     test_open_loop_reports_its_schedule,
                     test_a_generator_that_falls_behind_says_so, test_gateway_benchmark_runs,
                     test_wrong_picker_flags_are_refused, test_picker_benchmark_runs]))
