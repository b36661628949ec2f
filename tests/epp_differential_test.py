#!/usr/bin/env python3
"""Our picker against what upstream's answered, case by case; see conformance/differential.

With LLMD_REFERENCE_DIR (a folder with upstream's `epp`) the recordings are compared with it too.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from concurrent import futures

from harness import LLMD, ROOT

VENV = ROOT / ".setup/venv/bin/python"
DIFFERENTIAL = ROOT / "conformance/differential"
REFERENCE = os.environ.get("LLMD_REFERENCE_DIR", "")
SIDE_BY_SIDE = 6  # groups: they mostly wait
TEXT_GROUPS = ("errors", "empty_pool")  # of area door: played with --error-format=text too


def say(name, problems):
    """Prints one case; returns whether it failed."""
    if not problems:
        print(f"ok {name}", flush=True)
        return False
    print("\n".join(problems))
    print(f"not ok {name}: {len(problems)} differences", flush=True)
    return True


def attempt(run, *arguments):
    """What run returns, or the words of its failure."""
    try:
        return run(*arguments)
    except AssertionError as error:
        return str(error)


def play_all(groups, run):
    """Yields (area, group, result) in order; a few groups run side by side."""
    jobs = [(area, group) for area, listed in groups.items() for group in listed]
    with futures.ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        results = pool.map(lambda job: attempt(run, job[1]), jobs)
        for (area, group), result in zip(jobs, results):
            yield area, group, result


def compare_ours(groups, runner, accepted):
    import compare
    import recording
    failed = False
    for area, group, result in play_all(groups, runner.run):
        name = f"{area}/{group.name}"
        if isinstance(result, str) and "not built into this release" in result:
            print(f"skip {name}: {result.splitlines()[-1].split('plugins', 1)[-1]}")
            continue
        failed |= group_failed(name, group, recording.read(area, group.name), result,
                               lambda case, *rest: compare.judged(accepted, case, *rest))
    return failed


def group_failed(name, group, recorded, result, judge):
    """Prints the cases of one group; `judge` is handed (case name, recorded, actual, Case)."""
    if isinstance(result, str) or recorded is None:
        return say(name, [result if isinstance(result, str) else "nothing is recorded"])
    if set(recorded) & {"started", "refused"}:
        return say(name, judge(name, {"start": next(iter(recorded))},
                               {"start": next(iter(result))}, None))
    cases = {case.name: case for case in group.cases}
    failed = False
    for case, record in recorded.items():
        full = f"{name}/{case}"
        if case not in result:
            failed |= say(full, [f"not answered: {json.dumps(result)[:200]}"])
        else:
            failed |= say(full, judge(full, record, result[case], cases[case]))
    for case in sorted(set(cases) - set(recorded)):
        failed |= say(f"{name}/{case}", ["nothing is recorded"])
    return failed


def compare_text_errors(groups, runner, accepted):
    """--error-format=text: bodies as upstream writes them, but for the words of a JSON parser."""
    import compare
    import recording
    failed = False
    for group in groups["door"]:
        if group.name not in TEXT_GROUPS:
            continue
        recorded = {case: record for case, record in recording.read("door", group.name).items()
                    if accepted.row(f"door/{group.name}/{case}") is None}
        group = dataclasses.replace(
            group, cases=[case for case in group.cases if case.name in recorded])
        result = attempt(runner.run, group, ("--error-format=text",))

        def judge(case, record, actual, played):
            return compare.differences(compare.translated(
                accepted, record, actual, played, without=("error-body-json",)), actual)

        failed |= group_failed(f"text_errors/{group.name}", group, recorded, result, judge)
    return failed


def compare_families(runner, accepted, families):
    import compare
    import recording
    found = compare.family_differences(accepted, recording.read_families(),
                                       runner.families(families))
    return any([say(f"metric_families/{name}", problems) for name, problems in found.items()])


def compare_live(groups, runner):
    """The recordings are still what upstream's binary says."""
    import compare
    import recording
    failed = False
    for area, group, result in play_all(groups, runner.run):
        failed |= group_failed(f"{area}/{group.name}", group, recording.read(area, group.name),
                               result, lambda _, old, new, __: compare.differences(old, new))
    return failed


def check_table(accepted_module, used):
    rows = json.loads(accepted_module.FILE.read_text())
    unused = sorted({row["id"] for row in rows} - used)
    failed = say("accepted_differences/all_used", [f"{name} changes nothing" for name in unused])
    same = accepted_module.TABLE.read_text() == accepted_module.table()
    return failed | say("accepted_differences/table", [] if same else [
        "accepted_differences.md is not what conformance/differential/accepted.py prints"])


def check_comparison():
    """The comparison is no rubber stamp: each kind of change is noticed."""
    import compare
    import recording
    record = recording.read("door", "subset")["list_of_one"]
    text = json.dumps(record)
    picks = recording.read("choosing", "weighted_random")["picks"]["picks"]
    failed = False
    for name, old, new in (("pick", "{b}", "{a}"), ("end", '"OK"', '"CANCELLED"'),
                           ("header", "x-request-id", "x-request-no"), ("score", "1.0", "0.99"),
                           ("end_of_stream", '"end": true', '"end": false'),
                           ("body", "quick", "slow")):
        changed = json.loads(text.replace(old, new))
        found = text != json.dumps(changed) and compare.differences(record, changed)
        failed |= say(f"comparison/notices_{name}", [] if found else ["not noticed"])
    names = sorted(picks)
    swapped = {**picks, names[0]: picks[names[-1]], names[-1]: picks[names[0]]}
    moved = compare.same_picks(picks, swapped)
    return failed | say("comparison/notices_moved_picks", ["not noticed"] if moved else [])


def run(folder, wanted):
    import accepted as accepted_module
    import cases
    import protos
    from runner import Runner
    messages = protos.load(folder)
    groups = {area: [group for group in listed if wanted in f"{area}/{group.name}"]
              for area, listed in cases.groups().items()}
    runner = Runner([LLMD, "epp"], messages, folder, settles=True)
    accepted = accepted_module.Accepted()
    failed = compare_ours(groups, runner, accepted)
    if not wanted:
        failed |= compare_families(runner, accepted, cases.FAMILIES)
        failed |= check_table(accepted_module, accepted.used)
        failed |= check_comparison()
    failed |= compare_text_errors(cases.groups(), runner, accepted)
    if not REFERENCE:
        print("skip recordings_against_upstream: LLMD_REFERENCE_DIR names no folder with `epp`")
        return failed
    reference = Runner([pathlib.Path(REFERENCE) / "epp"], messages, folder)
    return failed | compare_live(groups, reference)


def main():
    if subprocess.run([LLMD, "epp", "--help"], capture_output=True, check=False).returncode:
        print("skip epp_differential: this llmd has no `epp` command")
        return 0
    if pathlib.Path(sys.executable) != VENV:
        if subprocess.run([ROOT / "tools/setup", "sdk"], check=False).returncode:
            print("skip epp_differential: pip could not install the Python packages (see above)")
            return 0
        os.execv(VENV, [str(VENV), "-B", *sys.argv])
    sys.path.insert(0, str(DIFFERENTIAL))
    with tempfile.TemporaryDirectory() as folder:
        return run(pathlib.Path(folder), sys.argv[1] if len(sys.argv) > 1 else "")


if __name__ == "__main__":
    sys.exit(main())
