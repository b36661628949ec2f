// token-load-scorer: prefers endpoints with few tokens in flight, this request's own included.
//
// score = 1 - min(t, T) / T, t = tokens in flight + those of the prompt that the endpoint does not
// hold in its cache. Without in-flight counts all score 1.
// Parameters: queueThresholdTokens T (4194304; 0 and less stand for the default),
// inFlightLoadProducerName (the default producer).
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType TokenLoadScorerType();

}  // namespace llmd::plugins
