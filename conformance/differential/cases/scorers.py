"""Scorers, by the scores in the metadata of the answer."""

from fleet import Endpoint, page, vllm
from steps import Case, DONE, Group, chat, completion, config, request

ASK = request(completion())
FIRST = {"x-request-id": "first"}
PICK = [Case("pick", [ASK])]
ALPHA = ("--emit-endpoint-scores", "--allow-experimental-plugins")
POOL = [
    Endpoint("a", vllm(waiting=1, running=2, kv=.1)),
    Endpoint("b", vllm(waiting=5, running=4, kv=.55)),
    Endpoint("c", vllm(waiting=200, running=8, kv=1.0)),
    Endpoint("d", vllm(waiting=0, running=6, kv=0)),
]
EQUAL = [Endpoint(name, vllm(waiting=7, running=7, kv=.7)) for name in "abc"]
NOTHING_KNOWN = [Endpoint("a", vllm(waiting=2, running=1, kv=.5)),
                 Endpoint("b", "# empty\n"), Endpoint("c", vllm(waiting=4, running=3, kv=.2))]


def scored(name, kind, parameters=None, cases=None, pool=None, weight=1.0, plugins=(), **more):
    plugin = {"type": kind, "name": "scorer"}
    if parameters is not None:
        plugin["parameters"] = parameters
    return Group(name, config([plugin, *plugins], [("scorer", weight)], **more), pool or POOL,
                 cases or PICK, flags=ALPHA)


def on_three_pools(kind):
    name = kind.removesuffix("-scorer").replace("-", "_")
    return [scored(name, kind), scored(name + "_equal", kind, pool=EQUAL),
            scored(name + "_unknown", kind, pool=NOTHING_KNOWN)]


def held(*names):
    """Requests that stay open at these endpoints, then one whose scores count."""
    steps = [request(completion(), subset=["{%s}" % name], headers={
        "x-request-id": f"held-{place}"}) for place, name in enumerate(names)]
    return steps + [ASK], tuple(range(len(names)))


def held_case(name, *names):
    streams, open_ones = held(*names)
    return Case(name, streams, held=open_ones, pause=.15)


LORA = [
    Endpoint("running", vllm(lora=(2, "tuned,other", "", 5))),
    Endpoint("waiting", vllm(lora=(2, "other, third", " tuned", 5))),
    Endpoint("room", vllm(lora=(4, "other", "", 5))),
    Endpoint("full", vllm(lora=(2, "x,y", "", 5))),
    Endpoint("none", vllm()),
    Endpoint("newest", vllm() + "# TYPE vllm:lora_requests_info gauge\n"
             'vllm:lora_requests_info{max_lora="1",running_lora_adapters="tuned",'
             'waiting_lora_adapters=""} 5\n'
             'vllm:lora_requests_info{max_lora="1",running_lora_adapters="z",'
             'waiting_lora_adapters=""} 9\n'),
]
ADAPTERS = [Case("adapter", [request(completion(model="tuned"))]),
            Case("base", [request(completion(model="base"))]),
            Case("unknown", [request(completion(model="nobody"))]),
            Case("renamed_to_adapter", [request(completion(), headers={
                "x-llm-d-model-name-rewrite": "tuned"})])]
RANGES = [Endpoint(name, vllm(), {"llm-d.ai/context-length-range": text}) for name, text in (
    ("small", "0-100"), ("middle", "100-1000"), ("large", "1000-100000"), ("exact", "5-5"),
    ("broken", "abc"), ("reversed", "9-3"), ("spaces", " 0 - 500 "), ("negative", "-5-10"))]
RANGES.append(Endpoint("free", vllm()))
LENGTHS = [Case("short", [request(completion("a few words"))]),
           Case("medium", [request(completion("word " * 400))]),
           Case("long", [request(completion("word " * 4000))])]
LABELLED = [Endpoint("east", vllm(), {"zone": "east"}), Endpoint("west", vllm(), {"zone": "west"}),
            Endpoint("nowhere", vllm())]
BY_LABEL = [Case("east", [request(completion(), headers={"x-zone": "east"})]),
            Case("unknown", [request(completion(), headers={"x-zone": "north"})]),
            Case("empty", [request(completion(), headers={"x-zone": ""})]),
            Case("none", [ASK])]
CUSTOM = {"type": "core-metrics-extractor", "parameters": {"engineConfigs": [{
    "name": "vllm", "queuedRequestsSpec": "vllm:num_requests_waiting",
    "customMetrics": [{"attributeKey": "Power", "metricSpec": "power_watts"}]}]}}
SOURCES = {"sources": [{"pluginRef": "metrics-data-source",
                        "extractors": [{"pluginRef": "core-metrics-extractor"}]}]}
POWERED = [Endpoint(name, vllm() + (page(power_watts=watts) if watts else ""))
           for name, watts in (("low", 100), ("middle", 250), ("high", 500), ("unknown", 0))]


def powered(name, kind, normalization, pool=None):
    return scored(name, "endpoint-attribute-scorer", {
        "attributeKey": "Power", "algorithm": {"type": kind, "normalization": normalization}},
        pool=pool or POWERED, plugins=[CUSTOM, "metrics-data-source"], dataLayer=SOURCES)


GROUPS = [
    *on_three_pools("queue-scorer"),
    *on_three_pools("running-requests-size-scorer"),
    *on_three_pools("kv-cache-utilization-scorer"),
    *on_three_pools("load-aware-scorer"),
    scored("load_aware_threshold", "load-aware-scorer", {"threshold": 10}),
    scored("weighted", "queue-scorer", weight=2.5),
    Group("summed", config(["queue-scorer", "kv-cache-utilization-scorer",
                            "running-requests-size-scorer"],
                           [("queue-scorer", 2), ("kv-cache-utilization-scorer", .5),
                            "running-requests-size-scorer"]), POOL, PICK),
    Group("same_twice", config(["queue-scorer", {"type": "queue-scorer", "name": "again"}],
                               ["queue-scorer", ("again", 3)]), POOL, PICK),
    scored("lora", "lora-affinity-scorer", cases=ADAPTERS, pool=LORA),
    scored("context_length", "context-length-aware", cases=LENGTHS, pool=RANGES),
    scored("context_length_label", "context-length-aware", {"label": "zone"}, pool=LABELLED),
    scored("header_label", "header-label-affinity-scorer",
           {"headerName": "X-Zone", "labelKey": "zone"}, cases=BY_LABEL, pool=LABELLED),
    scored("active_request", "active-request-scorer", cases=[
        Case("idle", [ASK]), held_case("one", "a"), held_case("several", "a", "a", "b"),
        held_case("everywhere", "a", "a", "b", "c", "d"), Case("released", [ASK])]),
    scored("active_request_idle_threshold", "active-request-scorer",
           {"idleThreshold": 1, "maxBusyScore": .5},
           cases=[held_case("several", "a", "b", "b", "c", "c", "c"), held_case("one", "a")]),
    scored("token_load", "token-load-scorer", {"queueThresholdTokens": 1000},
           plugins=["inflight-load-producer"], cases=[
        Case("idle", [ASK]), Case("long", [request(completion("word " * 300))]),
        Case("held", [request(completion("word " * 300), subset=["{a}"], headers=FIRST), ASK],
             held=(0,), pause=.15),
        Case("released", [request(completion("word " * 200), subset=["{b}"], headers=FIRST)
                                      + DONE, ASK], pause=.15),
        Case("chat", [request(chat("word " * 200), "/v1/chat/completions")])]),
    scored("token_load_default", "token-load-scorer", plugins=["inflight-load-producer"], cases=[
        Case("long", [request(completion("word " * 4000))])]),
    powered("attribute_lower", "linear_lower_is_better", {"fixedRange": {"min": 0, "max": 400}}),
    powered("attribute_higher", "linear_higher_is_better",
            {"fixedRange": {"min": 200, "max": 400}}),
    powered("attribute_adaptive", "linear_lower_is_better", {"adaptiveRange": {}}),
    powered("attribute_adaptive_higher", "linear_higher_is_better", {"adaptiveRange": {}}),
    powered("attribute_adaptive_equal", "linear_lower_is_better", {"adaptiveRange": {}},
            pool=[Endpoint(name, vllm() + page(power_watts=5)) for name in "ab"]),
]
