// approx-prefix-cache-producer: how much of the prompt each endpoint has in its prefix cache,
// judged by what we sent where. The default producer of PrefixCacheMatchInfo.
//
// Produce hashes the prompt in blocks (prefix/block_hash.h, raw JSON text at four bytes per token,
// chained from target model and cache salt; each prompt of a batch by itself, sums added) and asks
// the index. OnRouted records the chain for the endpoint that serves the request and for the target
// of a profile named `prefill`. Endpoints that left the fleet are forgotten when its membership
// changes.
//
// Parameters: autoTune (true: block size and capacity as the engines say, where they do),
// blockSizeTokens (16; old name blockSize), maxPrefixTokensToMatch (131072) or, when that is 0,
// maxPrefixBlocksToMatch (2048), both 0 for no limit; lruCapacityPerServer (31250 blocks; 0 is
// that, too). The block size is never under kBlockTokensMin.
//
// Differences from upstream, on purpose: the match is contiguous per endpoint; eviction takes the
// tails of prompts first; a prompt is recorded before its answer begins, not some time later; with
// autoTune the capacity is converted from the engine's blocks to ours (upstream takes the number as
// it is, four times too many for blocks of 16 tokens); the block size is that of the first member
// that says one, whichever endpoints are candidates.
//
// Thread safety: shared by all workers. Limits: prefix::PrefixIndex::kBytesMaxDefault of memory.
#pragma once

#include "plugin/catalogue.h"
#include "plugin/keys.h"
#include "plugins/producer/gone_endpoints.h"
#include "prefix/prefix_index.h"

namespace llmd::plugins {

struct ApproxPrefixCacheParameters {
  bool auto_tune = true;
  uint32_t block_size_tokens = 16;
  uint32_t block_size = 0;  // deprecated
  uint64_t max_prefix_blocks = 2048;
  uint64_t max_prefix_tokens = 131072;
  uint64_t lru_capacity = 31250;
};

class ApproxPrefixCacheProducer final : public plugin::Plugin,
                                        public plugin::DataProducer,
                                        public plugin::PreRequest {
 public:
  // One entry per endpoint and block: smaller blocks would cost gigabytes and match no better.
  static constexpr uint32_t kBlockTokensMin = 64;
  static constexpr uint64_t kCapacityDefault = 31250;

  ApproxPrefixCacheProducer(const ApproxPrefixCacheParameters& parameters,
                            plugin::PluginContext& context);

  base::Status Produce(plugin::RequestContext& request,
                       std::span<const plugin::EndpointNumber> candidates) override;
  base::Status OnRouted(plugin::RequestContext& request, const plugin::SchedulingResult& result,
                        plugin::BookingList* bookings) override;
  // Blocks per endpoint, most first, never hashes.
  std::string DumpState() const override;
  void CollectMetrics(telemetry::ScrapeSeries& series) const override;
  prefix::PrefixIndex::Stats stats() const { return index_.stats(); }

 private:
  struct Prompt;

  uint32_t BlockTokens(const fleet::View& view) const;
  uint64_t BlocksMax(uint32_t block_tokens) const;
  uint64_t Capacity(const fleet::View& view, plugin::EndpointNumber n, uint32_t block_tokens) const;

  const ApproxPrefixCacheParameters parameters_;
  const plugin::Slot<plugin::PrefixCacheMatchInfo> match_;
  const plugin::Slot<plugin::TokenizedPrompt> tokens_;
  fleet::Fleet& fleet_;
  prefix::PrefixIndex index_;
  GoneEndpoints gone_;
};

plugin::PluginType ApproxPrefixCacheProducerType();

}  // namespace llmd::plugins
