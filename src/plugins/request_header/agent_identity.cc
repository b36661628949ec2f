#include "plugins/request_header/agent_identity.h"

#include "plugin/keys.h"
#include "plugins/factory.h"

namespace llmd::plugins {
namespace {

struct Parameters {
  std::vector<std::string> additional_session_headers;
};

const config::ObjectType<Parameters>& ParametersType() {
  static const auto type =
      config::Object<Parameters>("AgentIdentityParameters")
          .Field("additionalSessionHeaders", "Request headers that are looked at first.",
                 &Parameters::additional_session_headers)
          .Build();
  return *type;
}

class AgentIdentity final : public plugin::Plugin, public plugin::RequestHeaderProcessor {
 public:
  AgentIdentity(const Parameters& parameters, plugin::PluginContext& context)
      : identity_(context.Produces<plugin::AgentIdentity>()),
        headers_(parameters.additional_session_headers) {
    // Claude Code, OpenCode, Codex from 0.131, Codex 0.130.
    for (const char* header :
         {"x-claude-code-session-id", "x-session-affinity", "session-id", "session_id"}) {
      headers_.emplace_back(header);
    }
  }
  base::Status OnRequestHeaders(plugin::RequestContext& request) const override {
    for (const std::string& header : headers_) {
      const std::string_view id = request.FindHeader(header).value_or("");
      if (id.empty()) continue;
      auto* identity = request.arena->New<plugin::AgentIdentity>();
      identity->id = id;
      request.attributes.Set(identity_, identity);
      break;
    }
    return base::OkStatus();
  }

 private:
  const plugin::Slot<plugin::AgentIdentity> identity_;
  std::vector<std::string> headers_;
};

}  // namespace

plugin::PluginType AgentIdentityType() {
  plugin::PluginType type = MakeType<AgentIdentity>(
      "agent-identity", "Names the agent session behind a request, for fairness.", ParametersType);
  type.stability = plugin::Stability::kAlpha;
  type.default_producer_of = plugin::AgentIdentity::kKey;
  return type;
}

}  // namespace llmd::plugins
