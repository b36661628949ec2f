// concurrency-detector: measures how full the pool is by what we have in flight ourselves; as a
// filter it drops endpoints that are full.
//
// Saturation: in flight over capacity, summed over the endpoints, of requests or of tokens; hybrid:
// the mean over the endpoints of the larger of both ratios. No endpoints: 1. The filter keeps
// endpoints below capacity * (1 + headroom) and may leave none: then the pool is saturated.
//
// Requests in flight are the director's own count. Tokens are counted here, since admission asks
// before any data producer has run: a request counts with its prompt until its first token.
// Parameters: concurrencyMode (requests; tokens, hybrid), maxConcurrency (100), maxTokenConcurrency
// (1000000), headroom (0), inFlightLoadProducerName (without effect: the counts are its own).
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType ConcurrencyDetectorType();

}  // namespace llmd::plugins
