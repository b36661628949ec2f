"""What it is worth to know who holds what: a ladder of rates over groups with a common prefix.

    bench/prefix-ladder.sh [--seeds N] [--seconds N] [--json FILE] [--markdown FILE]

The published experiment (8 pods of 2 H100, 150 groups x 5 users x 6,000 + 1,200 -> 1,000 tokens,
working set 73 % of the fleet's KV memory, 3 to 60 requests a second), scaled to one machine: four
simulated servers, prompts and answers a tenth as long, tokens ten times as slow to compute, the
same share of memory. Four ways to choose: by the servers' own KV events (precise), by what was sent
where (approximate), by load alone, at random. Figures are those of the ladder's upper half; hits
are the servers' own counts of cached prompt tokens, the possible ones those of a single cache
without limit.
"""

import argparse
import json
import pathlib
import statistics

from stand import MetricsPage, Stand, free_ports, progress

SERVERS = 4
BLOCK_TOKENS = 16
GROUPS, PROMPTS = 150, 5
SYSTEM_TOKENS, QUESTION_TOKENS, OUTPUT_TOKENS = 600, 120, 100
WORKING_SET_TOKENS = GROUPS * (SYSTEM_TOKENS + PROMPTS * (QUESTION_TOKENS + OUTPUT_TOKENS))
KV_BLOCKS = round(WORKING_SET_TOKENS / 0.73 / SERVERS / BLOCK_TOKENS)
RATES = (20, 40, 60)
COUNTED = RATES[1:]
TIMING = ["--prefill-time-per-token", "100us", "--inter-token-latency", "10ms"]

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
LOAD = (("queue-scorer", 2), ("kv-cache-utilization-scorer", 2))
PRECISE = """
- type: token-producer
  parameters: {modelName: sim, vllm: {url: %(url)s}}
- type: precise-prefix-cache-producer
  parameters:
    tokenProcessorConfig: {blockSizeTokens: 16}
    kvEventsConfig: {podDiscoveryConfig: {socketPort: %(events)d, replaySocketPort: %(replay)d}}
    speculativeIndexing: true
- type: prefix-cache-scorer
  parameters: {prefixMatchInfoProducerName: precise-prefix-cache-producer}"""
APPROXIMATE = "- type: prefix-cache-scorer"


def profile(plugins, scorers):
    lines = [f"  - {{pluginRef: {name}, weight: {weight}}}" for name, weight in scorers]
    plugins = [f"- type: {name}" for name, _ in LOAD] + plugins + ["- type: max-score-picker"]
    if not scorers:
        plugins, lines = ["- type: random-picker"], ["  - pluginRef: random-picker"]
    return PROFILE % {"plugins": "\n".join(plugins), "profile": "\n".join(lines)}


def policies(url, events, replay):
    precise = PRECISE.lstrip("\n") % {"url": url, "events": events, "replay": replay}
    with_prefix = (*LOAD, ("prefix-cache-scorer", 3))
    return {"precise": profile([precise], with_prefix),
            "approximate": profile([APPROXIMATE], with_prefix),
            "load": profile([], LOAD),
            "random": profile([], ())}


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

    def engines(self, count, blocks, events, replay):
        return self.stand.simulate(count, [
            "--model", "sim", "--kv-cache-size", blocks, "--block-size", BLOCK_TOKENS,
            "--max-model-len", 4096, "--max-num-seqs", 256, "--enable-kvcache", "--zmq-endpoint",
            f"tcp://*:{events}", "--kv-events-replay-endpoint", f"tcp://*:{replay}", *TIMING])

    def run(self, policy, seed):
        ports = free_ports(2 * SERVERS)
        events, replay = ports, ports + SERVERS
        engines = self.engines(SERVERS, KV_BLOCKS, events, replay)
        config = policies(engines.urls[0], events, replay)[policy]
        gateway = self.stand.gateway(engines.urls, ["--config-text", config])
        result = self.climb(engines, gateway, seed)
        self.stand.end(gateway)
        self.stand.end(engines)
        return result

    def possible(self, seed):
        """The hit rate of one cache that never evicts."""
        ports = free_ports(2)
        engines = self.engines(1, 10 * WORKING_SET_TOKENS // BLOCK_TOKENS, ports, ports + 1)
        gateway = self.stand.gateway(engines.urls)
        rate = self.climb(engines, gateway, seed)["hit_rate"]
        self.stand.end(gateway)
        self.stand.end(engines)
        return rate


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
    for seed, run in enumerate(runs, 1):
        for name in ("precise", "approximate", "load", "random"):
            row = run[name]
            lines.append(
                f"| {seed} | {name} | {row['output_tokens_per_s']:.0f} | "
                f"{1000 * row['ttft_p90_s']:.0f} | {100 * row['hit_rate']:.1f} % | "
                f"{100 * row['hit_rate'] / run['possible']:.1f} % |")
    lines.append("")
    lines += [f"{'ok' if holds else 'SHORT'}: {sentence}, on every seed"
              for sentence, holds in verdicts(runs).items()]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(prog="bench/prefix-ladder.sh", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=10, help="on each rung of the ladder")
    parser.add_argument("--lock", help="file to hold while measuring")
    parser.add_argument("--json", dest="json_path")
    parser.add_argument("--markdown", dest="markdown_path")
    arguments = parser.parse_args()
    runs = []
    with Stand(arguments.lock) as stand:
        ladder = Ladder(stand, arguments.seconds)
        for seed in range(1, arguments.seeds + 1):
            run = {}
            for policy in ("precise", "approximate", "load", "random"):
                progress(f"seed {seed}: {policy}")
                run[policy] = ladder.run(policy, seed)
            progress(f"seed {seed}: what is possible")
            run["possible"] = ladder.possible(seed)
            runs.append(run)
    text = table(runs)
    print(text)
    if arguments.json_path:
        pathlib.Path(arguments.json_path).write_text(json.dumps(runs) + "\n")
    if arguments.markdown_path:
        pathlib.Path(arguments.markdown_path).write_text(text + "\n")


if __name__ == "__main__":
    main()
