// What a simulated server is told to be: the flags of `llmd sim`, and the configuration made of
// them.
//
// Names, units and defaults are llm-d-inference-sim's where both have them. A profile sets model,
// max-model-len, max-num-seqs, KV size, block size and timing; what is given explicitly wins.
// Without a profile the defaults are upstream's and no time passes unless a latency is given.
//
// Value types, pure.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/time.h"
#include "engine/engine.h"
#include "net/zmq.h"

namespace llmd::sim {

enum class ReplyMode : uint8_t {
  kFixed,   // exactly max_tokens tokens, 16 if none are asked for; fewer only at a stop string
  kRandom,  // a random length: with max_tokens from upstream's histogram, else around 40
  kEcho,    // the prompt, or the last message of the user, at most max_tokens of it
};

// What an injected failure says.
enum class FailureType : uint8_t {
  kRateLimit,
  kInvalidApiKey,
  kContextLength,
  kServerError,
  kInvalidRequest,
  kModelNotFound,
};
inline constexpr int kFailureTypeCount = 6;
std::optional<FailureType> ParseFailureType(std::string_view name);  // "rate_limit" and so on

enum class ZmqMode : uint8_t { kAuto, kBind, kConnect };

// KV events: sim/kv_events.h.
struct KvEventOptions {
  bool enabled = false;
  std::string endpoint = "tcp://127.0.0.1:5557";
  ZmqMode mode = ZmqMode::kAuto;  // auto: vLLM's rule, bind what has a "*"
  std::string replay_endpoint;    // bound; empty: no replay
  uint32_t replay_steps_max = 10'000;
  bool replay_topic = true;       // false: replies without topic, as older engines'
  uint32_t queue_messages_max = 100'000;
  std::string topic;              // empty: "kv@<pod_ip>:<port>@<model>"
  std::string pod_ip;             // empty: the host, or 127.0.0.1
  bool maps = true;               // false: positional arrays
  bool byte_hashes = false;       // digests instead of integers
  uint32_t batch_events_max = 0;  // per message; 0: a step's
  uint32_t ranks = 1;             // data-parallel: one server each
  std::optional<uint32_t> rank;   // of the only server
  net::ZmqSecurity security;
};

struct SimOptions {
  std::string host;     // literal address to listen on; empty: all
  uint16_t port = 8000;  // server i listens on port + i; 0: the kernel chooses for each
  uint32_t count = 1;
  uint32_t workers = 1;  // threads; server i lives on thread i mod workers

  std::string profile;  // engine/profile.h
  std::string model;
  std::vector<std::string> served_model_names;
  std::optional<uint32_t> model_tokens_max;
  std::optional<uint32_t> sequences_max;
  std::optional<uint32_t> kv_blocks;
  std::optional<uint32_t> block_tokens;
  std::optional<uint32_t> batched_tokens_max;
  uint32_t waiting_max = 1000;
  bool prefix_caching = true;
  engine::WireHashKind hash = engine::WireHashKind::kSha256Cbor;  // of blocks in events
  std::optional<std::string> hash_seed;                           // as PYTHONHASHSEED
  uint32_t offload_blocks = 0;  // of CPU memory
  base::Duration offload_load_time_per_token{0};
  KvEventOptions kv_events;

  std::optional<base::Duration> time_to_first_token;
  std::optional<base::Duration> inter_token_latency;
  std::optional<base::Duration> prefill_overhead;
  std::optional<base::Duration> prefill_time_per_token;
  double speedup = 1;  // simulated seconds per second

  ReplyMode mode = ReplyMode::kFixed;
  uint64_t seed = 0;
  base::Duration startup{0};
  uint32_t failure_percent = 0;
  std::vector<FailureType> failure_types;  // empty: all
  uint32_t body_mib_max = 4;
  // Served at /metrics as it is, if not null.
  std::shared_ptr<const std::string> metrics_page;
};

// One server's share of the options, checked.
struct ServerConfig {
  engine::EngineConfig engine;
  std::string model;                // the root of what is served
  std::vector<std::string> served;  // names that requests may use; the first is the metrics label
  ReplyMode mode;
  uint64_t seed;
  base::Duration startup;
  double speedup;
  uint32_t failure_percent;
  std::vector<FailureType> failure_types;
  uint64_t body_bytes_max;
  std::shared_ptr<const std::string> metrics_page;
  KvEventOptions kv_events;
};

// InvalidArgument names the flag, what it is and what is allowed.
base::Result<ServerConfig> Resolve(const SimOptions& options);

}  // namespace llmd::sim
