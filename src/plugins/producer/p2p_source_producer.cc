#include "plugins/producer/p2p_source_producer.h"

#include <algorithm>
#include <string>

#include "plugin/keys.h"
#include "plugins/factory.h"

namespace llmd::plugins {
namespace {

using plugin::EndpointNumber;

constexpr std::string_view kHeader = "x-kv-cache-source-host-port";
constexpr std::string_view kTier = "cpu";

struct Parameters {
  std::string match_producer;
  int64_t cached_token_delta_min = 1;
  std::string prefill_profile;
};

const config::ObjectType<Parameters>& ParametersType() {
  static const auto type =
      config::Object<Parameters>("P2pSourceProducerParameters")
          .Field("prefixMatchInfoProducerName", "Producer of the prefix matches.",
                 &Parameters::match_producer)
          .Field("minCachedTokenDelta",
                 "How many cached tokens a peer must have more than who computes the prompt.",
                 &Parameters::cached_token_delta_min, config::Int<int64_t>(1))
          .Field("prefillProfileName",
                 "Profile whose endpoint computes the prompt, where it ran; prefill when empty.",
                 &Parameters::prefill_profile)
          .Build();
  return *type;
}

// FNV-1a of 32 bits, as a share of its range.
double ShareOf(std::string_view request_id) {
  uint32_t hash = 2166136261u;
  for (const char c : request_id) hash = (hash ^ static_cast<uint8_t>(c)) * 16777619u;
  return static_cast<double>(hash) / 4294967296.0;
}

// Who was drawn, for OnRouted.
struct Source {
  static constexpr std::string_view kKey = "p2p-source";
  EndpointNumber endpoint = fleet::kNoEndpoint;
  uint64_t tokens = 0;
};

class P2pSourceProducer final : public plugin::Plugin,
                                public plugin::DataProducer,
                                public plugin::PreRequest {
 public:
  P2pSourceProducer(const Parameters& parameters, plugin::PluginContext& context)
      : cached_token_delta_min_(static_cast<uint64_t>(parameters.cached_token_delta_min)),
        prefill_profile_(parameters.prefill_profile.empty() ? "prefill"
                                                            : parameters.prefill_profile),
        match_(context.Consumes<plugin::PrefixCacheMatchInfo>(parameters.match_producer)),
        source_(context.Produces<Source>()) {}

  base::Status Produce(plugin::RequestContext& request,
                       std::span<const EndpointNumber> candidates) override {
    const plugin::PrefixCacheMatchInfo* match = request.attributes.Get(match_);
    if (!match) return base::OkStatus();
    const std::span<const uint32_t> blocks =
        match->tiers ? match->tiers->BlocksIn(request, kTier) : match->matched_blocks;
    const auto held = [&](EndpointNumber n) { return n < blocks.size() ? blocks[n] : 0; };
    uint32_t most = 0;
    for (const EndpointNumber n : candidates) most = std::max(most, held(n));
    if (most == 0) return base::OkStatus();
    const auto eligible = [&](EndpointNumber n) { return held(n) > 0 && held(n) + 1 >= most; };
    double left = 0;
    for (const EndpointNumber n : candidates) {
      if (eligible(n)) left += Weight(request, n);
    }
    left *= ShareOf(request.request_id);
    auto* source = request.arena->New<Source>();
    for (const EndpointNumber n : candidates) {
      if (!eligible(n)) continue;
      source->endpoint = n;  // the last one, should rounding leave something
      const double weight = Weight(request, n);
      if (left < weight) break;
      left -= weight;
    }
    source->tokens = uint64_t{held(source->endpoint)} * match->block_tokens;
    request.attributes.Set(source_, static_cast<const Source*>(source));
    return base::OkStatus();
  }

  base::Status OnRouted(plugin::RequestContext& request, const plugin::SchedulingResult& result,
                        plugin::BookingList*) override {
    // An empty value names nobody, and replaces what the client said.
    const bool sent = request.FindHeader(kHeader).has_value();
    const std::string_view source = SourceFor(request, result);
    if ((sent || !source.empty()) && !request.SetHeader(kHeader, source)) {
      return base::ResourceExhausted("no room for the header of the KV cache source");
    }
    return base::OkStatus();
  }

 private:
  static double Weight(const plugin::RequestContext& request, EndpointNumber n) {
    return 1.0 / (1.0 + std::max(0.0, static_cast<double>(request.fleet->waiting()[n])));
  }

  // "" when nobody is worth pulling from.
  std::string_view SourceFor(const plugin::RequestContext& request,
                             const plugin::SchedulingResult& result) const {
    const Source* source = request.attributes.Get(source_);
    if (!source || result.primary >= result.profiles.size()) return {};
    std::span<const plugin::ScoredCandidate> computing = result.endpoints();
    for (const plugin::ProfileResult& profile : result.profiles) {
      if (profile.profile == prefill_profile_ && profile.ran && !profile.endpoints.empty()) {
        computing = profile.endpoints;
      }
    }
    if (computing.empty() || computing[0].endpoint == source->endpoint) return {};
    const plugin::PrefixCacheMatchInfo* match = request.attributes.Get(match_);
    const EndpointNumber n = computing[0].endpoint;
    uint64_t own = 0;
    if (match && n < match->matched_blocks.size()) {
      own = uint64_t{match->matched_blocks[n]} * match->block_tokens;
    }
    if (source->tokens < own + cached_token_delta_min_) return {};
    return request.fleet->endpoint(source->endpoint).host_port;
  }

  const uint64_t cached_token_delta_min_;
  const std::string prefill_profile_;
  const plugin::Slot<plugin::PrefixCacheMatchInfo> match_;
  const plugin::Slot<Source> source_;
};

}  // namespace

plugin::PluginType P2pSourceProducerType() {
  plugin::PluginType type = MakeType<P2pSourceProducer>(
      "p2p-source-producer", "Names a peer to pull cached KV blocks from.", ParametersType);
  type.stability = plugin::Stability::kAlpha;
  return type;
}

}  // namespace llmd::plugins
