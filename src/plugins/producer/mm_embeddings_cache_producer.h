// mm-embeddings-cache-producer: how many of a prompt's images, sounds and videos each endpoint has
// encoded before, judged by what was sent where. The default producer of EncoderCacheMatchInfo.
//
// Items are told apart by the engine's own hashes where the token producer has them, else by their
// URL or data. Where a request goes (primary and `prefill` targets, and `encode`, which does the
// encoding) its items are remembered; the least recently used are the first to go.
//
// Parameters: cacheSizeInMBPerServer (4096: 2048 items of 2 MiB); cacheSizeInMB, which upstream's
// own sample says, is taken for it.
//
// Thread-safe. Limits: prefix::PrefixIndex's memory; kItemsMax items of a request count.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType MmEmbeddingsCacheProducerType();

}  // namespace llmd::plugins
