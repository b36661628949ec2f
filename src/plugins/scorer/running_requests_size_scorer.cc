#include "plugins/scorer/running_requests_size_scorer.h"

#include "plugins/factory.h"
#include "plugins/scorer/min_max.h"

namespace llmd::plugins {
namespace {

class RunningRequestsSizeScorer final : public plugin::Plugin, public plugin::Scorer {
 public:
  RunningRequestsSizeScorer(const NoParameters&, plugin::PluginContext&) {}
  plugin::ScorerCategory category() const override { return plugin::ScorerCategory::kDistribution; }
  void Score(const plugin::RequestContext& request,
             std::span<const plugin::EndpointNumber> candidates,
             std::span<double> scores) const override {
    ScoreLowerIsBetter(request.fleet->running(), candidates, scores);
  }
};

}  // namespace

plugin::PluginType RunningRequestsSizeScorerType() {
  return MakeType<RunningRequestsSizeScorer>("running-requests-size-scorer",
                                             "Prefers endpoints with few requests running.",
                                             NoParametersType);
}

}  // namespace llmd::plugins
