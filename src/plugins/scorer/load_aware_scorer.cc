#include "plugins/scorer/load_aware_scorer.h"

#include <algorithm>

#include "plugins/factory.h"

namespace llmd::plugins {
namespace {

struct Parameters {
  int64_t threshold = 128;
};

const config::ObjectType<Parameters>& ParametersType() {
  static const auto type = config::Object<Parameters>("LoadAwareScorerParameters")
                               .Field("threshold", "Requests waiting at which the score is 0.",
                                      &Parameters::threshold, config::Int<int64_t>(1))
                               .Build();
  return *type;
}

class LoadAwareScorer final : public plugin::Plugin, public plugin::Scorer {
 public:
  LoadAwareScorer(const Parameters& parameters, plugin::PluginContext&)
      : threshold_(static_cast<double>(parameters.threshold)) {}
  plugin::ScorerCategory category() const override { return plugin::ScorerCategory::kDistribution; }
  void Score(const plugin::RequestContext& request,
             std::span<const plugin::EndpointNumber> candidates,
             std::span<double> scores) const override {
    const float* waiting = request.fleet->waiting();
    for (size_t i = 0; i < candidates.size(); ++i) {
      const double queued = std::min<double>(waiting[candidates[i]], threshold_);
      scores[i] = 0.5 * (1.0 - queued / threshold_);
    }
  }

 private:
  const double threshold_;
};

}  // namespace

plugin::PluginType LoadAwareScorerType() {
  return MakeType<LoadAwareScorer>("load-aware-scorer",
                                   "Half a point for an empty queue, none at the threshold.",
                                   ParametersType);
}

}  // namespace llmd::plugins
