"""A picker process, upstream's `epp` or ours, on loopback ports with the flags both know."""

import os
import pathlib
import re
import socket
import subprocess
import threading
import time
import urllib.request

START_SECONDS = 30
# Unlike the kernel's ephemeral range, which starts at 32768: no outgoing connection takes these.
PORT_FIRST, PORT_UNTIL = 21000, 32000


class NotStarted(AssertionError):
    """The picker ended before it was ready, or never was; says its last words."""


class Ports:
    """Hands out each port once, so that pickers started side by side do not meet."""

    def __init__(self):
        self.lock = threading.Lock()
        self.next = PORT_FIRST + os.getpid() * 7 % (PORT_UNTIL - PORT_FIRST)

    def take(self, count):
        found = []
        with self.lock:
            while len(found) < count:
                self.next = self.next + 1 if self.next < PORT_UNTIL else PORT_FIRST
                with socket.socket() as probe:
                    try:
                        probe.bind(("127.0.0.1", self.next))
                        found.append(self.next)
                    except OSError:
                        pass
        return found


PORTS = Ports()


class Picker:
    """Runs until the block ends; `command` is ["epp"] or ["llmd", "epp"]."""

    def __init__(self, command, config, fleet, flags, folder, scrapes=3):
        self.folder = pathlib.Path(folder)
        self.fleet = fleet
        self.scrapes = scrapes
        self.port, self.health_port, self.metrics_port = PORTS.take(3)
        (self.folder / "endpoints.yaml").write_text(fleet.file())
        text = config.replace("$ENDPOINTS", str(self.folder / "endpoints.yaml"))
        (self.folder / "config.yaml").write_text(text.replace("$DCGM", str(fleet.dcgm_port)))
        self.command = [*command, "--pool-name", "epp", "--pool-namespace", "default",
                        "--config-file", str(self.folder / "config.yaml"),
                        "--grpc-port", str(self.port), "--grpc-health-port", str(self.health_port),
                        "--metrics-port", str(self.metrics_port), "--secure-serving=false",
                        "--metrics-endpoint-auth=false", "--tracing=false", *flags]
        self.log = self.folder / "picker.log"

    def __enter__(self):
        env = dict(os.environ, GOMEMLIMIT="3GiB", OTEL_TRACES_EXPORTER="none")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=subprocess.STDOUT, env=env)
        try:
            self.wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def wait_until_ready(self):
        """Listening, and each endpoint read so often that its first page is in the snapshot."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            if self.listens() and self.fleet.least_scrapes() >= self.scrapes:
                time.sleep(0.2)
                return
            time.sleep(0.02)
        raise NotStarted(f"the picker did not start:\n{self.last_lines()}")

    def listens(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def last_lines(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def metrics(self):
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as reply:
            return reply.read().decode()


SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)(?: \d+)?$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
SUFFIX = re.compile(r"_(?:bucket|sum|count)$")


def samples(text):
    """Yields (name, {label: value}, number)."""
    for line in text.splitlines():
        match = SAMPLE.match(line)
        if match and not line.startswith("#"):
            yield match[1], dict(LABEL.findall(match[2] or "")), float(match[3])


def families(text):
    """{name: {"type": .., "labels": [..], "buckets": [..]}} of what a page shows."""
    found = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            name, kind = line.split()[2:4]
            found[name] = {"type": kind, "labels": set(), "buckets": []}
    for name, labels, _ in samples(text):
        family = found.get(name) or found.get(SUFFIX.sub("", name))
        if family is None:
            continue
        bound = labels.pop("le", None)
        if bound is not None and bound not in family["buckets"]:
            family["buckets"].append(bound)
        family["labels"] |= set(labels)
    for family in found.values():
        family["labels"] = sorted(family["labels"])
        family["buckets"] = [float(bound) for bound in family["buckets"] if bound != "+Inf"]
        if family["type"] != "histogram":
            del family["buckets"]
    return dict(sorted(found.items()))
