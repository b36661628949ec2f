// running-requests-size-scorer: prefers endpoints with few requests in the batch.
//
// score = (max - running) / (max - min) over the candidates, 1 when all are equal.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType RunningRequestsSizeScorerType();

}  // namespace llmd::plugins
