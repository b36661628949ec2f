"""Where we answer otherwise than upstream on purpose: ../accepted_differences.json, and its rules.

A row of that file is {id, upstream, ours, why} and one of
    "rule": true      a function here, of that name, turns upstream's answer into ours wherever it
                      applies; it is handed (upstream's stream, our stream, the steps sent)
    "cases": [..]     names of cases, or beginnings ending in *; what we answer to them, whole,
                      stands in ../accepted_answers.json
    "families": [..]  metric families, or beginnings ending in *, that we do not have
A rule may look at our answer only to check it, or to take over what cannot be computed.

    accepted.py       prints ../accepted_differences.md
"""

import copy
import json
import pathlib
import re

from steps import Headers, ReplyHeaders

HERE = pathlib.Path(__file__).resolve().parent.parent
FILE = HERE / "accepted_differences.json"
ANSWERS = HERE / "accepted_answers.json"
TABLE = HERE / "accepted_differences.md"
CONTROL = {
    "x-llm-d-inference-fairness-id", "x-gateway-inference-fairness-id",
    "x-llm-d-inference-objective", "x-gateway-inference-objective", "x-llm-d-model-name-rewrite",
    "x-gateway-model-name-rewrite", "x-llm-d-slo-ttft-ms", "x-slo-ttft-ms", "x-llm-d-slo-tpot-ms",
    "x-slo-tpot-ms", "x-llm-d-video-fps", "x-llm-d-video-duration-seconds",
    "x-llm-d-video-resolution", "x-gateway-destination-endpoint-subset",
    "x-gateway-destination-endpoint", "x-gateway-destination-endpoint-served",
    "x-llm-d-request-dropped-reason"}
TYPES = {400: "BadRequestError", 401: "AuthenticationError", 403: "PermissionDeniedError",
         404: "NotFoundError", 412: "PreconditionFailedError", 429: "RateLimitError",
         500: "InternalServerError", 503: "InternalServerError"}
ERROR = re.compile(r"inference error: \w+ - (.*)", re.DOTALL)
PARSER_DETAIL = re.compile(r"((?:error|invalid|unmarshaling|parsing)[\w /-]*: ).*", re.DOTALL)
CHUNK_BYTES_MAX = 62_000


def sent(steps, kind):
    return {name.lower(): value for step in steps if isinstance(step, kind)
            for name, value in step.pairs}


def pairs_of(stream, kind):
    for reply in stream["replies"]:
        if kind in reply:
            yield reply[kind]


def unchanged_headers_not_set(expected, ours, steps):
    for kind, step in (("request_headers", Headers), ("response_headers", ReplyHeaders)):
        known = sent(steps, step)
        for head in pairs_of(expected, kind):
            head["set"] = [pair for pair in head.get("set", ())
                           if known.get(pair[0].lower()) != pair[1] or "x-gateway-dest" in pair[0]]
            if not head["set"]:
                del head["set"]


def control_headers_removed(expected, ours, steps):
    for head in pairs_of(expected, "request_headers"):
        names = {pair[0].lower() for pair in head.get("set", ())}
        gone = sorted((CONTROL & set(sent(steps, Headers))) - (names - {
            "x-gateway-destination-endpoint"}))
        if gone:
            head["remove"] = gone


def error_body_json(expected, ours, steps):
    for error in pairs_of(expected, "immediate"):
        message = ERROR.match(error["body"])
        if message:
            error["body"] = json.dumps({"error": {
                "message": message[1], "type": TYPES[error["status"]], "param": None,
                "code": error["status"]}}, separators=(",", ":"), ensure_ascii=False)
            error["set"] = sorted([["content-type", "application/json"], *error.get("set", ())])


def no_test_header(expected, ours, steps):
    for head in pairs_of(expected, "response_headers"):
        head["set"] = [pair for pair in head.get("set", ())
                       if pair[0] != "x-went-into-resp-headers"]
        if not head["set"]:
            del head["set"]


def retry_after(expected, ours, steps):
    for error, own in zip(pairs_of(expected, "immediate"), pairs_of(ours, "immediate")):
        given = [pair for pair in own.get("set", ()) if pair[0] == "retry-after"]
        if error["status"] in (429, 503) and given and re.fullmatch(r"[1-9]\d*", given[0][1]):
            error["set"] = sorted([*error.get("set", ()), *given])


def parse_error_detail(expected, ours, steps):
    for error, own in zip(pairs_of(expected, "immediate"), pairs_of(ours, "immediate")):
        message, own_message = message_of(error["body"]), message_of(own["body"])
        head, own_head = PARSER_DETAIL.match(message), PARSER_DETAIL.match(own_message)
        if head and own_head and head[1] == own_head[1]:
            error["body"] = own["body"]


def message_of(body):
    try:
        return json.loads(body)["error"]["message"]
    except (ValueError, TypeError, KeyError):
        match = ERROR.match(body)
        return match[1] if match else body


def rewrite_keeps_bytes(expected, ours, steps):
    for body, own in zip(pairs_of(expected, "request_body"), pairs_of(ours, "request_body")):
        try:
            same = json.loads(body["body"]) == json.loads(own["body"])
        except (ValueError, TypeError):
            continue
        if same and body["body"] != own["body"]:
            size = len(body["body"].encode()), len(own["body"].encode())
            body.update(body=own["body"], chunks=own["chunks"])
            for head in pairs_of(expected, "request_headers"):
                head["set"] = sorted([pair[0], str(size[1])] if pair[0] == "Content-Length" and
                                     pair[1] == str(size[0]) else pair for pair in head["set"])


def body_chunks(expected, ours, steps):
    for kind in ("request_body", "response_body"):
        for body, own in zip(pairs_of(expected, kind), pairs_of(ours, kind)):
            if max(own.get("chunks", [0])) <= CHUNK_BYTES_MAX and \
                    sum(own.get("chunks", ())) == sum(body.get("chunks", ())):
                body["chunks"] = own["chunks"]


class Accepted:
    """The rows; `used` collects the ids that mattered."""

    def __init__(self):
        self.rows = json.loads(FILE.read_text())
        self.rules = [(row["id"], globals()[row["id"].replace("-", "_")])
                      for row in self.rows if row.get("rule")]
        self.answers = json.loads(ANSWERS.read_text()) if ANSWERS.exists() else {}
        self.used = set()

    def row(self, name, key="cases"):
        """The row that names this case or family, or None."""
        for row in self.rows:
            for pattern in row.get(key, ()):
                if name == pattern or pattern.endswith("*") and name.startswith(pattern[:-1]):
                    return row
        return None

    def stream(self, expected, ours, steps, without=()):
        """Upstream's stream as we are to answer it."""
        expected = copy.deepcopy(expected)
        for name, rule in self.rules:
            if name not in without:
                before = copy.deepcopy(expected)
                rule(expected, ours, steps)
                if expected != before:
                    self.used.add(name)
        return expected


INTRODUCTION = """# Where `llmd epp` answers otherwise than upstream's picker

Everything else is answered alike, field by field: `tests/epp_differential_test.py` plays the cases
of `conformance/differential/cases` and fails on any difference that is not in this table. Made
from `accepted_differences.json` by `conformance/differential/accepted.py`. A row's own test is the
cases it names (our answer to them stands whole in `accepted_answers.json`), or every case that its
rule touches.
"""


def table():
    """accepted_differences.md"""
    rows = [INTRODUCTION, "| id | upstream | llmd | why | test |", "|---|---|---|---|---|"]
    for row in json.loads(FILE.read_text()):
        test = "every case" if row.get("rule") else ", ".join(
            f"`{case}`" for case in row.get("cases", row.get("families")))
        rows.append(f'| {row["id"]} | {row["upstream"]} | {row["ours"]} | {row["why"]} | {test} |')
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(table(), end="")
