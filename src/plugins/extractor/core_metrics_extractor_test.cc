#include "plugins/extractor/core_metrics_extractor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::Scene;

fleet::EndpointSpec WithEngine(std::string engine, std::string key = "llm-d.ai/engine-type") {
  return {.name = "s", .address = "10.0.0.1", .labels = {{std::move(key), std::move(engine)}}};
}

fleet::Load Extract(std::string_view page, const fleet::EndpointSpec& endpoint = {},
                    std::string_view yaml = "", fleet::Load before = {}) {
  Scene scene(1);
  auto made = scene.Make(CoreMetricsExtractorType(), yaml);
  EXPECT_NE(made, nullptr) << scene.context().errors().ToString();
  plugin::EndpointReport report;
  report.load = before;
  dynamic_cast<plugin::Extractor&>(*made).Extract(endpoint, page, &report);
  return report.load;
}

TEST(CoreMetricsExtractor, ReadsVllm) {
  const fleet::Load load = Extract(R"(# HELP vllm:num_requests_running Requests in the batch.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny"} 3.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="tiny"} 7.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="tiny",reason="capacity"} 5.0
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.25
vllm:cache_config_info{block_size="32",cache_dtype="auto",engine="0",num_gpu_blocks="32768"} 1.0
)");
  EXPECT_EQ(load.waiting, 7);
  EXPECT_EQ(load.running, 3);
  EXPECT_EQ(load.kv_usage, 0.25f);
  EXPECT_EQ(load.block_tokens, 32u);
  EXPECT_EQ(load.block_count, 32768u);
}

// A data-parallel server writes a series per engine core: they are one endpoint's load together.
TEST(CoreMetricsExtractor, AddsUpTheEngineCoresOfOneServer) {
  const fleet::Load load = Extract(R"(vllm:num_requests_running{engine="0"} 3
vllm:num_requests_running{engine="1"} 4
vllm:num_requests_waiting{engine="0"} 1
vllm:num_requests_waiting{engine="1"} 0
vllm:kv_cache_usage_perc{engine="0"} 0.2
vllm:kv_cache_usage_perc{engine="1"} 0.6
vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="1000"} 1
vllm:cache_config_info{block_size="16",engine="1",num_gpu_blocks="1200"} 1
)");
  EXPECT_EQ(load.running, 7);
  EXPECT_EQ(load.waiting, 1);
  EXPECT_FLOAT_EQ(load.kv_usage, 0.4f);
  EXPECT_EQ(load.block_tokens, 16u);
  EXPECT_EQ(load.block_count, 2200u);
}

TEST(CoreMetricsExtractor, ReadsEveryBuiltInEngine) {
  struct Case {
    const char* engine;
    const char* page;
    fleet::Load load;
  };
  const Case cases[] = {
      {"sglang",
       "sglang:num_queue_reqs 2\nsglang:num_running_reqs 5\nsglang:token_usage 0.5\n"
       "sglang:cache_config_info{page_size=\"64\",num_pages=\"900\"} 1\n",
       {.waiting = 2, .running = 5, .kv_usage = 0.5f, .block_tokens = 64, .block_count = 900}},
      {"trtllm-serve",
       "trtllm_num_requests_waiting 1\ntrtllm_num_requests_running 9\n"
       "trtllm_kv_cache_utilization 0.75\ntrtllm_kv_cache_tokens_per_block 32\n"
       "trtllm_kv_cache_max_blocks 500\n",
       {.waiting = 1, .running = 9, .kv_usage = 0.75f, .block_tokens = 32, .block_count = 500}},
      {"triton-tensorrt-llm",
       "nv_trt_llm_request_metrics{model=\"m\",request_type=\"waiting\",version=\"1\"} 4\n"
       "nv_trt_llm_request_metrics{model=\"m\",request_type=\"scheduled\",version=\"1\"} 6\n"
       "nv_trt_llm_request_metrics{model=\"m\",request_type=\"max\",version=\"1\"} 512\n"
       "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"fraction\"} 0.125\n"
       "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"tokens_per\"} 64\n"
       "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"max\"} 77\n",
       {.waiting = 4, .running = 6, .kv_usage = 0.125f, .block_tokens = 64, .block_count = 77}},
      {"triton",
       "nv_inference_pending_request_count{model=\"a\"} 2\n"
       "nv_inference_pending_request_count{model=\"b\"} 1\nnv_inference_exec_count 8\n",
       {.waiting = 3, .running = 8}},
  };
  for (const Case& c : cases) {
    const fleet::Load load = Extract(c.page, WithEngine(c.engine));
    EXPECT_EQ(load.waiting, c.load.waiting) << c.engine;
    EXPECT_EQ(load.running, c.load.running) << c.engine;
    EXPECT_EQ(load.kv_usage, c.load.kv_usage) << c.engine;
    EXPECT_EQ(load.block_tokens, c.load.block_tokens) << c.engine;
    EXPECT_EQ(load.block_count, c.load.block_count) << c.engine;
  }
}

TEST(CoreMetricsExtractor, TheLabelNamesTheEngine) {
  const char* page = "vllm:num_requests_waiting 1\nsglang:num_queue_reqs 2\n";
  EXPECT_EQ(Extract(page).waiting, 1) << "no label: vllm";
  EXPECT_EQ(Extract(page, WithEngine("sglang")).waiting, 2);
  EXPECT_EQ(Extract(page, WithEngine("sglang", "inference.networking.k8s.io/engine-type")).waiting,
            2);
  EXPECT_EQ(Extract(page, WithEngine("unheard-of")).waiting, 1) << "unknown: the default engine";
  EXPECT_EQ(Extract(page, WithEngine("vllm"), "{defaultEngine: sglang}").waiting, 1);
  EXPECT_EQ(Extract(page, {}, "{defaultEngine: sglang}").waiting, 2);
  EXPECT_EQ(Extract(page, WithEngine("sglang", "kind"), "{engineLabelKey: kind}").waiting, 2);
}

TEST(CoreMetricsExtractor, EnginesCanBeAddedAndReplaced) {
  const char* yaml = R"(
engineConfigs:
  - name: mine
    queuedRequestsSpec: q{kind="a"}
    kvUsageSpec: kv
    cacheInfoSpec: info
    cacheBlockSizeLabelName: bs
    cacheNumBlocksLabelName: nb
  - {name: vllm, queuedRequestsSpec: other}
)";
  const char* page =
      "q{kind=\"a\"} 3\nq{kind=\"b\"} 9\nkv 0.5\ninfo{bs=\"8\",nb=\"80\"} 1\nother 6\n"
      "vllm:num_requests_waiting 1\n";
  const fleet::Load mine = Extract(page, WithEngine("mine"), yaml);
  EXPECT_EQ(mine.waiting, 3);
  EXPECT_EQ(mine.kv_usage, 0.5f);
  EXPECT_EQ(mine.block_tokens, 8u);
  EXPECT_EQ(mine.block_count, 80u);
  EXPECT_EQ(Extract(page, WithEngine("vllm"), yaml).waiting, 6);
}

TEST(CoreMetricsExtractor, WhatThePageLacksStays) {
  const fleet::Load load = Extract("vllm:num_requests_waiting 4\n", {}, "",
                                   {.waiting = 1, .running = 2, .block_tokens = 16});
  EXPECT_EQ(load.waiting, 4);
  EXPECT_EQ(load.running, 2);
  EXPECT_EQ(load.block_tokens, 16u);

  Scene scene(1);
  auto made = scene.Make(CoreMetricsExtractorType());
  plugin::EndpointReport untouched;
  untouched.load.waiting = 5;
  EXPECT_FALSE(dynamic_cast<plugin::Extractor&>(*made).Extract({}, "up 1\n", &untouched));
  EXPECT_EQ(untouched.load.waiting, 5);
}

TEST(CoreMetricsExtractor, NumbersThatAreNoneAreSkippedAndUseIsKeptInItsRange) {
  const fleet::Load load = Extract(
      "vllm:num_requests_waiting NaN\nvllm:num_requests_running{engine=\"0\"} +Inf\n"
      "vllm:num_requests_running{engine=\"1\"} 2\nvllm:kv_cache_usage_perc 1.5\n",
      {}, "", {.waiting = 3});
  EXPECT_EQ(load.waiting, 3);
  EXPECT_EQ(load.running, 2);
  EXPECT_EQ(load.kv_usage, 1);
}

TEST(CoreMetricsExtractor, NamesTheFamiliesThatItReads) {
  Scene scene(1);
  auto made = scene.Make(CoreMetricsExtractorType());
  auto& extractor = dynamic_cast<plugin::Extractor&>(*made);
  EXPECT_THAT(extractor.WantedFamilies({}),
              ElementsAre("vllm:num_requests_waiting", "vllm:num_requests_running",
                          "vllm:kv_cache_usage_perc", "vllm:cache_config_info",
                          "vllm:lora_requests_info", "vllm:lora_adapter_loaded"));
  EXPECT_THAT(extractor.WantedFamilies(WithEngine("triton-tensorrt-llm")),
              ElementsAre("nv_trt_llm_request_metrics", "nv_trt_llm_kv_cache_block_metrics"));
}

TEST(CoreMetricsExtractor, RefusesWhatItCannotRead) {
  struct Case {
    const char* yaml;
    const char* says;
  };
  for (const Case& c : {
           Case{"{defaultEngine: vlm}", "did you mean vllm"},
           Case{"{engineConfigs: [{name: default}]}", "reserved"},
           Case{"{engineConfigs: [{name: a}, {name: a}]}", "listed twice"},
           Case{"{engineConfigs: [{name: a, kvUsageSpec: 'x{'}]}", "engineConfigs[0].kvUsageSpec"},
           Case{"{engineConfigs: [{name: a, customMetrics: [{attributeKey: k}]}]}", "metricSpec"},
           Case{"{engineConfigs: [{name: a, customMetrics: [{attributeKey: k, metricSpec: '{'}]}]}",
                "customMetrics[0].metricSpec"},
           Case{"{engineConfigs: [{queuedRequestsSpec: a}]}", "name"},
       }) {
    Scene scene(1);
    EXPECT_EQ(scene.Make(CoreMetricsExtractorType(), c.yaml), nullptr) << c.yaml;
    EXPECT_THAT(scene.context().errors().ToString(), HasSubstr(c.says)) << c.yaml;
  }
}

}  // namespace
}  // namespace llmd::plugins
