// zone-scorer: 1 for endpoints in the zone that the request's header names, else 0. Without the
// header every endpoint scores 1. Parameters: headerName (x-zone), labelKey (zone).
#pragma once

#include "plugin/catalogue.h"

namespace mine {

llmd::plugin::PluginType ZoneScorerType();

}  // namespace mine
