"""Compares what a picker answered now with a recording, allowing the accepted differences."""

import json
import math

SCORE_ERROR = 1e-6  # columns hold single precision
SIGMAS = 5  # of the difference of two shares: one false alarm in a million


def streams_of(record):
    return record.get("streams") or record.get("variants") or []


def same_picks(left, right):
    """Whether two counts of picks can be draws from one distribution."""
    total_left, total_right = sum(left.values()), sum(right.values())
    for key in set(left) | set(right):
        share_left = left.get(key, 0) / total_left
        share_right = right.get(key, 0) / total_right
        mean = (left.get(key, 0) + right.get(key, 0)) / (total_left + total_right)
        deviation = math.sqrt(mean * (1 - mean) * (1 / total_left + 1 / total_right))
        if abs(share_left - share_right) > SIGMAS * deviation + 1e-9:
            return False
    return True


def differences(expected, actual):
    """Lines of what differs between two records; empty when nothing does."""
    found = []
    for key in sorted(set(expected) | set(actual)):
        left, right = expected.get(key), actual.get(key)
        if key == "picks" and left and right:
            if not same_picks(left, right):
                found.append(f"picks: recorded {left}, now {right}")
        else:
            found += lines(key, left, right)
    return found


def lines(path, left, right):
    if isinstance(left, dict) and isinstance(right, dict):
        return [line for key in sorted(set(left) | set(right))
                for line in lines(f"{path}.{key}", left.get(key), right.get(key))]
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        return [line for index, pair in enumerate(zip(left, right))
                for line in lines(f"{path}[{index}]", *pair)]
    if left == right or (isinstance(left, float) and isinstance(right, float) and
                         math.isclose(left, right, rel_tol=0, abs_tol=SCORE_ERROR)):
        return []
    return [f"{path}:\n  recorded {json.dumps(left)}\n  now      {json.dumps(right)}"]


def translated(accepted, recorded, actual, case, without=()):
    """The record we are to give where upstream gave `recorded`, by the rules alone."""
    key = "streams" if "streams" in recorded else "variants"
    if key not in recorded:
        return recorded
    answers = streams_of(actual)
    record = dict(recorded)
    record[key] = []
    for index, stream in enumerate(recorded[key]):
        steps = case.streams[index if key == "streams" else 0]
        ours = answers[index] if index < len(answers) else {"replies": [], "end": ""}
        record[key].append(accepted.stream(stream, ours, steps, without))
    return record


def judged(accepted, name, recorded, actual, case, without=()):
    """Lines of what is wrong with our answer to a case; empty when nothing is."""
    expected = translated(accepted, recorded, actual, case, without)
    found = differences(expected, actual)
    row = accepted.row(name)
    if row is None:
        return found
    if not found:
        return [f"as upstream now: take it out of row {row['id']}"]
    accepted.used.add(row["id"])
    own = accepted.answers.get(name)
    if own is None:
        return [*found, f"row {row['id']} names this case, but there is no answer recorded for it"]
    return differences(own, actual)


def family_differences(accepted, recorded, actual):
    """{family: lines}; ours may have more families."""
    found = {}
    for name, family in recorded.items():
        row = accepted.row(name, "families")
        if row:
            accepted.used.add(row["id"])
            found[name] = [f"it is here: take it out of row {row['id']}"] if name in actual else []
        elif name not in actual:
            found[name] = ["we do not have it"]
        else:
            found[name] = lines(name, family, actual[name])
    return found
