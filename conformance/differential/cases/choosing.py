"""Pickers, profile handlers, session affinity, the default configuration."""

import base64

from fleet import Endpoint, vllm
from steps import Case, DONE, Group, OK_HEADERS, completion, config, reply, request

ASK = request(completion())
ALPHA = ("--emit-endpoint-scores", "--allow-experimental-plugins")
QUIET = ("--allow-experimental-plugins",)
POOL = [Endpoint("a", vllm(waiting=0, kv=.2)), Endpoint("b", vllm(waiting=4, kv=.4)),
        Endpoint("c", vllm(waiting=8, kv=.6)), Endpoint("d", vllm(waiting=10, kv=.9))]
UNEQUAL = [Endpoint("a", vllm(kv=0)), Endpoint("b", vllm(kv=.4)),
           Endpoint("c", vllm(kv=.8)), Endpoint("d", vllm(kv=1))]
EQUAL = [Endpoint(name, vllm(kv=.5)) for name in "abc"]
MANY = 400


def picked(name, picker, parameters=None, scorer="kv-cache-utilization-scorer", pool=None,
           repeat=MANY, flags=()):
    """A distribution of picks, one request right after the other.

    No scorer here reads a number of requests: a page that comes while one is under way does not
    know of it, so its end would be taken off that page (read-numbers-corrected), and the endpoint
    would win until it is read again.
    """
    plugin = {"type": picker, "name": "picker"}
    if parameters is not None:
        plugin["parameters"] = parameters
    profile = ([scorer] if scorer else []) + ["picker"]
    return Group(name, config([plugin, *profile[:-1]], profile), pool or UNEQUAL,
                 [Case("picks", [ASK], repeat=repeat, settle=False)], flags=flags)


def session(name, value):
    return request(completion(), headers={name: value}) + DONE


def token(name):
    return base64.b64encode(name.encode()).decode()


ENCODED = [
    Case("no_token", [ASK + DONE]),
    Case("bound", [session("x-session-token", token("default/c"))]),
    Case("gone", [session("x-session-token", token("default/zzz"))]),
    Case("bare_name", [session("x-session-token", token("c"))]),
    Case("not_base64", [session("x-session-token", "%%%")]),
    Case("empty", [session("x-session-token", "")]),
    Case("bound_but_not_a_candidate", [request(completion(), subset=["{a}"], headers={
        "x-session-token": token("default/c")}) + DONE]),
    Case("engine_sends_a_token_too", [request(completion(), headers={
        "x-session-token": token("default/c")}) + reply("{}", headers=[
            *OK_HEADERS, ("x-session-token", "theirs")])]),
]
BY_ID = [
    Case("no_session", [ASK + DONE]),
    Case("stays", [request(completion(), subset=["{c}"], headers={"x-session-id": "s1"}) + DONE,
                   session("x-session-id", "s1"), session("x-session-id", "s1")], pause=.1),
    Case("moves_when_not_a_candidate", [
        request(completion(), subset=["{c}"], headers={"x-session-id": "s2"}) + DONE,
        request(completion(), subset=["{b}"], headers={"x-session-id": "s2"}) + DONE,
        session("x-session-id", "s2")], pause=.1),
    Case("another_session", [session("x-session-id", "s3")]),
]


def affinity(name, kind, parameters=None, cases=(), plugins=()):
    plugin = {"type": kind, "name": "affinity"}
    if parameters is not None:
        plugin["parameters"] = parameters
    profile = ["affinity", "queue-scorer"]
    return Group(name, config([plugin, "queue-scorer", *plugins], profile), POOL, list(cases),
                 flags=ALPHA)


ID = {"strategy": "session_id"}
PROFILES = [Case("default", [ASK]),
            Case("named", [request(completion(), headers={"EPP-Profile": "second"})]),
            Case("unknown", [request(completion(), headers={"EPP-Profile": "third"})]),
            Case("empty", [request(completion(), headers={"EPP-Profile": ""})])]
HEADER_HANDLER = {"type": "header-profile-handler", "parameters": {"defaultProfile": "first"}}
TWO_PROFILES = {"first": ["queue-scorer"], "second": ["kv-cache-utilization-scorer"]}
SCORERS = ["queue-scorer", "kv-cache-utilization-scorer"]
AGENTS = [Case(name.replace("-", "_"), [request(completion(), headers={name: "agent-7"}) + DONE])
          for name in ("x-claude-code-session-id", "x-session-affinity", "session-id",
                       "session_id", "x-mine", "x-nobody")]
AGENTS += [Case("explicit_wins", [request(completion(), headers={
    "session-id": "agent", "x-llm-d-inference-fairness-id": "explicit"}) + DONE]),
    Case("first_of_two", [request(completion(), headers={
        "session-id": "low", "x-claude-code-session-id": "high"}) + DONE])]
FAIRNESS = ("llm_d_epp_request_total",)

GROUPS = [
    picked("max_score", "max-score-picker"),
    picked("max_score_ties", "max-score-picker", pool=EQUAL),
    picked("max_score_two", "max-score-picker", {"maxNumOfEndpoints": 2}, repeat=20),
    picked("max_score_all", "max-score-picker", {"maxNumOfEndpoints": 9}, repeat=20),
    picked("random", "random-picker"),
    picked("random_without_scorer", "random-picker", scorer=None),
    picked("random_two", "random-picker", {"maxNumOfEndpoints": 2}),
    picked("weighted_random", "weighted-random-picker"),
    picked("weighted_random_ties", "weighted-random-picker", pool=EQUAL),
    picked("weighted_random_two", "weighted-random-picker", {"maxNumOfEndpoints": 2}),
    picked("max_score_without_scorer", "max-score-picker", scorer=None),
    affinity("session_filter", "session-affinity-filter", cases=ENCODED),
    affinity("session_scorer", "session-affinity-scorer", cases=ENCODED),
    affinity("session_filter_header", "session-affinity-filter",
             {"encodedEndpointHeaderConfig": {"header": "X-Mine"}},
             cases=[Case("bound", [session("x-mine", token("default/c"))]),
                    Case("other_header", [session("x-session-token", token("default/c"))])]),
    affinity("session_filter_id", "session-affinity-filter", ID, cases=BY_ID),
    affinity("session_scorer_id", "session-affinity-scorer", ID, cases=BY_ID),
    affinity("session_by_cookie", "session-affinity-filter",
             {"strategy": "session_id", "sessionIdConfig": {"sources": [
                 {"attribute": "SessionIDDataKey", "producer": "session-id-producer"}]}},
             cases=[Case("stays", [
                 request(completion(), subset=["{c}"], headers={"cookie": "x=1; sid=s1"}) + DONE,
                 session("cookie", "sid=s1; y=2")], pause=.1)],
             plugins=[{"type": "session-id-producer", "parameters": {"cookieName": "sid"}}]),
    Group("header_profiles", config([HEADER_HANDLER, *SCORERS], profiles=TWO_PROFILES), POOL,
          PROFILES, flags=ALPHA),
    Group("header_profiles_only_one", config([HEADER_HANDLER, *SCORERS], ["queue-scorer"]), POOL,
          PROFILES, flags=ALPHA),
    Group("agent_identity", config(
        [{"type": "agent-identity", "parameters": {"additionalSessionHeaders": ["X-Mine"]}},
         "queue-scorer"], ["queue-scorer"]), POOL, AGENTS, flags=ALPHA, watch=FAIRNESS),
    Group("all_default_profile", config(["queue-scorer", "kv-cache-utilization-scorer",
                                         "prefix-cache-scorer"]), POOL, [
        Case("first", [ASK + DONE], pause=.2), Case("again", [ASK + DONE])]),
]
