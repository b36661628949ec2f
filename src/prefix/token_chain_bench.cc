// What it costs to turn tokens into block keys. The number to beat is upstream's for 10,000 tokens:
// 193 us with cbor-fnv, 23 us with xxh64 (llm-d-router, pull request 2237, its machine).
#include <benchmark/benchmark.h>

#include <vector>

#include "base/random.h"
#include "prefix/token_chain.h"

namespace llmd::prefix {
namespace {

void BM_Extend(benchmark::State& state, ChainKind kind) {
  const auto count = static_cast<size_t>(state.range(0));
  const auto block_tokens = static_cast<size_t>(state.range(1));
  base::Random random(1);
  std::vector<uint32_t> tokens(count);
  for (uint32_t& token : tokens) token = static_cast<uint32_t>(random.Below(128256));
  std::vector<BlockKey> keys(count / block_tokens);
  const TokenChain chain(kind, "seed");
  const BlockKey root = chain.Root("model");
  for (auto _ : state) {
    chain.Extend(root, tokens, block_tokens, {}, keys);
    benchmark::DoNotOptimize(keys.data());
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(keys.size()));
}
BENCHMARK_CAPTURE(BM_Extend, own, ChainKind::kOwn)
    ->Args({10'000, 16})
    ->Args({10'000, 64})
    ->Args({100'000, 16});
BENCHMARK_CAPTURE(BM_Extend, xxh64, ChainKind::kXxh64)->Args({10'000, 16})->Args({10'000, 64});
BENCHMARK_CAPTURE(BM_Extend, cbor_fnv, ChainKind::kCborFnv)->Args({10'000, 16})->Args({10'000, 64});

}  // namespace
}  // namespace llmd::prefix
