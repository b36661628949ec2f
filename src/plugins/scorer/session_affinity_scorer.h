// session-affinity-scorer: 1 for the endpoint that the request's session is bound to, else 0. See
// session/session_affinity.h for the parameters.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType SessionAffinityScorerType();

}  // namespace llmd::plugins
