#include <benchmark/benchmark.h>

#include "fleet/fleet.h"

namespace llmd::fleet {
namespace {

base::TimePoint At(int64_t us) { return base::TimePoint(std::chrono::microseconds(us)); }

void Fill(Fleet& fleet, size_t n) {
  std::vector<EndpointSpec> specs;
  for (size_t i = 0; i < n; ++i) {
    specs.push_back({.name = "s" + std::to_string(i),
                     .address = "10.0.0.1",
                     .port = static_cast<uint16_t>(i),
                     .labels = {}});
  }
  (void)fleet.SetMembers(std::move(specs), At(0));
  for (EndpointNumber e = 0; e < n; ++e) fleet.ReportLoad(e, {.waiting = 1, .running = 2}, At(1));
}

void BM_RefreshNotDue(benchmark::State& state) {
  Fleet fleet(16);
  Fill(fleet, 4);
  View view(fleet, 0);
  view.Refresh(At(60'000'000));
  for (auto _ : state) {
    view.Refresh(At(60'000'001));
    benchmark::ClobberMemory();
  }
}
BENCHMARK(BM_RefreshNotDue);

// Every worker has booked on every endpoint: nothing can be skipped.
void BM_Regather(benchmark::State& state) {
  constexpr size_t kWorkers = 16;
  Fleet fleet(kWorkers);
  Fill(fleet, static_cast<size_t>(state.range(0)));
  for (int c = 1; c < state.range(1); ++c) (void)fleet.AddCounter();
  for (size_t w = 0; w < kWorkers; ++w) {
    View booker(fleet, w);
    for (int c = 0; c < state.range(1); ++c) booker.Book(static_cast<CounterId>(c), 0, 1);
  }
  View view(fleet, 0);
  int64_t now = 60'000'000;
  for (auto _ : state) view.Refresh(At(now += 1'000'000));
}
BENCHMARK(BM_Regather)
    ->Args({4, 3})
    ->Args({100, 3})
    ->Args({1000, 1})
    ->Args({1000, 3})
    ->Args({10000, 3});

void BM_Routable(benchmark::State& state) {
  Fleet fleet(2);
  Fill(fleet, static_cast<size_t>(state.range(0)));
  View view(fleet, 0);
  view.Refresh(At(60'000'000));
  base::Random random(1);
  base::Arena arena;
  for (auto _ : state) {
    arena.Reset();
    benchmark::DoNotOptimize(view.Routable(random, arena).data());
  }
}
BENCHMARK(BM_Routable)->Arg(4)->Arg(1000);

void BM_BookAndTakeBack(benchmark::State& state) {
  Fleet fleet(2);
  Fill(fleet, 4);
  View view(fleet, 0);
  view.Refresh(At(60'000'000));
  for (auto _ : state) {
    view.Book(kRequestsInFlight, 1, 1);
    view.Book(kRequestsInFlight, 1, -1);
  }
}
BENCHMARK(BM_BookAndTakeBack);

}  // namespace
}  // namespace llmd::fleet
