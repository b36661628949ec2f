"""Filters. queue-scorer runs in every profile, so the scores name the endpoints that are left."""

from fleet import Endpoint, page, vllm
from steps import Case, Group, completion, config, request

ASK = request(completion())
POOL = [
    Endpoint("a", vllm(waiting=1, running=2, kv=.1), {"zone": "east", "tier": "gold"}),
    Endpoint("b", vllm(waiting=5, running=4, kv=.5), {"zone": "west", "tier": "gold"}),
    Endpoint("c", vllm(waiting=9, running=8, kv=.9), {"zone": "west", "spare": ""}),
    Endpoint("d", vllm(waiting=3, running=6, kv=.8)),
]


def filtered(name, kind, parameters=None, cases=None, extra=(), **more):
    plugin = {"type": kind, "name": "filter"}
    if parameters is not None:
        plugin["parameters"] = parameters
    return Group(name, config([plugin, "queue-scorer", *extra], ["filter", "queue-scorer"],
                              **more), POOL, cases or [Case("pick", [ASK])],
                 flags=("--emit-endpoint-scores", "--allow-experimental-plugins"))


def selector(key, operator, *values):
    expression = {"key": key, "operator": operator}
    return {"matchExpressions": [{**expression, "values": list(values)} if values else expression]}


def attribute(operator, value, **more):
    parameters = {"attribute": "WaitingQueueSize", "algorithm": {
        "type": "threshold", "threshold": {"operator": operator, "value": value}}}
    return {**parameters, **more}


def utilization(*conditions, **more):
    return {"conditions": [{"metric": metric, "maxValue": value} for metric, value in conditions],
            **more}


def hold(*names):
    """A request to each endpoint; upstream counts by request id, so each has its own."""
    return [request(completion(), subset=["{%s}" % name], headers={"x-request-id": f"at-{name}"})
            for name in names]


def by_header(name, value):
    return Case(name, [request(completion(), headers={"test-epp-endpoint-selection": value})])


ADDRESSES = [
    Case("no_header", [ASK]), by_header("empty", ""), by_header("one_address", "127.0.0.2"),
    by_header("two_addresses", "127.0.0.2,127.0.0.3"),
    by_header("spaces", " 127.0.0.2 , 127.0.0.1 "), by_header("unknown", "10.9.9.9"),
    by_header("port_of_nobody", "127.0.0.2:1"), by_header("one_known", "10.9.9.9,127.0.0.4"),
    by_header("twice", "127.0.0.2,127.0.0.2"),
]
CUSTOM = {"type": "core-metrics-extractor", "parameters": {"engineConfigs": [{
    "name": "vllm", "queuedRequestsSpec": "vllm:num_requests_waiting",
    "runningRequestsSpec": "vllm:num_requests_running", "kvUsageSpec": "vllm:kv_cache_usage_perc",
    "customMetrics": [{"attributeKey": "Power", "metricSpec": "power_watts"}]}]}}
SOURCES = {"sources": [{"pluginRef": "metrics-data-source",
                        "extractors": [{"pluginRef": "core-metrics-extractor"}]}]}


def powered(name, operator, value, **more):
    pool = [Endpoint(endpoint.name, endpoint.metrics + (page(power_watts=watts) if watts else ""))
            for endpoint, watts in zip(POOL, (100, 200, 300, 0))]
    parameters = {**attribute(operator, value, **more), "attribute": "Power"}
    plugins = [CUSTOM, "metrics-data-source", "queue-scorer",
               {"type": "endpoint-attribute-filter", "name": "filter", "parameters": parameters}]
    return Group(name, config(plugins, ["filter", "queue-scorer"], dataLayer=SOURCES), pool,
                 [Case("pick", [ASK])],
                 flags=("--emit-endpoint-scores", "--allow-experimental-plugins"))


GROUPS = [
    filtered("label_match", "label-selector-filter", {"matchLabels": {"zone": "west"}}),
    filtered("label_match_two", "label-selector-filter",
             {"matchLabels": {"zone": "west", "tier": "gold"}}),
    filtered("label_match_nobody", "label-selector-filter", {"matchLabels": {"zone": "north"}}),
    filtered("label_in", "label-selector-filter", selector("zone", "In", "east", "north")),
    filtered("label_not_in", "label-selector-filter", selector("zone", "NotIn", "east")),
    filtered("label_exists", "label-selector-filter", selector("spare", "Exists")),
    filtered("label_absent", "label-selector-filter", selector("zone", "DoesNotExist")),
    filtered("label_everything", "label-selector-filter", {}),
    filtered("by_label_selector", "by-label-selector", {"matchLabels": {"tier": "gold"}}),
    filtered("by_label", "by-label", {"label": "zone", "validValues": ["east"]}),
    filtered("by_label_or_none", "by-label",
             {"label": "zone", "validValues": ["east"], "allowsNoLabel": True}),
    filtered("by_label_case_of_keys", "by-label", {"LABEL": "zone", "validvalues": ["west"]}),
    filtered("by_address", "header-based-testing-filter", cases=ADDRESSES),
    filtered("utilization_queue", "utilization-filter", utilization(("waiting-queue", 4))),
    filtered("utilization_running", "utilization-filter", utilization(("running-requests", 4))),
    filtered("utilization_kv", "utilization-filter", utilization(("kv-cache-utilization", .5))),
    filtered("utilization_several", "utilization-filter",
             utilization(("waiting-queue", 6), ("kv-cache-utilization", .3))),
    filtered("utilization_nobody", "utilization-filter", utilization(("waiting-queue", 0))),
    filtered("utilization_fallback", "utilization-filter",
             utilization(("waiting-queue", 0), fallbackOnEmpty=True)),
    filtered("utilization_active", "utilization-filter", utilization(("active-requests", 0)),
             cases=[Case("two_held", [*hold("a", "b"), ASK], held=(0, 1), pause=.15)]),
    powered("attribute_below", "LessThan", 200),
    powered("attribute_at_most", "LessThanOrEqual", 200),
    powered("attribute_above", "GreaterThan", 200),
    powered("attribute_at_least", "GreaterThanOrEqual", 200),
    powered("attribute_equal", "Equal", 200),
    powered("attribute_other", "NotEqual", 200),
    powered("attribute_missing_fails", "LessThan", 250, onMissing="Fail"),
    powered("attribute_nobody", "GreaterThan", 900, onMissing="Fail"),
    powered("attribute_fallback", "GreaterThan", 900, onMissing="Fail", fallbackOnEmpty=True),
    filtered("detector_as_filter", "utilization-detector",
             {"metricsStalenessThreshold": "60s"}),
    filtered("detector_headroom", "utilization-detector",
             {"metricsStalenessThreshold": "60s", "headroom": .2}),
    filtered("detector_all_over", "utilization-detector",
             {"metricsStalenessThreshold": "60s", "queueDepthThreshold": 1,
              "kvCacheUtilThreshold": .05}),
    filtered("concurrency_as_filter", "concurrency-detector", {"maxConcurrency": 1},
             cases=[Case("two_held", [*hold("a", "b"), ASK], held=(0, 1), pause=.15),
                    Case("all_held", [*hold(*"abcd"), ASK], held=(0, 1, 2, 3), pause=.15),
                    Case("released", [ASK])]),
    filtered("context_length_as_filter", "context-length-aware",
             {"label": "zone", "enableFiltering": True}),
]
