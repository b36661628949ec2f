// session-affinity-filter: keeps the endpoint that the request's session is bound to; all, when
// there is none or it is not a candidate. See session/session_affinity.h for the parameters.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType SessionAffinityFilterType();

}  // namespace llmd::plugins
