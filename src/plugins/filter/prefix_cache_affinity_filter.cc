#include "plugins/filter/prefix_cache_affinity_filter.h"

#include <algorithm>
#include <limits>

#include "plugin/keys.h"
#include "plugins/factory.h"

namespace llmd::plugins {
namespace {

enum class TtftSource { kPrefillThroughput, kLatencyPredictor };

struct Parameters {
  double affinity_threshold = 0.8;
  double exploration_probability = 0;
  double max_ttft_penalty_ms = 18'000;
  TtftSource ttft_source = TtftSource::kPrefillThroughput;
  double peak_prefill_throughput = 15'928;  // Qwen 32B on two H100, as upstream measured
  std::string prefix_producer, load_producer, latency_producer;
};

const config::ObjectType<Parameters>& ParametersType() {
  static const auto type =
      config::Object<Parameters>("PrefixCacheAffinityFilterParameters")
          .Field("affinityThreshold", "Share of the prompt in cache from which one sticks.",
                 &Parameters::affinity_threshold,
                 config::Double(std::numeric_limits<double>::lowest(), 1))
          .Field("explorationProbability", "Share of requests for which all endpoints stay.",
                 &Parameters::exploration_probability, config::Double(0, 1))
          .Field("maxTTFTPenaltyMs", "Milliseconds of waiting that a cached prompt is worth.",
                 &Parameters::max_ttft_penalty_ms, config::Double(0))
          .Field("ttftSource", "Where the time to first token is taken from.",
                 &Parameters::ttft_source,
                 config::Enum<TtftSource>({{"prefillThroughput", TtftSource::kPrefillThroughput},
                                           {"latencyPredictor", TtftSource::kLatencyPredictor}}))
          .Field("peakPrefillThroughput", "Prompt tokens per second of an endpoint.",
                 &Parameters::peak_prefill_throughput, config::Double(0))
          .Field("prefixMatchInfoProducerName", "Producer whose prefix matches are read.",
                 &Parameters::prefix_producer)
          .Field("inFlightLoadProducerName", "Producer whose in-flight counts are read.",
                 &Parameters::load_producer)
          .Field("latencyPredictionInfoProducerName", "Producer of predicted latencies.",
                 &Parameters::latency_producer)
          .Build();
  return *type;
}

class PrefixCacheAffinityFilter final : public plugin::Plugin, public plugin::Filter {
 public:
  PrefixCacheAffinityFilter(const Parameters& parameters, plugin::PluginContext& context)
      : parameters_(parameters),
        match_(context.Consumes<plugin::PrefixCacheMatchInfo>(parameters.prefix_producer)) {
    if (parameters.ttft_source == TtftSource::kLatencyPredictor) {
      context.errors().Add(context.parameters().FindOrSelf("ttftSource"),
                           "latencyPredictor is part of llm-d but not built into this release yet");
    }
    if (parameters.max_ttft_penalty_ms == 0) return;
    load_ = context.Consumes<plugin::InFlightLoad>(parameters.load_producer);
    if (parameters.peak_prefill_throughput == 0) {
      context.errors().Add(context.parameters().FindOrSelf("peakPrefillThroughput"),
                           "must be above 0 unless maxTTFTPenaltyMs is 0");
    }
  }

  void Apply(const plugin::RequestContext& request, plugin::Candidates& candidates) const override {
    const plugin::PrefixCacheMatchInfo* match = request.attributes.Get(match_);
    if (candidates.numbers.size() <= 1 || parameters_.affinity_threshold <= 0 || !match ||
        match->total_blocks == 0 || Explores(request)) {
      return;
    }
    const auto sticks = [&](plugin::EndpointNumber n) {
      const double blocks = n < match->matched_blocks.size() ? match->matched_blocks[n] : 0;
      return blocks / match->total_blocks >= parameters_.affinity_threshold;
    };
    if (!std::any_of(candidates.numbers.begin(), candidates.numbers.end(), sticks) ||
        TooSlow(request, candidates.numbers, sticks)) {
      return;
    }
    candidates.KeepIf(sticks);
  }

 private:
  bool Explores(const plugin::RequestContext& request) const {
    if (parameters_.exploration_probability == 0) return false;
    base::Random random = request.random;  // a copy: later stages draw what they always drew
    return base::Random(random.Next()).Uniform() < parameters_.exploration_probability;
  }
  template <class Sticks>
  bool TooSlow(const plugin::RequestContext& request,
               std::span<const plugin::EndpointNumber> candidates, Sticks sticks) const {
    const plugin::InFlightLoad* load = request.attributes.Get(load_);
    if (!load) return false;
    constexpr double kNone = std::numeric_limits<double>::infinity();
    double sticky = kNone, other = kNone;
    for (const plugin::EndpointNumber n : candidates) {
      const auto tokens = static_cast<double>(n < load->tokens.size() ? load->tokens[n] : 0);
      double& best = sticks(n) ? sticky : other;
      best = std::min(best, tokens / parameters_.peak_prefill_throughput * 1000);
    }
    return other != kNone && sticky - other > parameters_.max_ttft_penalty_ms;
  }

  const Parameters parameters_;
  const plugin::Slot<plugin::PrefixCacheMatchInfo> match_;
  plugin::Slot<plugin::InFlightLoad> load_;
};

}  // namespace

plugin::PluginType PrefixCacheAffinityFilterType() {
  return MakeType<PrefixCacheAffinityFilter>(
      "prefix-cache-affinity-filter",
      "Keeps endpoints that hold most of the prompt in cache unless they are much slower.",
      ParametersType);
}

}  // namespace llmd::plugins
