// core-metrics-extractor: queue length, batch size, KV use and KV block sizes out of a model
// server's metrics page, whichever engine it is.
//
// The engine is the value of the endpoint's label `engineLabelKey` (llm-d.ai/engine-type; the old
// inference.networking.k8s.io/engine-type is read when it is absent), else `defaultEngine` (vllm);
// an engine without a config is read as the default one. Built in: vllm, sglang, trtllm-serve,
// triton-tensorrt-llm, triton. `engineConfigs` replaces or adds engines, each with the specs
// queuedRequestsSpec, runningRequestsSpec, kvUsageSpec, cacheInfoSpec (whose labels
// cacheBlockSizeLabelName and cacheNumBlocksLabelName hold the numbers), cacheBlockSizeSpec,
// cacheNumBlocksSpec; a spec reads `name` or `name{label=value,...}`, "" means the engine does not
// say. loraSpec names the series whose labels running_lora_adapters, waiting_lora_adapters and
// max_lora describe adapters; vllm:lora_adapter_loaded is read besides. customMetrics
// [{attributeKey, metricSpec}] become endpoint attributes.
//
// Where a family has several series (vLLM writes one per engine core of a data-parallel server):
// waiting, running and block counts are summed, KV use is the mean, block sizes are the last.
// Upstream reads the first series only. What is not a finite number is skipped.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType CoreMetricsExtractorType();

}  // namespace llmd::plugins
