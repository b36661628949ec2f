// queue-scorer: prefers endpoints with few requests waiting.
//
// score = (max - waiting) / (max - min) over the candidates, 1 when all are equal. `waiting` is the
// scraped number corrected by what we sent and got back since.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType QueueScorerType();

}  // namespace llmd::plugins
