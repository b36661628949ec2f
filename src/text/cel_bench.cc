#include <optional>
#include <string_view>

#include "benchmark/benchmark.h"
#include "text/cel.h"

namespace llmd::text {
namespace {

constexpr std::string_view kPaths[] = {"usage.prompt_tokens", "usage.completion_tokens",
                                       "usage.total_tokens",
                                       "usage.prompt_tokens_details.cached_tokens"};

void Evaluate(benchmark::State& state, std::string_view source) {
  const auto expression = CelExpression::Compile(source, kPaths);
  const std::optional<int64_t> inputs[] = {1000, 200, 1200, 800};
  for (auto _ : state) benchmark::DoNotOptimize(expression->Evaluate(inputs));
}
BENCHMARK_CAPTURE(Evaluate, sum, "usage.prompt_tokens + usage.completion_tokens");
BENCHMARK_CAPTURE(Evaluate, condition,
                  "has(usage.prompt_tokens) && has(usage.completion_tokens)");

void Compile(benchmark::State& state) {
  for (auto _ : state) {
    benchmark::DoNotOptimize(
        CelExpression::Compile("usage.prompt_tokens + usage.completion_tokens", kPaths));
  }
}
BENCHMARK(Compile);

}  // namespace
}  // namespace llmd::text
