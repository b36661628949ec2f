// load-aware-scorer: half a point for an empty queue, falling to nothing at `threshold`.
//
// score = 0.5 * (1 - min(waiting, threshold) / threshold), so 0.5 when nothing waits. Parameter:
// threshold (128), requests waiting.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType LoadAwareScorerType();

}  // namespace llmd::plugins
