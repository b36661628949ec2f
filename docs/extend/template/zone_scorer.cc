#include "zone_scorer.h"

#include "plugins/factory.h"

namespace mine {
namespace {

namespace config = llmd::config;
namespace plugin = llmd::plugin;

struct Parameters {
  std::string header_name = "x-zone";  // the default
  std::string label_key = "zone";
};

const config::ObjectType<Parameters>& ParametersType() {
  static const auto type =
      config::Object<Parameters>("ZoneScorerParameters")
          .Field("headerName", "Header that names the zone.", &Parameters::header_name,
                 config::String(1))
          .Field("labelKey", "Label with an endpoint's zone.", &Parameters::label_key,
                 config::String(1))
          .Build();
  return *type;
}

class ZoneScorer final : public plugin::Plugin, public plugin::Scorer {
 public:
  ZoneScorer(const Parameters& parameters, plugin::PluginContext&) : parameters_(parameters) {}
  plugin::ScorerCategory category() const override { return plugin::ScorerCategory::kAffinity; }
  void Score(const plugin::RequestContext& request,
             std::span<const plugin::EndpointNumber> candidates,
             std::span<double> scores) const override {
    const auto zone = request.FindHeader(parameters_.header_name);
    for (size_t i = 0; i < candidates.size(); ++i) {
      const std::string* label =
          request.fleet->endpoint(candidates[i]).spec.Label(parameters_.label_key);
      scores[i] = !zone || (label && *label == *zone) ? 1 : 0;
    }
  }

 private:
  const Parameters parameters_;
};

}  // namespace

plugin::PluginType ZoneScorerType() {
  return llmd::plugins::MakeType<ZoneScorer>(
      "zone-scorer", "Prefers endpoints of the request's zone.", ParametersType);
}

}  // namespace mine
