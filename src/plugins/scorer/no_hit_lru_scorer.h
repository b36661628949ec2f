// no-hit-lru-scorer: spreads requests that nobody has anything of in cache over the endpoints, so
// that caches grow evenly.
//
// With a hit on any candidate all score .5. Else candidates are ranked: first those that got no
// such request yet, in their order, then the others, the one whose last was longest ago first; rank
// r of N scores 1 - r / (N - 1), a single one 1. Where the request goes (primary and `prefill`
// targets) is remembered if it was cold.
//
// Parameters: prefixMatchInfoProducerName (the default producer); lruSize, prefixPluginType and
// prefixPluginName are read and have no effect (all endpoints are remembered, in 16 bytes each).
// Difference from upstream, on purpose: endpoints that are no candidates take no ranks.
//
// Thread-safe; relaxed: two requests at the same moment may see the same order.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType NoHitLruScorerType();

}  // namespace llmd::plugins
