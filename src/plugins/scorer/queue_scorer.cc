#include "plugins/scorer/queue_scorer.h"

#include "plugins/factory.h"
#include "plugins/scorer/min_max.h"

namespace llmd::plugins {
namespace {

class QueueScorer final : public plugin::Plugin, public plugin::Scorer {
 public:
  QueueScorer(const NoParameters&, plugin::PluginContext&) {}
  plugin::ScorerCategory category() const override { return plugin::ScorerCategory::kDistribution; }
  void Score(const plugin::RequestContext& request,
             std::span<const plugin::EndpointNumber> candidates,
             std::span<double> scores) const override {
    ScoreLowerIsBetter(request.fleet->waiting(), candidates, scores);
  }
};

}  // namespace

plugin::PluginType QueueScorerType() {
  return MakeType<QueueScorer>("queue-scorer", "Prefers endpoints with few requests waiting.",
                               NoParametersType);
}

}  // namespace llmd::plugins
