#!/usr/bin/env python3
"""The workload of bench/kvindex.sh through Dynamo's radix tree, as one line of JSON.

Needs the wheel ai-dynamo-runtime; its tree takes events as JSON, so applying them includes that.
"""

import argparse
import json
import os
import random
import time

from dynamo._core import RadixTree

CHAIN_BLOCKS = 600
EVENT_BLOCKS = 25
HOLDERS = 64


def new_chain(rng):
    return [rng.getrandbits(63) for _ in range(CHAIN_BLOCKS)]


def encode(event):
    return json.dumps({"event_id": 1, "data": event}).encode()


def stores(chain):
    """A chain's events. Its block hashes are its token hashes, turned over."""
    parent = None
    for at in range(0, CHAIN_BLOCKS, EVENT_BLOCKS):
        part = chain[at:at + EVENT_BLOCKS]
        yield encode({"stored": {"parent_hash": parent, "blocks": [
            {"block_hash": key ^ (2**63 - 1), "tokens_hash": key} for key in part]}})
        parent = part[-1] ^ (2**63 - 1)


def removals(chain):
    """From the tail, as an engine evicts."""
    turned = [key ^ (2**63 - 1) for key in reversed(chain)]
    for at in range(0, CHAIN_BLOCKS, EVENT_BLOCKS):
        yield encode({"removed": {"block_hashes": turned[at:at + EVENT_BLOCKS]}})


def apply(tree, worker, events):
    """Seconds that it takes; making the events is not part of it."""
    begin = time.perf_counter()
    for event in events:
        tree.apply_event(worker, event)
    return time.perf_counter() - begin


def resident_bytes():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def churn(tree, chains, rng, count):
    seconds = 0.0
    for _ in range(count):
        at = rng.randrange(len(chains))
        worker, old = chains[at]
        fresh = new_chain(rng)
        seconds += apply(tree, worker, list(removals(old)) + list(stores(fresh)))
        chains[at] = (worker, fresh)
    return 2 * count * CHAIN_BLOCKS / seconds


def lookups(tree, rng, holders):
    hot = [new_chain(rng) for _ in range(200)]
    for chain in hot:
        events = list(stores(chain))
        for worker in range(holders):
            apply(tree, worker, events)
    times = []
    for i in range(2000):
        begin = time.perf_counter()
        scores = tree.find_matches(hot[i % len(hot)]).scores
        times.append((time.perf_counter() - begin) * 1e6)
        assert len(scores) == holders and set(scores.values()) == {CHAIN_BLOCKS}
    times.sort()
    return {"p50_us": times[len(times) // 2], "p99_us": times[len(times) * 99 // 100]}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=1_000_000, help="blocks to index")
    blocks = parser.parse_args().blocks
    rng = random.Random(1)
    tree = RadixTree()
    chains = []
    seconds = 0.0
    before = resident_bytes()
    for i in range(blocks // CHAIN_BLOCKS):
        chain = new_chain(rng)
        seconds += apply(tree, i % HOLDERS, list(stores(chain)))
        chains.append((i % HOLDERS, chain))
    count = len(chains) * CHAIN_BLOCKS
    python_bytes = count * (8 + 36)  # the chains themselves: a pointer and an integer for each
    print(json.dumps({
        "blocks": count,
        "fill_blocks_per_s": count / seconds,
        "bytes_per_block": (resident_bytes() - before - python_bytes) / count,
        "apply_ops_per_s": churn(tree, chains, rng, 500),
        "lookup_one_holder": lookups(tree, rng, 1),
        "lookup_nine_holders": lookups(tree, rng, 9),
    }))


if __name__ == "__main__":
    main()
