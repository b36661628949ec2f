// What one event of a token stream costs: a whole event per read, and many per read.
#include <benchmark/benchmark.h>

#include <string>

#include "wire/sse.h"

namespace llmd::wire {
namespace {

constexpr std::string_view kEvent =
    "data: {\"id\":\"chatcmpl-87c2366e855c5afc\",\"object\":\"chat.completion.chunk\",\"created\":"
    "1795246234,\"model\":\"tiny\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"objects\"},"
    "\"logprobs\":null,\"finish_reason\":null,\"token_ids\":null}]}\n\n";

void BM_EventPerRead(benchmark::State& state) {
  SseParser parser;
  SseEvent event;
  for (auto _ : state) {
    parser.Feed(kEvent);
    while (parser.Next(&event)) benchmark::DoNotOptimize(event.data.data());
  }
  state.SetItemsProcessed(static_cast<int64_t>(parser.events()));
}
BENCHMARK(BM_EventPerRead);

void BM_ManyEventsPerRead(benchmark::State& state) {
  std::string chunk;
  for (int i = 0; i < 50; ++i) chunk += kEvent;
  SseParser parser;
  SseEvent event;
  for (auto _ : state) {
    parser.Feed(chunk);
    while (parser.Next(&event)) benchmark::DoNotOptimize(event.data.data());
  }
  state.SetItemsProcessed(static_cast<int64_t>(parser.events()));
}
BENCHMARK(BM_ManyEventsPerRead);

void BM_EveryEventCut(benchmark::State& state) {
  SseParser parser;
  SseEvent event;
  for (auto _ : state) {
    parser.Feed(kEvent.substr(0, 100));
    while (parser.Next(&event)) {
    }
    parser.Feed(kEvent.substr(100));
    while (parser.Next(&event)) benchmark::DoNotOptimize(event.data.data());
  }
  state.SetItemsProcessed(static_cast<int64_t>(parser.events()));
}
BENCHMARK(BM_EveryEventCut);

}  // namespace
}  // namespace llmd::wire
