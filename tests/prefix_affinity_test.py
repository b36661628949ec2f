#!/usr/bin/env python3
"""Prefix affinity works: routed traffic hits nearly as often as one cache of the fleet's size."""

import pathlib
import sys

from harness import report

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "bench"))
from prefix_affinity import AffinityBench, table  # noqa: E402  (the path is set above)
from stand import Stand  # noqa: E402

PASSES = 10


def main():
    with Stand() as stand:
        rates = AffinityBench(stand, PASSES).run()
    print(table(rates))
    share = {name: rate / rates["one cache"] for name, rate in rates.items()}

    def test_routed_traffic_gets_90_percent_of_one_cache():
        assert share["routed"] >= 0.9, f"{100 * share['routed']:.1f} %"

    def test_random_picking_gets_20_points_less():
        assert share["random"] <= share["routed"] - 0.2, (
            f"random {100 * share['random']:.1f} %, routed {100 * share['routed']:.1f} %")

    return report([test_routed_traffic_gets_90_percent_of_one_cache,
                   test_random_picking_gets_20_points_less])


if __name__ == "__main__":
    sys.exit(main())
