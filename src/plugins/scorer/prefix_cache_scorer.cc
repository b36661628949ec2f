#include "plugins/scorer/prefix_cache_scorer.h"

#include <algorithm>

#include "plugin/keys.h"
#include "plugins/factory.h"
#include "plugins/scorer/column.h"

namespace llmd::plugins {
namespace {

struct Parameters {
  std::string producer;
  double match_length_weight = 0;
  int64_t match_length_scale_tokens = 8192;
};

const config::ObjectType<Parameters>& ParametersType() {
  static const auto type =
      config::Object<Parameters>("PrefixCacheScorerParameters")
          .Field("prefixMatchInfoProducerName", "Producer whose prefix matches are read.",
                 &Parameters::producer)
          .Field("matchLengthWeight",
                 "Share of the score that goes by the length of the match instead of its ratio.",
                 &Parameters::match_length_weight, config::Double(0, 1))
          .Field("matchLengthScaleTokens", "Match length, in tokens, that scores in full.",
                 &Parameters::match_length_scale_tokens, config::Int<int64_t>(1))
          .Build();
  return *type;
}

class PrefixCacheScorer final : public plugin::Plugin, public plugin::Scorer {
 public:
  PrefixCacheScorer(const Parameters& parameters, plugin::PluginContext& context)
      : match_(context.Consumes<plugin::PrefixCacheMatchInfo>(parameters.producer)),
        weight_(parameters.match_length_weight),
        scale_tokens_(static_cast<double>(parameters.match_length_scale_tokens)) {}
  plugin::ScorerCategory category() const override { return plugin::ScorerCategory::kAffinity; }
  void Score(const plugin::RequestContext& request,
             std::span<const plugin::EndpointNumber> candidates,
             std::span<double> scores) const override {
    const plugin::PrefixCacheMatchInfo* match = request.attributes.Get(match_);
    if (!match || match->total_blocks == 0) {
      std::fill(scores.begin(), scores.end(), 0.0);
      return;
    }
    const double ratio_weight = (1.0 - weight_) / match->total_blocks;
    const double length_scale = match->block_tokens / scale_tokens_;
    const auto score = [&](double blocks) {
      const double length = std::min(1.0, blocks * length_scale);
      return weight_ * length * length + ratio_weight * blocks;
    };
    const std::span<const uint32_t> matched = match->matched_blocks;
    if (candidates.back() < matched.size()) {
      return ScoreColumn(matched.data(), candidates, scores, score);
    }
    for (size_t i = 0; i < candidates.size(); ++i) {
      scores[i] = score(candidates[i] < matched.size() ? matched[candidates[i]] : 0);
    }
  }

 private:
  const plugin::Slot<plugin::PrefixCacheMatchInfo> match_;
  const double weight_;
  const double scale_tokens_;
};

}  // namespace

plugin::PluginType PrefixCacheScorerType() {
  return MakeType<PrefixCacheScorer>(
      "prefix-cache-scorer", "Prefers endpoints that hold the beginning of the prompt in cache.",
      ParametersType);
}

}  // namespace llmd::plugins
