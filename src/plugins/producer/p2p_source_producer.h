// p2p-source-producer: names a peer that has more of the prompt in its cache than the endpoint that
// will compute it, so that the sidecar there can pull those blocks instead (header
// x-kv-cache-source-host-port).
//
// Before the decision one endpoint is drawn from those that hold the most of the prompt or one
// block less, with weight 1 / (1 + waiting requests) and a hash of the request id as the chance:
// so equal holders share the pulls, and a long queue is spared. Pulls are served from memory, so
// where the matches know single tiers, what counts of a peer is its `cpu` tier. After the decision
// the header is set when the one drawn has at least minCachedTokenDelta tokens more than the
// computing endpoint has in any tier: that of the prefill profile where it ran, else the one that
// serves. A client's own header of that name never gets through.
//
// Parameters: prefixMatchInfoProducerName (the default producer), minCachedTokenDelta (1),
// prefillProfileName (prefill). Source: upstream's p2psource.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType P2pSourceProducerType();

}  // namespace llmd::plugins
