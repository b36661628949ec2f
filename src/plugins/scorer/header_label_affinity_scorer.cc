#include "plugins/scorer/header_label_affinity_scorer.h"

#include "plugins/factory.h"

namespace llmd::plugins {
namespace {

struct Parameters {
  std::string header_name;
  std::string label_key;
};

const config::ObjectType<Parameters>& ParametersType() {
  static const auto type =
      config::Object<Parameters>("HeaderLabelAffinityScorerParameters")
          .Required("headerName", "Request header that names a label's value.",
                    &Parameters::header_name, config::String(1))
          .Required("labelKey", "Label of endpoints that is compared with it.",
                    &Parameters::label_key, config::String(1))
          .Build();
  return *type;
}

class HeaderLabelAffinityScorer final : public plugin::Plugin, public plugin::Scorer {
 public:
  HeaderLabelAffinityScorer(const Parameters& parameters, plugin::PluginContext&)
      : parameters_(parameters) {}
  plugin::ScorerCategory category() const override { return plugin::ScorerCategory::kAffinity; }
  void Score(const plugin::RequestContext& request,
             std::span<const plugin::EndpointNumber> candidates,
             std::span<double> scores) const override {
    const std::string_view wanted = request.FindHeader(parameters_.header_name).value_or("");
    for (size_t i = 0; i < candidates.size(); ++i) {
      const std::string* value =
          request.fleet->endpoint(candidates[i]).spec.Label(parameters_.label_key);
      scores[i] = !wanted.empty() && value && *value == wanted ? 1 : 0;
    }
  }

 private:
  const Parameters parameters_;
};

}  // namespace

plugin::PluginType HeaderLabelAffinityScorerType() {
  plugin::PluginType type = MakeType<HeaderLabelAffinityScorer>(
      "header-label-affinity-scorer",
      "Prefers endpoints whose label has the value of a request header.", ParametersType);
  type.stability = plugin::Stability::kAlpha;
  return type;
}

}  // namespace llmd::plugins
