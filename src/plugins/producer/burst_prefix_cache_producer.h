// burst-prefix-cache-producer: lets requests that arrive together with the same prompt meet on one
// endpoint (rollouts of reinforcement learning, retries of an evaluation).
//
// Every request waits for the end of a window; then the window's requests are assigned together
// (burst_assignment.h), and a request that was meant for an endpoint finds its whole prompt in that
// endpoint's cache: PrefixCacheMatchInfo is what scorers read. A request that nobody was meant for
// finds nothing. Costs every request up to windowDurationMs.
//
// Parameters: windowDurationMs (100, at most 10000), maxPerReplica (-1 = no limit), blockSizeTokens
// (64), maxPrefixTokensToMatch (0 = 2048 blocks), minColocateBlocks (0), maxBatchSize (1000, -1 =
// no limit; a request beyond goes on without), balanceBy requests or tokens (requests).
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType BurstPrefixCacheProducerType();

}  // namespace llmd::plugins
