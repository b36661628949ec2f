#include "plugins/producer/precise_prefix_cache_producer.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <unordered_map>

#include "base/strings.h"
#include "plugins/factory.h"
#include "telemetry/metrics.h"

namespace llmd::plugins {
namespace {

using plugin::EndpointNumber;
using plugin::MatchSource;
using prefix::BlockKey;
using prefix::HolderId;

constexpr size_t kSources = 5;
// Beyond a lookup's own limit, so that it is the lookup that ends and is counted.
constexpr base::Duration kSharedGrace = std::chrono::milliseconds(50);
constexpr size_t kDumpEndpointsMax = 100;
// A larger error is worth a word in the state's dump.
constexpr double kErrorExplained = 0.1;

// By the one thread that writes it.
void AddTo(std::atomic<uint64_t>& sum, uint64_t n) {
  sum.store(sum.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
}

}  // namespace

// What Produce leaves; consumers see the base.
struct PrecisePrefixCacheProducer::Match : plugin::PrefixCacheMatchInfo {
  static constexpr std::string_view kKey = "PrecisePrefixMatch";
  std::span<const std::span<const BlockKey>> chains;
  // By EndpointNumber: what the index says, whether it is trusted or not; the best of those ranks
  // that are; and of which endpoints one is.
  std::span<uint32_t> indexed;
  std::span<uint32_t> blocks;
  std::span<float> weights;
  std::span<bool> trusted;
  uint64_t best = 0;  // blocks of the best holder in the index, sum over chains
  // Where the request went.
  mutable EndpointNumber endpoint = fleet::kNoEndpoint;
  mutable uint64_t generation = 0;
};

struct PrecisePrefixCacheProducer::Worker {
  Worker(const prefix::KvIndex& index, const prefix::KvFeed& feed, const PreciseOptions& options)
      : reader(index), holders(feed.holders()) {
    if (!options.shared) return;
    shared.emplace(options.shared->address,
                   std::make_shared<const prefix::KvTiers>(options.feed.apply.tiers));
  }

  // Who of the holders is which endpoint, after either has changed.
  void Renew(const fleet::View& view) {
    const prefix::KvHolders* now = holders.Get();
    if (now == seen && view.version() == version) return;
    seen = now;
    version = view.version();
    holder_count = now ? now->size() : 0;
    by_endpoint.clear();
    if (!now || view.members().empty()) return;
    by_endpoint.resize(view.members().back() + 1);
    std::unordered_map<std::string_view, EndpointNumber> names;
    for (const EndpointNumber n : view.members()) names[view.endpoint(n).host_port] = n;
    for (size_t h = 0; h < now->size(); ++h) {
      const auto it = names.find((*now)[h].address);
      if (it != names.end()) by_endpoint[it->second].push_back(static_cast<HolderId>(h));
    }
  }
  std::span<const HolderId> HoldersOf(EndpointNumber n) const {
    if (n >= by_endpoint.size()) return {};
    return by_endpoint[n];
  }

  prefix::KvIndex::Reader reader;
  base::Snapshot<prefix::KvHolders>::Reader holders;
  const prefix::KvHolders* seen = nullptr;
  uint64_t version = ~uint64_t{0};
  size_t holder_count = 0;
  std::vector<std::vector<HolderId>> by_endpoint;
  std::optional<SharedIndexReader> shared;
  // Read by scrapes.
  std::atomic<uint64_t> lookups{0}, hits{0};
  std::atomic<uint64_t> sources[kSources] = {};
};

PrecisePrefixCacheProducer::PrecisePrefixCacheProducer(const PreciseParameters& parameters,
                                                       plugin::PluginContext& context,
                                                       bool tokenizers_pool_allowed)
    : PrecisePrefixCacheProducer(
          parameters, ReadPreciseOptions(parameters, context, tokenizers_pool_allowed), context) {}

PrecisePrefixCacheProducer::PrecisePrefixCacheProducer(const PreciseParameters& parameters,
                                                       const PreciseOptions& options,
                                                       plugin::PluginContext& context)
    : KvIngest(parameters.events, options),
      block_tokens_(options.feed.apply.block_tokens),
      chain_(options.feed.apply.chain),
      tiers_(options.feed.apply.tiers),
      speculative_ttl_(parameters.speculative_indexing ? parameters.speculative_ttl
                                                       : base::Duration{}),
      shared_timeout_(options.shared ? options.shared->timeout : base::Duration{}),
      match_(context.Produces<plugin::PrefixCacheMatchInfo>()),
      own_(context.Produces<Match>()),
      tokens_(context.Consumes<plugin::TokenizedPrompt>("")),
      approximate_(context.Consumes<plugin::PrefixCacheMatchInfo>("")),
      fleet_(context.fleet()),
      hit_error_(context.fleet().worker_count()) {
  for (size_t i = 0; i < fleet_.worker_count(); ++i) {
    workers_.push_back(std::make_unique<Worker>(index(), feed(), options));
  }
}

PrecisePrefixCacheProducer::~PrecisePrefixCacheProducer() = default;

void PrecisePrefixCacheProducer::Chain(const plugin::RequestContext& request,
                                       const plugin::TokenizedPrompt& tokens, Match* match) const {
  base::Arena& arena = *request.arena;
  const BlockKey root = chain_->Root(request.target_model);
  const auto chains = arena.NewSpan<std::span<const BlockKey>>(tokens.prompts.size());
  size_t count = 0;
  for (const auto& prompt : tokens.prompts) {
    const size_t blocks = prompt.ids.size() / block_tokens_;
    if (blocks == 0) continue;
    const auto items = arena.NewSpan<prefix::PlacedItem>(prompt.media.size());
    for (size_t i = 0; i < items.size(); ++i) {
      const protocol::MediaFeature& m = prompt.media[i];
      items[i] = {.offset = m.offset, .length = m.length, .identifier = m.hash};
    }
    const auto extras =
        prefix::RequestExtras(items, request.body->cache_salt, block_tokens_,
                              static_cast<uint32_t>(blocks), request.arena);
    const std::span<BlockKey> keys = arena.NewSpan<BlockKey>(blocks);
    const size_t made = chain_->Extend(root, prompt.ids, block_tokens_, extras, keys);
    chains[count++] = keys.first(made);
    match->total_blocks += static_cast<uint32_t>(made);
  }
  match->chains = chains.first(count);
}

bool PrecisePrefixCacheProducer::Trusted(EndpointNumber n, HolderId holder) const {
  return feed().confidence(holder) * hit_error_.trust(n) >= kTrustMin;
}

void PrecisePrefixCacheProducer::LookUp(plugin::RequestContext& request,
                                        std::span<const EndpointNumber> candidates,
                                        Match* match) {
  Worker& worker = WorkerOf(request);
  worker.Renew(*request.fleet);
  base::Arena& arena = *request.arena;
  const size_t size = candidates.back() + 1;  // ascending
  match->indexed = arena.NewSpan<uint32_t>(size);
  match->blocks = arena.NewSpan<uint32_t>(size);
  match->weights = arena.NewSpan<float>(size);
  match->trusted = arena.NewSpan<bool>(size);
  const auto blocks = arena.NewSpan<uint32_t>(worker.holder_count);
  const auto weights = arena.NewSpan<float>(worker.holder_count);
  for (const auto& chain : match->chains) {
    match->best += worker.reader.Match(chain, tiers_.weights(), request.now, blocks, weights);
    for (const EndpointNumber n : candidates) {
      uint32_t held = 0, trusted = 0;
      float weight = 0;
      for (const HolderId h : worker.HoldersOf(n)) {
        held = std::max(held, blocks[h]);
        if (!Trusted(n, h)) continue;
        match->trusted[n] = true;
        trusted = std::max(trusted, blocks[h]);
        weight = std::max(weight, weights[h]);
      }
      match->indexed[n] += held;
      match->blocks[n] += trusted;
      match->weights[n] += weight;
    }
  }
  AddTo(worker.lookups, match->chains.size());
  AddTo(worker.hits, match->best);
}

std::span<const uint32_t> PrecisePrefixCacheProducer::BlocksIn(plugin::RequestContext& request,
                                                               std::string_view tier) {
  const Match* match = request.attributes.Get(own_);
  if (!match) return {};
  Worker& worker = WorkerOf(request);
  worker.Renew(*request.fleet);
  const auto held = request.arena->NewSpan<uint32_t>(match->blocks.size());
  const auto blocks = request.arena->NewSpan<uint32_t>(worker.holder_count);
  for (EndpointNumber n = 0; n < held.size(); ++n) {
    if (!match->trusted[n]) held[n] = match->blocks[n];
  }
  for (const auto& chain : match->chains) {
    worker.reader.MatchTier(chain, tiers_.Number(tier), blocks);
    for (EndpointNumber n = 0; n < held.size(); ++n) {
      if (!match->trusted[n]) continue;
      uint32_t best = 0;
      for (const HolderId h : worker.HoldersOf(n)) {
        if (h < blocks.size() && Trusted(n, h)) best = std::max(best, blocks[h]);
      }
      held[n] += best;
    }
  }
  return held;
}

void PrecisePrefixCacheProducer::FillIn(std::span<const EndpointNumber> candidates,
                                        const plugin::PrefixCacheMatchInfo* approximate,
                                        Match* match) const {
  bool precise = false, filled = false;
  const bool known = approximate && approximate->total_blocks > 0;
  for (const EndpointNumber n : candidates) {
    if (match->trusted[n]) {
      precise = true;
      continue;
    }
    filled = true;
    if (!known || n >= approximate->matched_blocks.size()) continue;
    const uint64_t share = uint64_t{approximate->matched_blocks[n]} * match->total_blocks;
    match->blocks[n] = static_cast<uint32_t>(share / approximate->total_blocks);
    match->weights[n] = static_cast<float>(match->blocks[n]);
  }
  match->matched_blocks = match->blocks;
  match->weighted_blocks = match->weights;
  match->source = precise && filled ? MatchSource::kMixed
                  : precise         ? MatchSource::kPrecise
                  : known           ? MatchSource::kApproximate
                                    : MatchSource::kNone;
}

base::Status PrecisePrefixCacheProducer::Produce(plugin::RequestContext& request,
                                                 std::span<const EndpointNumber> candidates) {
  if (candidates.empty() || !request.body) return base::OkStatus();
  if (request.asked) return Continue(request, candidates);
  const plugin::TokenizedPrompt* tokens = request.attributes.Get(tokens_);
  const plugin::PrefixCacheMatchInfo* approximate = request.attributes.Get(approximate_);
  auto* match = request.arena->New<Match>();
  match->block_tokens = block_tokens_;
  if (tokens && !tokens->prompts.empty()) {
    match->tiers = this;
    Chain(request, *tokens, match);
    LookUp(request, candidates, match);
    FillIn(candidates, approximate, match);
  } else if (approximate) {
    static_cast<plugin::PrefixCacheMatchInfo&>(*match) = *approximate;
  } else {
    match->source = MatchSource::kNone;
  }
  request.attributes.Set(match_, static_cast<const plugin::PrefixCacheMatchInfo*>(match));
  request.attributes.Set(own_, static_cast<const Match*>(match));
  const auto unheard = [&](EndpointNumber n) { return !match->trusted[n]; };
  if (std::optional<SharedIndexReader>& shared = WorkerOf(request).shared;
      shared && !match->chains.empty() && std::ranges::any_of(candidates, unheard)) {
    request.asked = shared->Ask(*request.fleet, shared_timeout_, match->chains);
    request.wait_until = request.now + wait_max();
  } else {
    CountSource(request);
  }
  return base::OkStatus();
}

base::Duration PrecisePrefixCacheProducer::wait_max() const {
  return shared_timeout_ == base::Duration{} ? plugin::kProduceWaitMax
                                             : shared_timeout_ + kSharedGrace;
}

void PrecisePrefixCacheProducer::CountSource(const plugin::RequestContext& request) {
  const Match* match = request.attributes.Get(own_);
  if (match) AddTo(WorkerOf(request).sources[static_cast<size_t>(match->source)], 1);
}

// What this index says stands there already and counts where the other one does not answer.
base::Status PrecisePrefixCacheProducer::Continue(plugin::RequestContext& request,
                                                  std::span<const EndpointNumber> candidates) {
  if (!request.asked->ended()) {
    request.wait_until = request.now + wait_max();
    return base::OkStatus();
  }
  const std::shared_ptr<plugin::OutsideTask> task = std::move(request.asked);
  const auto& lookup = static_cast<const SharedLookup&>(*task);
  if (lookup.usable() && lookup.best() > 0) Merge(request, candidates, lookup);
  CountSource(request);
  if (!lookup.status().ok()) return lookup.status();
  if (!lookup.usable()) return base::Unavailable(lookup.error());
  return base::OkStatus();
}

void PrecisePrefixCacheProducer::Merge(plugin::RequestContext& request,
                                       std::span<const EndpointNumber> candidates,
                                       const SharedLookup& shared) {
  auto* match = request.arena->New<Match>(*request.attributes.Get(own_));
  uint32_t best = match->best;
  for (const EndpointNumber n : candidates) {
    if (match->trusted[n]) continue;  // heard, so known better than what others wrote
    const uint32_t blocks = shared.blocks(n);
    match->indexed[n] = std::max(match->indexed[n], blocks);
    if (hit_error_.trust(n) < kTrustMin) continue;
    match->blocks[n] = blocks;
    match->weights[n] = shared.weight(n);
    match->source = MatchSource::kShared;
    best = std::max(best, blocks);
  }
  AddTo(WorkerOf(request).hits, best - match->best);
  request.attributes.Set(match_, static_cast<const plugin::PrefixCacheMatchInfo*>(match));
  request.attributes.Set(own_, static_cast<const Match*>(match));
}

base::Status PrecisePrefixCacheProducer::OnRouted(plugin::RequestContext& request,
                                                  const plugin::SchedulingResult& result,
                                                  plugin::BookingList*) {
  const Match* match = request.attributes.Get(own_);
  if (!match || match->chains.empty()) return base::OkStatus();
  for (size_t i = 0; i < result.profiles.size(); ++i) {
    const plugin::ProfileResult& profile = result.profiles[i];
    if (profile.endpoints.empty()) continue;
    const EndpointNumber n = profile.endpoints[0].endpoint;
    if (i == result.primary) {
      match->endpoint = n;
      match->generation = request.fleet->endpoint(n).generation;
    } else if (profile.profile != "prefill") {
      continue;
    }
    if (speculative_ttl_ == base::Duration{}) continue;
    // Which of its ranks will serve is the endpoint's own affair.
    for (const HolderId holder : WorkerOf(request).HoldersOf(n)) {
      for (const auto& chain : match->chains) {
        index().AddSpeculative(holder, chain, request.now, request.now + speculative_ttl_);
      }
    }
  }
  return base::OkStatus();
}

void PrecisePrefixCacheProducer::OnResponseEnd(plugin::RequestContext& request,
                                               const plugin::ResponseEnd& end,
                                               plugin::MetadataList*) {
  const Match* match = request.attributes.Get(own_);
  if (!match || match->endpoint >= match->indexed.size()) return;
  if (end.termination != plugin::Termination::kNatural || !end.usage.has_cached) return;
  const int64_t prompt = end.usage.prompt_tokens;
  if (prompt <= 0) return;
  // An engine computes at least the last token.
  const uint64_t usable = static_cast<uint64_t>(prompt - 1) / block_tokens_;
  const uint64_t predicted =
      std::min<uint64_t>(match->indexed[match->endpoint], usable) * block_tokens_;
  hit_error_.Add(request.worker, match->endpoint, match->generation, predicted,
                 static_cast<uint64_t>(std::max<int64_t>(0, end.usage.cached_tokens)),
                 static_cast<uint64_t>(prompt));
}

std::vector<plugin::PrefixHolding> PrecisePrefixCacheProducer::Ask(
    const plugin::PrefixQuestion& question, size_t worker, base::TimePoint now) {
  std::vector<BlockKey> made;
  std::span<const BlockKey> keys = question.keys;
  if (keys.empty() && question.tokens.size() >= block_tokens_) {
    made.resize(question.tokens.size() / block_tokens_);
    base::Arena arena;
    const auto extras =
        prefix::RequestExtras({}, question.cache_salt, block_tokens_,
                              static_cast<uint32_t>(made.size()), &arena);
    chain_->Extend(chain_->Root(question.model), question.tokens, block_tokens_, extras, made);
    keys = made;
  }
  Worker& w = *workers_.at(worker);
  const prefix::KvHolders* holders = w.holders.Get();
  if (!holders) return {};
  std::vector<uint32_t> blocks(holders->size());
  std::vector<float> weights(holders->size());
  w.reader.Match(keys, tiers_.weights(), now, blocks, weights);
  std::vector<plugin::PrefixHolding> out;
  for (size_t h = 0; h < holders->size(); ++h) {
    if ((*holders)[h].address.empty()) continue;
    out.push_back({.address = (*holders)[h].address,
                   .rank = (*holders)[h].rank,
                   .blocks = blocks[h],
                   .score = weights[h],
                   .confidence = feed().confidence(static_cast<HolderId>(h))});
  }
  return out;
}

void PrecisePrefixCacheProducer::OnReport() { hit_error_.Fold(fleet_.members()->by_number.size()); }

// ---- what it shows -----------------------------------------------------------------------------

void PrecisePrefixCacheProducer::CollectMetrics(telemetry::ScrapeSeries& series) const {
  using telemetry::MetricId;
  uint64_t lookups = 0, hits = 0;
  for (const auto& worker : workers_) {
    lookups += worker->lookups.load(std::memory_order_relaxed);
    hits += worker->hits.load(std::memory_order_relaxed);
  }
  for (size_t i = 0; i < kSources; ++i) {
    uint64_t matches = 0;
    for (const auto& w : workers_) matches += w->sources[i].load(std::memory_order_relaxed);
    series.Set(MetricId::kKvIndexMatchesTotal,
               {name(), plugin::MatchSourceName(static_cast<MatchSource>(i))},
               static_cast<double>(matches));
  }
  series.Set(MetricId::kKvIndexLookupRequestsTotal, {}, static_cast<double>(lookups));
  series.Set(MetricId::kKvIndexLookupHitsTotal, {}, static_cast<double>(hits));
  series.Set(MetricId::kKvIndexMaxPodHitsTotal, {}, static_cast<double>(hits));
  const std::shared_ptr<const Report> report = this->report();
  if (!report) return;
  CollectFeed(*report, series);
  CollectEndpoints(*report, series);
}

void PrecisePrefixCacheProducer::CollectFeed(const Report& report,
                                             telemetry::ScrapeSeries& series) const {
  using telemetry::MetricId;
  const prefix::KvFeed::Stats& feed = report.feed;
  const prefix::KvApplyStats& apply = feed.apply;
  const auto set = [&](MetricId id, uint64_t n) { series.Set(id, {}, static_cast<double>(n)); };
  set(MetricId::kKvIndexAdmissionsTotal, apply.blocks_stored);
  set(MetricId::kKvIndexEvictionsTotal, apply.blocks_removed + report.index.evicted_blocks);
  set(MetricId::kKvEventsDedupSuppressedTotal, apply.removes_counted);
  set(MetricId::kKvEventsDedupForwardedTotal, apply.blocks_removed);
  set(MetricId::kKvEventsPoolCapacity, 1);
  uint64_t held = 0;
  for (const Report::Publisher& p : report.publishers) held += p.stats.held;
  set(MetricId::kKvEventsPoolQueueDepth, held);
  if (report.shared) {
    const prefix::KvRedisMirror::Stats& shared = *report.shared;
    const std::pair<std::string_view, uint64_t> written[] = {
        {"commands", shared.commands},     {"refused", shared.errors},
        {"sent_again", shared.sent_again}, {"dropped", shared.dropped},
        {"told_again", shared.told_again}, {"cleared", shared.cleared}};
    for (const auto& [what, n] : written) {
      series.Set(MetricId::kKvSharedIndexTotal, {name(), what}, static_cast<double>(n));
    }
    series.Set(MetricId::kKvSharedIndexPendingBytes, {name()},
               static_cast<double>(shared.pending_bytes));
  }
  series.Set(MetricId::kKvIndexBytes, {name()}, static_cast<double>(report.index.bytes));
  series.Set(MetricId::kKvIndexBlocks, {name()}, static_cast<double>(report.index.blocks));
  const std::pair<std::string_view, uint64_t> happened[] = {
      {"events", apply.events},
      {"malformed", apply.malformed},
      {"gaps", feed.gaps},
      {"restarts", feed.restarts},
      {"replays", feed.replays},
      {"replays_failed", feed.replays_failed},
      {"replayed", feed.replayed},
      {"duplicates", feed.duplicates},
      {"cleared_cold", feed.clears_cold},
      {"held_dropped", feed.held_dropped},
      {"bad_frames", feed.bad_frames},
      {"unknown_publishers", feed.unknown_publishers},
      {"parked", apply.parked},
      {"parked_resolved", apply.parked_resolved},
      {"parked_dropped", apply.parked_dropped}};
  for (const auto& [what, count] : happened) {
    series.Set(MetricId::kKvEventsTotal, {name(), what}, static_cast<double>(count));
  }
  for (size_t kind = 0; kind < prefix::kKvCacheKinds; ++kind) {
    for (size_t reason = 0; reason < prefix::kKvSkips; ++reason) {
      const auto labels = {prefix::KvCacheKindName(static_cast<prefix::KvCacheKind>(kind)),
                           prefix::KvSkipName(static_cast<prefix::KvSkip>(reason))};
      const uint64_t stores = apply.stores_skipped[kind][reason];
      const uint64_t removals = apply.removals_skipped[kind][reason];
      if (stores > 0) {
        series.Set(MetricId::kKvEventsStoresSkippedTotal, labels, static_cast<double>(stores));
      }
      if (removals > 0) {
        series.Set(MetricId::kKvEventsRemovalsSkippedTotal, labels,
                   static_cast<double>(removals));
      }
    }
  }
}

void PrecisePrefixCacheProducer::CollectEndpoints(const Report& report,
                                                  telemetry::ScrapeSeries& series) const {
  using telemetry::MetricId;
  std::unordered_map<std::string_view, float> confidence;
  for (const Report::Publisher& p : report.publishers) {
    const std::string rank = std::to_string(p.rank);
    const auto set = [&](MetricId id, double value) {
      series.Set(id, {p.address, rank}, value);
    };
    set(MetricId::kKvPublisherAppliedMessages, static_cast<double>(p.stats.applied));
    set(MetricId::kKvPublisherAgeSeconds, base::ToSeconds(p.stats.age));
    set(MetricId::kKvPublisherBlocks, static_cast<double>(p.blocks));
    float& best = confidence[p.address];
    best = std::max(best, p.confidence);
  }
  const std::shared_ptr<const fleet::Members> members = fleet_.members();
  for (const EndpointNumber n : members->numbers) {
    const std::string& address = members->by_number[n]->host_port;
    const auto it = confidence.find(address);
    series.Set(MetricId::kKvIndexConfidence, {address},
               it == confidence.end() ? 0 : it->second * hit_error_.trust(n));
    const HitError::Report error = hit_error_.report(n);
    if (error.requests == 0) continue;
    series.Set(MetricId::kKvIndexHitErrorRatio, {address}, error.error);
    series.Set(MetricId::kKvIndexPredictedTokensTotal, {address},
               static_cast<double>(error.predicted));
    series.Set(MetricId::kKvIndexCachedTokensTotal, {address}, static_cast<double>(error.cached));
  }
}

std::string PrecisePrefixCacheProducer::Explain(const fleet::Endpoint& endpoint,
                                                const HitError::Report& error) const {
  if (std::abs(error.error) < kErrorExplained) return {};
  const std::shared_ptr<const Report> report = this->report();
  uint64_t blocks = 0, messages = 0;
  double unknown = 0;
  for (const Report::Publisher& p : report->publishers) {
    if (p.address != endpoint.host_port) continue;
    blocks += p.blocks;
    messages += p.stats.messages;
    unknown = std::max(unknown, p.stats.unknown_share);
  }
  if (error.error > 0) {
    if (messages == 0) {
      return "it finds more than the index knows, and no event ever came from it: are KV events "
             "turned on there, on the port and topic that are listened to?";
    }
    if (blocks == 0) {
      return "it finds more than the index knows: its events are for another model name, or its "
             "blocks are of a kind that cannot be indexed (see stores_skipped)";
    }
    if (unknown > 0.2) {
      return "it finds more than the index knows: blocks stored before this picker listened are "
             "unknown; offer replay (replaySocketPort) or reset its prefix cache";
    }
    return "it finds more than the index knows: tokens, chat template or hashing of the prompt "
           "differ from the engine's, or it takes blocks from elsewhere (offloading)";
  }
  return "it finds less than its events say: groups of layers with a window (hybrid model) that it "
         "does not announce, blocks larger than it said, or another process behind its address";
}

std::string PrecisePrefixCacheProducer::DumpState() const {
  std::string out = base::Concat("{\"blockSizeTokens\":", std::to_string(block_tokens_),
                                 ",\"hashAlgorithm\":\"", prefix::ChainKindName(chain_->kind()),
                                 "\",\"speculativeIndexing\":",
                                 speculative_ttl_ == base::Duration{} ? "false" : "true");
  if (const std::shared_ptr<const Report> report = this->report()) {
    out += base::Concat(",\"blocks\":", std::to_string(report->index.blocks),
                        ",\"bytes\":", std::to_string(report->index.bytes),
                        ",\"publishers\":", std::to_string(report->publishers.size()));
    if (report->shared) {
      out += base::Concat(",\"sharedPendingBytes\":", std::to_string(report->shared->pending_bytes),
                          ",\"sharedRefusal\":");
      base::AppendJsonString(&out, report->shared_error);
    }
    out += ",\"endpoints\":[";
    const std::shared_ptr<const fleet::Members> members = fleet_.members();
    size_t shown = 0;
    for (const EndpointNumber n : members->numbers) {
      const HitError::Report error = hit_error_.report(n);
      if (error.requests == 0 || shown == kDumpEndpointsMax) continue;
      const fleet::Endpoint& endpoint = *members->by_number[n];
      out += shown++ ? ",{\"endpoint\":" : "{\"endpoint\":";
      base::AppendJsonString(&out, endpoint.host_port);
      char text[160];
      std::snprintf(text, sizeof(text),
                    ",\"requests\":%llu,\"predictedTokens\":%llu,\"cachedTokens\":%llu,"
                    "\"error\":%.4f,\"trust\":%.3f",
                    static_cast<unsigned long long>(error.requests),
                    static_cast<unsigned long long>(error.predicted),
                    static_cast<unsigned long long>(error.cached), error.error,
                    static_cast<double>(hit_error_.trust(n)));
      out += text;
      if (const std::string why = Explain(endpoint, error); !why.empty()) {
        out += ",\"explanation\":";
        base::AppendJsonString(&out, why);
      }
      out += "}";
    }
    out += "]";
  }
  return out + "}";
}

plugin::PluginType PrecisePrefixCacheProducerType() {
  return MakeType<PrecisePrefixCacheProducer>(
      "precise-prefix-cache-producer",
      "Knows by the engines' KV events how much of a prompt each endpoint has in cache.",
      PreciseParametersType);
}

}  // namespace llmd::plugins
