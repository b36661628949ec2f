#include "plugins/filter/utilization_filter.h"

#include <algorithm>

#include "plugin/keys.h"
#include "plugins/factory.h"

namespace llmd::plugins {
namespace {

enum class Metric { kActiveRequests, kRunningRequests, kWaitingQueue, kKvCacheUtilization };

struct Condition {
  Metric metric = Metric::kActiveRequests;
  double max_value = 0;
  config::Node node;
};

struct Parameters {
  std::vector<Condition> conditions;
  bool fallback_on_empty = false;
  std::string producer;
};

const config::ObjectType<Parameters>& ParametersType() {
  static const auto condition =
      config::Object<Condition>("UtilizationCondition")
          .Required("metric", "What is compared.", &Condition::metric,
                    config::Enum<Metric>({{"active-requests", Metric::kActiveRequests},
                                          {"running-requests", Metric::kRunningRequests},
                                          {"waiting-queue", Metric::kWaitingQueue},
                                          {"kv-cache-utilization", Metric::kKvCacheUtilization}}))
          .Required("maxValue", "The most that an endpoint may have.", &Condition::max_value,
                    config::Double(0))
          .Where(&Condition::node)
          .Build();
  static const auto type =
      config::Object<Parameters>("UtilizationFilterParameters")
          .Required("conditions", "All must hold for an endpoint to stay.",
                    &Parameters::conditions, config::List<Condition>(condition, 100))
          .Field("fallbackOnEmpty", "Keep all endpoints when none would stay.",
                 &Parameters::fallback_on_empty)
          .Field("inFlightLoadProducerName", "Producer whose in-flight counts are read.",
                 &Parameters::producer)
          .Build();
  return *type;
}

class UtilizationFilter final : public plugin::Plugin, public plugin::Filter {
 public:
  UtilizationFilter(const Parameters& parameters, plugin::PluginContext& context)
      : conditions_(parameters.conditions), fallback_on_empty_(parameters.fallback_on_empty) {
    if (conditions_.empty()) {
      context.errors().Add(context.parameters().FindOrSelf("conditions"), "must not be empty");
    }
    bool reads_load = false;
    for (Condition& condition : conditions_) {
      reads_load |= condition.metric == Metric::kActiveRequests;
      if (condition.metric == Metric::kKvCacheUtilization && condition.max_value > 1) {
        context.errors().Add(condition.node.FindOrSelf("maxValue"),
                             "kv-cache-utilization is a share, at most 1");
      }
      condition.node = {};  // the document may go
    }
    if (reads_load) load_ = context.Consumes<plugin::InFlightLoad>(parameters.producer);
  }

  void Apply(const plugin::RequestContext& request, plugin::Candidates& candidates) const override {
    const plugin::InFlightLoad* load = request.attributes.Get(load_);
    const auto fits = [&](plugin::EndpointNumber n) {
      return std::all_of(conditions_.begin(), conditions_.end(), [&](const Condition& c) {
        return ValueOf(c.metric, *request.fleet, load, n) <= c.max_value;
      });
    };
    if (fallback_on_empty_ &&
        std::none_of(candidates.numbers.begin(), candidates.numbers.end(), fits)) {
      return;
    }
    candidates.KeepIf(fits);
  }
  plugin::EmptyMeans empty_means() const override { return plugin::EmptyMeans::kSaturated; }

 private:
  static double ValueOf(Metric metric, const fleet::View& view, const plugin::InFlightLoad* load,
                        plugin::EndpointNumber n) {
    switch (metric) {
      case Metric::kActiveRequests:
        return load && n < load->requests.size() ? static_cast<double>(load->requests[n]) : 0;
      case Metric::kRunningRequests: return view.running()[n];
      case Metric::kWaitingQueue: return view.waiting()[n];
      case Metric::kKvCacheUtilization: return view.kv_usage()[n];
    }
    return 0;
  }

  std::vector<Condition> conditions_;
  const bool fallback_on_empty_;
  plugin::Slot<plugin::InFlightLoad> load_;
};

}  // namespace

plugin::PluginType UtilizationFilterType() {
  plugin::PluginType type =
      MakeType<UtilizationFilter>("utilization-filter", "Drops endpoints over a limit of load.",
                                  ParametersType);
  type.stability = plugin::Stability::kAlpha;
  return type;
}

}  // namespace llmd::plugins
