// Decoding alone: bytes per second of event batches with real token widths, as maps and as arrays.
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "base/random.h"
#include "prefix/kv_events.h"

namespace llmd::prefix {
namespace {

// range(0): blocks an event; range(1): 0 arrays, 1 maps; range(2): bytes of a hash, 0 integers.
std::string Batch(const benchmark::State& state) {
  base::Random random(1);
  KvEventWriter writer(state.range(1) != 0 ? KvEventForm::kMap : KvEventForm::kArray);
  const auto blocks = static_cast<size_t>(state.range(0));
  std::vector<std::string> digests(blocks);
  std::vector<KvWireHash> hashes(blocks);
  std::vector<uint32_t> tokens(blocks * 16);
  for (size_t event = 0; event < 1024 / blocks; ++event) {
    for (size_t i = 0; i < blocks; ++i) {
      digests[i].assign(static_cast<size_t>(state.range(2)), '\0');
      for (char& c : digests[i]) c = static_cast<char>(random.Next());
      hashes[i] = {.value = random.Next(), .bytes = digests[i]};
    }
    for (uint32_t& token : tokens) token = static_cast<uint32_t>(random.Below(128256));
    writer.Stored({.hashes = hashes,
                   .parent = KvWireHash{.value = random.Next()},
                   .tokens = tokens,
                   .block_size = 16,
                   .medium = "GPU",
                   .group = 0,
                   .kind = KvCacheKind::kFullAttention});
    writer.Removed(hashes, "GPU", 0);
  }
  return writer.Finish(1, 0);
}

void BM_Decode(benchmark::State& state) {
  const std::string payload = Batch(state);
  KvEventReader reader(KvDialect::kVllm);
  int64_t blocks = 0;
  for (auto _ : state) {
    reader.Begin(payload);
    while (reader.Next() != KvEventType::kEnd) {
      blocks += static_cast<int64_t>(reader.event().hashes.size());
    }
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(payload.size()));
  state.SetItemsProcessed(blocks);
}
BENCHMARK(BM_Decode)
    ->Args({1, 0, 0})
    ->Args({1, 1, 0})
    ->Args({8, 1, 0})
    ->Args({32, 0, 0})
    ->Args({32, 1, 0})
    ->Args({32, 1, 32});

}  // namespace
}  // namespace llmd::prefix
