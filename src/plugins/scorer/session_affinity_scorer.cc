#include "plugins/scorer/session_affinity_scorer.h"

#include <algorithm>

#include "base/strings.h"
#include "plugins/factory.h"
#include "plugins/session/session_affinity.h"

namespace llmd::plugins {
namespace {

class SessionAffinityScorer final : public plugin::Plugin,
                                    public plugin::Scorer,
                                    public plugin::PreRequest,
                                    public plugin::ResponseProcessor {
 public:
  SessionAffinityScorer(const SessionAffinityParameters& parameters,
                        plugin::PluginContext& context)
      : affinity_(parameters, context) {}
  plugin::ScorerCategory category() const override { return plugin::ScorerCategory::kAffinity; }
  void Score(const plugin::RequestContext& request,
             std::span<const plugin::EndpointNumber> candidates,
             std::span<double> scores) const override {
    std::fill(scores.begin(), scores.end(), 0.0);
    if (const auto bound = affinity_.Bound(request, candidates)) scores[*bound] = 1;
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

plugin::PluginType SessionAffinityScorerType() {
  plugin::PluginType type = MakeType<SessionAffinityScorer>(
      "session-affinity-scorer", "Prefers the endpoint that the request's session is bound to.",
      SessionAffinityParametersType);
  type.stability = plugin::Stability::kAlpha;
  return type;
}

}  // namespace llmd::plugins
