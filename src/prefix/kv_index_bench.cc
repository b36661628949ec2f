// What the KV block index costs at 10 million blocks: storing and removing, matching while idle and
// while it is fed, bytes per block. How many are indexed: see Pairs().
#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/hash.h"
#include "base/random.h"
#include "prefix/kv_index.h"
#include "prefix/token_chain.h"

namespace llmd::prefix {
namespace {

constexpr uint32_t kHolders = 1000;
constexpr size_t kPromptBlocks = 600;
constexpr size_t kEventBlocks = 25;
const KvIndex::Options kOptions{.bytes_max = KvIndex::kBytesMaxDefault, .seed = 1};

// A prompt's chain without storing it: the keys follow from the seed.
void Fill(uint64_t seed, std::span<BlockKey> chain) {
  for (size_t i = 0; i < chain.size(); ++i) chain[i] = base::Mix64(seed, i) | 1;
}

// An index full of prompts of kPromptBlocks blocks, each stored in events of kEventBlocks and held
// by `copies` holders.
struct Full {
  Full(size_t blocks, uint32_t copies)
      : index(kOptions), copies(copies) {
    prompts = blocks / kPromptBlocks;
    for (uint64_t p = 0; p < prompts; ++p) {
      for (uint32_t c = 0; c < copies; ++c) Store(HolderOf(p, c), p);
    }
  }
  HolderId HolderOf(uint64_t prompt, uint32_t copy) const {
    return static_cast<HolderId>((base::Mix64(prompt, 7) + copy) % kHolders);
  }
  // Engines know of our keys nothing; theirs are the same on all servers.
  static EngineKey Name(BlockKey key) { return key * 0x9e3779b97f4a7c15u; }

  void Store(HolderId holder, uint64_t prompt, size_t from = 0, size_t until = kPromptBlocks) {
    Fill(prompt, chain);
    for (size_t i = 0; i < kPromptBlocks; ++i) names[i] = Name(chain[i]);
    std::optional<KvIndex::BlockRef> parent;
    if (from > 0) parent = index.Find(holder, 0, names[from - 1]);
    for (size_t i = from; i < until; i += kEventBlocks) {
      if (i > from) parent = index.Find(holder, 0, names[i - 1]);
      const size_t size = std::min(kEventBlocks, until - i);
      index.Store(holder, 0, 0, parent ? &*parent : nullptr, std::span(names).subspan(i, size),
                  std::span(chain).subspan(i, size));
    }
  }
  void Remove(HolderId holder, uint64_t prompt) {
    Fill(prompt, chain);
    for (size_t i = 0; i < kPromptBlocks; ++i) names[i] = Name(chain[i]);
    // The tail goes first, as engines evict.
    for (size_t until = kPromptBlocks; until > 0;) {
      const size_t size = std::min(kEventBlocks, until);
      index.Remove(holder, 0, 0, std::span(names).subspan(until - size, size));
      until -= size;
    }
  }

  KvIndex index;
  uint32_t copies;
  uint64_t prompts = 0;
  uint64_t oldest = 0;  // of the prompts, those in [oldest, oldest + prompts) are held
  std::array<BlockKey, kPromptBlocks> chain;
  std::array<EngineKey, kPromptBlocks> names;
};

// Half stores, half removals: the oldest prompt goes, a new one comes. Returns operations.
size_t Turn(Full& full) {
  const uint64_t next = full.oldest + full.prompts;
  for (uint32_t c = 0; c < full.copies; ++c) {
    full.Remove(full.HolderOf(full.oldest, c), full.oldest);
    full.Store(full.HolderOf(next, c), next);
  }
  ++full.oldest;
  return 2 * kPromptBlocks * full.copies;
}

// One index at a time: they are large.
Full& At(size_t blocks, uint32_t copies) {
  static std::unique_ptr<Full> full;
  static size_t full_blocks = 0;
  if (!full || full->copies != copies || full_blocks != blocks) {
    full.reset();
    full = std::make_unique<Full>(blocks, copies);
    full_blocks = blocks;
  }
  return *full;
}

void Report(benchmark::State& state, const Full& full) {
  const KvIndex::Stats stats = full.index.stats();
  state.counters["bytes_per_block"] =
      static_cast<double>(stats.bytes) / static_cast<double>(stats.blocks);
  state.counters["bytes_per_pair"] =
      static_cast<double>(stats.bytes) / static_cast<double>(stats.pairs);
  state.counters["bytes"] = static_cast<double>(stats.bytes);
  state.counters["bytes_empty"] = static_cast<double>(KvIndex(kOptions).stats().bytes);
  state.counters["blocks"] = static_cast<double>(stats.blocks);
  state.counters["pairs"] = static_cast<double>(stats.pairs);
}

void ReportLatency(benchmark::State& state, std::vector<uint32_t>* nanoseconds) {
  std::sort(nanoseconds->begin(), nanoseconds->end());
  const auto at = [&](double share) {
    return static_cast<double>((*nanoseconds)[static_cast<size_t>(
               share * static_cast<double>(nanoseconds->size() - 1))]) / 1000;
  };
  state.counters["p50_us"] = at(0.5);
  state.counters["p99_us"] = at(0.99);
  state.counters["p999_us"] = at(0.999);
}

// Prompts whose order has nothing to do with memory: every look-up misses the caches.
void BM_Apply(benchmark::State& state) {
  Full& full = At(static_cast<size_t>(state.range(0)), static_cast<uint32_t>(state.range(1)));
  size_t operations = 0;
  for (auto _ : state) operations += Turn(full);
  state.SetItemsProcessed(static_cast<int64_t>(operations));
  Report(state, full);
}

// range(2): operations per second of a writer beside; 0: none, -1: as fast as it can.
void BM_Match(benchmark::State& state) {
  Full& full = At(static_cast<size_t>(state.range(0)), static_cast<uint32_t>(state.range(1)));
  const int64_t rate = state.range(2);
  std::atomic<bool> done{false};
  std::atomic<uint64_t> first{full.oldest};
  size_t written = 0;
  std::thread writer;
  const auto begin = std::chrono::steady_clock::now();
  const auto seconds = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  if (rate != 0) {
    writer = std::thread([&] {
      while (!done.load(std::memory_order_relaxed)) {
        if (rate > 0 && static_cast<double>(written) > seconds() * static_cast<double>(rate)) {
          continue;
        }
        written += Turn(full);
        first.store(full.oldest, std::memory_order_relaxed);
      }
    });
  }
  KvIndex::Reader reader(full.index);
  std::vector<uint32_t> blocks(kHolders);
  std::vector<float> weighted(kHolders);
  std::array<BlockKey, kPromptBlocks> chain;
  std::vector<uint32_t> nanoseconds;
  base::Random random(1);
  uint64_t found = 0;
  for (auto _ : state) {
    // Not of the oldest, which are on their way out.
    const uint64_t age = full.prompts / 10 + random.Below(full.prompts * 8 / 10);
    Fill(first.load(std::memory_order_relaxed) + age, chain);
    const auto start = std::chrono::steady_clock::now();
    found += reader.Match(chain, {}, {}, blocks, weighted);
    const auto end = std::chrono::steady_clock::now();
    nanoseconds.push_back(static_cast<uint32_t>((end - start).count()));
  }
  const double elapsed = seconds();
  done.store(true);
  if (writer.joinable()) writer.join();
  ReportLatency(state, &nanoseconds);
  state.counters["depth"] = static_cast<double>(found) / static_cast<double>(nanoseconds.size());
  state.counters["writes_per_s"] = static_cast<double>(written) / elapsed;
  state.counters["read_failures"] = static_cast<double>(full.index.read_failures());
}

// From tokens to an answer: our own hash of a prompt and the match of its blocks. What is hashed is
// as long as what is matched; the index is filled with keys that need no tokens.
void BM_HashAndMatch(benchmark::State& state) {
  Full& full = At(static_cast<size_t>(state.range(0)), static_cast<uint32_t>(state.range(1)));
  constexpr size_t kBlockTokens = 16;
  const TokenChain hash(ChainKind::kOwn, "seed");
  const BlockKey root = hash.Root("model");
  base::Random random(1);
  std::vector<uint32_t> tokens(kPromptBlocks * kBlockTokens);
  for (uint32_t& token : tokens) token = static_cast<uint32_t>(random.Below(128256));
  KvIndex::Reader reader(full.index);
  std::vector<uint32_t> blocks(kHolders);
  std::vector<float> weighted(kHolders);
  std::array<BlockKey, kPromptBlocks> keys;
  std::array<BlockKey, kPromptBlocks> chain;
  std::vector<uint32_t> nanoseconds;
  for (auto _ : state) {
    Fill(full.oldest + random.Below(full.prompts), chain);
    const auto start = std::chrono::steady_clock::now();
    hash.Extend(root, tokens, kBlockTokens, {}, keys);
    benchmark::DoNotOptimize(keys.data());
    reader.Match(chain, {}, {}, blocks, weighted);
    const auto end = std::chrono::steady_clock::now();
    nanoseconds.push_back(static_cast<uint32_t>((end - start).count()));
  }
  ReportLatency(state, &nanoseconds);
}

// How many pairs of block and holder are indexed. bench/kvindex.sh asks for ten million, which take
// half a gigabyte; by default it is few, to show that everything works.
size_t Pairs() {
  const char* wanted = std::getenv("LLMD_KVINDEX_PAIRS");
  return wanted == nullptr ? 100'000 : std::max<size_t>(std::strtoull(wanted, nullptr, 10), 1);
}

// Arguments: different blocks, holders of each, and what the writer does beside.
[[maybe_unused]] const bool registered = [] {
  const auto pairs = static_cast<int64_t>(Pairs());
  for (const int64_t copies : {1, 9, 1000}) {
    const int64_t unique = std::max<int64_t>(pairs / copies, 20 * kPromptBlocks);
    const int64_t matches = pairs >= 1'000'000 ? 200'000 : 1'000;
    benchmark::RegisterBenchmark("apply", BM_Apply)->Args({unique, copies});
    benchmark::RegisterBenchmark("hash_and_match", BM_HashAndMatch)
        ->Args({unique, copies})
        ->Iterations(matches);
    for (const int64_t rate : {0, 1'000'000, -1}) {
      benchmark::RegisterBenchmark("match", BM_Match)
          ->Args({unique, copies, rate})
          ->Iterations(matches);
    }
  }
  return true;
}();

}  // namespace
}  // namespace llmd::prefix
