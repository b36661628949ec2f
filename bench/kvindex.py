"""Prints the KV block index's table of docs/performance.md: llmd beside upstream and Dynamo.

Ours are the Google Benchmarks of the room prefix, run one after the other. The others index one
million blocks of the same workload (bench/reference/kvindex_upstream/main.go, kvindex_dynamo.py);
where they are not given, their figures are what was recorded in bench/recorded/kvindex_others.json,
and the table says so.
"""

import argparse
import contextlib
import fcntl
import json
import os
import pathlib
import subprocess
import sys

from stand import ROOT, Failed, progress
from table import Row, machine

BENCHES = ROOT / "build/release/bench"
RECORDED = ROOT / "bench/recorded/kvindex_others.json"
REFERENCES = {
    "upstream": lambda: driver(os.environ.get("LLMD_REFERENCE_DIR"), "kvindex-bench"),
    "dynamo": lambda: python(os.environ.get("LLMD_DYNAMO_PYTHON"),
                             ROOT / "bench/reference/kvindex_dynamo.py"),
}
LATENCIES = {0: "idle", 1_000_000: "1 M operations/s beside", -1: "ingest at full speed beside"}


def driver(folder, name):
    return [str(pathlib.Path(folder) / name)] if folder else None


def python(program, script):
    return [program, str(script)] if program else None


@contextlib.contextmanager
def quiet(lock):
    if not lock:
        yield
        return
    with open(lock, "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def output(command, **more):
    done = subprocess.run(command, capture_output=True, text=True, **more)
    if done.returncode != 0:
        raise Failed(f"{command[0]}: {done.stderr[-2000:]}")
    return done.stdout


def benchmark(name, options, pattern=".*"):
    """The results of one benchmark program, or none where it is not built."""
    program = BENCHES / name
    if not program.exists():
        progress(f"{name}: left out, it is not built")
        return []
    progress(name)
    environment = {**os.environ, "LLMD_KVINDEX_PAIRS": str(options.pairs)}
    with quiet(options.lock):
        text = output([str(program), "--benchmark_format=json", f"--benchmark_filter={pattern}"],
                      env=environment)
    return json.loads(text)["benchmarks"]


def others(options):
    recorded = json.loads(RECORDED.read_text())["figures"] if RECORDED.exists() else {}
    figures, measured = {}, set()
    for who, command in REFERENCES.items():
        command = command()
        if command and pathlib.Path(command[0]).exists():
            progress(who)
            with quiet(options.lock):
                figures[who] = json.loads(output(command))
            measured.add(who)
        elif who in recorded:
            figures[who] = recorded[who]
    if options.record and measured:
        RECORDED.parent.mkdir(exist_ok=True)
        RECORDED.write_text(json.dumps(machine() | {"figures": figures}, indent=1) + "\n")
    return figures, measured


class Table:
    def __init__(self, figures):
        self.figures = figures
        self.rows = []  # (Row with upstream as `other`, Dynamo's figure)

    def add(self, name, unit, ours, target="", good=None, note="", key=None, scale=1.0):
        """`key`: path to the same figure of the others, to be multiplied by `scale`."""
        values = {}
        for who, of in self.figures.items():
            for step in (key or "").split("/") if key else []:
                of = of.get(step) if isinstance(of, dict) else None
            values[who] = of * scale if key and of is not None else None
        self.rows.append((Row(name, unit, ours, values.get("upstream"), None, target, good, note),
                          values.get("dynamo")))

    def markdown(self, about):
        lines = [about, "", "| | llmd | upstream | Dynamo | target | | |",
                 "|---|---|---|---|---|---|---|"]
        for row, dynamo in self.rows:
            name, ours, upstream, _, target, verdict, note = row.cells()
            theirs = Row("", row.unit, dynamo).cells()[1]
            lines.append("| " + " | ".join([name, ours, upstream, theirs, target, verdict, note])
                         + " |")
        return "\n".join(lines) + "\n"


def apply_rows(table, feed, index):
    for each in feed:
        if each["name"].startswith("BM_Apply/"):
            kind = each["name"].split("/")[1].replace("_", " ")
            least = 3 if "hashing" in kind else 10
            rate = each["items_per_second"] / 1e6
            table.add(f"apply from frames, {kind}", "M/s", rate, f">= {least} M/s", rate >= least,
                      key="apply_ops_per_s", scale=1e-6)
    for each in index:
        if each["name"].startswith("apply/"):
            blocks, copies = map(int, each["name"].split("/")[1:3])
            table.add(f"apply from keys, {blocks:,} blocks, {copies:,} holders each", "M/s",
                      each["items_per_second"] / 1e6)


def match_rows(table, index):
    for each in index:
        if not each["name"].startswith("match/"):
            continue
        copies, rate = map(int, each["name"].split("/")[2:4])
        name = f"lookup of 600 blocks, {copies:,} holders, {LATENCIES[rate]}"
        key = {1: "lookup_one_holder/{}_us", 9: "lookup_nine_holders/{}_us"}.get(copies)
        note = "" if rate == 0 else f"{each['writes_per_s'] / 1e6:.2f} M operations/s"
        if each["read_failures"]:
            note += f"; {each['read_failures']:.0f} cut short"
        p50, p99 = each["p50_us"], each["p99_us"]
        held_50, held_99 = rate == 0, rate in (0, 1_000_000)
        table.add(name + ", p50", "us", p50, "< 5 us" if held_50 else "",
                  p50 < 5 if held_50 else None, note, key and rate == 0 and key.format("p50"))
        table.add(name + ", p99", "us", p99, "< 20 us" if held_99 else "",
                  p99 < 20 if held_99 else None, f"p99.9 {each['p999_us']:.1f} us",
                  key and rate == 0 and key.format("p99"))


def hash_and_match_rows(table, index):
    for each in index:
        if each["name"].startswith("hash_and_match/"):
            copies = int(each["name"].split("/")[2])
            table.add(f"the same with our hash of its 9,600 tokens, {copies:,} holders, p50", "us",
                      each["p50_us"], note=f"p99 {each['p99_us']:.1f} us")


def replay_rows(table, replay):
    for each in replay:
        servers, tokens = map(int, each["name"].split("/")[1:3])
        table.add(f"Mooncake's conversations, {servers:,} holders, blocks of {tokens}: lookup p50",
                  "us", each["p50_us"], note=(
                      f"p99 {each['p99_us']:.1f} us; {each['hit_rate']:.1%} hit; "
                      f"{each['pairs'] / 1e6:.2f} M pairs, {each['blocks'] / 1e6:.2f} M blocks of "
                      f"{each['bytes_per_block']:.0f} B; {each['operations_per_s'] / 1e6:.1f} M "
                      "operations/s"))


def memory_rows(table, index):
    by_copies = {int(each["name"].split("/")[2]): each for each in index
                 if each["name"].startswith("apply/")}
    if not {1, 9} <= by_copies.keys():
        return
    one, nine = by_copies[1], by_copies[9]
    unique = one["bytes"] / one["blocks"]
    # What even an empty index takes belongs to no holder.
    of_first = (one["bytes"] - one["bytes_empty"]) / one["blocks"]
    extra = ((nine["bytes"] - nine["bytes_empty"] - of_first * nine["blocks"])
             / (nine["pairs"] - nine["blocks"]))
    table.add("bytes per block, one holder", "B", unique, "<= 48 B", unique <= 48,
              key="bytes_per_block")
    table.add("bytes per further holder of a block", "B", extra, "<= 20 B", extra <= 20)


def hash_rows(table, hashing):
    for each in hashing:
        if each["name"].startswith("BM_Extend/") and "/10000/16" in each["name"]:
            kind = each["name"].split("/")[1].replace("_", "-")
            us = each["real_time"] * {"ns": 1e-3, "us": 1, "ms": 1e3}[each["time_unit"]]
            table.add(f"hash of 10,000 tokens, {kind}", "us", us, "< 6 us" if kind == "own" else "",
                      us < 6 if kind == "own" else None)


def main():
    parser = argparse.ArgumentParser(prog="bench/kvindex.sh", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--pairs", type=int, default=10_000_000)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--markdown", type=pathlib.Path)
    parser.add_argument("--lock", type=pathlib.Path)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.pairs //= 10
    try:
        index = benchmark("kv_index_bench", options)
        feed = benchmark("kv_feed_bench", options) if not options.quick else []
        hashing = benchmark("token_chain_bench", options)
        has_trace = "LLMD_MOONCAKE_TRACE" in os.environ
        replay = benchmark("kv_replay_bench", options) if has_trace else []
        figures, measured = others(options)
    except Failed as failed:
        print(failed, file=sys.stderr)
        return 1
    table = Table(figures)
    apply_rows(table, feed, index)
    match_rows(table, index)
    hash_and_match_rows(table, index)
    replay_rows(table, replay)
    memory_rows(table, index)
    hash_rows(table, hashing)
    where = machine()
    recorded = sorted(set(figures) - measured)
    about = (f"{where['cpu']}, kernel {where['kernel']}, {where['date']}, commit "
             f"{where['commit']}; {options.pairs:,} pairs of block and holder"
             + (f"; recorded: {', '.join(recorded)}" if recorded else "") + ".")
    text = table.markdown(about)
    print(text)
    if options.markdown:
        options.markdown.write_text(text)
    if options.json:
        options.json.write_text(json.dumps({
            "machine": where, "pairs": options.pairs, "figures": figures,
            "rows": [vars(row) | {"dynamo": dynamo} for row, dynamo in table.rows],
            "benchmarks": index + feed + hashing + replay}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
