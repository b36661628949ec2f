// inflight-load-producer: what this process has in flight to each endpoint, in requests and in
// tokens still to compute. The default producer of InFlightLoad.
//
// OnRouted books, on the first endpoint of every profile that ran, one request until the end and
//   tokens = (total - matched blocks) * block size + what of the prompt lies beyond those blocks
//          (+ round(prompt tokens * outputRatio), at most the request's own limit and
//           maxEstimatedOutputTokens, when addEstimatedOutputTokens is on)
// until the first chunk of the answer, by when the prompt is computed; until the end when the
// output is part of the estimate. On a profile named `prefill` both are given back at the first
// chunk. Without PrefixCacheMatchInfo the whole prompt counts.
//
// Both are gauges, too, by endpoint, fairness id and priority (inflight_tallies.h), of those that
// had a request.
//
// Parameters: addEstimatedOutputTokens (false), outputRatio (1.5), maxEstimatedOutputTokens (none),
// prefixMatchInfoProducerName (the default producer), syncCrossReplicaState (accepted; counts are
// per process).
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType InFlightLoadProducerType();

}  // namespace llmd::plugins
