// Cost of the model itself. A step should stay well below what it simulates (5 to 40 ms), so that a
// fleet of engines runs thousands of times faster than real time.
#include <benchmark/benchmark.h>

#include <string>

#include "engine/profile.h"
#include "engine/tokens.h"

namespace llmd::engine {
namespace {

// Steps with `batch` sequences decoding, each finished one replaced; `waiting` more in the queue.
void BM_Step(benchmark::State& state) {
  EngineConfig config = FindProfile("qwen3-32b-h100-tp2")->Config();
  config.frontend_delay = base::Duration(0);
  config.sequences_max = static_cast<uint32_t>(state.range(0));
  config.waiting_max = 100000;
  auto engine = *Engine::Create(config);
  std::vector<Token> prompt(1024);
  uint64_t next = 0;
  auto submit = [&](base::TimePoint now) {
    for (size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<Token>(next % 50 + i / 900);
    ++next;
    if (!engine->Submit({.prompt = prompt, .output_tokens = 256, .tag = next}, now)) abort();
  };
  for (int64_t i = 0; i < state.range(0) + state.range(1); ++i) submit(base::TimePoint{});
  uint64_t tokens = 0;
  for (auto _ : state) {
    const StepResult step = engine->Step();
    tokens += step.tokens.size();
    const size_t finished = step.finished.size();
    for (size_t i = 0; i < finished; ++i) submit(step.at);
  }
  state.SetItemsProcessed(state.iterations());
  state.counters["tokens/s"] =
      benchmark::Counter(static_cast<double>(tokens), benchmark::Counter::kIsRate);
}
BENCHMARK(BM_Step)->Args({1, 0})->Args({8, 0})->Args({32, 0})->Args({128, 0})->Args({32, 5000});

void BM_InstantRequest(benchmark::State& state) {
  auto engine = *Engine::Create(FindProfile("instant")->Config());
  std::vector<Token> prompt(256);
  for (auto _ : state) {
    prompt[0]++;
    if (!engine->Submit({.prompt = prompt, .output_tokens = 16}, base::TimePoint{})) abort();
    while (engine->next_step_at() != Engine::kNever) benchmark::DoNotOptimize(engine->Step());
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_InstantRequest);

void BM_Tokenize(benchmark::State& state) {
  std::string text;
  while (text.size() < 16384) text += "The quick brown fox jumps over the lazy dog; it is 42. ";
  std::vector<Token> tokens;
  for (auto _ : state) {
    tokens.clear();
    Tokenize(text, &tokens);
    benchmark::DoNotOptimize(tokens.data());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(text.size()));
}
BENCHMARK(BM_Tokenize);

void BM_CountTokens(benchmark::State& state) {
  std::string text;
  while (text.size() < 16384) text += "The quick brown fox jumps over the lazy dog; it is 42. ";
  for (auto _ : state) benchmark::DoNotOptimize(CountTokens(text));
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(text.size()));
}
BENCHMARK(BM_CountTokens);

}  // namespace
}  // namespace llmd::engine
