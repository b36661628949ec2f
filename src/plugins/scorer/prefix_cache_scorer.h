// prefix-cache-scorer: prefers endpoints that hold the beginning of the prompt in their cache.
//
// score = w * min(1, matched tokens / scale)^2 + (1 - w) * matched / total blocks. Reads
// PrefixCacheMatchInfo; without it, or for an empty prompt, every score is 0.
// Parameters: prefixMatchInfoProducerName (the default producer), matchLengthWeight w (0),
// matchLengthScaleTokens (8192).
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType PrefixCacheScorerType();

}  // namespace llmd::plugins
