#include "plugins/filter/session_affinity_filter.h"

#include "plugins/factory.h"
#include "plugins/session/session_affinity.h"

namespace llmd::plugins {
namespace {

class SessionAffinityFilter final : public SessionAffinityPlugin, public plugin::Filter {
 public:
  using SessionAffinityPlugin::SessionAffinityPlugin;
  void Apply(const plugin::RequestContext& request, plugin::Candidates& candidates) const override {
    if (const auto bound = affinity().Bound(request, candidates.numbers)) {
      candidates.numbers = candidates.numbers.subspan(*bound, 1);
    }
  }
};

}  // namespace

plugin::PluginType SessionAffinityFilterType() {
  plugin::PluginType type = MakeType<SessionAffinityFilter>(
      "session-affinity-filter", "Keeps the endpoint that the request's session is bound to.",
      SessionAffinityParametersType);
  type.stability = plugin::Stability::kAlpha;
  return type;
}

}  // namespace llmd::plugins
