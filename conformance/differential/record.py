#!/usr/bin/env python3
"""Records what a picker answers: record.py --epp FILE [--area A] [--group G] [--show]

Every group is played twice; where the answers differ nothing is written. Without --show the
recordings under conformance/recorded/epp are replaced.
"""

import argparse
import datetime
import json
import pathlib
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import cases  # noqa: E402
import protos  # noqa: E402
import recording  # noqa: E402
from runner import Runner  # noqa: E402


def without_counts(record):
    return {**record, "picks": sorted(record["picks"])} if "picks" in record else record


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epp", required=True, nargs="+", help="upstream's picker, or llmd epp")
    parser.add_argument("--area")
    parser.add_argument("--group")
    parser.add_argument("--families", action="store_true", help="only the metric families")
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--commit", default="unknown", help="of llm-d-router")
    options = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        messages = protos.load(pathlib.Path(folder))
        runner = Runner(options.epp, messages, folder)
        origin = {"llm-d-router": options.commit, "date": str(datetime.date.today())}
        if options.families:
            recording.write_families(origin, runner.families(cases.FAMILIES))
            return 0
        for area, groups in cases.groups().items():
            if options.area and area != options.area:
                continue
            records = {}
            for group in groups:
                if options.group and group.name != options.group:
                    continue
                print(f"{area}/{group.name}", file=sys.stderr, flush=True)
                records[group.name] = runner.run(group)
                again = runner.run(group) if not options.show else records[group.name]
                if "refused" in records[group.name] and area != "startup":
                    print(f"{area}/{group.name} is refused", file=sys.stderr)
                    failed = True
                for name, record in records[group.name].items():
                    if without_counts(record) != without_counts(again[name]):
                        failed = True
                        print(f"{area}/{group.name}/{name} changes:\n  {json.dumps(record)}\n"
                              f"  {json.dumps(again[name])}", file=sys.stderr)
            if options.show:
                print(json.dumps(records, indent=1, sort_keys=True))
            elif not failed:
                recording.write(area, origin, records)
    return failed


if __name__ == "__main__":
    sys.exit(main())
