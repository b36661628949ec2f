// From raw frames into the index: 10 M blocks of 64 publishers are indexed, then stores and
// removals take turns, half and half, as a full engine does: a batch evicts 32 blocks, one event
// each, tail first, and stores a chain of 32 blocks of 16 tokens. Items are block operations. The
// argument is the number of indexed blocks; LLMD asks for 10 M operations per second on one core
// with block keys given (engine_keys), 3 M with our own hashing.
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "base/random.h"
#include "prefix/kv_feed.h"
#include "prefix/kv_index.h"

namespace llmd::prefix {
namespace {

constexpr size_t kPublishers = 64;
constexpr size_t kChain = 32;  // blocks an event
constexpr size_t kBatches = 32768;

// Chains of a publisher are numbered; contents and hashes follow from the number.
class Traffic {
 public:
  explicit Traffic(KvEventForm form) : writer_(form), tokens_(kChain * 16), hashes_(kChain) {}

  void Store(uint64_t chain) {
    Fill(chain);
    base::Random random(chain);
    for (uint32_t& token : tokens_) token = static_cast<uint32_t>(random.Below(128256));
    writer_.Stored({.hashes = hashes_,
                    .tokens = tokens_,
                    .block_size = 16,
                    .medium = "GPU",
                    .group = 0,
                    .kind = KvCacheKind::kFullAttention});
  }
  void Remove(uint64_t chain) {
    Fill(chain);
    for (size_t i = kChain; i-- > 0;) writer_.Removed({&hashes_[i], 1}, "GPU", 0);
  }
  std::string Finish() { return writer_.Finish(1, 0); }

 private:
  void Fill(uint64_t chain) {
    base::Random random(~chain);
    for (KvWireHash& hash : hashes_) hash.value = random.Next();
  }

  KvEventWriter writer_;
  std::vector<uint32_t> tokens_;
  std::vector<KvWireHash> hashes_;
};

void BM_Apply(benchmark::State& state, KvEventForm form, bool engine_keys) {
  KvFeedOptions options;
  options.apply.chain = std::make_shared<const TokenChain>(ChainKind::kOwn, "seed");
  options.apply.engine_keys = engine_keys;
  KvIndex index({.bytes_max = size_t{2} << 30});
  KvFeed feed(options, &index);
  Traffic traffic(form);
  const base::TimePoint now = base::TimePoint() + std::chrono::seconds(1);
  uint64_t sequences[kPublishers] = {};
  const auto deliver = [&](size_t publisher, const std::string& payload) {
    std::string sequence;
    AppendKvSequence(sequences[publisher]++, &sequence);
    feed.OnMessage(static_cast<PublisherId>(publisher), {"kv@pod@m", sequence, payload}, now);
  };
  for (size_t i = 0; i < kPublishers; ++i) {
    (void)feed.AddPublisher({.address = std::to_string(i)}, now);
  }
  const auto chains = static_cast<uint64_t>(state.range(0)) / kChain;
  for (uint64_t chain = 0; chain < chains; ++chain) {
    traffic.Store(chain);
    deliver(chain % kPublishers, traffic.Finish());
  }
  std::vector<std::string> payloads(kBatches);
  size_t bytes = 0;
  for (uint64_t i = 0; i < kBatches; ++i) {
    traffic.Remove(i);
    traffic.Store(i + (chains + kPublishers - 1) / kPublishers * kPublishers);
    payloads[i] = traffic.Finish();
    bytes += payloads[i].size();
  }
  size_t next = 0;
  for (auto _ : state) {
    deliver(next % kPublishers, payloads[next]);
    ++next;
  }
  const KvFeed::Stats stats = feed.stats();
  const uint64_t done = next * kChain;
  if (stats.apply.blocks_removed != done || stats.clears_cold != 0) {
    state.SkipWithError("not every block was there to be removed");
  }
  state.SetItemsProcessed(static_cast<int64_t>(2 * done));
  state.SetBytesProcessed(static_cast<int64_t>(bytes / kBatches * next));
  state.counters["indexed"] = static_cast<double>(index.stats().blocks);
  state.counters["bytes_per_block"] = static_cast<double>(index.stats().bytes) /
                                      static_cast<double>(index.stats().blocks);
}
BENCHMARK_CAPTURE(BM_Apply, maps_keys_given, KvEventForm::kMap, true)
    ->Arg(10'000'000)
    ->Iterations(kBatches);
BENCHMARK_CAPTURE(BM_Apply, arrays_keys_given, KvEventForm::kArray, true)
    ->Arg(10'000'000)
    ->Iterations(kBatches);
BENCHMARK_CAPTURE(BM_Apply, maps_hashing, KvEventForm::kMap, false)
    ->Arg(10'000'000)
    ->Iterations(kBatches);
BENCHMARK_CAPTURE(BM_Apply, arrays_hashing, KvEventForm::kArray, false)
    ->Arg(10'000'000)
    ->Iterations(kBatches);

}  // namespace
}  // namespace llmd::prefix
