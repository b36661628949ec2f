"""Plays groups of cases against one picker and returns what is recorded of each case.

A case becomes {"streams": [..]}, or with `repeat` {"variants": [..], "picks": {name: count}} where
the pick is written {pick}; with `watch` also {"metrics": {"name{label values}": change}}, values in
the order of the label names. A pick among endpoints of equal best score is written {tie}.
"""

import collections
import copy
import json
import re
import tempfile
import time

from exchange import Exchange
from fleet import Fleet
from picker import NotStarted, Picker, families, samples

NOT_BUILT = "not built into this release"
DESTINATION = "x-gateway-destination-endpoint"
TIMES = re.compile(r"_bucket$|_seconds_sum$|_duration|_ms$")


class Runner:
    """`command` starts a picker; `messages` is the generated module; `folder` is for scratch files.

    `settles`: the picker corrects what it read by what it sent since, so before the next request
    every endpoint must have been read again.
    """

    def __init__(self, command, messages, folder, settles=False):
        self.command = command
        self.settles = settles
        self.messages = messages
        self.folder = folder

    def run(self, group, extra_flags=(), only=None, after=None):
        """{case name: record}, {"refused": {}} of a start that fails; `extra_flags` go last.

        `after` is called with the picker when all is played and before it ends.
        """
        try:
            return self.run_cases(group, extra_flags, only, after)
        except NotStarted as error:
            if NOT_BUILT in str(error):
                raise
            return {"refused": {"by": "the picker"}}

    def run_cases(self, group, extra_flags, only, after):
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch, \
                Fleet(group.endpoints) as fleet, \
                Picker(self.command, group.config, fleet, [*group.flags, *extra_flags], scratch,
                       group.scrapes) as picker:
            if not group.cases:
                return {"started": {"by": "the picker"}}
            exchange = Exchange(self.messages, picker.port, fleet)
            try:
                cases = [case for case in group.cases if only is None or case.name in only]
                records = {case.name: self.case(group, case, exchange, picker) for case in cases}
                if after:
                    after(picker)
                return records
            finally:
                exchange.close()
                assert picker.process.poll() is None, f"the picker died:\n{picker.last_lines()}"

    def families(self, group):
        """The metric families of a picker that has played the group."""
        found = {}
        self.run(group, after=lambda picker: found.update(families(picker.metrics())))
        return {name: family for name, family in found.items() if not name.startswith("go_")}

    def case(self, group, case, exchange, picker):
        before = self.watched(group, picker)
        record = (self.repeated if case.repeat > 1 else self.once)(case, exchange)
        if group.watch:
            time.sleep(0.1)
            after = self.watched(group, picker)
            change = {key: round(after[key] - before.get(key, 0), 6) for key in sorted(after)}
            record["metrics"] = {key: value for key, value in change.items() if value}
        return record

    def once(self, case, exchange):
        streams = []
        for index, steps in enumerate(case.streams):
            stream = exchange.open()
            stream.play(steps)
            streams.append(stream if index in case.held else stream.finish())
            self.rest(case, exchange)
        closed = [stream if isinstance(stream, dict) else stream.finish() for stream in streams]
        if case.held:
            self.rest(case, exchange)
        return {"streams": [tie(stream) for stream in closed]}

    def rest(self, case, exchange):
        time.sleep(case.pause)
        if self.settles and case.settle:
            exchange.fleet.wait_until_read_again()

    def repeated(self, case, exchange):
        picks, variants = collections.Counter(), {}
        for _ in range(case.repeat):
            stream = exchange.open()
            stream.play(case.streams[0])
            record, pick = without_pick(stream.finish())
            picks[pick] += 1
            self.rest(case, exchange)
            variants.setdefault(json.dumps(record, sort_keys=True), record)
        return {"variants": [variants[key] for key in sorted(variants)],
                "picks": dict(sorted(picks.items()))}

    def watched(self, group, picker):
        found = {}
        for name, labels, value in samples(picker.metrics()) if group.watch else ():
            if name.startswith(tuple(group.watch)) and not TIMES.search(name):
                text = ",".join(labels[key] for key in sorted(labels))
                found[f"{name}{{{text}}}"] = value
        return found


def replace_pick(stream, written):
    """The stream with its destination written as `written`, and the destination."""
    stream = copy.deepcopy(stream)
    pick = ""
    for entry in stream["replies"]:
        for pair in entry.get("request_headers", {}).get("set", ()):
            if pair[0] == DESTINATION:
                pick, pair[1] = pair[1], written
        balancer = entry.get("metadata", {}).get("envoy.lb", {})
        if "request_headers" in entry and balancer.get(DESTINATION) == pick:
            balancer[DESTINATION] = written
    return stream, pick


def without_pick(stream):
    return replace_pick(stream, "{pick}")


def tie(stream):
    changed, pick = replace_pick(stream, "{tie}")
    for entry in stream["replies"]:
        scores = entry.get("metadata", {}).get("envoy.lb", {}).get(DESTINATION + "-scores", {})
        best = [name for name, score in scores.items() if score == max(scores.values())]
        if "request_headers" in entry and len(best) > 1 and pick in best:
            return changed
    return stream
