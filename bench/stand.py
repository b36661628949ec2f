"""The test stand of the benchmarks: simulated servers, the gateway, nginx, the load generator.

    with Stand() as stand:
        engines = stand.simulate(4, ["--profile", "instant"])
        gateway = stand.gateway(engines.urls)
        report = stand.load(gateway, ["--concurrency", "16"], watch=[gateway])

Programs end with the stand; what they say goes to files in its folder, which is removed, and the
end of it to the terminal when one fails.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import pwd
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from harness import LLMD, free_ports, wait_for_http  # noqa: E402  (the path is set above)

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
SCRAPED_PAGE_BYTES = 20_000
RECORDED_PAGE = ROOT / "conformance/recorded/vllm-0.32/metrics.txt"
ENVOY_CONFIG = ROOT / "bench/envoy.yaml.in"

NGINX_CONFIG = """
daemon off;
{user}
worker_processes 2;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  proxy_buffering off;
  proxy_request_buffering off;
  client_body_buffer_size 1m;
  client_max_body_size 64m;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream engines {{
{servers}
    keepalive 64;
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://engines;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
    }}
  }}
}}
"""


class Failed(Exception):
    """A measurement that could not be made, in words for the user."""


class Server:
    """A running program with its pids and where it listens."""

    def __init__(self, name, command, folder, environment=None):
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([str(part) for part in command],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=os.environ | (environment or {}))
        self.urls = []
        self.metrics_url = ""

    @property
    def url(self):
        return self.urls[0]

    def ended(self):
        return self.process.poll() is not None

    def pids(self):
        """The process and its children (nginx does its work in children)."""
        task = pathlib.Path(f"/proc/{self.process.pid}/task")
        children = " ".join((each / "children").read_text() for each in task.iterdir())
        return [self.process.pid] + [int(pid) for pid in children.split()]

    def cpu_seconds(self):
        total = 0
        for pid in self.pids():
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / CLOCK_TICKS

    def resident_mib(self):
        pages = sum(int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
                    for pid in self.pids())
        return pages * PAGE_BYTES / 2**20

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def last_words(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


class Stand:
    def __init__(self, lock_path=None):
        self.lock_path = lock_path
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="llmd-bench-"))
        self.servers = []
        self.started = 0

    def __enter__(self):
        # A thousand endpoints and a thousand clients need more than the usual 1,024 descriptors.
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return self

    def __exit__(self, kind, value, trace):
        for server in reversed(self.servers):
            server.stop()
            if kind:
                print(f"--- last output of {server.name}:\n{server.last_words()}", file=sys.stderr)
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextlib.contextmanager
    def quiet_machine(self):
        """Holds the lock that keeps other measurements away, if one was named."""
        if not self.lock_path:
            yield
            return
        with open(self.lock_path, "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def start(self, name, command, url, ready, environment=None):
        self.started += 1
        server = Server(f"{name}-{self.started}", command, self.folder, environment)
        self.servers.append(server)
        server.urls = [url] if isinstance(url, str) else url
        wait_for_http(ready, server)
        return server

    def end(self, server):
        self.servers.remove(server)
        server.stop()

    def simulate(self, count, flags):
        port = free_ports(count)
        urls = [f"http://127.0.0.1:{port + i}" for i in range(count)]
        return self.start("sim", [LLMD, "sim", "--host", "127.0.0.1", "--port", port,
                                  "--count", count, *flags], urls, urls[-1] + "/health")

    def gateway(self, urls, flags=()):
        port = free_ports(2)
        endpoints = ",".join(url.removeprefix("http://") for url in urls)
        url = f"http://127.0.0.1:{port}"
        metrics = f"http://127.0.0.1:{port + 1}"
        server = self.start("gateway", [LLMD, "gateway", "--listen", f"127.0.0.1:{port}",
                                        "--metrics-port", port + 1, "--endpoints", endpoints,
                                        "--workers", 2, "--access-log", self.folder / "access.log",
                                        *flags], url, metrics + "/readyz")
        wait_for_http(url + "/v1/models", server)  # answered once a server has told its models
        server.metrics_url = metrics + "/metrics"
        return server

    def nginx(self, urls):
        port = free_ports(1)
        user = pwd.getpwuid(os.geteuid()).pw_name
        servers = "\n".join(f"    server {url.removeprefix('http://')};" for url in urls)
        config = self.folder / "nginx.conf"
        # Only root may say as whom the workers run; without it they could not enter the folder.
        config.write_text(NGINX_CONFIG.format(user=f"user {user};" if os.geteuid() == 0 else "",
                                              folder=self.folder, servers=servers, port=port))
        url = f"http://127.0.0.1:{port}"
        return self.start("nginx", ["nginx", "-p", self.folder, "-c", config], url,
                          url + "/v1/models")

    def picker(self, name, program, config):
        """An endpoint picker, `llmd epp` or upstream's: both take the same flags."""
        port = free_ports(3)
        path = self.folder / f"{name}-{port}.yaml"
        path.write_text(config)
        metrics = f"http://127.0.0.1:{port + 2}/metrics"
        command = [*program, "--pool-name", "bench", "--pool-namespace", "default",
                   "--config-file", path, "--grpc-port", port, "--grpc-health-port", port + 1,
                   "--metrics-port", port + 2, "--secure-serving=false", "--drain-timeout=1s",
                   "--metrics-endpoint-auth=false", "--tracing=false"]
        server = self.start(name, command, f"127.0.0.1:{port}", metrics,
                            {"GOMAXPROCS": "2", "OTEL_TRACES_EXPORTER": "none"})
        server.metrics_url = metrics
        return server

    def envoy(self, program, picker, response_body_mode="FULL_DUPLEX_STREAMED"):
        """Envoy before `picker`, configured as the charts ship it."""
        port = free_ports(2)
        config = self.folder / f"envoy-{port}.yaml"
        config.write_text(ENVOY_CONFIG.read_text().format(
            port=port, admin_port=port + 1, picker_port=picker.url.rpartition(":")[2],
            response_body_mode=response_body_mode))
        url = f"http://127.0.0.1:{port}"
        return self.start("envoy", [program, "-c", config, "--concurrency", 2,
                                    "--use-dynamic-base-id", "--log-level", "error"], url,
                          f"http://127.0.0.1:{port + 1}/ready")

    def load(self, server, flags, watch=()):
        """Runs the load generator against `server`; its report as a dictionary."""
        return self.run_bench(server, [server.url], flags, watch)

    def ext_proc_load(self, picker, flags):
        """The same, playing Envoy to a picker."""
        return self.run_bench(picker, ["--ext-proc", picker.url], flags, [picker])

    def run_bench(self, server, target, flags, watch):
        command = [LLMD, "bench", *target, "--quiet", "--json", "-", *map(str, flags)]
        for watched in watch:
            command.append("--watch-pid=" + watched.name + "=" + ",".join(map(str, watched.pids())))
        with self.quiet_machine():
            done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(f"{' '.join(map(str, command))}: {done.stderr[-2000:]}")
        report = json.loads(done.stdout)
        if report["failures"]["count"]:
            raise Failed(f"requests failed at {server.name}: {report['failures']['by_label']}")
        return report


class MetricsPage:
    """One reading of a metrics page; figures that are compared must come from the same one."""

    def __init__(self, url):
        with urllib.request.urlopen(url, timeout=10) as reply:
            self.lines = reply.read().decode().splitlines()

    def sum(self, name, **labels):
        """Sum of the samples of `name` that carry `labels`."""
        total = 0.0
        for line in self.lines:
            found = re.match(re.escape(name) + r"(?:\{(.*)\})? (\S+)", line)
            if not found:
                continue
            has = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', found.group(1) or ""))
            if all(has.get(key) == value for key, value in labels.items()):
                total += float(found.group(2))
        return total


def scraped_page():
    """A vLLM page of about 20 KB: the recorded one, cut at a line."""
    lines, size = [], 0
    families = RECORDED_PAGE.read_text().split("# HELP ")[1:]
    # What a picker reads comes first, the rest fills up.
    families.sort(key=lambda family: not family.startswith(
        ("vllm:num_requests", "vllm:kv_cache_usage", "vllm:cache_config", "vllm:lora")))
    for line in "# HELP ".join(["", *families]).splitlines(keepends=True):
        if size + len(line) > SCRAPED_PAGE_BYTES:
            break
        lines.append(line)
        size += len(line)
    return "".join(lines)


def progress(text):
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)
