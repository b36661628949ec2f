// The default profile as every request runs it: tokens, prefix match, queue 2, KV use 2, prefix 3,
// max-score picker, record. By endpoints and bytes of prompt.
#include <benchmark/benchmark.h>

#include "plugins/extractor/core_metrics_extractor.h"
#include "plugins/picker/max_score_picker.h"
#include "plugins/producer/approx_prefix_cache_producer.h"
#include "plugins/producer/token_producer.h"
#include "plugins/scorer/kv_cache_utilization_scorer.h"
#include "plugins/scorer/prefix_cache_scorer.h"
#include "plugins/scorer/queue_scorer.h"
#include "plugins/testing.h"
#include "scheduling/cycle.h"

namespace llmd::plugins {
namespace {

using testing::Scene;

struct DefaultProfile {
  explicit DefaultProfile(size_t endpoints)
      : scene(endpoints),
        tokens(scene.Make(TokenProducerType())),
        prefix(scene.Make(ApproxPrefixCacheProducerType())),
        queue(scene.Make(QueueScorerType())),
        kv(scene.Make(KvCacheUtilizationScorerType())),
        match(scene.Make(PrefixCacheScorerType())),
        picker(scene.Make(MaxScorePickerType())) {
    profile.name = "default";
    profile.scorers = {{dynamic_cast<plugin::Scorer*>(queue.get()), 2, 0},
                       {dynamic_cast<plugin::Scorer*>(kv.get()), 2, 1},
                       {dynamic_cast<plugin::Scorer*>(match.get()), 3, 2}};
    profile.picker = dynamic_cast<plugin::Picker*>(picker.get());
    base::Random random(1);
    for (uint32_t n = 0; n < endpoints; ++n) {
      scene.fleet().ReportLoad(n,
                               {.waiting = static_cast<float>(random.Below(9)),
                                .running = 4,
                                .kv_usage = static_cast<float>(random.Uniform())},
                               testing::At());
    }
    scene.Refresh();
  }
  Scene scene;
  std::unique_ptr<plugin::Plugin> tokens, prefix, queue, kv, match, picker;
  scheduling::Profile profile;
};

std::string PromptText(size_t bytes, uint64_t seed) {
  base::Random random(seed);
  std::string text(bytes, ' ');
  for (char& c : text) c = static_cast<char>('a' + random.Below(26));
  return text;
}

void BM_Decision(benchmark::State& state) {
  DefaultProfile x(static_cast<size_t>(state.range(0)));
  std::vector<std::string> prompts;
  for (uint64_t i = 0; i < 64; ++i) {
    prompts.push_back(PromptText(static_cast<size_t>(state.range(1)), i));
  }
  const auto candidates = x.scene.Candidates();
  auto& tokens = dynamic_cast<plugin::DataProducer&>(*x.tokens);
  auto& prefix = dynamic_cast<plugin::DataProducer&>(*x.prefix);
  auto& record = dynamic_cast<plugin::PreRequest&>(*x.prefix);
  uint64_t i = 0;
  for (auto _ : state) {
    plugin::RequestContext& request = x.scene.NewRequest();
    request.target_model = "model";
    x.scene.SetPrompt(prompts[i++ % prompts.size()]);
    benchmark::DoNotOptimize(tokens.Produce(request, candidates).ok());
    benchmark::DoNotOptimize(prefix.Produce(request, candidates).ok());
    const auto result = scheduling::RunProfile(x.profile, request, candidates, 3, nullptr);
    plugin::BookingList bookings;
    benchmark::DoNotOptimize(record.OnRouted(request, {.profiles = {&result, 1}}, &bookings).ok());
  }
}
BENCHMARK(BM_Decision)
    ->ArgNames({"endpoints", "bytes"})
    ->Args({4, 1 << 10})
    ->Args({4, 128 << 10})
    ->Args({100, 1 << 10})
    ->Args({1000, 1 << 10});

void BM_Scorer(benchmark::State& state, const plugin::PluginType& type) {
  DefaultProfile x(static_cast<size_t>(state.range(0)));
  auto made = x.scene.Make(type);
  x.scene.NewRequest();
  x.scene.SetPrompt("a prompt");
  benchmark::DoNotOptimize(x.scene.Produce(*x.tokens).ok() && x.scene.Produce(*x.prefix).ok());
  const auto candidates = x.scene.Candidates();
  std::vector<double> scores(candidates.size());
  const auto& scorer = dynamic_cast<plugin::Scorer&>(*made);
  for (auto _ : state) {
    scorer.Score(x.scene.request(), candidates, scores);
    benchmark::DoNotOptimize(scores.data());
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK_CAPTURE(BM_Scorer, queue, QueueScorerType())->Arg(4)->Arg(100)->Arg(1000);
BENCHMARK_CAPTURE(BM_Scorer, kv_cache_utilization, KvCacheUtilizationScorerType())->Arg(1000);
BENCHMARK_CAPTURE(BM_Scorer, prefix_cache, PrefixCacheScorerType())->Arg(1000);

void BM_Extract(benchmark::State& state) {
  std::string page;
  for (int i = 0; i < 150; ++i) {
    page += "vllm:time_to_first_token_seconds_bucket{engine=\"0\",le=\"" + std::to_string(i) +
            "\",model_name=\"tiny\"} " + std::to_string(i * 7) + "\n";
    if (i == 20) {
      page +=
          "vllm:num_requests_running{engine=\"0\",model_name=\"tiny\"} 3.0\n"
          "vllm:num_requests_waiting{engine=\"0\",model_name=\"tiny\"} 7.0\n"
          "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"tiny\"} 0.25\n";
    }
  }
  page += "vllm:cache_config_info{block_size=\"32\",engine=\"0\",num_gpu_blocks=\"32768\"} 1.0\n";
  Scene scene(1);
  auto made = scene.Make(CoreMetricsExtractorType());
  const auto& extractor = dynamic_cast<plugin::Extractor&>(*made);
  plugin::EndpointReport report;
  for (auto _ : state) {
    report.BeginPage();
    benchmark::DoNotOptimize(extractor.Extract({}, page, &report));
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(page.size()));
}
BENCHMARK(BM_Extract);

}  // namespace
}  // namespace llmd::plugins
