#include "plugins/producer/approx_prefix_cache_producer.h"

#include <algorithm>

#include "base/strings.h"
#include "plugins/factory.h"
#include "plugins/producer/prompt.h"
#include "telemetry/metrics.h"

namespace llmd::plugins {
namespace {

using P = ApproxPrefixCacheParameters;

const config::ObjectType<P>& ParametersType() {
  constexpr uint32_t kBlockTokensMax = prefix::kBlockBytesMax / prefix::kBytesPerToken;
  static const auto type =
      config::Object<P>("ApproxPrefixCacheProducerParameters")
          .Field("autoTune", "Take block size and capacity from the engines' metrics.",
                 &P::auto_tune)
          .Field("blockSizeTokens", "Tokens per block, raised to 64 when less.",
                 &P::block_size_tokens, config::Int<uint32_t>(0, kBlockTokensMax))
          .Field("blockSize", "Old name of blockSizeTokens.", &P::block_size,
                 config::Int<uint32_t>(0, kBlockTokensMax))
          .Field("maxPrefixBlocksToMatch",
                 "Blocks of a prompt to look at, when maxPrefixTokensToMatch is 0.",
                 &P::max_prefix_blocks, config::Int<uint64_t>(0))
          .Field("maxPrefixTokensToMatch", "Tokens of a prompt to look at; 0: no such limit.",
                 &P::max_prefix_tokens, config::Int<uint64_t>(0))
          .Field("lruCapacityPerServer", "Blocks to remember per endpoint.", &P::lru_capacity,
                 config::Int<uint64_t>(0))
          .Build();
  return *type;
}

constexpr size_t kDumpEndpointsMax = 100;

}  // namespace

// What Produce leaves for OnRouted; consumers see the base.
struct ApproxPrefixCacheProducer::Prompt : plugin::PrefixCacheMatchInfo {
  std::span<const std::span<const prefix::BlockHash>> chains;
};

ApproxPrefixCacheProducer::ApproxPrefixCacheProducer(const ApproxPrefixCacheParameters& parameters,
                                                     plugin::PluginContext& context)
    : parameters_([&] {
        P p = parameters;
        if (p.block_size > 0 && p.block_size_tokens == P().block_size_tokens) {
          p.block_size_tokens = p.block_size;
        }
        return p;
      }()),
      match_(context.Produces<plugin::PrefixCacheMatchInfo>()),
      tokens_(context.Consumes<plugin::TokenizedPrompt>("")),
      fleet_(context.fleet()) {
  if (!parameters_.auto_tune && parameters_.block_size_tokens == 0) {
    context.errors().Add(context.parameters().FindOrSelf("blockSizeTokens"),
                         "must not be 0 when autoTune is off");
  }
}

uint32_t ApproxPrefixCacheProducer::BlockTokens(const fleet::View& view) const {
  uint32_t tokens = parameters_.block_size_tokens;
  if (parameters_.auto_tune) {
    for (plugin::EndpointNumber n : view.members()) {
      if (view.block_tokens()[n] == 0) continue;
      tokens = view.block_tokens()[n];
      break;
    }
  }
  return std::clamp<uint32_t>(tokens, kBlockTokensMin,
                              prefix::kBlockBytesMax / prefix::kBytesPerToken);
}

uint64_t ApproxPrefixCacheProducer::BlocksMax(uint32_t block_tokens) const {
  if (parameters_.max_prefix_tokens > 0) return parameters_.max_prefix_tokens / block_tokens;
  return parameters_.max_prefix_blocks > 0 ? parameters_.max_prefix_blocks : UINT32_MAX;
}

uint64_t ApproxPrefixCacheProducer::Capacity(const fleet::View& view, plugin::EndpointNumber n,
                                             uint32_t block_tokens) const {
  if (parameters_.auto_tune && view.block_count()[n] > 0) {
    const uint32_t engine_tokens = view.block_tokens()[n] ? view.block_tokens()[n] : block_tokens;
    return std::max<uint64_t>(1, uint64_t{view.block_count()[n]} * engine_tokens / block_tokens);
  }
  return parameters_.lru_capacity > 0 ? parameters_.lru_capacity : kCapacityDefault;
}

base::Status ApproxPrefixCacheProducer::Produce(
    plugin::RequestContext& request, std::span<const plugin::EndpointNumber> candidates) {
  gone_.Visit(fleet_, [&](plugin::EndpointNumber n) { index_.Forget(n); });
  const plugin::TokenizedPrompt* tokens = request.attributes.Get(tokens_);
  if (!tokens || !request.body || candidates.empty()) return base::OkStatus();

  base::Arena& arena = *request.arena;
  const uint32_t block_tokens = BlockTokens(*request.fleet);
  const uint64_t seed = prefix::ChainSeed(request.target_model, request.body->cache_salt);
  const PromptChains chains = HashPrompts(*request.body, tokens->media_tokens, seed, block_tokens,
                                          BlocksMax(block_tokens), arena);
  // Candidates stand in ascending order.
  const std::span<uint32_t> matched = arena.NewSpan<uint32_t>(candidates.back() + 1);
  for (const auto& chain : chains.prompts) index_.Match(chain, matched);

  auto* prompt = arena.New<Prompt>();
  prompt->matched_blocks = matched;
  prompt->total_blocks = chains.total_blocks;
  prompt->block_tokens = block_tokens;
  prompt->chains = chains.prompts;
  request.attributes.Set(match_, static_cast<const plugin::PrefixCacheMatchInfo*>(prompt));
  return base::OkStatus();
}

base::Status ApproxPrefixCacheProducer::OnRouted(plugin::RequestContext& request,
                                                 const plugin::SchedulingResult& result,
                                                 plugin::BookingList*) {
  // Nobody else writes this slot, so what is there is what Produce left.
  const auto* prompt = static_cast<const Prompt*>(request.attributes.Get(match_));
  if (!prompt) return base::OkStatus();
  for (size_t i = 0; i < result.profiles.size(); ++i) {
    const plugin::ProfileResult& profile = result.profiles[i];
    const bool counts = i == result.primary || profile.profile == "prefill";
    if (!counts || profile.endpoints.empty()) continue;
    const plugin::EndpointNumber n = profile.endpoints[0].endpoint;
    const uint64_t capacity = Capacity(*request.fleet, n, prompt->block_tokens);
    for (const auto& chain : prompt->chains) index_.Record(n, capacity, chain);
  }
  return base::OkStatus();
}

std::string ApproxPrefixCacheProducer::DumpState() const {
  struct Row {
    std::string name;
    size_t blocks;
  };
  std::vector<Row> rows;
  const std::shared_ptr<const fleet::Members> members = fleet_.members();
  for (plugin::EndpointNumber n : members->numbers) {
    const fleet::EndpointSpec& spec = members->by_number[n]->spec;
    rows.push_back({base::Concat(spec.name_space, "/", spec.name), index_.blocks(n)});
  }
  std::sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) {
    return a.blocks != b.blocks ? a.blocks > b.blocks : a.name < b.name;
  });
  const prefix::PrefixIndex::Stats stats = index_.stats();
  std::string out = "{\"pods\":[";
  for (size_t i = 0; i < std::min(rows.size(), kDumpEndpointsMax); ++i) {
    out += i ? ",{\"pod\":" : "{\"pod\":";
    base::AppendJsonString(&out, rows[i].name);
    out += base::Concat(",\"blocks\":", std::to_string(rows[i].blocks), "}");
  }
  return out + base::Concat("],\"totalPods\":", std::to_string(rows.size()),
                            ",\"maxPods\":", std::to_string(kDumpEndpointsMax),
                            ",\"bytes\":", std::to_string(stats.bytes),
                            ",\"evictedBlocks\":", std::to_string(stats.evicted_blocks), "}");
}

void ApproxPrefixCacheProducer::CollectMetrics(telemetry::ScrapeSeries& series) const {
  using telemetry::MetricId;
  const prefix::PrefixIndex::Stats stats = this->stats();
  series.Set(MetricId::kPrefixIndexerSize, {name(), type()}, static_cast<double>(stats.blocks));
  series.Set(MetricId::kPrefixIndexBytes, {name()}, static_cast<double>(stats.bytes));
  series.Set(MetricId::kPrefixIndexEvictionsTotal, {name()},
             static_cast<double>(stats.evicted_blocks));
}

plugin::PluginType ApproxPrefixCacheProducerType() {
  plugin::PluginType type = MakeType<ApproxPrefixCacheProducer>(
      "approx-prefix-cache-producer",
      "Knows by what was sent where how much of a prompt each endpoint has in cache.",
      ParametersType);
  type.default_producer_of = plugin::PrefixCacheMatchInfo::kKey;
  return type;
}

}  // namespace llmd::plugins
