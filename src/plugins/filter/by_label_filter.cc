#include "plugins/filter/by_label_filter.h"

#include <algorithm>

#include "plugins/factory.h"

namespace llmd::plugins {
namespace {

struct Parameters {
  std::string label;
  std::vector<std::string> valid_values;
  bool allows_no_label = false;
};

const config::ObjectType<Parameters>& ParametersType() {
  static const auto type =
      config::Object<Parameters>("ByLabelParameters")
          .Required("label", "Label to look at.", &Parameters::label, config::String(1))
          .Field("validValues", "Values that keep an endpoint.", &Parameters::valid_values)
          .Field("allowsNoLabel", "Keep endpoints that lack the label.",
                 &Parameters::allows_no_label)
          .Build();
  return *type;
}

class ByLabel final : public plugin::Plugin, public plugin::Filter {
 public:
  ByLabel(const Parameters& parameters, plugin::PluginContext& context) : parameters_(parameters) {
    if (parameters.valid_values.empty() && !parameters.allows_no_label) {
      context.errors().Add(context.parameters(),
                           "either validValues must not be empty or allowsNoLabel must be true");
    }
  }
  void Apply(const plugin::RequestContext& request, plugin::Candidates& candidates) const override {
    const auto& values = parameters_.valid_values;
    candidates.KeepIf([&](plugin::EndpointNumber n) {
      const std::string* value = request.fleet->endpoint(n).spec.Label(parameters_.label);
      if (!value) return parameters_.allows_no_label;
      return std::find(values.begin(), values.end(), *value) != values.end();
    });
  }

 private:
  const Parameters parameters_;
};

}  // namespace

plugin::PluginType ByLabelType() {
  plugin::PluginType type = MakeType<ByLabel>(
      "by-label", "Keeps endpoints by the value of one label; label-selector-filter does more.",
      ParametersType);
  type.stability = plugin::Stability::kDeprecated;
  return type;
}

}  // namespace llmd::plugins
