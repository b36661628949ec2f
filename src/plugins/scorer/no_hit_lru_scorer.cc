#include "plugins/scorer/no_hit_lru_scorer.h"

#include <algorithm>
#include <atomic>

#include "base/strings.h"
#include "plugin/keys.h"
#include "plugins/factory.h"

namespace llmd::plugins {
namespace {

using plugin::EndpointNumber;

constexpr size_t kDumpEndpointsMax = 100;

struct Parameters {
  int64_t lru_size = 1024;
  std::string producer;
  std::string prefix_plugin_type, prefix_plugin_name;
};

const config::ObjectType<Parameters>& ParametersType() {
  static const auto type =
      config::Object<Parameters>("NoHitLruScorerParameters")
          .Field("lruSize", "Without effect: all endpoints are remembered.", &Parameters::lru_size,
                 config::Int<int64_t>())
          .Field("prefixMatchInfoProducerName", "Producer whose prefix matches are read.",
                 &Parameters::producer)
          .Field("prefixPluginType", "Without effect.", &Parameters::prefix_plugin_type)
          .Field("prefixPluginName", "Without effect.", &Parameters::prefix_plugin_name)
          .Build();
  return *type;
}

class NoHitLruScorer final : public plugin::Plugin,
                             public plugin::Scorer,
                             public plugin::PreRequest {
 public:
  NoHitLruScorer(const Parameters& parameters, plugin::PluginContext& context)
      : match_(context.Consumes<plugin::PrefixCacheMatchInfo>(parameters.producer)),
        fleet_(context.fleet()),
        cells_(std::make_unique<Cell[]>(fleet::kEndpointsMax)) {}

  plugin::ScorerCategory category() const override { return plugin::ScorerCategory::kDistribution; }

  void Score(const plugin::RequestContext& request, std::span<const EndpointNumber> candidates,
             std::span<double> scores) const override {
    const bool hit = std::ranges::any_of(
        candidates, [&](EndpointNumber n) { return Matched(request, n) > 0; });
    if (hit) {
      std::ranges::fill(scores, 0.5);
      return;
    }
    const auto order = request.arena->NewSpan<Used>(candidates.size());
    for (uint32_t i = 0; i < order.size(); ++i) {
      order[i] = {UsedAt(request.fleet->endpoint(candidates[i])), i};
    }
    std::ranges::sort(order, [](const Used& a, const Used& b) {
      return a.at != b.at ? a.at < b.at : a.place < b.place;
    });
    const double last = static_cast<double>(order.size()) - 1;
    for (size_t rank = 0; rank < order.size(); ++rank) {
      scores[order[rank].place] = last > 0 ? 1 - static_cast<double>(rank) / last : 1;
    }
  }

  base::Status OnRouted(plugin::RequestContext& request, const plugin::SchedulingResult& result,
                        plugin::BookingList*) override {
    for (const plugin::ScoredCandidate& c : result.profiles[result.primary].scored) {
      if (Matched(request, c.endpoint) > 0) return base::OkStatus();
    }
    for (size_t i = 0; i < result.profiles.size(); ++i) {
      const plugin::ProfileResult& profile = result.profiles[i];
      if (profile.endpoints.empty()) continue;
      if (i != result.primary && profile.profile != "prefill") continue;
      const fleet::Endpoint& endpoint = request.fleet->endpoint(profile.endpoints[0].endpoint);
      Cell& cell = cells_[endpoint.number];
      cell.generation.store(endpoint.generation, std::memory_order_relaxed);
      cell.used_at.store(clock_.fetch_add(1, std::memory_order_relaxed) + 1,
                         std::memory_order_release);
    }
    return base::OkStatus();
  }

  std::string DumpState() const override {
    std::vector<std::pair<uint64_t, const fleet::Endpoint*>> used;
    const std::shared_ptr<const fleet::Members> members = fleet_.members();
    for (const EndpointNumber n : members->numbers) {
      const fleet::Endpoint& endpoint = *members->by_number[n];
      if (const uint64_t at = UsedAt(endpoint)) used.emplace_back(at, &endpoint);
    }
    std::ranges::sort(used);
    std::string out = "{\"endpoints\":[";
    for (size_t i = 0; i < std::min(used.size(), kDumpEndpointsMax); ++i) {
      if (i > 0) out += ",";
      const fleet::EndpointSpec& spec = used[i].second->spec;
      base::AppendJsonString(&out, base::Concat(spec.name_space, "/", spec.name));
    }
    return out + base::Concat("],\"totalEndpoints\":", std::to_string(used.size()),
                              ",\"maxEndpoints\":", std::to_string(kDumpEndpointsMax), "}");
  }

 private:
  struct Cell {
    std::atomic<uint64_t> used_at{0};  // in cold requests; 0: never
    std::atomic<uint64_t> generation{0};
  };
  struct Used {
    uint64_t at;
    uint32_t place;
  };

  uint32_t Matched(const plugin::RequestContext& request, EndpointNumber n) const {
    const plugin::PrefixCacheMatchInfo* match = request.attributes.Get(match_);
    return match && n < match->matched_blocks.size() ? match->matched_blocks[n] : 0;
  }
  // 0: never.
  uint64_t UsedAt(const fleet::Endpoint& endpoint) const {
    const Cell& cell = cells_[endpoint.number];
    const uint64_t at = cell.used_at.load(std::memory_order_acquire);
    if (cell.generation.load(std::memory_order_relaxed) != endpoint.generation) return 0;
    return at;
  }

  const plugin::Slot<plugin::PrefixCacheMatchInfo> match_;
  fleet::Fleet& fleet_;
  std::unique_ptr<Cell[]> cells_;  // by EndpointNumber
  std::atomic<uint64_t> clock_{0};
};

}  // namespace

plugin::PluginType NoHitLruScorerType() {
  return MakeType<NoHitLruScorer>(
      "no-hit-lru-scorer",
      "Spreads requests that nobody has in cache: longest without one first.", ParametersType);
}

}  // namespace llmd::plugins
