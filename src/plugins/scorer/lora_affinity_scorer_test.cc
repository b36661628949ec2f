#include "plugins/scorer/lora_affinity_scorer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/extractor/core_metrics_extractor.h"
#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using testing::Scene;

// Score of an endpoint with that metrics page for a request for adapter "a".
double ScoreWith(std::string_view page) {
  Scene scene(1);
  auto extractor = scene.Make(CoreMetricsExtractorType());
  plugin::EndpointReport report;
  dynamic_cast<plugin::Extractor&>(*extractor).Extract({}, page, &report);
  if (report.found_adapters) scene.fleet().ReportAdapters(0, report.adapters);
  scene.Refresh();
  auto scorer = scene.Make(LoraAffinityScorerType());
  scene.NewRequest().target_model = "a";
  return scene.Score(*scorer)[0];
}

std::string Info(std::string_view running, std::string_view waiting, int max, double time = 1) {
  return "vllm:lora_requests_info{max_lora=\"" + std::to_string(max) +
         "\",running_lora_adapters=\"" + std::string(running) + "\",waiting_lora_adapters=\"" +
         std::string(waiting) + "\"} " + std::to_string(time) + "\n";
}

TEST(LoraAffinityScorer, ScoresByWhatTheServerSays) {
  const struct {
    std::string page;
    double score;
  } cases[] = {
      {"", 0},
      {Info("", "", 2), 0.8},
      {Info("b, a", "", 2), 1},
      {Info("b", "", 2), 0.8},
      {Info("b,c", "a", 2), 0.6},
      {Info("b", "a", 2), 0.6},
      {Info("b", "a", 3), 0.8},
      {Info("b,c", "", 2), 0},
      {Info("a", "", 0), 1},
      {Info("a", "", 2, 5) + Info("b,c", "", 2, 9), 0},  // the newest series counts
      {Info("b,c", "", 2, 9) + Info("a", "", 2, 5), 0},
  };
  for (const auto& c : cases) EXPECT_EQ(ScoreWith(c.page), c.score) << c.page;
}

TEST(LoraAffinityScorer, WhatIsInMemoryCountsWhereItIsSaid) {
  const std::string loaded = "vllm:lora_adapter_loaded{adapter_name=\"a\",level=\"gpu\"} 1\n";
  const std::string unloaded = "vllm:lora_adapter_loaded{adapter_name=\"a\",level=\"gpu\"} 0\n";
  const std::string other = "vllm:lora_adapter_loaded{adapter_name=\"b\",level=\"gpu\"} 1\n";
  EXPECT_EQ(ScoreWith(Info("", "", 1) + loaded), 1) << "idle, but in memory";
  EXPECT_EQ(ScoreWith(Info("a", "", 1) + unloaded + other), 0);
  EXPECT_EQ(ScoreWith(Info("a", "", 2) + unloaded + other), 0.8);
}

}  // namespace
}  // namespace llmd::plugins
