// precise-prefix-cache-producer: how much of the prompt each endpoint has in its KV cache, by what
// the engines themselves say of their blocks (kv_ingest.h).
//
// Produce chains the prompt's token ids into block keys (each prompt of a batch by itself, sums
// added) and asks the index. An endpoint's match is that of the rank behind it that has most.
//
// Fallback, endpoint by endpoint: where the index is not trusted (confidence of its publisher times
// trust in its predictions, hit_error.h, below kTrustMin) the match of the approximate producer
// stands in, scaled to this one's blocks; where the prompt's ids are not known (no tokenizer, or
// not in time) it does for all. With neither, nothing matches, and load decides. `source` of the
// match, decision records and llmd_kv_index_matches_total say which it was.
//
// Shared index (redisConfig): where the index is not trusted for some candidate, a request with ids
// asks there, too, beside the loop, for at most redisConfig.timeout. An answer that knows somebody
// counts for those candidates, instead of the approximate match, unless their predictions fail.
// Without an answer, or with one that knows nobody, all is as if it were not there.
// Speculative entries stay in this process; Ask answers out of this index alone.
//
// Parameters: precise_prefix_cache_parameters.h. The index lives as long as the plugin: a reload
// that leaves the parameters as they are keeps it.
//
// Differences from upstream, on purpose: matched_blocks are blocks, not sums of weights (those are
// weighted_blocks); a tier that is not listed is the least worth, not the most; a rank's blocks are
// its own; no more of what spec plug 10 lists.
//
// Thread safety: shared by all workers; each has a reader of its own.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "plugin/catalogue.h"
#include "plugin/keys.h"
#include "plugin/prefix_query.h"
#include "plugins/producer/hit_error.h"
#include "plugins/producer/kv_ingest.h"
#include "prefix/token_chain.h"

namespace llmd::plugins {

class PrecisePrefixCacheProducer : public plugin::Plugin,
                                   public plugin::DataProducer,
                                   public plugin::PreRequest,
                                   public plugin::ResponseProcessor,
                                   public plugin::PrefixQuery,
                                   public plugin::PrefixTiers,
                                   public KvIngest {
 public:
  // Below it, what was sent where says more than what was heard.
  static constexpr float kTrustMin = 0.5f;

  PrecisePrefixCacheProducer(const PreciseParameters& parameters, plugin::PluginContext& context,
                             bool tokenizers_pool_allowed = false);
  ~PrecisePrefixCacheProducer() override;

  base::Status Produce(plugin::RequestContext& request,
                       std::span<const plugin::EndpointNumber> candidates) override;
  base::Duration wait_max() const override;
  void Abandon(plugin::RequestContext& request) override { CountSource(request); }
  base::Status OnRouted(plugin::RequestContext& request, const plugin::SchedulingResult& result,
                        plugin::BookingList* bookings) override;
  void OnResponseEnd(plugin::RequestContext& request, const plugin::ResponseEnd& end,
                     plugin::MetadataList* metadata) override;
  uint32_t block_tokens() const override { return block_tokens_; }
  std::string_view key_algorithm() const override {
    return prefix::ChainKindName(chain_->kind());
  }
  std::vector<plugin::PrefixHolding> Ask(const plugin::PrefixQuestion& question, size_t worker,
                                         base::TimePoint now) override;
  // A tier is told apart from others by its weight: two of the same weight are one here.
  std::span<const uint32_t> BlocksIn(plugin::RequestContext& request,
                                     std::string_view tier) override;
  std::string DumpState() const override;
  void CollectMetrics(telemetry::ScrapeSeries& series) const override;

 protected:
  plugin::Slot<plugin::PrefixCacheMatchInfo> match_slot() const { return match_; }

 private:
  struct Match;
  struct Worker;

  PrecisePrefixCacheProducer(const PreciseParameters& parameters, const PreciseOptions& options,
                             plugin::PluginContext& context);

  void OnReport() override;
  Worker& WorkerOf(const plugin::RequestContext& request) { return *workers_[request.worker]; }
  // The prompts' keys; total_blocks and chains of `match`.
  void Chain(const plugin::RequestContext& request, const plugin::TokenizedPrompt& tokens,
             Match* match) const;
  // What the index says of each candidate.
  void LookUp(plugin::RequestContext& request, std::span<const plugin::EndpointNumber> candidates,
              Match* match);
  // What others know, where the index is not trusted.
  void FillIn(std::span<const plugin::EndpointNumber> candidates,
              const plugin::PrefixCacheMatchInfo* approximate, Match* match) const;
  // The shared index has answered, or something else happened.
  base::Status Continue(plugin::RequestContext& request,
                        std::span<const plugin::EndpointNumber> candidates);
  void Merge(plugin::RequestContext& request, std::span<const plugin::EndpointNumber> candidates,
             const SharedLookup& shared);
  void CountSource(const plugin::RequestContext& request);
  bool Trusted(plugin::EndpointNumber n, prefix::HolderId holder) const;
  void CollectFeed(const Report& report, telemetry::ScrapeSeries& series) const;
  void CollectEndpoints(const Report& report, telemetry::ScrapeSeries& series) const;
  // Why the index may be wrong about it; "" when it is not.
  std::string Explain(const fleet::Endpoint& endpoint, const HitError::Report& error) const;

  const uint32_t block_tokens_;
  const std::shared_ptr<const prefix::TokenChain> chain_;
  const prefix::KvTiers tiers_;
  const base::Duration speculative_ttl_;  // 0: none
  const base::Duration shared_timeout_;   // 0: the index is not shared
  const plugin::Slot<plugin::PrefixCacheMatchInfo> match_;
  const plugin::Slot<Match> own_;
  const plugin::Slot<plugin::TokenizedPrompt> tokens_;
  const plugin::Slot<plugin::PrefixCacheMatchInfo> approximate_;
  fleet::Fleet& fleet_;
  HitError hit_error_;
  std::vector<std::unique_ptr<Worker>> workers_;
};

plugin::PluginType PrecisePrefixCacheProducerType();

}  // namespace llmd::plugins
