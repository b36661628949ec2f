#include "plugins/scorer/prefix_cache_scorer.h"

#include <algorithm>

#include "plugin/keys.h"
#include "plugins/factory.h"
#include "plugins/scorer/column.h"

namespace llmd::plugins {

void PrefixMatchScore::operator()(const plugin::PrefixCacheMatchInfo* match,
                                  std::span<const plugin::EndpointNumber> candidates,
                                  std::span<double> scores) const {
  if (!match || match->total_blocks == 0) {
    std::fill(scores.begin(), scores.end(), 0.0);
    return;
  }
  const double ratio_weight = (1.0 - length_weight) / match->total_blocks;
  const double length_scale = match->block_tokens / scale_tokens;
  const auto score = [&](double blocks) {
    const double length = std::min(1.0, blocks * length_scale);
    return length_weight * length * length + ratio_weight * blocks;
  };
  const auto score_column = [&](auto blocks) {
    if (candidates.back() < blocks.size()) {
      return ScoreColumn(blocks.data(), candidates, scores, score);
    }
    for (size_t i = 0; i < candidates.size(); ++i) {
      scores[i] = score(candidates[i] < blocks.size() ? blocks[candidates[i]] : 0);
    }
  };
  if (match->weighted_blocks.empty()) {
    score_column(match->matched_blocks);
  } else {
    score_column(match->weighted_blocks);
  }
}

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
        score_{.length_weight = parameters.match_length_weight,
               .scale_tokens = static_cast<double>(parameters.match_length_scale_tokens)} {}
  plugin::ScorerCategory category() const override { return plugin::ScorerCategory::kAffinity; }
  void Score(const plugin::RequestContext& request,
             std::span<const plugin::EndpointNumber> candidates,
             std::span<double> scores) const override {
    score_(request.attributes.Get(match_), candidates, scores);
  }

 private:
  const plugin::Slot<plugin::PrefixCacheMatchInfo> match_;
  const PrefixMatchScore score_;
};

}  // namespace

plugin::PluginType PrefixCacheScorerType() {
  return MakeType<PrefixCacheScorer>(
      "prefix-cache-scorer", "Prefers endpoints that hold the beginning of the prompt in cache.",
      ParametersType);
}

}  // namespace llmd::plugins
