#include "plugins/scorer/endpoint_attribute_scorer.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "plugins/attribute_column.h"
#include "plugins/factory.h"

namespace llmd::plugins {
namespace {

enum class Algorithm { kLowerIsBetter, kHigherIsBetter };

struct FixedRange {
  double min = 0, max = 0;
  config::Node node;
};
struct AdaptiveRange {};
struct Normalization {
  std::optional<FixedRange> fixed_range;
  std::optional<AdaptiveRange> adaptive_range;
};
struct AlgorithmParameters {
  Algorithm type = Algorithm::kLowerIsBetter;
  Normalization normalization;
};
struct Parameters {
  std::string attribute_key;
  std::optional<std::string> producer;
  AlgorithmParameters algorithm;
};

const config::ObjectType<Parameters>& ParametersType() {
  static const auto fixed = config::Object<FixedRange>("FixedRange")
                                .Field("min", "Scores 0 or 1.", &FixedRange::min)
                                .Field("max", "Scores 1 or 0.", &FixedRange::max)
                                .Where(&FixedRange::node)
                                .Build();
  static const auto normalization =
      config::Object<Normalization>("AttributeNormalization")
          .Field("fixedRange", "From min to max.", &Normalization::fixed_range,
                 config::Optional<FixedRange>(fixed))
          .Field("adaptiveRange", "From the least to the greatest number of the candidates.",
                 &Normalization::adaptive_range,
                 config::Optional<AdaptiveRange>(
                     config::Object<AdaptiveRange>("AdaptiveRange").Build()))
          .Build();
  static const auto algorithm =
      config::Object<AlgorithmParameters>("AttributeScorerAlgorithm")
          .Required("type", "Which end is the better one.", &AlgorithmParameters::type,
                    config::Enum<Algorithm>({{"linear_lower_is_better", Algorithm::kLowerIsBetter},
                                             {"linear_higher_is_better",
                                              Algorithm::kHigherIsBetter}}))
          .Field("normalization", "What is 0 and what is 1.", &AlgorithmParameters::normalization,
                 normalization)
          .Build();
  static const auto type =
      config::Object<Parameters>("EndpointAttributeScorerParameters")
          .Required("attributeKey", "Name of the number.", &Parameters::attribute_key,
                    config::String(1))
          .Field("producer", "Plugin that reports it [core-metrics-extractor]; \"\": any.",
                 &Parameters::producer, config::Optional(config::String()))
          .Required("algorithm", "From a number to a score.", &Parameters::algorithm, algorithm)
          .Build();
  return *type;
}

class EndpointAttributeScorer final : public plugin::Plugin, public plugin::Scorer {
 public:
  EndpointAttributeScorer(const Parameters& parameters, plugin::PluginContext& context)
      : column_(AttributeColumn(parameters.attribute_key, parameters.producer, "attributeKey",
                                context)),
        lower_is_better_(parameters.algorithm.type == Algorithm::kLowerIsBetter) {
    const Normalization& normalization = parameters.algorithm.normalization;
    if (!normalization.fixed_range) return;
    fixed_ = {normalization.fixed_range->min, normalization.fixed_range->max};
    const config::Node& at = normalization.fixed_range->node;
    if (normalization.adaptive_range) {
      context.errors().Add(at, "fixedRange and adaptiveRange exclude each other");
    }
    if (!(fixed_->first < fixed_->second)) context.errors().Add(at, "min must be below max");
  }
  plugin::ScorerCategory category() const override { return plugin::ScorerCategory::kDistribution; }

  void Score(const plugin::RequestContext& request,
             std::span<const plugin::EndpointNumber> candidates,
             std::span<double> scores) const override {
    const float* column = request.fleet->attribute(column_);
    if (!column) {
      std::fill(scores.begin(), scores.end(), 0.0);
      return;
    }
    const auto [min, max] = fixed_ ? *fixed_ : RangeOf(column, candidates);
    for (size_t i = 0; i < candidates.size(); ++i) {
      const double number = column[candidates[i]];
      if (std::isnan(number)) {
        scores[i] = 0;
      } else if (max == min) {
        scores[i] = 1;
      } else {
        const double share = std::clamp((number - min) / (max - min), 0.0, 1.0);
        scores[i] = lower_is_better_ ? 1 - share : share;
      }
    }
  }

 private:
  static std::pair<double, double> RangeOf(const float* column,
                                           std::span<const plugin::EndpointNumber> candidates) {
    double min = std::numeric_limits<double>::infinity(), max = -min;
    for (const plugin::EndpointNumber n : candidates) {
      if (std::isnan(column[n])) continue;
      min = std::min<double>(min, column[n]);
      max = std::max<double>(max, column[n]);
    }
    return {min, max};
  }

  const fleet::AttributeId column_;
  const bool lower_is_better_;
  std::optional<std::pair<double, double>> fixed_;
};

}  // namespace

plugin::PluginType EndpointAttributeScorerType() {
  plugin::PluginType type = MakeType<EndpointAttributeScorer>(
      "endpoint-attribute-scorer", "Scores by a number that an extractor reports of endpoints.",
      ParametersType);
  type.stability = plugin::Stability::kAlpha;
  return type;
}

}  // namespace llmd::plugins
