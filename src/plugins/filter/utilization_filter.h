// utilization-filter: drops endpoints over a limit of load; the pool is saturated when it leaves
// none.
//
// Parameters: conditions (at least one) of {metric, maxValue}: active-requests (ours in flight),
// running-requests, waiting-queue, kv-cache-utilization (0 to 1); an endpoint stays when every
// value is at most maxValue, what is not known counting 0. fallbackOnEmpty (false): keep all
// instead of none. inFlightLoadProducerName: whose counts active-requests are.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType UtilizationFilterType();

}  // namespace llmd::plugins
