"""Prints the table of docs/performance.md: the gateway beside nginx, one row per promise.

Within a round the contestants run one after the other, and every figure is the median of its
rounds, so that a slow minute of the machine hits all alike. Ratios are medians of the rounds'
ratios.
"""

import argparse
import dataclasses
import http.client
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

from stand import Failed, MetricsPage, Stand, progress, scraped_page
from table import Row, machine, markdown

KB = 1024
OUTPUT_TOKENS = 16
SCRAPE_SECONDS = 0.05
# A scrape that starts later than this after its time counts as late: a fifth of the interval.
LATE_SECONDS = "0.01"


class Gauge:
    """What a full run and a quick one differ in."""

    def __init__(self, quick):
        self.rounds = 1 if quick else 5
        self.stream_rounds = 1 if quick else 3
        self.seconds = 0.5 if quick else 3
        self.warm_up = 0.2 if quick else 0.5
        self.stream_chunks = 100 if quick else 1000
        self.scrape_seconds = 1 if quick else 10
        self.endpoints = (10, 50) if quick else (100, 1000)
        self.idle_clients = 100 if quick else 1000


class GatewayBench:
    def __init__(self, stand, gauge, wanted):
        self.stand = stand
        self.gauge = gauge
        self.wanted = wanted
        self.rows = []
        self.measurements = []

    # --- rows ---------------------------------------------------------------------------------

    def run(self):
        self.instant_rows()
        self.stream_rows()
        self.scrape_rows()
        self.idle_row()

    def wants(self, *names):
        return not self.wanted or any(word in name for word in self.wanted for name in names)

    def instant_rows(self):
        names = {"1": "CPU per request, 1 KB, 16 connections",
                 "128": "CPU per request, 128 KB, 16 connections",
                 "512": "CPU per request, 512 KB, 1 connection",
                 "p99": "p99 latency above nginx's, 1 KB, 16 connections",
                 "p50": "added median latency, 1 KB, 1 connection",
                 "wrk": "cross-check with wrk"}
        if not self.wants(*names.values()):
            return
        # 512 KB are 131,072 tokens, as many as the profile's context holds at most.
        engines = self.stand.simulate(4, ["--profile", "instant", "--max-model-len", 4 * 131072])
        contest = self.contest(engines)
        with_direct = dict(contest, direct=engines)
        if self.wants(names["1"], names["p99"]):
            runs = self.compare(names["1"], with_direct, self.flags(1 * KB, 16))
            self.cpu_row(names["1"], runs, 0.85)
            self.p99_row(names["p99"], runs)
        if self.wants(names["128"]):
            runs = self.compare(names["128"], contest, self.flags(128 * KB, 16))
            self.cpu_row(names["128"], runs, 0.95)
        if self.wants(names["512"]):
            runs = self.compare(names["512"], contest, self.flags(512 * KB, 1))
            self.cpu_row(names["512"], runs, 1.2)
        if self.wants(names["p50"]):
            self.p50_row(names["p50"],
                         self.compare(names["p50"], with_direct, self.flags(1 * KB, 1)))
        if self.wants(names["wrk"]):
            self.wrk_note(contest["nginx"])
        for server in (*contest.values(), engines):
            self.stand.end(server)

    def stream_rows(self):
        names = {streams: f"CPU per chunk, {self.gauge.stream_chunks} chunks, {streams} streams"
                 for streams in (16, 64)}
        if not self.wants(*names.values()):
            return
        # Two milliseconds between tokens: chunks arrive one by one, as from an engine, and neither
        # the generator nor the simulated servers are the bottleneck at 64 streams.
        engines = self.stand.simulate(4, ["--model", "sim", "--inter-token-latency", "2ms",
                                          "--max-num-seqs", "64", "--max-model-len", "4096",
                                          "--kv-cache-size", "65536"])
        contest = self.contest(engines)
        for streams, name in names.items():
            if not self.wants(name):
                continue
            flags = ["--concurrency", streams, "--requests", streams * 2, "--stream",
                     "--prompt-tokens", 64, "--output-tokens", self.gauge.stream_chunks]
            runs = self.compare(name, contest, flags, self.gauge.stream_rounds)
            figures = {who: [self.process(run, who)["cpu_us_per_chunk"] for run in of]
                       for who, of in runs.items()}
            self.ratio_row(name, "us", figures, 1.0)
        for server in (*contest.values(), engines):
            self.stand.end(server)

    def scrape_rows(self):
        for count, share_max in zip(self.gauge.endpoints, (0.08, 0.5)):
            name = f"scraping {count} endpoints each {SCRAPE_SECONDS * 1000:.0f} ms, 20 KB pages"
            if self.wants(name):
                self.scrape_row(name, count, share_max)

    def scrape_row(self, name, count, share_max):
        progress(name)
        page = self.stand.folder / "page.txt"
        page.write_text(scraped_page())
        # Many small engines: their memory is not what is measured.
        engines = self.stand.simulate(count, ["--profile", "instant", "--metrics-file", page])
        gateway = self.stand.gateway(engines.urls)
        time.sleep(1)  # connections are made and the first pages read
        window = self.gauge.scrape_seconds
        with self.stand.quiet_machine():
            before = self.scrapes(gateway)
            cpu_begin, begin = gateway.cpu_seconds(), time.monotonic()
            time.sleep(window)
            cpu, elapsed = gateway.cpu_seconds() - cpu_begin, time.monotonic() - begin
            after = self.scrapes(gateway)
        done, failed, late = (b - a for a, b in zip(before, after))
        due = count * elapsed / SCRAPE_SECONDS
        share = cpu / elapsed
        on_time = failed == 0 and late == 0 and done >= 0.98 * due
        self.measurements.append({"row": name, "cpu_s": cpu, "elapsed_s": elapsed, "scrapes": done,
                                  "due": due, "failed": failed, "late": late})
        self.rows.append(Row(name, "% of a core", 100 * share, target=f"<= {100 * share_max:.0f} %",
                             good=share <= share_max and on_time,
                             note=f"{done:.0f} of {due:.0f} due, {late:.0f} late, "
                                  f"{failed:.0f} failed"))
        self.stand.end(gateway)
        self.stand.end(engines)

    def scrapes(self, gateway):
        """(done, failed, late) so far."""
        page = MetricsPage(gateway.metrics_url)
        done = page.sum("llmd_scrapes_total", result="ok")
        failed = page.sum("llmd_scrapes_total") - done
        lateness = "llmd_scrape_lateness_seconds"
        late = page.sum(lateness + "_count") - page.sum(lateness + "_bucket", le=LATE_SECONDS)
        return done, failed, late

    def idle_row(self):
        count = self.gauge.idle_clients
        name = f"resident memory with {count} idle keep-alive clients"
        if not self.wants(name):
            return
        progress(name)
        engines = self.stand.simulate(4, ["--profile", "instant"])
        memory = {}
        for who, server in (("llmd", self.stand.gateway(engines.urls)),
                            ("nginx", self.stand.nginx(engines.urls))):
            clients = [http.client.HTTPConnection(server.url.removeprefix("http://"))
                       for _ in range(count)]
            model = json.load(self.ask(clients[0], "GET", "/v1/models"))["data"][0]["id"]
            body = json.dumps({"model": model, "max_tokens": 4, "prompt": "word " * 200})
            for client in clients:
                self.ask(client, "POST", "/v1/completions", body).read()
            time.sleep(1)
            memory[who] = server.resident_mib()
            for client in clients:
                client.close()
            self.stand.end(server)
        self.stand.end(engines)
        self.measurements.append({"row": name, "resident_mib": memory})
        self.rows.append(Row(name, "MiB", memory["llmd"], memory["nginx"],
                             memory["llmd"] / memory["nginx"], "< 64 MiB", memory["llmd"] < 64))

    def ask(self, client, method, path, body=None):
        client.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        reply = client.getresponse()
        if reply.status != 200:
            raise Failed(f"{method} {path}: status {reply.status}: {reply.read(300)}")
        return reply

    # --- measuring ----------------------------------------------------------------------------

    def contest(self, engines):
        return {"llmd": self.stand.gateway(engines.urls), "nginx": self.stand.nginx(engines.urls)}

    def flags(self, prompt_bytes, connections):
        return ["--concurrency", connections, "--prompt-bytes", prompt_bytes,
                "--output-tokens", OUTPUT_TOKENS, "--duration", f"{self.gauge.seconds}s",
                "--warmup", f"{self.gauge.warm_up}s"]

    def compare(self, row, contest, flags, rounds=None):
        """{contestant: [report per round]}, the contestants taking turns to be first."""
        runs = {who: [] for who in contest}
        order = list(contest)
        rounds = rounds or self.gauge.rounds
        for number in range(rounds):
            progress(f"{row}: round {number + 1} of {rounds}")
            for who in order:
                server = contest[who]
                run = self.stand.load(server, flags, watch=[server])
                run["watched"] = server.name
                runs[who].append(run)
                self.measurements.append({"row": row, "contestant": who, "round": number,
                                          "report": run})
            order.append(order.pop(0))
        return runs

    def process(self, run, who):
        return run["processes"][run["watched"]]

    # --- from runs to rows --------------------------------------------------------------------

    def ratio_row(self, name, unit, figures, ratio_max, note=""):
        ratio = statistics.median(a / b for a, b in zip(figures["llmd"], figures["nginx"]))
        self.rows.append(Row(name, unit, statistics.median(figures["llmd"]),
                             statistics.median(figures["nginx"]), ratio, f"<= {ratio_max:.2f} x",
                             ratio <= ratio_max, note))

    def cpu_row(self, name, runs, ratio_max):
        if self.wants(name):
            figures = {who: [self.process(run, who)["cpu_ms_per_request"] for run in runs[who]]
                       for who in ("llmd", "nginx")}
            rates = {who: statistics.median(run["successes"]["throughput"]["requests_per_sec"]
                                            for run in runs[who]) for who in ("llmd", "nginx")}
            self.ratio_row(name, "ms", figures, ratio_max,
                           f"{rates['llmd']:.0f} against {rates['nginx']:.0f} requests/s")

    def latencies(self, runs, percentile):
        def one(run):
            return run["successes"]["latency"]["request_latency"][percentile] * 1e6
        return {who: [one(run) for run in of] for who, of in runs.items()}

    def p50_row(self, name, runs):
        direct = self.latencies(runs, "median")
        added = {who: [a - b for a, b in zip(direct[who], direct["direct"])]
                 for who in ("llmd", "nginx")}
        medians = {who: statistics.median(of) for who, of in added.items()}
        ratio = medians["llmd"] / medians["nginx"] if medians["nginx"] > 0 else float("inf")
        self.rows.append(Row(name, "us", medians["llmd"], medians["nginx"], ratio, "<= 1.00 x",
                             ratio <= 1.0, f"direct {statistics.median(direct['direct']):.0f} us"))

    def p99_row(self, name, runs):
        if not self.wants(name):
            return
        p99 = {who: statistics.median(of) for who, of in self.latencies(runs, "p99").items()}
        above = statistics.median(
            a - b for a, b in zip(*(self.latencies(runs, "p99")[who] for who in ("llmd", "nginx"))))
        self.rows.append(Row(name, "us", p99["llmd"], p99["nginx"], target="<= nginx + 200 us",
                             good=above <= 200,
                             note=f"{above:+.0f} us; direct {p99['direct']:.0f} us"))

    def wrk_note(self, nginx):
        """The same requests from another generator: nginx's cost must come out alike."""
        if not shutil.which("wrk"):
            progress("cross-check left out: wrk is not installed")
            return
        body = self.stand.folder / "body.json"
        model = self.stand.load(nginx, ["--requests", 1])["config"]["model"]
        body.write_text(json.dumps({"model": model, "max_tokens": OUTPUT_TOKENS, "messages": [
            {"role": "user", "content": "word" * (KB // 4)}]}))
        script = self.stand.folder / "post.lua"
        script.write_text(f'wrk.method = "POST"\n'
                          f'wrk.headers["Content-Type"] = "application/json"\n'
                          f'wrk.body = io.open("{body}"):read("*a")\n')
        with self.stand.quiet_machine():
            begin = nginx.cpu_seconds()
            done = subprocess.run(["wrk", "-t1", "-c16", f"-d{max(1, int(self.gauge.seconds))}s",
                                   "-s", script, nginx.url + "/v1/chat/completions"],
                                  capture_output=True, text=True, check=True)
            cpu_s = nginx.cpu_seconds() - begin
        requests = int(done.stdout.split(" requests in ")[0].split()[-1])
        ours = self.stand.load(nginx, self.flags(1 * KB, 16), watch=[nginx])
        wrk_ms = cpu_s * 1000 / requests
        ours_ms = ours["processes"][nginx.name]["cpu_ms_per_request"]
        self.measurements.append({"row": "wrk", "wrk_cpu_ms": wrk_ms, "bench_cpu_ms": ours_ms})
        progress(f"cross-check at nginx: {wrk_ms:.4f} ms per request under wrk, "
                 f"{ours_ms:.4f} ms under llmd bench")


def main():
    parser = argparse.ArgumentParser(prog="bench/gateway.sh")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--row", action="append", default=[])
    parser.add_argument("--json", dest="json_path")
    parser.add_argument("--markdown", dest="markdown_path")
    parser.add_argument("--lock")
    arguments = parser.parse_args()
    begin = time.monotonic()
    nginx = subprocess.run(["nginx", "-v"], capture_output=True, text=True).stderr.strip()
    about = machine() | {"nginx": nginx.rpartition("/")[2]}
    with Stand(arguments.lock) as stand:
        bench = GatewayBench(stand, Gauge(arguments.quick), arguments.row)
        try:
            bench.run()
        except (Failed, AssertionError) as error:
            print(f"gateway.sh: {error}", file=sys.stderr)
            raise SystemExit(1) from None
    line = (f"{about['cpu']}, Linux {about['kernel']}, nginx {about['nginx']}, "
            f"llmd at {about['commit']}, {about['date']}.")
    table = markdown(bench.rows, line, "llmd", "nginx")
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


if __name__ == "__main__":
    main()
