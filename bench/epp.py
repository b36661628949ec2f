"""Prints the pickers' table of docs/performance.md: `llmd epp` beside llm-d's own `epp`.

Only one picker runs at a time, because even idle ones scrape. Within a round they take turns, and
every figure is the median of its rounds. Where upstream's program is not given, its column is what
was recorded (bench/recorded/epp_upstream.json), and the table says so.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import threading
import time

from stand import LLMD, ROOT, Failed, Stand, progress, scraped_page
from table import Row, machine, markdown

KB = 1024
RECORDED = ROOT / "bench/recorded/epp_upstream.json"
SCRAPE_SECONDS = 0.05
CORES = os.cpu_count()
# Upstream's own p99 with 16 streams of 16 KB is 30 ms; beyond it a queue grows.
SUSTAINED_P99_US = 50_000

PROFILES = {
    "default": {"queue-scorer": 2, "kv-cache-utilization-scorer": 2, "prefix-cache-scorer": 3},
    "eight scorers": {"queue-scorer": 2, "kv-cache-utilization-scorer": 2, "prefix-cache-scorer": 3,
                      "running-requests-size-scorer": 1, "lora-affinity-scorer": 1,
                      "load-aware-scorer": 1, "active-request-scorer": 1, "token-load-scorer": 1},
}


def picker_config(profile, endpoints_file):
    scorers = PROFILES[profile]
    plugins = ["file-discovery", *scorers, "max-score-picker"]
    if "token-load-scorer" in scorers:
        plugins.append("inflight-load-producer")  # upstream does not add it by itself here
    lines = ["apiVersion: llm-d.ai/v1alpha1", "kind: EndpointPickerConfig", "plugins:"]
    for name in plugins:
        lines.append(f"- type: {name}")
        if name == "file-discovery":
            lines.append(f"  parameters: {{path: {endpoints_file}}}")
    lines += ["schedulingProfiles:", "- name: default", "  plugins:"]
    lines += [f"  - {{pluginRef: {name}, weight: {weight}}}" for name, weight in scorers.items()]
    lines += ["  - pluginRef: max-score-picker", "dataLayer:",
              "  discovery: {pluginRef: file-discovery}"]
    return "\n".join(lines) + "\n"


def endpoints_yaml(ports):
    return "endpoints:\n" + "".join(
        f'- {{name: e{i}, address: 127.0.0.1, port: "{port}"}}\n' for i, port in enumerate(ports))


@dataclasses.dataclass
class CpuRow:
    name: str
    kilobytes: int
    streams: int
    times_less: float
    profile: str = "default"
    endpoints: int = 10


CPU_ROWS = [
    CpuRow("CPU per request, 1 KB, 16 streams", 1, 16, 18),
    CpuRow("CPU per request, 16 KB, 16 streams", 16, 16, 30),
    CpuRow("CPU per request, 128 KB, 16 streams", 128, 16, 40),
    CpuRow("CPU per request, 512 KB, 16 streams", 512, 16, 35),
    CpuRow("CPU per request, 1 KB, 64 streams", 1, 64, 30),
    CpuRow("CPU per request, 1 KB, 16 streams, 100 endpoints", 1, 16, 18, endpoints=100),
    CpuRow("CPU per request, 128 KB, 16 streams, 100 endpoints", 128, 16, 40, endpoints=100),
    CpuRow("CPU per request, 1 KB, 16 streams, eight scorers", 1, 16, 18, "eight scorers"),
    CpuRow("CPU per request, 128 KB, 16 streams, eight scorers", 128, 16, 40, "eight scorers"),
]
SUSTAINED = "sustained rate, 128 KB"
CHUNK = "CPU per chunk, {} chunks, 16 streams, one each 2 ms"
CHUNK_FAST = "CPU per chunk, {} chunks, 16 streams, each after the echo of the one before"
CHUNK_MANY = "CPU per chunk, {} chunks, 64 streams, each after the echo of the one before"
RESPONSE = "response phase, {} chunks: bodies not sent, against sent"
LATENCY = "p99 decision latency, 16 KB, at the highest rate that upstream sustains"
ALONE = "p99 decision latency, 16 KB, 1,000 requests/s, alone"
IDLE = "idle, {} endpoints each 50 ms, CPU per scrape"
MEMORY_START = "resident memory at start"
MEMORY_LOAD = "resident memory after load"
ENVOY_CPU = "behind Envoy, {} KB, 16 connections: CPU of the whole path"
ENVOY_ADDED = "behind Envoy, 1 KB, 1 connection: added median latency"
ENVOY_NONE = "behind Envoy, streams of {} chunks: CPU of the whole path, bodies not sent"
DECISION = "one decision, {} endpoints"


class Gauge:
    """What a full run and a quick one differ in."""

    def __init__(self, quick, rounds):
        self.quick = quick
        self.rounds = rounds or (1 if quick else 3)
        self.seconds = 0.5 if quick else 3
        self.warm_up = 0.2 if quick else 1
        self.chunks = 100 if quick else 1000
        self.idle_seconds = 1 if quick else 8
        self.idle_endpoints = (16,) if quick else (32, 100)


class Probes:
    """Endpoints that serve the metric page and count how often it is asked for.

    Some of the idle rows' endpoints are these, so that both pickers' scrapes are counted in the
    same way and from the outside.
    """
    COUNT = 8

    def __init__(self, page):
        self.reply = (f"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n"
                      f"Content-Length: {len(page)}\r\n\r\n{page}").encode()
        self.scrapes = 0
        self.ports = []
        self.loop = asyncio.new_event_loop()
        ready = threading.Event()
        self.thread = threading.Thread(target=self.run, args=(ready,), daemon=True)
        self.thread.start()
        ready.wait()

    def run(self, ready):
        async def serve():
            servers = [await asyncio.start_server(self.answer, "127.0.0.1", 0)
                       for _ in range(self.COUNT)]
            self.ports = [server.sockets[0].getsockname()[1] for server in servers]
            ready.set()
        self.loop.run_until_complete(serve())
        self.loop.run_forever()

    async def answer(self, reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.scrapes += 1
                writer.write(self.reply)
        writer.close()

    def stop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()


class EppBench:
    def __init__(self, stand, gauge, wanted, reference, envoy):
        self.stand = stand
        self.gauge = gauge
        self.wanted = wanted
        self.envoy = envoy
        self.programs = {"ours": [LLMD, "epp"]}
        self.recorded = {}
        if reference:
            self.programs["upstream"] = [reference]
        elif RECORDED.exists():
            self.recorded = json.loads(RECORDED.read_text())["figures"]
        self.figures = {}  # row -> contestant -> one value per round
        self.notes = {}
        self.rows = []
        self.decisions = []
        self.measurements = []
        self.page = stand.folder / "page.txt"
        self.page.write_text(scraped_page())

    # --- rows ---------------------------------------------------------------------------------

    def run(self):
        self.load_rows()
        self.idle_rows()
        self.envoy_rows()
        self.decision_rows()
        self.finish()

    def finish(self):
        """Rows out of what was measured, be it all or, after a failure, a part."""
        self.report_load()
        self.report_idle()
        self.report_envoy()
        self.rows += self.decisions

    def wants(self, *names):
        return not self.wanted or any(word in name for word in self.wanted for name in names)

    def load_rows(self):
        extra = {("default", 10): [MEMORY_START, MEMORY_LOAD, *self.chunk_names(), LATENCY, ALONE,
                                   SUSTAINED]}
        for profile, endpoints in (("default", 10), ("default", 100), ("eight scorers", 10)):
            rows = [row for row in CPU_ROWS if (row.profile, row.endpoints) == (profile, endpoints)
                    and self.wants(row.name, *([SUSTAINED] if row.kilobytes == 128 else []))]
            others = [name for name in extra.get((profile, endpoints), []) if self.wants(name)]
            if rows or others:
                self.load_scenario(profile, endpoints, rows, others)

    def chunk_names(self):
        names = (CHUNK, CHUNK_FAST, CHUNK_MANY, RESPONSE)
        return [name.format(self.gauge.chunks) for name in names]

    def load_scenario(self, profile, endpoints, rows, others):
        engines = self.engines(endpoints)
        order = list(reversed(self.programs))  # upstream finds the rate that both are given
        for number in range(self.gauge.rounds):
            for who in order:
                progress(f"{profile} profile, {endpoints} endpoints: {who}, "
                         f"round {number + 1} of {self.gauge.rounds}")
                picker = self.start(who, profile, engines.ports)
                if MEMORY_START in others:
                    self.add(MEMORY_START, who, picker.resident_mib())
                for row in rows:
                    run = self.load(row.name, who, picker, self.flags(row.kilobytes, row.streams))
                    self.add(row.name, who, self.cpu_ms(run, picker))
                    self.notes[row.name, who] = f"{self.rate(run):.0f}"
                self.other_loads(who, picker, others)
                if MEMORY_LOAD in others:
                    self.add(MEMORY_LOAD, who, picker.resident_mib())
                self.stand.end(picker)
            order.append(order.pop(0))
        self.stand.end(engines)

    def other_loads(self, who, picker, names):
        chunk, fast, many, response = self.chunk_names()
        if {chunk, fast, many, response} & set(names):
            flags = ["--concurrency", 16, "--prompt-bytes", KB]
            count = ["--requests", 16 if self.gauge.quick else 48]
            chunks = [*count, "--stream", "--response-chunks", self.gauge.chunks]
            bodies = self.load(chunk, who, picker, [*flags, *chunks, "--chunk-interval", "2ms",
                                                    "--chunk-window", self.gauge.chunks])
            echoed = self.load(fast, who, picker, [*flags, *chunks])
            echoed_many = self.load(many, who, picker, [
                "--concurrency", 64, "--prompt-bytes", KB, "--requests", 64, *chunks[2:]])
            for name, run in ((chunk, bodies), (fast, echoed), (many, echoed_many)):
                self.add(name, who, run["processes"][picker.name]["cpu_us_per_chunk"])
            timed = ["--duration", f"{self.gauge.seconds}s", "--warmup", f"{self.gauge.warm_up}s"]
            request = self.load(response, who, picker, [*flags, *timed, "--response", "none"])
            headers = self.load(response, who, picker, [*flags, *timed, "--stream", "--response",
                                                        "headers"])
            request_ms = self.cpu_ms(request, picker)
            self.add(response, who, 1000 * (self.cpu_ms(bodies, picker) - request_ms))
            self.add(response, who + ", not sent",
                     1000 * (self.cpu_ms(headers, picker) - request_ms))
        if LATENCY in names and self.upstream_rate(who, picker):
            run = self.latency(LATENCY, who, picker, self.upstream_rate(who, picker))
            self.add(LATENCY, who, self.p99_us(run))
        if ALONE in names and who == "ours":
            run = self.latency(ALONE, who, picker, 1000)
            self.add(ALONE, who, self.p99_us(run))
            self.notes[ALONE, who] = self.percentiles(run)

    def upstream_rate(self, who, picker):
        """The highest rate of 16 KB that upstream sustains: the generator keeps its schedule, and
        one request in a hundred waits for longer than SUSTAINED_P99_US."""
        if "rate" in self.recorded.get(LATENCY, {}):
            return self.recorded[LATENCY]["rate"]
        if (LATENCY, "rate") in self.notes:
            return self.notes[LATENCY, "rate"]
        if who != "upstream":
            return None
        closed = self.load(LATENCY, who, picker, self.flags(16, 16))
        rate = 50 * round(self.rate(closed) * 0.9 / 50)
        while rate > 50:
            run = self.latency(LATENCY, who, picker, rate)
            if not run["warnings"] and self.p99_us(run) < SUSTAINED_P99_US:
                break
            rate -= max(50, 50 * round(rate * 0.1 / 50))
        self.notes[LATENCY, "rate"] = rate
        return rate

    def report_load(self):
        chunk, fast, many, response = self.chunk_names()
        for row in CPU_ROWS:
            self.times_row(row.name, "ms", row.times_less,
                           self.pair_note(row.name, "{} against {} requests/s"))
        name = "CPU per request, 128 KB, 16 streams"
        if self.wants(SUSTAINED) and name in self.figures:
            ours = CORES * 1000 / self.median(name, "ours")
            upstream = self.median(name, "upstream")
            theirs = CORES * 1000 / upstream if upstream else None
            self.rows.append(Row(SUSTAINED, "/s", ours, theirs, ours / theirs if theirs else None,
                                 ">= 20 x", ours >= 20 * theirs if theirs else None,
                                 f"computed: {CORES} cores / CPU per request"))
        for name in (chunk, fast, many):
            self.times_row(name, "us", 10)
        if response in self.figures and self.wants(response):
            ours = self.median(response, "ours, not sent")
            theirs = self.median(response, "upstream")
            self.rows.append(Row(response, "us", ours, theirs, theirs / max(ours, 0.1)
                                 if theirs else None, ">= 100 x",
                                 theirs >= 100 * ours if theirs else None,
                                 self.response_note(response)))
        rate = self.notes.get((LATENCY, "rate")) or self.recorded.get(LATENCY, {}).get("rate")
        self.times_row(LATENCY, "us", 20, f"{rate} requests/s")
        if self.wants(ALONE) and ALONE in self.figures:
            p99 = self.median(ALONE, "ours")
            self.rows.append(Row(ALONE, "us", p99, target="< 500 us", good=p99 < 500,
                                 note=self.notes[ALONE, "ours"]))
        if self.wants(MEMORY_START) and MEMORY_START in self.figures:
            mib, theirs = (self.median(MEMORY_START, who) for who in ("ours", "upstream"))
            self.rows.append(Row(MEMORY_START, "MiB", mib, theirs, theirs / mib if theirs else None,
                                 "< 20 MB", mib * 2**20 < 20e6))
        self.times_row(MEMORY_LOAD, "MiB", 5)

    def response_note(self, response):
        parts = [f"{who} {self.median(response, key):.0f} us"
                 for who, key in (("ours with bodies", "ours"),
                                  ("upstream without", "upstream, not sent"))
                 if self.median(response, key) is not None]
        return "; ".join(parts)

    def idle_rows(self):
        for count in self.gauge.idle_endpoints:
            name = IDLE.format(count)
            if not self.wants(name):
                continue
            probes = Probes(self.page.read_text())
            engines = self.engines(count - Probes.COUNT)
            for who in self.programs:
                self.idle(name, who, count, engines, probes)
            self.stand.end(engines)
            probes.stop()

    def report_idle(self):
        for name in (IDLE.format(count) for count in self.gauge.idle_endpoints):
            if "ours" not in self.figures.get(name, {}):
                continue
            shares = [self.median(name, who + ", on time") for who in ("ours", "upstream")]
            self.times_row(name, "us", 20, "on time: " + " against ".join(
                f"{100 * share:.1f} %" for share in shares if share is not None),
                           shares[0] >= 0.99)

    def idle(self, name, who, count, engines, probes):
        progress(f"{name}: {who}")
        picker = self.start(who, "default", [*engines.ports, *probes.ports])
        time.sleep(1)
        with self.stand.quiet_machine():
            scrapes, cpu, begin = probes.scrapes, picker.cpu_seconds(), time.monotonic()
            time.sleep(self.gauge.idle_seconds)
            scrapes = (probes.scrapes - scrapes) * count / Probes.COUNT
            cpu, elapsed = picker.cpu_seconds() - cpu, time.monotonic() - begin
        self.stand.end(picker)
        if scrapes == 0:
            raise Failed(f"{who} scraped nothing")
        self.measurements.append({"row": name, "contestant": who, "cpu_s": cpu, "scrapes": scrapes,
                                  "elapsed_s": elapsed})
        self.add(name, who, 1e6 * cpu / scrapes)
        self.add(name, who + ", on time", scrapes / (count * elapsed / SCRAPE_SECONDS))

    # --- behind Envoy -------------------------------------------------------------------------

    def envoy_rows(self):
        names = [ENVOY_CPU.format(1), ENVOY_CPU.format(128), ENVOY_ADDED,
                 ENVOY_NONE.format(100)]
        if not self.wants(*names):
            return
        if not self.envoy or not pathlib.Path(self.envoy).exists():
            progress("behind Envoy: left out, there is no Envoy")
            return
        engines = self.stand.simulate(4, ["--profile", "instant", "--max-model-len", 4 * 131072])
        engines.ports = [int(url.rpartition(":")[2]) for url in engines.urls]
        for number in range(self.gauge.rounds):
            progress(f"behind Envoy: round {number + 1} of {self.gauge.rounds}")
            for who in self.programs:
                picker = self.start(who, "default", engines.ports)
                self.envoy_loads(who, engines, picker, names)
                self.stand.end(picker)
            gateway = self.stand.gateway(engines.urls)
            self.path_loads("gateway", gateway, [gateway], names[:3])
            self.stand.end(gateway)
            self.path_loads("direct", engines, [], [ENVOY_ADDED])
        self.stand.end(engines)

    def report_envoy(self):
        for name in (ENVOY_CPU.format(1), ENVOY_CPU.format(128), ENVOY_NONE.format(100)):
            self.plain_row(name, "ms", self.envoy_note(name))
        if "gateway" in self.figures.get(ENVOY_ADDED, {}):
            self.plain_row(ENVOY_ADDED, "us", f"gateway {self.median(ENVOY_ADDED, 'gateway'):.0f} "
                           f"us; direct {self.median('direct', 'direct'):.0f} us")

    def envoy_loads(self, who, engines, picker, names):
        with self.running(self.stand.envoy(self.envoy, picker)) as envoy:
            self.path_loads(who, envoy, [envoy, picker], names[:3])
        if self.wants(names[3]):
            with self.running(self.stand.envoy(self.envoy, picker, "NONE")) as envoy:
                run = self.stand.load(envoy, ["--concurrency", 16, "--stream", "--output-tokens",
                                              100, *self.timed()], [envoy, picker])
                self.add_path(names[3], who, run, [envoy, picker])

    def path_loads(self, who, door, processes, names):
        for kilobytes, name in ((1, ENVOY_CPU.format(1)), (128, ENVOY_CPU.format(128))):
            if name in names and self.wants(name):
                run = self.stand.load(door, ["--concurrency", 16, "--prompt-bytes", kilobytes * KB,
                                             *self.timed()], processes)
                self.add_path(name, who, run, processes)
        if self.wants(ENVOY_ADDED):
            run = self.stand.load(door, ["--concurrency", 1, "--prompt-bytes", KB, *self.timed()],
                                  processes)
            self.add("direct" if who == "direct" else ENVOY_ADDED + " (absolute)", who,
                     run["successes"]["latency"]["request_latency"]["median"] * 1e6)
            if who == "direct":
                self.subtract_direct()

    def subtract_direct(self):
        direct = self.figures["direct"]["direct"][-1]
        for who, of in self.figures.get(ENVOY_ADDED + " (absolute)", {}).items():
            self.add(ENVOY_ADDED, who, of[-1] - direct)

    def add_path(self, name, who, run, processes):
        costs = [run["processes"][process.name]["cpu_ms_per_request"] for process in processes]
        self.measurements.append({"row": name, "contestant": who, "report": run})
        self.add(name, who, sum(costs))
        if len(costs) == 2:
            self.add(name, who + ", picker", costs[1])
        latency = run["successes"]["latency"]["request_latency"]
        self.add(name, who + ", p50", latency["median"] * 1e3)
        self.add(name, who + ", p99", latency["p99"] * 1e3)

    def envoy_note(self, name):
        parts = []
        for who in ("ours", "upstream", "gateway"):
            total = self.median(name, who)
            if total is None:
                continue
            picker = self.median(name, who + ", picker")
            text = f"{who} {total:.3f} ms alone" if picker is None else (
                f"{who}: picker {picker:.3f}, Envoy {total - picker:.3f}")
            parts.append(text + f", p50/p99 {self.median(name, who + ', p50'):.1f}/"
                         f"{self.median(name, who + ', p99'):.1f} ms")
        return "; ".join(parts)

    # --- one decision -------------------------------------------------------------------------

    def decision_rows(self):
        counts = (10, 100, 1000, 10000)
        names = {count: DECISION.format(f"{count:,}") for count in counts}
        if not self.wants(*names.values()):
            return
        program = ROOT / "build/release/bench/decision_bench"
        if not program.exists():
            progress("one decision: left out, build/release/bench/decision_bench is not built")
            return
        with self.stand.quiet_machine():
            done = subprocess.run([program, "--benchmark_format=json",
                                   "--benchmark_filter=BM_Decision/"], capture_output=True,
                                  text=True)
        if done.returncode != 0:
            raise Failed(f"decision_bench: {done.stderr[-2000:]}")
        for each in json.loads(done.stdout)["benchmarks"]:
            count = int(each["name"].split("/")[1])
            us = each["real_time"] * {"ns": 1e-3, "us": 1, "ms": 1e3}[each["time_unit"]]
            if self.wants(names[count]):
                held_to = count == 1000
                self.decisions.append(Row(names[count], "us", us,
                                          good=us < 10 if held_to else None,
                                          target="< 10 us" if held_to else "",
                                          note="1 KB prompt, prefix match included"))

    # --- measuring ----------------------------------------------------------------------------

    def engines(self, count):
        """Simulated servers that are only scraped."""
        engines = self.stand.simulate(count, ["--profile", "instant", "--metrics-file", self.page])
        engines.ports = [int(url.rpartition(":")[2]) for url in engines.urls]
        return engines

    @contextlib.contextmanager
    def running(self, server):
        yield server
        self.stand.end(server)

    def start(self, who, profile, ports):
        endpoints = self.stand.folder / f"endpoints-{len(ports)}.yaml"
        endpoints.write_text(endpoints_yaml(ports))
        picker = self.stand.picker(who, self.programs[who], picker_config(profile, endpoints))
        deadline = time.monotonic() + 20
        while True:  # until endpoints are known
            try:
                self.stand.ext_proc_load(picker, ["--requests", 1, "--timeout", "5s"])
                return picker
            except Failed:
                if time.monotonic() > deadline or picker.ended():
                    raise
                time.sleep(0.2)

    def flags(self, kilobytes, streams):
        return ["--concurrency", streams, "--prompt-bytes", kilobytes * KB, *self.timed()]

    def timed(self):
        return ["--duration", f"{self.gauge.seconds}s", "--warmup", f"{self.gauge.warm_up}s"]

    def load(self, row, who, picker, flags):
        run = self.stand.ext_proc_load(picker, flags)
        self.measurements.append({"row": row, "contestant": who, "report": run})
        return run

    def latency(self, row, who, picker, rate):
        return self.load(row, who, picker, ["--rate", rate, "--prompt-bytes", 16 * KB,
                                            *self.timed()])

    def cpu_ms(self, run, picker):
        return run["processes"][picker.name]["cpu_ms_per_request"]

    def rate(self, run):
        return run["successes"]["throughput"]["requests_per_sec"]

    def p99_us(self, run):
        return run["successes"]["latency"]["decision"]["p99"] * 1e6

    def percentiles(self, run):
        decision = run["successes"]["latency"]["decision"]
        return f"p50 {decision['median'] * 1e6:.0f} us, p99.9 {decision['p99.9'] * 1e6:.0f} us"

    # --- from figures to rows -----------------------------------------------------------------

    def add(self, row, who, value):
        self.figures.setdefault(row, {}).setdefault(who, []).append(value)

    def median(self, row, who):
        """None when neither measured nor recorded."""
        values = self.figures.get(row, {}).get(who)
        if values:
            return statistics.median(values)
        return self.recorded.get(row, {}).get(who)

    def times_row(self, name, unit, times_less, note="", also=True):
        if not self.wants(name) or "ours" not in self.figures.get(name, {}):
            return
        ours, theirs = self.median(name, "ours"), self.median(name, "upstream")
        ratio = theirs / ours if theirs else None
        self.rows.append(Row(name, unit, ours, theirs, ratio, f">= {times_less} x",
                             ratio and also and ratio >= times_less, note))

    def plain_row(self, name, unit, note):
        if self.wants(name) and "ours" in self.figures.get(name, {}):
            ours, theirs = self.median(name, "ours"), self.median(name, "upstream")
            self.rows.append(Row(name, unit, ours, theirs, theirs / ours if theirs else None,
                                 good=None, note=note))

    def pair_note(self, name, words):
        rates = [self.notes.get((name, who)) or self.recorded.get(name, {}).get("rate")
                 for who in ("ours", "upstream")]
        return words.format(*rates) if all(rates) else ""

    def record(self, about):
        """What `upstream` was measured to be, for machines that cannot run it."""
        figures = {}
        for row, by in self.figures.items():
            of = {who: round(statistics.median(values), 4) for who, values in by.items()
                  if who.startswith("upstream")}
            if of:
                figures[row] = of
        for (row, who), note in self.notes.items():
            if who == "upstream":
                figures[row]["rate"] = note
        if (LATENCY, "rate") in self.notes:
            figures[LATENCY]["rate"] = self.notes[LATENCY, "rate"]
        RECORDED.parent.mkdir(exist_ok=True)
        before = json.loads(RECORDED.read_text())["figures"] if RECORDED.exists() else {}
        RECORDED.write_text(json.dumps({
            "program": "llm-d-router epp at ebab6879 (v0.10.0 and a few days)",
            "machine": about["cpu"], "kernel": about["kernel"], "date": about["date"],
            "figures": before | figures}, indent=1) + "\n")


def about_line(about, bench):
    line = f"{about['cpu']}, Linux {about['kernel']}, llmd at {about['commit']}, {about['date']}"
    if "upstream" in bench.programs:
        return line + ", upstream's epp beside it in the same run."
    if not bench.recorded:
        return line + "; upstream's epp neither given nor recorded."
    recorded = json.loads(RECORDED.read_text())
    return (line + f"; upstream's column as recorded on {recorded['date']} "
            f"({recorded['machine']}, Linux {recorded['kernel']}).")


def main():
    parser = argparse.ArgumentParser(prog="bench/epp.sh")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--row", action="append", default=[])
    parser.add_argument("--json", dest="json_path")
    parser.add_argument("--markdown", dest="markdown_path")
    parser.add_argument("--lock")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    begin = time.monotonic()
    about = machine()
    folder = os.environ.get("LLMD_REFERENCE_DIR")
    reference = pathlib.Path(folder) / "epp" if folder else None
    if reference and not reference.exists():
        print(f"epp.sh: LLMD_REFERENCE_DIR={folder} holds no epp", file=sys.stderr)
        raise SystemExit(1)
    with Stand(arguments.lock) as stand:
        bench = EppBench(stand, Gauge(arguments.quick, arguments.rounds), arguments.row, reference,
                         os.environ.get("ENVOY"))
        failed = False
        try:
            bench.run()
        except (Failed, AssertionError) as error:
            print(f"epp.sh: {error}", file=sys.stderr)
            failed = True
            bench.finish()
        if arguments.record:
            bench.record(about)
    upstream = "upstream" if reference else "upstream (recorded)" if bench.recorded else "upstream"
    table = markdown(bench.rows, about_line(about, bench), "llmd", upstream)
    print(table, end="")
    if arguments.quick:
        print("\nA quick run: these figures are noise.")
    if arguments.markdown_path:
        pathlib.Path(arguments.markdown_path).write_text(table)
    if arguments.json_path:
        pathlib.Path(arguments.json_path).write_text(json.dumps(
            {"machine": about, "quick": arguments.quick,
             "rows": [dataclasses.asdict(row) for row in bench.rows],
             "measurements": bench.measurements}, indent=1))
    progress(f"done in {time.monotonic() - begin:.0f} s")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
