// mm-embeddings-cache-scorer: prefers endpoints that have encoded the prompt's images and the like
// before: matched items / items; 0 for prompts without any.
// Parameters: producerName (the default producer of EncoderCacheMatchInfo).
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType MmEmbeddingsCacheScorerType();

}  // namespace llmd::plugins
