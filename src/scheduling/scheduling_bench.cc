#include <benchmark/benchmark.h>

#include "scheduling/cycle.h"
#include "scheduling/test_plugins.h"

namespace llmd::scheduling {
namespace {

// Costs what a real column scorer costs: one load and one multiply per candidate.
struct ColumnScorer final : plugin::Scorer {
  plugin::ScorerCategory category() const override { return plugin::ScorerCategory::kDistribution; }
  void Score(const plugin::RequestContext& request,
             std::span<const plugin::EndpointNumber> candidates,
             std::span<double> scores) const override {
    const float* usage = request.fleet->kv_usage();
    for (size_t i = 0; i < candidates.size(); ++i) scores[i] = 1 - usage[candidates[i]];
  }
};

struct TopPicker final : plugin::Picker {
  void Pick(plugin::RequestContext&, std::span<plugin::ScoredCandidate> scored,
            size_t wanted) const override {
    // Insertion into the first `wanted`, stable.
    for (size_t i = 1; i < scored.size(); ++i) {
      const plugin::ScoredCandidate c = scored[i];
      size_t at = std::min(i, wanted);
      if (at < i && !(scored[wanted - 1].score < c.score)) continue;
      if (at < i) scored[i] = scored[--at];
      for (; at > 0 && scored[at - 1].score < c.score; --at) scored[at] = scored[at - 1];
      scored[at] = c;
    }
  }
  size_t endpoint_count() const override { return 1; }
};

void BM_Schedule(benchmark::State& state) {
  fleet::Fleet fleet(1);
  std::vector<fleet::EndpointSpec> specs;
  std::vector<plugin::EndpointNumber> numbers;
  for (int i = 0; i < state.range(0); ++i) {
    specs.push_back({.name = std::to_string(i), .address = "10.0.0.1",
                     .port = static_cast<uint16_t>(i), .labels = {}});
    numbers.push_back(static_cast<plugin::EndpointNumber>(i));
  }
  (void)fleet.SetMembers(std::move(specs), {});
  for (plugin::EndpointNumber n : numbers) {
    fleet.ReportLoad(n, {.kv_usage = static_cast<float>(n % 7) / 10}, {});
  }
  fleet::View view(fleet, 0);
  view.Refresh(base::TimePoint(std::chrono::hours(1)));
  for (plugin::EndpointNumber n : numbers) view.Book(fleet::kRequestsInFlight, n, n % 13);

  const ColumnScorer scorers[3];
  const TopPicker picker;
  const testing::EveryProfileHandler handler;
  const Profile profile{.name = "default",
                        .scorers = {{&scorers[0], 2, 0}, {&scorers[1], 2, 1}, {&scorers[2], 3, 2}},
                        .picker = &picker};
  base::Arena arena(64 << 10);
  plugin::RequestContext request;
  request.arena = &arena;
  request.fleet = &view;
  Trace trace{.keep_scores = true};
  for (auto _ : state) {
    arena.Reset();
    benchmark::DoNotOptimize(
        Schedule(handler, {&profile, 1}, request, numbers, 3, &trace).has_value());
  }
}
BENCHMARK(BM_Schedule)->Arg(4)->Arg(16)->Arg(100)->Arg(1000);

}  // namespace
}  // namespace llmd::scheduling
