#include "plugins/scorer/active_request_scorer.h"

#include <algorithm>

#include "plugin/keys.h"
#include "plugins/factory.h"

namespace llmd::plugins {
namespace {

struct Parameters {
  int64_t idle_threshold = 0;
  double max_busy_score = 1.0;
  std::string producer;
  std::string request_timeout;
};

const config::ObjectType<Parameters>& ParametersType() {
  static const auto type =
      config::Object<Parameters>("ActiveRequestScorerParameters")
          .Field("idleThreshold", "Requests in flight up to which an endpoint counts as idle.",
                 &Parameters::idle_threshold, config::Int<int64_t>(0))
          .Field("maxBusyScore", "Score of an endpoint that is just not idle any more.",
                 &Parameters::max_busy_score, config::Double(0, 1))
          .Field("inFlightLoadProducerName", "Producer whose in-flight counts are read.",
                 &Parameters::producer)
          .Field("requestTimeout", "Deprecated and without effect.", &Parameters::request_timeout)
          .Build();
  return *type;
}

class ActiveRequestScorer final : public plugin::Plugin, public plugin::Scorer {
 public:
  ActiveRequestScorer(const Parameters& parameters, plugin::PluginContext& context)
      : load_(context.Consumes<plugin::InFlightLoad>(parameters.producer)),
        idle_threshold_(parameters.idle_threshold),
        max_busy_score_(parameters.max_busy_score) {}
  plugin::ScorerCategory category() const override { return plugin::ScorerCategory::kDistribution; }
  void Score(const plugin::RequestContext& request,
             std::span<const plugin::EndpointNumber> candidates,
             std::span<double> scores) const override {
    const plugin::InFlightLoad* load = request.attributes.Get(load_);
    if (!load) {
      std::fill(scores.begin(), scores.end(), 1.0);
      return;
    }
    int64_t max = 0;
    for (plugin::EndpointNumber n : candidates) max = std::max(max, Count(*load, n));
    const double scale = max > 0 ? max_busy_score_ / static_cast<double>(max) : 0;
    for (size_t i = 0; i < candidates.size(); ++i) {
      const int64_t count = Count(*load, candidates[i]);
      scores[i] = count <= idle_threshold_ ? 1.0 : static_cast<double>(max - count) * scale;
    }
  }

 private:
  static int64_t Count(const plugin::InFlightLoad& load, plugin::EndpointNumber n) {
    return n < load.requests.size() ? load.requests[n] : 0;
  }

  const plugin::Slot<plugin::InFlightLoad> load_;
  const int64_t idle_threshold_;
  const double max_busy_score_;
};

}  // namespace

plugin::PluginType ActiveRequestScorerType() {
  return MakeType<ActiveRequestScorer>("active-request-scorer",
                                       "Prefers endpoints with few of our requests in flight.",
                                       ParametersType);
}

}  // namespace llmd::plugins
