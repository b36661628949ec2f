#include "plugins/scorer/kv_cache_utilization_scorer.h"

#include "plugins/factory.h"

namespace llmd::plugins {
namespace {

class KvCacheUtilizationScorer final : public plugin::Plugin, public plugin::Scorer {
 public:
  KvCacheUtilizationScorer(const NoParameters&, plugin::PluginContext&) {}
  plugin::ScorerCategory category() const override { return plugin::ScorerCategory::kDistribution; }
  void Score(const plugin::RequestContext& request,
             std::span<const plugin::EndpointNumber> candidates,
             std::span<double> scores) const override {
    const float* usage = request.fleet->kv_usage();
    for (size_t i = 0; i < candidates.size(); ++i) scores[i] = 1.0 - usage[candidates[i]];
  }
};

}  // namespace

plugin::PluginType KvCacheUtilizationScorerType() {
  return MakeType<KvCacheUtilizationScorer>(
      "kv-cache-utilization-scorer", "Prefers endpoints with free KV cache.", NoParametersType);
}

}  // namespace llmd::plugins
