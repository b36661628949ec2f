"""What it is worth to know who holds what: a ladder of rates over groups with a common prefix.

    bench/prefix-ladder.sh [--seeds 1,2,3] [--seconds N] [--jobs N] [--json FILE] [--markdown FILE]

The published experiment (8 pods of 2 H100 with Qwen3-32B, 150 groups x 5 users x 6,000 + 1,200 ->
1,000 tokens, working set 73 % of the fleet's KV memory, 3 to 60 requests a second), scaled to one
machine: four simulated servers of the same hardware, prompts and answers a tenth as long, the same
share of memory, and so ten times the rate for each server, up to 300 a second. Ways to choose:

    precise      by the servers' own KV events, weights 3:2:2
    approximate  by what was sent where, 1:1:1, as the experiment had it: each server remembered for
                 1.63 times its memory, and no more than the first 57 % of a prompt looked at
    tuned        the same with llmd's defaults: memory as the servers say, whole prompts, 3:2:2
    load         queue and KV use alone
    random

Figures are means of the upper rates; hits are the servers' own counts of cached prompt
tokens, the possible ones those of a single cache without limit. One seed takes about five minutes
and two cores; --jobs runs several side by side where there are cores.
"""

import argparse
import concurrent.futures
import json
import pathlib
import statistics
import threading

from stand import MetricsPage, Stand, free_ports, progress

SERVERS = 4
BLOCK_TOKENS = 16
GROUPS, PROMPTS = 150, 5
SYSTEM_TOKENS, QUESTION_TOKENS, OUTPUT_TOKENS = 600, 120, 100
WORKING_SET_TOKENS = GROUPS * (SYSTEM_TOKENS + PROMPTS * (QUESTION_TOKENS + OUTPUT_TOKENS))
KV_BLOCKS = round(WORKING_SET_TOKENS / 0.73 / SERVERS / BLOCK_TOKENS)
RATES = (100, 200, 300)
COUNTED = RATES[1:]
LENGTHS = ["--max-model-len", 4096, "--max-num-seqs", 256]
HARDWARE = ["--profile", "qwen3-32b-h100-tp2"]
NO_TIME = ["--profile", "instant"]
APPROXIMATE_BLOCK_TOKENS = 64
REMEMBERED_BLOCKS = round(31_250 * 16 / 307_328 * KV_BLOCKS * BLOCK_TOKENS /
                          APPROXIMATE_BLOCK_TOKENS)
LOOKED_AT_TOKENS = round(256 * 16 / 7200 * (SYSTEM_TOKENS + QUESTION_TOKENS))

PROFILE = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
%(plugins)s
schedulingProfiles:
- name: default
  plugins:
%(profile)s
"""
LOAD = ("queue-scorer", "kv-cache-utilization-scorer")
PRECISE = """
- type: token-producer
  parameters: {modelName: %(model)s, vllm: {url: %(url)s}}
- type: precise-prefix-cache-producer
  parameters:
    tokenProcessorConfig: {blockSizeTokens: 16}
    kvEventsConfig: {podDiscoveryConfig: {socketPort: %(events)d, replaySocketPort: %(replay)d}}
    speculativeIndexing: true
- type: prefix-cache-scorer
  parameters: {prefixMatchInfoProducerName: precise-prefix-cache-producer}"""
APPROXIMATE = f"""
- type: approx-prefix-cache-producer
  parameters:
    autoTune: false
    blockSizeTokens: {APPROXIMATE_BLOCK_TOKENS}
    maxPrefixTokensToMatch: {LOOKED_AT_TOKENS}
    lruCapacityPerServer: {REMEMBERED_BLOCKS}
- type: prefix-cache-scorer"""
TUNED = "- type: prefix-cache-scorer"
POLICIES = ("precise", "approximate", "tuned", "load", "random")
MODEL = "sim"
STARTING = threading.Lock()  # free ports stay free until they are used


def profile(plugins, prefix_weight, load_weight):
    lines = [f"  - {{pluginRef: {name}, weight: {load_weight}}}" for name in LOAD]
    if prefix_weight:
        lines.append(f"  - {{pluginRef: prefix-cache-scorer, weight: {prefix_weight}}}")
    plugins = [f"- type: {name}" for name in LOAD] + plugins + ["- type: max-score-picker"]
    return PROFILE % {"plugins": "\n".join(plugins), "profile": "\n".join(lines)}


def config(policy, url, events, replay):
    if policy == "random":
        return PROFILE % {"plugins": "- type: random-picker",
                          "profile": "  - pluginRef: random-picker"}
    if policy == "load":
        return profile([], 0, 1)
    if policy == "approximate":
        return profile([APPROXIMATE.lstrip("\n")], 1, 1)
    if policy == "tuned":
        return profile([TUNED], 3, 2)
    precise = PRECISE.lstrip("\n") % {"model": MODEL, "url": url, "events": events,
                                      "replay": replay}
    return profile([precise], 3, 2)


class Ladder:
    def __init__(self, stand, seconds):
        self.stand = stand
        self.seconds = seconds

    def climb(self, engines, gateway, seed):
        """Reports of the counted rungs; hits are of all."""
        reports = {}
        for rate in RATES:
            reports[rate] = self.stand.load(gateway, [
                "--api", "completions", "--stream", "--rate", rate, "--duration",
                f"{self.seconds}s", "--seed", seed, "--shared-prefix",
                "--num-groups", GROUPS, "--prompts-per-group", PROMPTS,
                "--system-prompt-len", SYSTEM_TOKENS, "--question-len", QUESTION_TOKENS,
                "--output-tokens", OUTPUT_TOKENS])
        pages = [MetricsPage(url + "/metrics") for url in engines.urls]
        hits, queries = (sum(page.sum(f"vllm:prefix_cache_{what}_total") for page in pages)
                         for what in ("hits", "queries"))
        counted = [reports[rate]["successes"] for rate in COUNTED]
        return {
            "output_tokens_per_s": statistics.mean(
                s["throughput"]["output_tokens_per_sec"] for s in counted),
            "ttft_p90_s": statistics.mean(
                s["latency"]["time_to_first_token"]["p90"] for s in counted),
            "hit_rate": hits / queries,
        }

    def engines(self, count, blocks, timing, events, replay):
        return self.stand.simulate(count, [
            "--model", MODEL, "--kv-cache-size", blocks, "--block-size", BLOCK_TOKENS, *LENGTHS,
            "--enable-kvcache", "--zmq-endpoint", f"tcp://*:{events}",
            "--kv-events-replay-endpoint", f"tcp://*:{replay}", *timing])

    def start(self, count, blocks, timing, policy):
        """Simulated servers and a gateway before them."""
        with STARTING:
            ports = free_ports(2 * count)
            events, replay = ports, ports + count
            engines = self.engines(count, blocks, timing, events, replay)
            gateway = self.stand.gateway(engines.urls, [
                "--config-text", config(policy, engines.urls[0], events, replay)])
        return engines, gateway

    def run(self, policy, seed):
        engines, gateway = self.start(SERVERS, KV_BLOCKS, HARDWARE, policy)
        result = self.climb(engines, gateway, seed)
        self.stand.end(gateway)
        self.stand.end(engines)
        return result

    def possible(self, seed):
        """The hit rate of one cache that never evicts."""
        engines, gateway = self.start(1, 10 * WORKING_SET_TOKENS // BLOCK_TOKENS, NO_TIME, "random")
        rate = self.climb(engines, gateway, seed)["hit_rate"]
        self.stand.end(gateway)
        self.stand.end(engines)
        return rate


def climb_all(seed, arguments):
    """What one seed gives, by way to choose."""
    run = {"seed": seed}
    with Stand(arguments.lock) as stand:
        ladder = Ladder(stand, arguments.seconds)
        for policy in POLICIES:
            progress(f"seed {seed}: {policy}")
            run[policy] = ladder.run(policy, seed)
        progress(f"seed {seed}: what is possible")
        run["possible"] = ladder.possible(seed)
    return run


def verdicts(runs):
    """What must hold on every seed, by sentence."""
    def on_all(holds):
        return all(holds(run) for run in runs)

    def better(run, one, other):
        return (run[one]["output_tokens_per_s"] > run[other]["output_tokens_per_s"] and
                run[one]["ttft_p90_s"] < run[other]["ttft_p90_s"])
    return {
        "precise better than approximate": on_all(lambda r: better(r, "precise", "approximate")),
        "approximate better than load": on_all(lambda r: better(r, "approximate", "load")),
        "approximate better than random": on_all(lambda r: better(r, "approximate", "random")),
        "precise hits at least 95 % of the possible": on_all(
            lambda r: r["precise"]["hit_rate"] >= 0.95 * r["possible"]),
    }


def table(runs):
    lines = ["| seed | choice | output tokens/s | TTFT p90 ms | hit rate | of the possible |",
             "|---|---|---|---|---|---|"]
    for run in runs:
        for name in POLICIES:
            row = run[name]
            lines.append(
                f"| {run['seed']} | {name} | {row['output_tokens_per_s']:.0f} | "
                f"{1000 * row['ttft_p90_s']:.0f} | {100 * row['hit_rate']:.1f} % | "
                f"{100 * row['hit_rate'] / run['possible']:.1f} % |")
    lines.append("")
    lines += [f"{'ok' if holds else 'SHORT'}: {sentence}, on every seed"
              for sentence, holds in verdicts(runs).items()]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(prog="bench/prefix-ladder.sh", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1,2,3,4,5")
    parser.add_argument("--seconds", type=int, default=10, help="on each rung of the ladder")
    parser.add_argument("--jobs", type=int, default=1, help="seeds side by side")
    parser.add_argument("--lock", help="file to hold while measuring")
    parser.add_argument("--json", dest="json_path")
    parser.add_argument("--markdown", dest="markdown_path")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        runs = list(pool.map(lambda seed: climb_all(seed, arguments), seeds))
    text = table(runs)
    print(text)
    if arguments.json_path:
        pathlib.Path(arguments.json_path).write_text(json.dumps(runs) + "\n")
    if arguments.markdown_path:
        pathlib.Path(arguments.markdown_path).write_text(text + "\n")


if __name__ == "__main__":
    main()
