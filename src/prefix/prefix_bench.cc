// What a decision pays for prefix affinity: hashing the prompt, asking the index, telling it.
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "base/random.h"
#include "prefix/block_hash.h"
#include "prefix/prefix_index.h"

namespace llmd::prefix {
namespace {

constexpr size_t kBlockBytes = 256;

std::string Text(size_t size) {
  base::Random random(1);
  std::string text(size, ' ');
  for (char& c : text) c = static_cast<char>('a' + random.Below(26));
  return text;
}

// range(1): of HashKernels().
void BM_ContentHash(benchmark::State& state) {
  const auto kernels = HashKernels();
  const size_t number = static_cast<size_t>(state.range(1));
  if (number >= kernels.size()) return state.SkipWithError("this processor has no such kernel");
  const std::string text = Text(static_cast<size_t>(state.range(0)));
  const size_t count = text.size() / kBlockBytes;
  std::vector<BlockHash> out(count);
  for (auto _ : state) {
    benchmark::DoNotOptimize(
        kernels[number].chain(1, text.data(), kBlockBytes, count, out.data()));
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
  state.SetLabel(std::string(kernels[number].name));
}
BENCHMARK(BM_ContentHash)->ArgsProduct({{1 << 10, 128 << 10}, {0, 1, 2}});

// A chat prompt: "user" and then text, so that no block lies where a piece begins.
void BM_PromptHasher(benchmark::State& state) {
  const std::string text = Text(static_cast<size_t>(state.range(0)));
  std::vector<BlockHash> out(text.size() / kBlockBytes + 2);
  std::vector<char> staging(kBlockBytes);
  for (auto _ : state) {
    PromptHasher hasher(1, kBlockBytes, out, staging);
    hasher.Append("user");
    hasher.Append(text);
    benchmark::DoNotOptimize(hasher.Finish().size());
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_PromptHasher)->Arg(1 << 10)->Arg(16 << 10)->Arg(128 << 10)->Arg(512 << 10);

std::vector<BlockHash> RandomChain(base::Random& random, size_t size) {
  std::vector<BlockHash> chain(size);
  for (BlockHash& hash : chain) hash = random.Next();
  return chain;
}

// Prompts of range(0) blocks, each held by range(1) endpoints, in an index that is full of others.
void BM_Match(benchmark::State& state) {
  const auto blocks = static_cast<size_t>(state.range(0));
  const auto holders = static_cast<uint32_t>(state.range(1));
  base::Random random(1);
  PrefixIndex index;
  std::vector<std::vector<BlockHash>> chains;
  for (size_t i = 0; i < 31250 / blocks; ++i) {
    chains.push_back(RandomChain(random, blocks));
    for (uint32_t e = 0; e < holders; ++e) index.Record(e, 31250, chains.back());
  }
  std::vector<uint32_t> matched(holders);
  for (auto _ : state) {
    std::fill(matched.begin(), matched.end(), 0);
    index.Match(chains[random.Below(chains.size())], matched);
    benchmark::DoNotOptimize(matched.data());
  }
  if (matched[0] != blocks) state.SkipWithError("no match");
  state.counters["bytes_per_block"] =
      static_cast<double>(index.stats().bytes) / static_cast<double>(index.stats().blocks);
}
BENCHMARK(BM_Match)->Args({4, 4})->Args({4, 100})->Args({64, 8})->Args({512, 8})->Args({512, 1000});

// New prompts into an endpoint that is full, so each record evicts as much.
void BM_RecordNew(benchmark::State& state) {
  const auto blocks = static_cast<size_t>(state.range(0));
  base::Random random(1);
  PrefixIndex index;
  std::vector<BlockHash> chain(blocks);
  uint32_t endpoint = 0;
  auto record = [&] {
    for (BlockHash& hash : chain) hash = random.Next();
    index.Record(endpoint++ % 8, 31250, chain);
  };
  for (size_t i = 0; i < 8 * 31250 / blocks + 8; ++i) record();
  for (auto _ : state) record();
  state.counters["evicted"] = static_cast<double>(index.stats().evicted_blocks);
}
BENCHMARK(BM_RecordNew)->Arg(4)->Arg(64)->Arg(512);

// The index is full, and every endpoint still has room: each record evicts what was used longest
// ago by any of them.
void BM_RecordUnderPressure(benchmark::State& state) {
  const auto endpoints = static_cast<uint32_t>(state.range(0));
  base::Random random(1);
  PrefixIndex index(16u << 20);
  std::vector<BlockHash> chain(64);
  auto record = [&] {
    for (BlockHash& hash : chain) hash = random.Next();
    index.Record(static_cast<uint32_t>(random.Below(endpoints)), 1 << 20, chain);
  };
  for (int i = 0; i < 40000; ++i) record();
  for (auto _ : state) record();
}
BENCHMARK(BM_RecordUnderPressure)->Arg(8)->Arg(PrefixIndex::kEndpointsMax);

// The same prompts again and again: nothing to add, everything to touch.
void BM_RecordKnown(benchmark::State& state) {
  const auto blocks = static_cast<size_t>(state.range(0));
  base::Random random(1);
  PrefixIndex index;
  std::vector<std::vector<BlockHash>> chains;
  for (size_t i = 0; i < 31250 / blocks; ++i) chains.push_back(RandomChain(random, blocks));
  for (auto _ : state) {
    const uint64_t i = random.Below(chains.size());
    index.Record(static_cast<uint32_t>(i % 8), 31250, chains[i]);
  }
}
BENCHMARK(BM_RecordKnown)->Arg(4)->Arg(64)->Arg(512);

}  // namespace
}  // namespace llmd::prefix
