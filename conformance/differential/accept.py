#!/usr/bin/env python3
"""Writes down what we answer where a row of accepted_differences.json names cases.

    accept.py --epp build/release/llmd epp

Read the change it makes to accepted_answers.json: each line there is a promise.
"""

import argparse
import json
import pathlib
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import accepted  # noqa: E402
import cases  # noqa: E402
import compare  # noqa: E402
import protos  # noqa: E402
import recording  # noqa: E402
from runner import Runner  # noqa: E402


def answers(known, runner):
    """{case: our record} of the cases that rows name and that differ."""
    found = {}
    for area, groups in cases.groups().items():
        for group in groups:
            recorded = recording.read(area, group.name)
            if area == "startup":
                names = {f"{area}/{group.name}": None}
            else:
                names = {f"{area}/{group.name}/{case.name}": case for case in group.cases}
            names = {name: case for name, case in names.items() if known.row(name)}
            if not names:
                continue
            result = runner.run(group)
            for name, case in names.items():
                if case is None:
                    found[name] = {"start": next(iter(result))}
                    continue
                record = result[case.name]
                expected = compare.translated(known, recorded[case.name], record, case)
                if compare.differences(expected, record):
                    found[name] = record
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epp", required=True, nargs="+")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(options.epp, protos.load(pathlib.Path(folder)), folder, settles=True)
        found = answers(accepted.Accepted(), runner)
    accepted.ANSWERS.write_text("{\n" + "\n".join(recording.lines(found)) + "\n}\n")


if __name__ == "__main__":
    main()
