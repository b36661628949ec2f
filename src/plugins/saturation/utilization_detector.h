// utilization-detector: how full the pool is by queue length and KV use, for admission; and a
// filter that leaves out the endpoints that are full.
//
// Saturation is the mean over endpoints of
//   max(waiting / queueDepthThreshold, kv / kvCacheUtilThreshold).
// An endpoint whose numbers are older than metricsStalenessThreshold, or that never gave any,
// counts as 1; so does a pool without endpoints. (Fails closed: blind is full.)
// The filter keeps endpoints with fresh numbers that are below both thresholds times (1 +
// headroom); when that leaves none it keeps all.
// Parameters: queueDepthThreshold (5), kvCacheUtilThreshold (0.8), metricsStalenessThreshold
// (200ms), headroom (0).
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType UtilizationDetectorType();

}  // namespace llmd::plugins
