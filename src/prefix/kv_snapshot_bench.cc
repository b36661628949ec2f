// What a snapshot costs: BM_Take is one publisher, the longest that ingest waits for; BM_Load is
// the start with all of them.
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "base/check.h"
#include "base/hash.h"
#include "prefix/kv_snapshot.h"

namespace llmd::prefix {
namespace {

constexpr HolderId kHolders = 8;
constexpr size_t kPrompt = 256;  // blocks

// Each holder has `blocks` blocks in prompts of its own.
void Fill(KvIndex& index, size_t blocks) {
  std::vector<uint64_t> keys(kPrompt), engine_keys(kPrompt);
  for (HolderId h = 0; h < kHolders; ++h) {
    for (size_t at = 0; at < blocks; at += kPrompt) {
      for (size_t i = 0; i < kPrompt; ++i) {
        keys[i] = base::Mix64(h + 1, at + i) | 1;
        engine_keys[i] = base::Mix64(h + 100, at + i) | 1;
      }
      index.Store(h, 0, 0, nullptr, engine_keys, keys);
    }
  }
}

void BM_Take(benchmark::State& state) {
  KvIndex index;
  const auto blocks = static_cast<size_t>(state.range(0));
  Fill(index, blocks);
  HolderId h = 0;
  KvSnapshotWriter writer({.tiers = {"gpu"}});
  size_t bytes = 0;
  for (auto _ : state) {
    writer.AddHolder(index, h++ % kHolders, {.address = "10.0.0.1:8000"});
    bytes += writer.Take().size();
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(blocks));
  state.counters["bytes_per_block"] =
      static_cast<double>(bytes) / static_cast<double>(state.iterations()) /
      static_cast<double>(blocks);
}
BENCHMARK(BM_Take)->Arg(16 << 10)->Arg(64 << 10)->Arg(512 << 10)->Unit(benchmark::kMillisecond);

void BM_Load(benchmark::State& state) {
  const auto blocks = static_cast<size_t>(state.range(0));
  std::string bytes;
  {
    KvIndex index;
    Fill(index, blocks);
    KvSnapshotWriter writer({.tiers = {"gpu"}});
    for (HolderId h = 0; h < kHolders; ++h) writer.AddHolder(index, h, {.address = "a"});
    bytes = std::move(writer).Finish();
  }
  uint64_t restored = 0;
  for (auto _ : state) {
    KvIndex index;
    const auto snapshot = KvSnapshot::Open(bytes);
    LLMD_CHECK(snapshot.has_value(), "a snapshot was refused");
    HolderId h = 0;
    for (const KvSnapshot::Holder& holder : snapshot->holders()) {
      restored += snapshot->Restore(holder, &index, h++);
    }
  }
  LLMD_CHECK(restored == state.iterations() * blocks * kHolders, "blocks are missing");
  state.SetItemsProcessed(static_cast<int64_t>(restored));
}
BENCHMARK(BM_Load)->Arg(16 << 10)->Arg(512 << 10)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace llmd::prefix
