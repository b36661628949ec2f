#include "plugins/scorer/session_affinity_scorer.h"

#include <algorithm>

#include "plugins/factory.h"
#include "plugins/session/session_affinity.h"

namespace llmd::plugins {
namespace {

class SessionAffinityScorer final : public SessionAffinityPlugin, public plugin::Scorer {
 public:
  using SessionAffinityPlugin::SessionAffinityPlugin;
  plugin::ScorerCategory category() const override { return plugin::ScorerCategory::kAffinity; }
  void Score(const plugin::RequestContext& request,
             std::span<const plugin::EndpointNumber> candidates,
             std::span<double> scores) const override {
    std::fill(scores.begin(), scores.end(), 0.0);
    if (const auto bound = affinity().Bound(request, candidates)) scores[*bound] = 1;
  }
};

}  // namespace

plugin::PluginType SessionAffinityScorerType() {
  plugin::PluginType type = MakeType<SessionAffinityScorer>(
      "session-affinity-scorer", "Prefers the endpoint that the request's session is bound to.",
      SessionAffinityParametersType);
  type.stability = plugin::Stability::kAlpha;
  return type;
}

}  // namespace llmd::plugins
