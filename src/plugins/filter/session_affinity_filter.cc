#include "plugins/filter/session_affinity_filter.h"

#include "base/strings.h"
#include "plugins/factory.h"
#include "plugins/session/session_affinity.h"

namespace llmd::plugins {
namespace {

class SessionAffinityFilter final : public plugin::Plugin,
                                    public plugin::Filter,
                                    public plugin::PreRequest,
                                    public plugin::ResponseProcessor {
 public:
  SessionAffinityFilter(const SessionAffinityParameters& parameters,
                        plugin::PluginContext& context)
      : affinity_(parameters, context) {}
  void Apply(const plugin::RequestContext& request, plugin::Candidates& candidates) const override {
    if (const auto bound = affinity_.Bound(request, candidates.numbers)) {
      candidates.numbers = candidates.numbers.subspan(*bound, 1);
    }
  }
  base::Status OnRouted(plugin::RequestContext& request, const plugin::SchedulingResult& result,
                        plugin::BookingList*) override {
    affinity_.OnRouted(request, result);
    return base::OkStatus();
  }
  void OnResponseHead(plugin::RequestContext& request, const plugin::ResponseHead&,
                      plugin::HeaderEdits* to_client) override {
    affinity_.OnResponseHead(request, to_client);
  }
  std::string DumpState() const override {
    return base::Concat("{\"sessions\":", std::to_string(affinity_.session_count()), "}");
  }

 private:
  SessionAffinity affinity_;
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
