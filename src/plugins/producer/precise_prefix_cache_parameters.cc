#include "plugins/producer/precise_prefix_cache_parameters.h"

#include <utility>

#include "base/strings.h"
#include "wire/redis_address.h"

namespace llmd::plugins {
namespace {

using P = PreciseParameters;
using config::Int;
using config::TypePtr;
using prefix::KvDialect;

TypePtr<P::TokenProcessor> TokenProcessorType() {
  using T = P::TokenProcessor;
  constexpr uint32_t kBlockTokensMax = 1 << 16;
  return config::Object<T>("TokenProcessorConfig")
      .Field("blockSizeTokens", "Tokens per block of the index.", &T::block_size_tokens,
             Int<uint32_t>(1, kBlockTokensMax))
      .Field("blockSize", "Old name of blockSizeTokens.", &T::block_size,
             Int<uint32_t>(0, kBlockTokensMax))
      .Field("hashSeed", "Seed of the keys; pickers that share an index need the same.",
             &T::hash_seed)
      .Field("hashAlgorithm",
             "cbor-fnv or xxh64, as upstream; none: our own, of a shared index cbor-fnv.",
             &T::hash_algorithm)
      .Build();
}

TypePtr<P::BlockIndex> BlockIndexType() {
  using T = P::BlockIndex;
  const auto in_memory = config::Object<InMemoryIndexParameters>("InMemoryConfig")
                             .Field("size", "Keys; memory is bounded in bytes instead.",
                                    &InMemoryIndexParameters::size, Int<int64_t>(0))
                             .Field("podCacheSize", "Endpoints per key; there is no such limit.",
                                    &InMemoryIndexParameters::pod_cache_size, Int<int64_t>(0))
                             .Build();
  const auto cost_aware =
      config::Object<CostAwareIndexParameters>("CostAwareMemoryConfig")
          .Field("size", "Memory of the index.", &CostAwareIndexParameters::size,
                 config::Quantity(1, /*bytes=*/true))
          .Build();
  const auto redis =
      config::Object<RedisIndexParameters>("RedisConfig")
          .Field("address", "host:port, or redis://, rediss://, valkey://, valkeys://, unix://.",
                 &RedisIndexParameters::address, config::String(1))
          .Field("timeout", "How long a request waits for a lookup there.",
                 &RedisIndexParameters::timeout, config::GoDuration(std::chrono::milliseconds(1)))
          .Field("enableRDMA", "Without effect.", &RedisIndexParameters::enable_rdma)
          .Build();
  return config::Object<T>("KvBlockIndexConfig")
      .Field("inMemoryConfig", "An index in memory.", &T::in_memory,
             config::Optional<InMemoryIndexParameters>(in_memory))
      .Field("costAwareMemoryConfig", "An index in memory, bounded in bytes.", &T::cost_aware,
             config::Optional<CostAwareIndexParameters>(cost_aware))
      .Field("redisConfig", "An index in Redis, shared with other pickers.", &T::redis,
             config::Optional<RedisIndexParameters>(redis))
      .Field("valkeyConfig", "The same in Valkey.", &T::valkey,
             config::Optional<RedisIndexParameters>(redis))
      .Field("enableMetrics", "Without effect: metrics are always there.", &T::enable_metrics)
      .Field("metricsLoggingInterval", "Without effect.", &T::metrics_logging_interval,
             config::Raw())
      .Build();
}

TypePtr<P::Indexer> IndexerType() {
  using T = P::Indexer;
  const auto backend = config::Object<P::Backend>("KvCacheBackendConfig")
                           .Field("name", "Medium, as events name it.", &P::Backend::name)
                           .Field("weight", "What a block there is worth.", &P::Backend::weight,
                                  config::Double(0, 1))
                           .Build();
  return config::Object<T>("IndexerConfig")
      .Field("kvBlockIndexConfig", "Where the index is kept.", &T::block_index, BlockIndexType())
      .Field("kvCacheBackendConfigs", "Tiers of the engines' caches.", &T::backends,
             config::List<P::Backend>(backend, 64))
      .Field("tokenizersPoolConfig", "Not supported: configure a token-producer.",
             &T::tokenizers_pool, config::Raw())
      .Build();
}

TypePtr<P::Events> EventsType() {
  using T = P::Events;
  using D = P::PodDiscovery;
  const auto discovery =
      config::Object<D>("PodDiscoveryConfig")
          .Field("podLabelSelector", "Without effect: the fleet's members are listened to.",
                 &D::label_selector)
          .Field("podNamespace", "Without effect.", &D::name_space)
          .Field("socketPort", "Port of an endpoint's events; its data-parallel rank is added.",
                 &D::socket_port)
          .Field("replaySocketPort", "Port that missed events are asked for at; 0: none.",
                 &D::replay_socket_port)
          .Build();
  const auto files = config::List<std::string>(config::String(1), 1000);
  return config::Object<T>("KvEventsConfig")
      .Field("zmqEndpoint", "Address that engines connect to; none: they are connected to.",
             &T::zmq_endpoint)
      .Field("topicFilter", "Prefix of the topics that are listened to.", &T::topic_filter)
      .Field("concurrency", "Without effect: one thread does.", &T::concurrency, Int<int64_t>(0))
      .Field("engineType", "How engines write their events.", &T::engine_type,
             config::Enum<KvDialect>({{"vllm", KvDialect::kVllm},
                                      {"sglang", KvDialect::kSglang},
                                      {"mooncake", KvDialect::kMooncake}}))
      .Field("discoverPods", "Connect to every endpoint, where zmqEndpoint is not given.",
             &T::discover_pods)
      .Field("podDiscoveryConfig", "How endpoints are connected to.", &T::discovery,
             TypePtr<D>(discovery))
      .Field("modelName", "Model of events whose topic names none.", &T::model_name)
      .Field("allowedAddresses", "Addresses and networks that may connect to zmqEndpoint.",
             &T::allowed_addresses, files)
      .Field("curveSecretKeyFile", "CURVE key pair of zmqEndpoint.", &T::curve_secret_key_file)
      .Field("curveClientKeyFiles", "Public keys of the engines that may connect.",
             &T::curve_client_key_files, files)
      .Field("curveServerKeyFile", "Public key of the engines that are connected to.",
             &T::curve_server_key_file)
      .Build();
}

// Tiers as the index numbers them.
prefix::KvTiers TiersOf(const P& parameters, plugin::PluginContext& context) {
  if (parameters.indexer.backends.empty()) return prefix::KvTiers::Default();
  std::vector<prefix::KvTierWeight> weights;
  for (const P::Backend& backend : parameters.indexer.backends) {
    weights.push_back({base::ToLower(backend.name), backend.weight});
  }
  auto tiers = prefix::KvTiers::Create(weights);
  if (tiers) return std::move(*tiers);
  context.errors().Add(context.parameters().FindOrSelf("indexerConfig"),
                       std::string(tiers.error().message()));
  return prefix::KvTiers::Default();
}

std::shared_ptr<const prefix::TokenChain> ChainOf(const P::TokenProcessor& parameters,
                                                  bool is_shared, plugin::PluginContext& context) {
  const std::string& name = parameters.hash_algorithm;
  const auto kind = !name.empty() ? prefix::ParseChainKind(name)
                    : is_shared   ? prefix::ChainKind::kCborFnv
                                  : prefix::ChainKind::kOwn;
  if (!kind) {
    context.errors().Add(
        context.parameters().FindOrSelf("tokenProcessorConfig"),
        base::Concat("hashAlgorithm \"", name, "\" is not known; use cbor-fnv or xxh64"));
  }
  if (is_shared && kind == prefix::ChainKind::kOwn) {
    context.errors().Add(context.parameters().FindOrSelf("tokenProcessorConfig"),
                         "an index that is shared needs hashAlgorithm cbor-fnv or xxh64");
  }
  // Nobody outside can know the keys of a chain whose seed was not given.
  const std::string seed = kind == prefix::ChainKind::kOwn && parameters.hash_seed.empty()
                               ? std::to_string(context.secret())
                               : parameters.hash_seed;
  return std::make_shared<const prefix::TokenChain>(kind.value_or(prefix::ChainKind::kOwn), seed);
}

}  // namespace

const config::ObjectType<PreciseParameters>& PreciseParametersType() {
  static const auto type =
      config::Object<P>("PrecisePrefixCacheParameters")
          .Field("tokenProcessorConfig", "How tokens become keys.", &P::token_processor,
                 TokenProcessorType())
          .Field("indexerConfig", "Where the index is kept, and the tiers.", &P::indexer,
                 IndexerType())
          .Field("kvEventsConfig", "How the engines' events come.", &P::events, EventsType())
          .Field("speculativeIndexing", "Count what was just sent somewhere as held there.",
                 &P::speculative_indexing)
          .Field("speculativeTTL", "How long that counts.", &P::speculative_ttl,
                 config::GoDuration())
          .Build();
  return *type;
}

PreciseOptions ReadPreciseOptions(const PreciseParameters& parameters,
                                  plugin::PluginContext& context, bool tokenizers_pool_allowed) {
  const auto refuse = [&](const config::Node& node, std::string_view why) {
    context.errors().Add(node, std::string(why));
  };
  const P::Indexer& indexer = parameters.indexer;
  if (!indexer.tokenizers_pool.is_null() && !tokenizers_pool_allowed) {
    refuse(indexer.tokenizers_pool,
           "tokenizersPoolConfig is not supported; configure a token-producer plugin instead");
  }
  PreciseOptions options;
  const RedisIndexParameters* shared = parameters.shared();
  if (shared) {
    if (const auto address = wire::RedisAddress::Parse(shared->address); !address) {
      refuse(context.parameters().FindOrSelf("indexerConfig"), address.error().message());
    }
    options.shared = {.address = shared->address, .timeout = shared->timeout};
  }
  if (indexer.block_index.cost_aware) {
    options.index.bytes_max = static_cast<size_t>(indexer.block_index.cost_aware->size);
  } else if (context.kv_index_bytes() > 0) {
    options.index.bytes_max = context.kv_index_bytes();
  }
  options.index.seed = context.secret();
  options.feed.apply.chain = ChainOf(parameters.token_processor, shared != nullptr, context);
  if (options.feed.apply.chain->kind() == prefix::ChainKind::kOwn &&
      parameters.token_processor.hash_seed.empty()) {
    options.own_seed = std::to_string(context.secret());
  }
  options.feed.apply.block_tokens = parameters.block_tokens();
  options.feed.apply.tiers = TiersOf(parameters, context);
  options.feed.dialect = parameters.events.engine_type;
  return options;
}

}  // namespace llmd::plugins
