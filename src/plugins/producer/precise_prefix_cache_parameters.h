// Parameters of precise-prefix-cache-producer and of precise-prefix-cache-scorer: upstream's
// names and defaults (llm-d-router: pkg/kvcache, pkg/kvevents), and a few of ours.
//
//   tokenProcessorConfig  blockSizeTokens 16 (old name blockSize), hashSeed "", hashAlgorithm:
//                         cbor-fnv, xxh64, or none for our own chain, whose seed is this process'
//   indexerConfig         kvBlockIndexConfig {inMemoryConfig, costAwareMemoryConfig {size},
//                         redisConfig {address}, enableMetrics, metricsLoggingInterval},
//                         kvCacheBackendConfigs [{name, weight}] (gpu 1, cpu 0.8); ours:
//                         redisConfig.timeout 100ms, valkeyConfig as redisConfig
//   kvEventsConfig        zmqEndpoint (engines connect to it; none: they are connected to),
//                         topicFilter "kv@", engineType vllm, sglang or mooncake, discoverPods
//                         true, podDiscoveryConfig {socketPort 5557, replaySocketPort: none}; ours:
//                         modelName, allowedAddresses, curveSecretKeyFile, curveClientKeyFiles,
//                         curveServerKeyFile
//   speculativeIndexing   false; speculativeTTL 2s
//
// With redisConfig or valkeyConfig the index is shared with other pickers, upstream's among them
// (shared_index.h): hashAlgorithm is cbor-fnv where it is not given. Of several kinds of index
// upstream takes the first one of costAwareMemoryConfig, valkeyConfig (of llm-d-kv-cache),
// redisConfig and inMemoryConfig; so do we.
//
// Memory is bounded in bytes: by costAwareMemoryConfig.size where it is given, else by
// --kv-index-memory; inMemoryConfig's counts of keys and of endpoints per key are read and change
// nothing. Also without effect: concurrency (one thread takes in the events of thousands of
// engines), podLabelSelector and podNamespace (the fleet's members are who they are),
// enableMetrics and metricsLoggingInterval (metrics are always there), enableRDMA (as upstream).
// Refused: indexerConfig.tokenizersPoolConfig (as upstream; a token-producer tokenizes), an address
// that is none, and an index that is shared under keys that no other picker can compute.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/time.h"
#include "config/document.h"
#include "config/schema.h"
#include "plugin/catalogue.h"
#include "plugins/producer/shared_index.h"
#include "prefix/kv_feed.h"

namespace llmd::plugins {

struct InMemoryIndexParameters {
  int64_t size = 100'000'000;
  int64_t pod_cache_size = 10;
};
struct CostAwareIndexParameters {
  int64_t size = int64_t{2} << 30;
};

struct RedisIndexParameters {
  std::string address = "redis://127.0.0.1:6379";
  base::Duration timeout = std::chrono::milliseconds(100);
  bool enable_rdma = false;
};

struct PreciseParameters {
  struct TokenProcessor {
    uint32_t block_size_tokens = 16;
    uint32_t block_size = 0;  // deprecated
    std::string hash_seed;
    std::string hash_algorithm;
  };
  struct BlockIndex {
    std::optional<InMemoryIndexParameters> in_memory;
    std::optional<CostAwareIndexParameters> cost_aware;
    std::optional<RedisIndexParameters> redis, valkey;
    bool enable_metrics = false;
    config::Node metrics_logging_interval;
  };
  struct Backend {
    std::string name;
    double weight = 1;
  };
  struct Indexer {
    BlockIndex block_index;
    std::vector<Backend> backends;
    config::Node tokenizers_pool;
  };
  struct PodDiscovery {
    std::string label_selector = "llm-d.ai/inference-serving=true";
    std::string name_space;
    uint16_t socket_port = 5557;
    uint16_t replay_socket_port = 0;
  };
  struct Events {
    std::string zmq_endpoint;
    std::string topic_filter = "kv@";
    int64_t concurrency = 4;
    prefix::KvDialect engine_type = prefix::KvDialect::kVllm;
    bool discover_pods = true;
    PodDiscovery discovery;
    std::string model_name;
    std::vector<std::string> allowed_addresses;
    std::string curve_secret_key_file, curve_server_key_file;
    std::vector<std::string> curve_client_key_files;
  };
  TokenProcessor token_processor;
  Indexer indexer;
  Events events;
  bool speculative_indexing = false;
  base::Duration speculative_ttl = std::chrono::seconds(2);

  // nullptr: the index is not shared.
  const RedisIndexParameters* shared() const {
    const BlockIndex& index = indexer.block_index;
    if (index.cost_aware) return nullptr;
    return index.valkey ? &*index.valkey : index.redis ? &*index.redis : nullptr;
  }
  uint32_t block_tokens() const {
    const bool old_name = token_processor.block_size > 0 && token_processor.block_size_tokens == 16;
    return old_name ? token_processor.block_size : token_processor.block_size_tokens;
  }
};

// One set of names for both.
const config::ObjectType<PreciseParameters>& PreciseParametersType();

// What the parameters mean; reports what they cannot mean into `context.errors()` and goes on with
// defaults then. `tokenizers_pool_allowed`: of the scorer.
struct PreciseOptions {
  prefix::KvIndex::Options index;
  prefix::KvFeedOptions feed;
  std::string own_seed;  // of a chain whose seed is the process' own
  std::optional<SharedIndexOptions> shared;
};
PreciseOptions ReadPreciseOptions(const PreciseParameters& parameters,
                                  plugin::PluginContext& context, bool tokenizers_pool_allowed);

}  // namespace llmd::plugins
