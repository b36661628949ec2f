"""Envoy with a sample of config/envoy, `llmd epp` behind it, and model servers behind that."""

import asyncio
import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import time
import urllib.request

from http1 import ModelServer, ask

ROOT = pathlib.Path(os.environ["LLMD_ROOT"])
sys.path += [str(ROOT / "tests"), str(ROOT / "conformance" / "differential")]
from harness import LLMD, Skip, wait_for_http  # noqa: E402  (the paths are set above)
from picker import PORTS, samples  # noqa: E402

TMP = pathlib.Path(os.environ["LLMD_TMP"])
ENVOY = os.environ["ENVOY"]
SERVERS = 3
WAIT_SECONDS = 20

CONFIG = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: file-discovery
  parameters: {{path: {folder}/endpoints.yaml, watchFile: true}}
- type: queue-scorer
dataLayer:
  discovery: {{pluginRef: file-discovery}}
"""


async def until(what, truth):
    """Waits for what other processes do; fails with the last answer."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            answer = await asyncio.to_thread(truth)
            if answer:
                return answer
        except OSError as error:
            answer = error
        assert time.monotonic() < deadline, f"{what}: not so after {WAIT_SECONDS} s ({answer})"
        await asyncio.sleep(0.03)


class Process:
    """Its output goes to a file, whose end is shown where it dies too early."""

    def __init__(self, command, log):
        self.command = [str(word) for word in command]
        self.name = pathlib.Path(self.command[0]).name
        self.log = log
        self.start()

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=subprocess.STDOUT)

    def ended(self):
        return self.process.poll() is not None

    def stop(self, kill=False):
        if kill:
            self.process.kill()
        else:
            self.process.terminate()
        try:
            return self.process.wait(WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def output(self):
        return self.log.read_text(errors="replace")

    def show_end(self):
        print("\n".join([f"--- the end of {self.log.name}", *self.output().splitlines()[-10:]]))


class Stand:
    """`sample` names a file of config/envoy; `edit` changes its text for a case."""

    def __init__(self, sample, flags=(), edit=lambda text: text, config=CONFIG, name=""):
        self.sample = sample
        self.name = name or sample
        self.flags = list(flags)
        self.edit = edit
        self.config = config
        self.processes, self.servers = [], []

    async def open(self):
        self.folder = TMP / self.name
        self.folder.mkdir()
        ports = PORTS.take(5 + SERVERS)
        self.port, self.admin, self.picker_port, self.health_port, self.metrics_port = ports[:5]
        self.servers = [ModelServer(f"m{i}", port) for i, port in enumerate(ports[5:])]
        for server in self.servers:
            await server.open()
        self.write_endpoints(self.servers)
        self.write_config(self.config.format(folder=self.folder))
        self.picker = Process(
            [LLMD, "epp", "--config-file", self.folder / "epp.yaml", "--grpc-port",
             self.picker_port, "--grpc-health-port", self.health_port, "--metrics-port",
             self.metrics_port, "--tracing=false", "--workers", "2", *self.flags],
            self.folder / "picker.log")
        self.envoy = Process(
            [ENVOY, "-c", self.write_sample(), "--use-dynamic-base-id", "--concurrency", "2",
             "--log-level", "warn"], self.folder / "envoy.log")
        self.processes = [self.picker, self.envoy]
        await self.ready()
        return self

    async def ready(self):
        for port, program in ((self.metrics_port, self.picker), (self.admin, self.envoy)):
            path = "/metrics" if program is self.picker else "/ready"
            await asyncio.to_thread(wait_for_http, f"http://127.0.0.1:{port}{path}", program)
        await until("every endpoint is read", lambda: all(
            endpoint["load_age_ms"] is not None for endpoint in self.endpoints()))

    async def close(self):
        for process in self.processes:
            process.stop(kill=True)
        for server in self.servers:
            await server.close()

    def write_sample(self):
        text = (ROOT / "config" / "envoy" / f"{self.sample}.yaml").read_text()
        ports = {8081: self.port, 19001: self.admin, 9002: self.picker_port}
        ports |= {8001 + i: server.port for i, server in enumerate(self.servers)}
        for old, new in ports.items():
            text = re.sub(rf"(port_value: |127\.0\.0\.1:){old}\b", rf"\g<1>{new}", text)
        path = self.folder / "envoy.yaml"
        path.write_text(self.edit(text.replace("0.0.0.0", "127.0.0.1")))
        return path

    def write_endpoints(self, servers):
        lines = [f'- {{name: {s.name}, address: 127.0.0.1, port: "{s.port}"}}\n' for s in servers]
        self.write("endpoints.yaml", "endpoints:\n" + "".join(lines))

    def write_config(self, text):
        self.write("epp.yaml", text)

    def write(self, name, text):
        """Moved into place, so that no reload reads half of it."""
        (self.folder / "new").write_text(text)
        (self.folder / "new").rename(self.folder / name)

    def get(self, port, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as reply:
            return reply.read().decode()

    def endpoints(self):
        return json.loads(self.get(self.metrics_port, "/debug/endpoints"))

    def metric(self, name, **labels):
        """The sum of a family's series that carry the labels."""
        return sum(number for found, has, number in samples(self.get(self.metrics_port, "/metrics"))
                   if found == name and labels.items() <= has.items())

    def envoy_stat(self, name):
        text = self.get(self.admin, f"/stats?filter={re.escape(name)}$")
        return sum(int(line.rsplit(" ", 1)[1]) for line in text.splitlines())

    def ask(self, body=b"", **how):
        return ask(self.port, body, **how)

    def requests(self):
        return sum(len(server.requests) for server in self.servers)

    def last_request(self):
        return next(s.requests[-1] for s in self.servers if s.requests)

    def forget(self):
        for server in self.servers:
            server.requests.clear()

    async def prefer(self, *servers):
        """Orders the picker's choice: the first has the shortest queue."""
        for server in self.servers:
            rank = servers.index(server) if server in servers else len(servers)
            server.waiting = 10 * rank
        wanted = {server.name: server.waiting for server in self.servers}
        await until("the picker has read the queues", lambda: all(
            e["waiting"] == wanted[e["name"]] for e in self.endpoints()))

    def idle(self):
        return (self.metric("llm_d_epp_request_running") == 0 and
                all(e["in_flight"] == 0 for e in self.endpoints()))

    async def settle(self):
        await until("counters are back to zero", self.idle)


@contextlib.asynccontextmanager
async def stand(*arguments, **named):
    new = Stand(*arguments, **named)
    try:
        yield await new.open()
    except BaseException:
        for process in new.processes:
            process.show_end()
        raise
    finally:
        await new.close()
