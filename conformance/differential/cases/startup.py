"""Configurations that start and that are refused, with no request sent."""

import json

from fleet import Endpoint, vllm
from steps import Group, config

POOL = [Endpoint("a", vllm())]
ALPHA = ("--allow-experimental-plugins",)
QUEUE = ["queue-scorer"]


def start(name, text, flags=ALPHA):
    return Group(name, text, POOL, [], flags=flags, scrapes=0)


def changed(change, plugins=("queue-scorer",), profile=("queue-scorer",), **more):
    document = json.loads(config(list(plugins), list(profile), **more))
    change(document)
    return json.dumps(document)


def plugin(kind, **parameters):
    return config([{"type": kind, "parameters": parameters}, "queue-scorer"], QUEUE)


def second_profile(document):
    document["schedulingProfiles"].append({"name": "second", "plugins": []})


def same_profile(document):
    document["schedulingProfiles"].append(document["schedulingProfiles"][0])


GROUPS = [
    start("smallest", config(QUEUE, QUEUE)),
    start("old_api_version", changed(lambda d: d.update(
        apiVersion="inference.networking.x-k8s.io/v1alpha1"))),
    start("unknown_api_version", changed(lambda d: d.update(apiVersion="llm-d.ai/v9"))),
    start("no_api_version", changed(lambda d: d.pop("apiVersion"))),
    start("unknown_kind", changed(lambda d: d.update(kind="Pod"))),
    start("no_kind", changed(lambda d: d.pop("kind"))),
    start("metadata", changed(lambda d: d.update(metadata={"name": "x"}))),
    start("unknown_field", changed(lambda d: d.update(surprise=1))),
    start("unknown_plugin_field", changed(lambda d: d["plugins"][0].update(surprise=1))),
    start("field_in_another_case", changed(lambda d: d.update(
        FeatureGates=d.pop("featureGates", [])))),
    start("unknown_gate", config(QUEUE, QUEUE, featureGates=["surprise"])),
    start("gate_false", config(QUEUE, QUEUE, featureGates=["flowControl=false"])),
    start("gate_not_boolean", config(QUEUE, QUEUE, featureGates=["flowControl=maybe"])),
    start("plugin_without_type", changed(lambda d: d["plugins"].append({"name": "x"}))),
    start("plugin_twice", changed(lambda d: d["plugins"].append({"type": "queue-scorer"}))),
    start("plugin_twice_with_names", changed(lambda d: d["plugins"].append(
        {"type": "queue-scorer", "name": "other"}))),
    start("unknown_plugin", config(["surprise-scorer"], [])),
    start("alpha_not_allowed", config(["utilization-filter"], []), flags=()),
    start("alpha_allowed_without_conditions", config(["utilization-filter"], [])),
    start("undefined_reference", config(QUEUE, ["missing"])),
    start("reference_missing", changed(lambda d: d["schedulingProfiles"][0]["plugins"].append({}))),
    start("reference_of_another_kind", config(QUEUE, ["queue-scorer", "file-discovery"])),
    start("two_pickers", config(["max-score-picker", "random-picker"],
                                ["max-score-picker", "random-picker"])),
    start("two_handlers", config(["single-profile-handler", {
        "type": "single-profile-handler", "name": "again"}, "queue-scorer"], QUEUE)),
    start("single_handler_with_two_profiles", changed(second_profile)),
    start("profile_twice", changed(same_profile)),
    start("profile_without_a_name", changed(lambda d: d["schedulingProfiles"][0].pop("name"))),
    start("empty_profile", config(QUEUE, [])),
    start("no_profiles", config(QUEUE)),
    start("negative_weight", config(QUEUE, [("queue-scorer", -1)])),
    start("weight_of_zero", config(QUEUE, [("queue-scorer", 0)])),
    start("same_scorer_twice_in_a_profile", config(QUEUE, ["queue-scorer", "queue-scorer"])),
    start("undefined_parser", config(QUEUE, QUEUE, requestHandler={
        "parsers": [{"pluginRef": "missing"}]})),
    start("parser_of_another_kind", config(QUEUE, QUEUE, requestHandler={
        "parsers": [{"pluginRef": "queue-scorer"}]})),
    start("two_passthroughs", config(["passthrough-parser", {
        "type": "passthrough-parser", "name": "again"}, "queue-scorer"], QUEUE, requestHandler={
            "parsers": [{"pluginRef": "passthrough-parser"}, {"pluginRef": "again"}]})),
    start("undefined_detector", config(QUEUE, QUEUE, flowControl={
        "saturationDetector": {"pluginRef": "missing"}})),
    start("detector_of_another_kind", config(QUEUE, QUEUE, flowControl={
        "saturationDetector": {"pluginRef": "queue-scorer"}})),
    start("old_detector_key", config(["utilization-detector", *QUEUE], QUEUE,
                                     saturationDetector={"pluginRef": "utilization-detector"})),
    start("undefined_source", config(QUEUE, QUEUE, dataLayer={
        "sources": [{"pluginRef": "missing", "extractors": []}]})),
    start("undefined_extractor", config(["metrics-data-source", *QUEUE], QUEUE, dataLayer={
        "sources": [{"pluginRef": "metrics-data-source", "extractors": [
            {"pluginRef": "missing"}]}]})),
    start("source_without_extractors", config(["metrics-data-source", *QUEUE], QUEUE, dataLayer={
        "sources": [{"pluginRef": "metrics-data-source", "extractors": []}]})),
    start("extractor_twice", config(
        ["metrics-data-source", "core-metrics-extractor",
         {"type": "core-metrics-extractor", "name": "again"}, *QUEUE], QUEUE, dataLayer={
             "sources": [{"pluginRef": "metrics-data-source", "extractors": [
                 {"pluginRef": "core-metrics-extractor"}, {"pluginRef": "again"}]}]})),
    start("no_metrics_for_queue_scorer", config(QUEUE, QUEUE, dataLayer={
        "injectDefaults": False})),
    start("no_metrics_needed", config(["random-picker"], ["random-picker"], dataLayer={
        "injectDefaults": False})),
    start("token_load_alone", config(["token-load-scorer"], ["token-load-scorer"])),
    start("parameters_unknown", plugin("load-aware-scorer", surprise=1)),
    start("parameters_for_one_without", plugin("kv-cache-utilization-scorer", surprise=1)),
    start("parameters_case", plugin("load-aware-scorer", THRESHOLD=5)),
    start("parameters_wrong_kind", plugin("load-aware-scorer", threshold="five")),
    start("parameters_fraction", plugin("load-aware-scorer", threshold=5.5)),
    start("load_aware_zero", plugin("load-aware-scorer", threshold=0)),
    start("load_aware_negative", plugin("load-aware-scorer", threshold=-5)),
    start("picker_zero", plugin("max-score-picker", maxNumOfEndpoints=0)),
    start("picker_negative", plugin("max-score-picker", maxNumOfEndpoints=-1)),
    start("by_label_without_label", plugin("by-label", validValues=["x"])),
    start("by_label_without_values", plugin("by-label", label="x")),
    start("label_operator_unknown", plugin("label-selector-filter", matchExpressions=[
        {"key": "a", "operator": "Near", "values": ["b"]}])),
    start("label_in_without_values", plugin("label-selector-filter", matchExpressions=[
        {"key": "a", "operator": "In"}])),
    start("label_exists_with_values", plugin("label-selector-filter", matchExpressions=[
        {"key": "a", "operator": "Exists", "values": ["b"]}])),
    start("label_bad_key", plugin("label-selector-filter", matchLabels={"a b": "c"})),
    start("utilization_unknown_metric", plugin("utilization-filter", conditions=[
        {"metric": "surprise", "maxValue": 1}])),
    start("utilization_metric_twice", plugin("utilization-filter", conditions=[
        {"metric": "waiting-queue", "maxValue": 1}, {"metric": "waiting-queue", "maxValue": 2}])),
    start("utilization_negative", plugin("utilization-filter", conditions=[
        {"metric": "waiting-queue", "maxValue": -1}])),
    start("attribute_filter_bare", plugin("endpoint-attribute-filter")),
    start("attribute_nobody_produces", plugin("endpoint-attribute-filter", attribute="Nothing",
                                              algorithm={"type": "threshold", "threshold": {
                                                  "operator": "LessThan", "value": 1}})),
    start("attribute_scorer_bare", plugin("endpoint-attribute-scorer")),
    start("header_label_bare", plugin("header-label-affinity-scorer")),
    start("context_length_empty_label", plugin("context-length-aware", label="")),
    start("active_request_negative_idle", plugin("active-request-scorer", idleThreshold=-1)),
    start("active_request_busy_above_one", plugin("active-request-scorer", maxBusyScore=1.5)),
    start("token_load_zero", plugin("token-load-scorer", queueThresholdTokens=0)),
    start("prefix_weight_above_one", plugin("prefix-cache-scorer", matchLengthWeight=1.5)),
    start("prefix_affinity_above_one", plugin("prefix-cache-affinity-filter",
                                              affinityThreshold=1.5)),
    start("approx_zero_block", plugin("approx-prefix-cache-producer", autoTune=False,
                                      blockSizeTokens=0)),
    start("approx_negative_lru", plugin("approx-prefix-cache-producer",
                                        lruCapacityPerServer=-1)),
    start("session_id_bare", plugin("session-id-producer")),
    start("session_id_both", plugin("session-id-producer", headerName="a", cookieName="b")),
    start("session_strategy_unknown", plugin("session-affinity-filter", strategy="surprise")),
    start("detector_negative_queue", plugin("utilization-detector", queueDepthThreshold=-1)),
    start("detector_kv_above_one", plugin("utilization-detector", kvCacheUtilThreshold=1.5)),
    start("detector_bad_duration", plugin("utilization-detector",
                                          metricsStalenessThreshold="soon")),
    start("concurrency_zero", plugin("concurrency-detector", maxConcurrency=0)),
    start("concurrency_bad_mode", plugin("concurrency-detector", concurrencyMode="surprise")),
    start("burst_window_too_long", plugin("burst-prefix-cache-producer", windowDurationMs=20000)),
    start("reporter_bad_expression", plugin("request-attribute-reporter", attributes=[
        {"key": {"name": "x"}, "expression": "usage.("}])),
    start("reporter_bare", plugin("request-attribute-reporter")),
    start("deprecated_names", config(["by-label-selector", "tokenizer", *QUEUE], QUEUE)),
    start("not_yaml", "{{{"),
]
