// agent-identity: names the agent session behind a request after the headers that coding agents
// send; the name stands in for a fairness id that the client did not give.
//
// Headers, the first that is not empty: additionalSessionHeaders, x-claude-code-session-id,
// x-session-affinity, session-id, session_id.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType AgentIdentityType();

}  // namespace llmd::plugins
