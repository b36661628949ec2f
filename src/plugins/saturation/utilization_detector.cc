#include "plugins/saturation/utilization_detector.h"

#include <algorithm>

#include "plugins/factory.h"

namespace llmd::plugins {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;

struct Parameters {
  int64_t queue_depth_threshold = 5;
  double kv_cache_util_threshold = 0.8;
  base::Duration staleness = milliseconds(200);
  double headroom = 0;
};

const config::ObjectType<Parameters>& ParametersType() {
  static const auto type =
      config::Object<Parameters>("UtilizationDetectorParameters")
          .Field("queueDepthThreshold", "Requests waiting at which an endpoint counts as full.",
                 &Parameters::queue_depth_threshold, config::Int<int64_t>(1))
          .Field("kvCacheUtilThreshold", "KV cache use at which an endpoint counts as full.",
                 &Parameters::kv_cache_util_threshold, config::Double(1e-9, 1))
          .Field("metricsStalenessThreshold", "Age from which an endpoint's numbers count as lost.",
                 &Parameters::staleness, config::GoDuration(nanoseconds(1)))
          .Field("headroom",
                 "Share beyond the thresholds up to which the filter keeps an endpoint.",
                 &Parameters::headroom, config::Double(0))
          .Build();
  return *type;
}

class UtilizationDetector final : public plugin::Plugin,
                                  public plugin::SaturationDetector,
                                  public plugin::Filter {
 public:
  UtilizationDetector(const Parameters& parameters, plugin::PluginContext&)
      : queue_threshold_(static_cast<double>(parameters.queue_depth_threshold)),
        kv_threshold_(parameters.kv_cache_util_threshold),
        staleness_(parameters.staleness),
        queue_limit_(queue_threshold_ * (1 + parameters.headroom)),
        kv_limit_(kv_threshold_ * (1 + parameters.headroom)) {}

  Saturation Measure(const fleet::View& view, std::span<const plugin::EndpointNumber> candidates,
                     base::TimePoint now) const override {
    if (candidates.empty()) return {};
    double sum = 0;
    uint32_t stale = 0;
    for (plugin::EndpointNumber n : candidates) {
      if (Stale(view, n, now)) {
        sum += 1;
        ++stale;
      } else {
        sum += std::max(view.waiting()[n] / queue_threshold_, view.kv_usage()[n] / kv_threshold_);
      }
    }
    return {.value = sum / static_cast<double>(candidates.size()), .stale_endpoints = stale};
  }

  void Apply(const plugin::RequestContext& request, plugin::Candidates& candidates) const override {
    const fleet::View& view = *request.fleet;
    auto fits = [&](plugin::EndpointNumber n) {
      return !Stale(view, n, request.now) && view.waiting()[n] < queue_limit_ &&
             view.kv_usage()[n] < kv_limit_;
    };
    if (std::any_of(candidates.numbers.begin(), candidates.numbers.end(), fits)) {
      candidates.KeepIf(fits);
    }
  }

 private:
  bool Stale(const fleet::View& view, plugin::EndpointNumber n, base::TimePoint now) const {
    const base::TimePoint at = view.reported_at()[n];
    return at == base::TimePoint{} || now - at > staleness_;
  }

  const double queue_threshold_;
  const double kv_threshold_;
  const base::Duration staleness_;
  const double queue_limit_;
  const double kv_limit_;
};

}  // namespace

plugin::PluginType UtilizationDetectorType() {
  return MakeType<UtilizationDetector>("utilization-detector",
                                       "Measures how full the pool is by queue length and KV use.",
                                       ParametersType);
}

}  // namespace llmd::plugins
