"""The data layer: engines and their metric pages, extractors, the saturation detector."""

from fleet import Endpoint, page, sglang, triton_trtllm, trtllm, vllm
from steps import Case, Group, completion, config, request

ASK = request(completion())
PICK = [Case("pick", [ASK])]
ALPHA = ("--emit-endpoint-scores", "--allow-experimental-plugins")
THREE = ["queue-scorer", "running-requests-size-scorer", "kv-cache-utilization-scorer"]
WEIGHTS = [("queue-scorer", 100), ("running-requests-size-scorer", 10),
           ("kv-cache-utilization-scorer", 1)]
ENGINE = "llm-d.ai/engine-type"
OLD_ENGINE = "inference.networking.k8s.io/engine-type"
LOW = Endpoint("low", vllm())                                   # pins the scale of the
HIGH = Endpoint("high", vllm(waiting=10, running=10, kv=1.0))   # min-max scorers


def read(name, *endpoints, plugins=(), **more):
    return Group(name, config([*THREE, *plugins], WEIGHTS, **more), [LOW, HIGH, *endpoints], PICK,
                 flags=ALPHA)


def gauges(text):
    return "".join(f"# TYPE {name} gauge\n" for name in
                   ("vllm:num_requests_waiting", "vllm:num_requests_running",
                    "vllm:kv_cache_usage_perc")) + text


LABELLED = gauges('vllm:num_requests_waiting{engine="0"} 2\nvllm:num_requests_waiting{engine="1"} 7'
                  '\nvllm:num_requests_running{engine="0"} 1\nvllm:num_requests_running{engine="1"}'
                  ' 3\nvllm:kv_cache_usage_perc{engine="0"} 0.25\n'
                  'vllm:kv_cache_usage_perc{engine="1"} 0.75\n')
STAMPED = gauges('vllm:num_requests_waiting{engine="0"} 2 1000\n'
                 'vllm:num_requests_waiting{engine="1"} 7 2000\n'
                 'vllm:num_requests_waiting{engine="2"} 4 1500\n'
                 "vllm:num_requests_running 5\nvllm:kv_cache_usage_perc 0.5\n")
CUSTOM = {"type": "core-metrics-extractor", "parameters": {
    "defaultEngine": "mine", "engineLabelKey": "engine", "engineConfigs": [{
        "name": "mine", "queuedRequestsSpec": "q{kind=wait}", "runningRequestsSpec": "r",
        "kvUsageSpec": "k"}]}}
MINE = ('# TYPE q gauge\nq{kind="run",z="1"} 1\nq{kind="wait",z="1"} 4\n# TYPE r counter\nr 6\n'
        "# TYPE k gauge\nk 0.5\n")
SOURCES = {"sources": [{"pluginRef": "metrics-data-source",
                        "extractors": [{"pluginRef": "core-metrics-extractor"}]}]}
GPU = "# TYPE DCGM_FI_DEV_GPU_UTIL gauge\n"
DCGM = [
    Endpoint("idle", vllm(), dcgm=GPU + 'DCGM_FI_DEV_GPU_UTIL{gpu="0"} 10\n'),
    Endpoint("two", vllm(), dcgm=GPU + 'DCGM_FI_DEV_GPU_UTIL{gpu="0"} 20\n'
             'DCGM_FI_DEV_GPU_UTIL{gpu="1"} 60\n'),
    Endpoint("busy", vllm(), dcgm=GPU + 'DCGM_FI_DEV_GPU_UTIL{gpu="0"} 97\n'),
    Endpoint("none", vllm(), dcgm="# nothing\n"),
]
DCGM_PLUGINS = [
    {"type": "dcgm-data-source", "name": "gpus", "parameters": {"port": "$DCGM"}},
    "dcgm-extractor",
    {"type": "endpoint-attribute-filter", "parameters": {
        "attribute": "GPUUtilization", "producer": "dcgm-extractor", "algorithm": {
            "type": "threshold", "threshold": {"operator": "LessThanOrEqual", "value": .9}}}},
    {"type": "endpoint-attribute-scorer", "parameters": {
        "attributeKey": "GPUUtilization", "producer": "dcgm-extractor", "algorithm": {
            "type": "linear_lower_is_better",
            "normalization": {"fixedRange": {"min": 0, "max": 1}}}}},
]
DCGM_CONFIG = config(DCGM_PLUGINS, ["endpoint-attribute-filter", "endpoint-attribute-scorer"],
                     dataLayer={"sources": [{"pluginRef": "gpus",
                                             "extractors": [{"pluginRef": "dcgm-extractor"}]}]}
                     ).replace('"$DCGM"', "$DCGM")

GROUPS = [
    read("vllm", Endpoint("x", vllm(waiting=4, running=6, kv=.3))),
    read("sglang", Endpoint("x", sglang(waiting=4, running=6, kv=.3), {ENGINE: "sglang"})),
    read("trtllm", Endpoint("x", trtllm(waiting=4, running=6, kv=.3), {ENGINE: "trtllm-serve"})),
    read("triton_trtllm", Endpoint("x", triton_trtllm(waiting=4, running=6, kv=.3),
                                   {ENGINE: "triton-tensorrt-llm"})),
    read("triton", Endpoint("x", page(nv_inference_pending_request_count=4,
                                      nv_inference_exec_count=6), {ENGINE: "triton"})),
    read("old_engine_label", Endpoint("x", sglang(4, 6, .3), {OLD_ENGINE: "sglang"})),
    read("both_engine_labels", Endpoint("x", sglang(4, 6, .3),
                                        {ENGINE: "sglang", OLD_ENGINE: "vllm"})),
    read("unknown_engine", Endpoint("x", vllm(4, 6, .3), {ENGINE: "unheard-of"})),
    read("series_per_engine", Endpoint("x", LABELLED)),
    read("series_with_timestamps", Endpoint("x", STAMPED)),
    read("untyped", Endpoint("x", "vllm:num_requests_waiting 4\nvllm:num_requests_running 6\n"
                                  "vllm:kv_cache_usage_perc 0.3\n")),
    read("counter_typed", Endpoint("x", vllm(4, 6, .3).replace(" gauge", " counter"))),
    read("not_a_number", Endpoint("x", gauges("vllm:num_requests_waiting NaN\n"
                                              "vllm:num_requests_running +Inf\n"
                                              "vllm:kv_cache_usage_perc 0.3\n"))),
    read("fractions", Endpoint("x", vllm(waiting=4.9, running=6.5, kv=.3))),
    read("exponents", Endpoint("x", vllm(waiting="4e+00", running="6.0", kv="3e-1"))),
    read("kv_above_one", Endpoint("x", vllm(waiting=4, running=6, kv=1.7))),
    read("negative", Endpoint("x", vllm(waiting=-4, running=6, kv=-.5))),
    read("garbage", Endpoint("x", "{{{ not prometheus\n")),
    read("empty_page", Endpoint("x", "")),
    read("some_families", Endpoint("x", page(vllm__num_requests_waiting=4))),
    read("custom_engine", Endpoint("x", MINE), Endpoint("y", vllm(4, 6, .3), {"engine": "vllm"}),
         plugins=[CUSTOM, "metrics-data-source"], dataLayer=SOURCES),
    Group("read_seldom", config(["queue-scorer"], ["queue-scorer"]),
          [Endpoint("a", vllm(1)), Endpoint("b", vllm(3)), Endpoint("c", vllm(9))],
          [Case("held", [request(completion(), subset=["{a}"], headers={"x-request-id": "1"}),
                         request(completion(), headers={"x-request-id": "2"})],
                held=(0,), settle=False)],
          flags=("--emit-endpoint-scores", "--refresh-metrics-interval=20s"), scrapes=1),
    Group("dcgm", DCGM_CONFIG, DCGM, PICK, flags=ALPHA),
    Group("namespaces", config(["queue-scorer"], ["queue-scorer"]),
          [Endpoint("x", vllm(1), namespace="one"), Endpoint("y", vllm(5), namespace="two")], PICK),
]
