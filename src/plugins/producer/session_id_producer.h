// session-id-producer: leaves the session's name, from a header or a cookie, for session affinity.
//
// Parameters, exactly one: headerName, cookieName.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType SessionIdProducerType();

}  // namespace llmd::plugins
