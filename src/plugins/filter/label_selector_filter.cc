#include "plugins/filter/label_selector_filter.h"

#include <algorithm>

#include "plugins/factory.h"

namespace llmd::plugins {
namespace {

enum class Operator { kIn, kNotIn, kExists, kDoesNotExist };

struct Requirement {
  std::string key;
  Operator op = Operator::kIn;
  std::vector<std::string> values;
  config::Node node;
};

struct Parameters {
  config::StringMapValue match_labels;
  std::vector<Requirement> match_expressions;
};

const config::ObjectType<Parameters>& ParametersType() {
  static const auto requirement =
      config::Object<Requirement>("LabelSelectorRequirement")
          .Required("key", "Label to look at.", &Requirement::key, config::String(1))
          .Required("operator", "How its value relates to `values`.", &Requirement::op,
                    config::Enum<Operator>({{"In", Operator::kIn},
                                            {"NotIn", Operator::kNotIn},
                                            {"Exists", Operator::kExists},
                                            {"DoesNotExist", Operator::kDoesNotExist}}))
          .Field("values", "For In and NotIn only.", &Requirement::values)
          .Where(&Requirement::node)
          .Build();
  static const auto type =
      config::Object<Parameters>("LabelSelectorFilterParameters")
          .Field("matchLabels", "Labels and the values they must have.", &Parameters::match_labels)
          .Field("matchExpressions", "Conditions on labels.", &Parameters::match_expressions,
                 config::List<Requirement>(requirement))
          .Build();
  return *type;
}

bool Matches(const Requirement& requirement, const fleet::EndpointSpec& spec) {
  const std::string* value = spec.Label(requirement.key);
  const auto& values = requirement.values;
  const auto listed = [&] {
    return std::find(values.begin(), values.end(), *value) != values.end();
  };
  switch (requirement.op) {
    case Operator::kIn:
      return value && listed();
    case Operator::kNotIn:
      return !value || !listed();
    case Operator::kExists:
      return value != nullptr;
    case Operator::kDoesNotExist:
      return value == nullptr;
  }
  return false;
}

class LabelSelectorFilter final : public plugin::Plugin, public plugin::Filter {
 public:
  LabelSelectorFilter(const Parameters& parameters, plugin::PluginContext& context)
      : requirements_(parameters.match_expressions) {
    for (Requirement& requirement : requirements_) {
      const bool takes_values =
          requirement.op == Operator::kIn || requirement.op == Operator::kNotIn;
      if (takes_values == requirement.values.empty()) {
        context.errors().Add(requirement.node,
                             takes_values ? "values must not be empty for In and NotIn"
                                          : "values must be empty for Exists and DoesNotExist");
      }
      requirement.node = {};  // the document may go
    }
    for (const auto& [key, value] : parameters.match_labels) {
      requirements_.push_back({.key = key, .op = Operator::kIn, .values = {value}, .node = {}});
    }
  }

  void Apply(const plugin::RequestContext& request, plugin::Candidates& candidates) const override {
    candidates.KeepIf([&](plugin::EndpointNumber n) {
      const fleet::EndpointSpec& spec = request.fleet->endpoint(n).spec;
      return std::all_of(requirements_.begin(), requirements_.end(),
                         [&](const Requirement& r) { return Matches(r, spec); });
    });
  }

 private:
  std::vector<Requirement> requirements_;
};

}  // namespace

plugin::PluginType LabelSelectorFilterType() {
  return MakeType<LabelSelectorFilter>("label-selector-filter",
                                       "Keeps the endpoints whose labels the selector matches.",
                                       ParametersType);
}

plugin::PluginType ByLabelSelectorType() {
  plugin::PluginType type = LabelSelectorFilterType();
  type.type = "by-label-selector";
  type.stability = plugin::Stability::kDeprecated;
  type.help = "Old name of label-selector-filter.";
  return type;
}

}  // namespace llmd::plugins
