// prefix-cache-affinity-filter: keeps the endpoints that hold most of the prompt in their cache, as
// long as they are not much slower than the others.
//
// An endpoint is sticky when it holds at least affinityThreshold of the prompt's blocks. None
// sticky, or one candidate: all stay. Slower: the best sticky endpoint's time to first token is
// more than maxTTFTPenaltyMs above that of the best of the others: all stay. The time is estimated
// as tokens in flight / peakPrefillThroughput.
// Parameters: affinityThreshold (.80), explorationProbability (0: share of requests for which all
// stay), maxTTFTPenaltyMs (18000; 0: stick whatever the load), ttftSource (prefillThroughput;
// latencyPredictor is not built yet), peakPrefillThroughput (15928 tokens/s),
// prefixMatchInfoProducerName, inFlightLoadProducerName, latencyPredictionInfoProducerName.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType PrefixCacheAffinityFilterType();

}  // namespace llmd::plugins
