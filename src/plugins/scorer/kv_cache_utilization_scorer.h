// kv-cache-utilization-scorer: prefers endpoints with free KV cache.
//
// score = 1 - usage, usage being a share from 0 to 1 as scraped.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType KvCacheUtilizationScorerType();

}  // namespace llmd::plugins
