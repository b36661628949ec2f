"""What integration tests share: programs that are ended again, free ports, waiting, reporting.

    with Program([LLMD, "sim", "--port", "8001"]) as sim:
        wait_for_http("http://127.0.0.1:8001/health", sim)
    report([test_a, test_b])      # prints the lines that tools/testrunner.py counts
"""

import os
import pathlib
import random
import socket
import subprocess
import sys
import time
import traceback
import urllib.error
import urllib.request

ROOT = pathlib.Path(os.environ.get("LLMD_ROOT", pathlib.Path(__file__).resolve().parent.parent))
LLMD = os.environ.get("LLMD", str(ROOT / "build/release/llmd"))
START_SECONDS = 30


class Skip(Exception):
    """Raised by a test that cannot run here; says why."""


class Program:
    """A running program; its output is printed when the test leaves it after a failure."""

    def __init__(self, command, name=""):
        self.command = [str(part) for part in command]
        self.name = name or pathlib.Path(self.command[0]).name

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return self

    def __exit__(self, kind, value, trace):
        self.process.terminate()
        try:
            output, _ = self.process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            output, _ = self.process.communicate()
        if kind:
            print(f"--- {self.name} ended with {self.process.returncode}; its last output:")
            print("\n".join(output.decode(errors="replace").splitlines()[-30:]))

    def ended(self):
        return self.process.poll() is not None


def free_ports(count):
    """The first of `count` consecutive ports that nobody listens on. They lie below those that the
    kernel gives to connections, which could take them before they are used."""
    while True:
        first = random.randrange(10_000, 32_000 - count)
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue


def until(what, seconds=20):
    """The first value of `what()` that is true."""
    deadline = time.monotonic() + seconds
    while True:
        value = what()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {what()}"
        time.sleep(0.05)


def wait_for_http(url, program):
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert not program.ended(), f"{program.name} ended before it answered {url}"
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:
                return reply.read()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.05)
    raise AssertionError(f"{url} did not answer within {START_SECONDS} s")


def report(tests, *arguments):
    """Runs functions named test_...; returns the exit status."""
    failures = 0
    for test in tests:
        name = test.__name__.removeprefix("test_")
        try:
            test(*arguments)
            print(f"ok {name}")
        except Skip as reason:
            print(f"skip {name}: {reason}")
        except Exception as error:
            failures += 1
            traceback.print_exc(file=sys.stdout)
            print(f"not ok {name}: {str(error).splitlines()[0] if str(error) else type(error)}")
        sys.stdout.flush()
    return 1 if failures else 0
