#include "plugins/filter/endpoint_attribute_filter.h"

#include <algorithm>
#include <cmath>

#include "plugins/attribute_column.h"
#include "plugins/factory.h"

namespace llmd::plugins {
namespace {

enum class Operator { kLess, kLessOrEqual, kGreater, kGreaterOrEqual, kEqual, kNotEqual };
enum class OnMissing { kPass, kFail };
enum class Algorithm { kThreshold };

struct Threshold {
  Operator op = Operator::kLess;
  double value = 0;
};
struct AlgorithmParameters {
  Algorithm type = Algorithm::kThreshold;
  Threshold threshold;
};
struct Parameters {
  std::string attribute;
  std::optional<std::string> producer;
  OnMissing on_missing = OnMissing::kPass;
  bool fallback_on_empty = false;
  AlgorithmParameters algorithm;
};

const config::ObjectType<Parameters>& ParametersType() {
  static const auto threshold =
      config::Object<Threshold>("AttributeThreshold")
          .Required("operator", "How the number relates to `value` for an endpoint to stay.",
                    &Threshold::op,
                    config::Enum<Operator>({{"LessThan", Operator::kLess},
                                            {"LessThanOrEqual", Operator::kLessOrEqual},
                                            {"GreaterThan", Operator::kGreater},
                                            {"GreaterThanOrEqual", Operator::kGreaterOrEqual},
                                            {"Equal", Operator::kEqual},
                                            {"NotEqual", Operator::kNotEqual}}))
          .Field("value", "What it is compared with.", &Threshold::value)
          .Build();
  static const auto algorithm =
      config::Object<AlgorithmParameters>("AttributeFilterAlgorithm")
          .Required("type", "threshold.", &AlgorithmParameters::type,
                    config::Enum<Algorithm>({{"threshold", Algorithm::kThreshold}}))
          .Required("threshold", "The comparison.", &AlgorithmParameters::threshold, threshold)
          .Build();
  static const auto type =
      config::Object<Parameters>("EndpointAttributeFilterParameters")
          .Required("attribute", "Name of the number.", &Parameters::attribute, config::String(1))
          .Field("producer", "Plugin that reports it [core-metrics-extractor]; \"\": any.",
                 &Parameters::producer, config::Optional(config::String()))
          .Field("onMissing", "What happens to endpoints without the number.",
                 &Parameters::on_missing,
                 config::Enum<OnMissing>({{"Pass", OnMissing::kPass}, {"Fail", OnMissing::kFail}}))
          .Field("fallbackOnEmpty", "Keep all endpoints when none would stay.",
                 &Parameters::fallback_on_empty)
          .Required("algorithm", "How endpoints are told apart.", &Parameters::algorithm, algorithm)
          .Build();
  return *type;
}

class EndpointAttributeFilter final : public plugin::Plugin, public plugin::Filter {
 public:
  EndpointAttributeFilter(const Parameters& parameters, plugin::PluginContext& context)
      : parameters_(parameters),
        column_(AttributeColumn(parameters.attribute, parameters.producer, "attribute", context)) {}

  void Apply(const plugin::RequestContext& request, plugin::Candidates& candidates) const override {
    const float* column = request.fleet->attribute(column_);
    const auto stays = [&](plugin::EndpointNumber n) {
      if (!column || std::isnan(column[n])) return parameters_.on_missing == OnMissing::kPass;
      return Holds(column[n]);
    };
    if (parameters_.fallback_on_empty &&
        std::none_of(candidates.numbers.begin(), candidates.numbers.end(), stays)) {
      return;
    }
    candidates.KeepIf(stays);
  }

 private:
  bool Holds(float number) const {
    // Columns hold floats: comparing as such makes .9 in a config equal .9 on a page.
    const auto limit = static_cast<float>(parameters_.algorithm.threshold.value);
    switch (parameters_.algorithm.threshold.op) {
      case Operator::kLess: return number < limit;
      case Operator::kLessOrEqual: return number <= limit;
      case Operator::kGreater: return number > limit;
      case Operator::kGreaterOrEqual: return number >= limit;
      case Operator::kEqual: return number == limit;
      case Operator::kNotEqual: return number != limit;
    }
    return true;
  }

  const Parameters parameters_;
  const fleet::AttributeId column_;
};

}  // namespace

plugin::PluginType EndpointAttributeFilterType() {
  plugin::PluginType type = MakeType<EndpointAttributeFilter>(
      "endpoint-attribute-filter", "Keeps endpoints by a number that an extractor reports of them.",
      ParametersType);
  type.stability = plugin::Stability::kAlpha;
  return type;
}

}  // namespace llmd::plugins
