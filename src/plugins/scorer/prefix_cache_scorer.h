// prefix-cache-scorer: prefers endpoints that hold the beginning of the prompt in their cache.
//
// score = w * min(1, matched tokens / scale)^2 + (1 - w) * matched / total blocks, where blocks in
// slower tiers count for less if the producer knows tiers. Reads PrefixCacheMatchInfo of either
// producer; without it, or for an empty prompt, every score is 0.
// Parameters: prefixMatchInfoProducerName (the default producer), matchLengthWeight w (0),
// matchLengthScaleTokens (8192).
//
// precise-prefix-cache-scorer, its deprecated relative: with a precise-prefix-cache-producer among
// the plugins a prefix-cache-scorer that reads it, whatever its own parameters say; else both in
// one, with the producer's parameters.
#pragma once

#include "plugin/catalogue.h"
#include "plugin/keys.h"

namespace llmd::plugins {

// The score of a match for each candidate.
struct PrefixMatchScore {
  double length_weight = 0;
  double scale_tokens = 8192;

  void operator()(const plugin::PrefixCacheMatchInfo* match,
                  std::span<const plugin::EndpointNumber> candidates,
                  std::span<double> scores) const;
};

plugin::PluginType PrefixCacheScorerType();
plugin::PluginType PrecisePrefixCacheScorerType();

}  // namespace llmd::plugins
