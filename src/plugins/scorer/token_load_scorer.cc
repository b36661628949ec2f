#include "plugins/scorer/token_load_scorer.h"

#include <algorithm>

#include "plugin/keys.h"
#include "plugins/factory.h"

namespace llmd::plugins {
namespace {

constexpr int64_t kThresholdTokens = 4'194'304;  // 128 prompts of 32,768 tokens

struct Parameters {
  int64_t threshold_tokens = kThresholdTokens;
  std::string producer;
};

const config::ObjectType<Parameters>& ParametersType() {
  static const auto type =
      config::Object<Parameters>("TokenLoadScorerParameters")
          .Field("queueThresholdTokens", "Tokens in flight at which an endpoint scores 0.",
                 &Parameters::threshold_tokens)
          .Field("inFlightLoadProducerName", "Producer whose in-flight counts are read.",
                 &Parameters::producer)
          .Build();
  return *type;
}

class TokenLoadScorer final : public plugin::Plugin, public plugin::Scorer {
 public:
  TokenLoadScorer(const Parameters& parameters, plugin::PluginContext& context)
      : load_(context.Consumes<plugin::InFlightLoad>(parameters.producer)),
        threshold_(static_cast<double>(parameters.threshold_tokens > 0
                                           ? parameters.threshold_tokens
                                           : kThresholdTokens)) {}
  plugin::ScorerCategory category() const override { return plugin::ScorerCategory::kDistribution; }
  void Score(const plugin::RequestContext& request,
             std::span<const plugin::EndpointNumber> candidates,
             std::span<double> scores) const override {
    const plugin::InFlightLoad* load = request.attributes.Get(load_);
    if (!load) {
      std::fill(scores.begin(), scores.end(), 1.0);
      return;
    }
    for (size_t i = 0; i < candidates.size(); ++i) {
      const plugin::EndpointNumber n = candidates[i];
      const int64_t in_flight = n < load->tokens.size() ? load->tokens[n] : 0;
      const auto tokens = static_cast<double>(in_flight + load->NewTokens(n));
      scores[i] = 1 - std::clamp(tokens / threshold_, 0.0, 1.0);
    }
  }

 private:
  const plugin::Slot<plugin::InFlightLoad> load_;
  const double threshold_;
};

}  // namespace

plugin::PluginType TokenLoadScorerType() {
  return MakeType<TokenLoadScorer>("token-load-scorer",
                                   "Prefers endpoints with few of our tokens in flight.",
                                   ParametersType);
}

}  // namespace llmd::plugins
