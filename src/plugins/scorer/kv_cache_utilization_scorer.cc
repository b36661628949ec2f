#include "plugins/scorer/kv_cache_utilization_scorer.h"

#include "plugins/factory.h"
#include "plugins/scorer/column.h"

namespace llmd::plugins {
namespace {

class KvCacheUtilizationScorer final : public plugin::Plugin, public plugin::Scorer {
 public:
  KvCacheUtilizationScorer(const NoParameters&, plugin::PluginContext&) {}
  plugin::ScorerCategory category() const override { return plugin::ScorerCategory::kDistribution; }
  void Score(const plugin::RequestContext& request,
             std::span<const plugin::EndpointNumber> candidates,
             std::span<double> scores) const override {
    ScoreColumn(request.fleet->kv_usage(), candidates, scores,
                [](float usage) { return 1.0 - usage; });
  }
};

}  // namespace

plugin::PluginType KvCacheUtilizationScorerType() {
  return MakeType<KvCacheUtilizationScorer>(
      "kv-cache-utilization-scorer", "Prefers endpoints with free KV cache.", NoParametersType);
}

}  // namespace llmd::plugins
