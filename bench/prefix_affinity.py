"""Prefix hits of routed traffic, random picking, and one cache as large as the whole fleet's.

Four simulated servers, each with room for KV_BLOCKS blocks. The prompts (groups with a common
system prompt, in inference-perf's order) need 2.4 times the memory of one server and 0.6 times that
of all four. Whoever keeps groups together hits nearly as often as one large cache; whoever scatters
them makes every server hold everything, and evict it again.

    bench/prefix-affinity.sh [--passes N] [--json FILE]

Hits are the servers' own counters, vllm:prefix_cache_hits over vllm:prefix_cache_queries, in
tokens, from empty caches on. The prompts, their order and the seed are the same in all three runs.
"""

import argparse
import json
import pathlib

from stand import MetricsPage, Stand, progress

SERVERS = 4
BLOCK_TOKENS = 16
KV_BLOCKS = 1000  # per server: 16,000 tokens
GROUPS, PROMPTS = 24, 4
SYSTEM_TOKENS, QUESTION_TOKENS, OUTPUT_TOKENS = 1024, 128, 16
WORKING_SET_TOKENS = GROUPS * (SYSTEM_TOKENS + PROMPTS * (QUESTION_TOKENS + OUTPUT_TOKENS))
CONCURRENCY = 8

# Time passes as on hardware, in small: uncached tokens cost, and requests overlap.
TIMING = ["--prefill-time-per-token", "10us", "--inter-token-latency", "1ms"]

RANDOM_PICKING = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: random-picker
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: random-picker
"""


class AffinityBench:
    def __init__(self, stand, passes):
        self.stand = stand
        self.requests = passes * GROUPS * PROMPTS

    def engines(self, count, blocks):
        return self.stand.simulate(count, ["--model", "sim", "--kv-cache-size", blocks,
                                           "--block-size", BLOCK_TOKENS, "--max-model-len", 4096,
                                           "--max-num-seqs", 64, *TIMING])

    def hit_rate(self, engines, door):
        """Sends the requests to `door`; share of the prompt tokens that the engines had cached."""
        self.stand.load(door, ["--api", "completions", "--concurrency", CONCURRENCY,
                               "--requests", self.requests, "--shared-prefix",
                               "--num-groups", GROUPS, "--prompts-per-group", PROMPTS,
                               "--system-prompt-len", SYSTEM_TOKENS,
                               "--question-len", QUESTION_TOKENS,
                               "--output-tokens", OUTPUT_TOKENS])
        pages = [MetricsPage(url + "/metrics") for url in engines.urls]
        hits, queries = (sum(page.sum(f"vllm:prefix_cache_{what}_total") for page in pages)
                         for what in ("hits", "queries"))
        return hits / queries

    def through_gateway(self, name, flags):
        progress(name)
        engines = self.engines(SERVERS, KV_BLOCKS)
        gateway = self.stand.gateway(engines.urls, flags)
        rate = self.hit_rate(engines, gateway)
        self.stand.end(gateway)
        self.stand.end(engines)
        return rate

    def one_cache(self):
        progress("one cache of the fleet's size")
        engines = self.engines(1, SERVERS * KV_BLOCKS)
        rate = self.hit_rate(engines, engines)
        self.stand.end(engines)
        return rate

    def run(self):
        """Hit rates, 0 to 1, by name."""
        return {"routed": self.through_gateway("routed, default profile", []),
                "random": self.through_gateway("random picking", ["--config-text", RANDOM_PICKING]),
                "one cache": self.one_cache()}


def table(rates):
    kv_tokens = KV_BLOCKS * BLOCK_TOKENS
    lines = [f"{GROUPS} groups of {PROMPTS} prompts, {SYSTEM_TOKENS} + {QUESTION_TOKENS} tokens, "
             f"{OUTPUT_TOKENS} answered; {SERVERS} servers with {kv_tokens} tokens of KV each",
             f"working set {WORKING_SET_TOKENS} tokens: {WORKING_SET_TOKENS / kv_tokens:.1f} x one "
             f"server's, {WORKING_SET_TOKENS / kv_tokens / SERVERS:.1f} x the fleet's", "",
             "| | prefix hit rate | of one cache's |", "|---|---|---|"]
    for name, rate in rates.items():
        lines.append(f"| {name} | {100 * rate:.1f} % | {100 * rate / rates['one cache']:.1f} % |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(prog="bench/prefix-affinity.sh", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=10, help="how often each prompt is sent")
    parser.add_argument("--json", dest="json_path")
    arguments = parser.parse_args()
    with Stand() as stand:
        rates = AffinityBench(stand, arguments.passes).run()
    print(table(rates))
    if arguments.json_path:
        pathlib.Path(arguments.json_path).write_text(json.dumps(rates) + "\n")


if __name__ == "__main__":
    main()
