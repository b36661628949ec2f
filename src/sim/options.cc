#include "sim/options.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/strings.h"
#include "engine/profile.h"

namespace llmd::sim {
namespace {

constexpr std::array<std::string_view, kFailureTypeCount> kFailureNames = {
    "rate_limit",   "invalid_api_key", "context_length",
    "server_error", "invalid_request", "model_not_found"};

base::Result<engine::EngineConfig> ProfileConfig(const SimOptions& options, std::string* model) {
  if (options.profile.empty()) return engine::EngineConfig{};
  const engine::Profile* profile = engine::FindProfile(options.profile);
  if (profile == nullptr) {
    std::vector<std::string_view> names;
    std::string all;
    for (const engine::Profile& p : engine::Profiles()) {
      names.push_back(p.name);
      all += (all.empty() ? "" : ", ") + std::string(p.name);
    }
    const std::string_view near = base::NearestWord(options.profile, names);
    return std::unexpected(base::InvalidArgument(
        base::Concat("--profile ", options.profile, " is not known, allowed: ", all,
                     near.empty() ? "" : "; did you mean ", near)));
  }
  *model = profile->model;
  return profile->Config();
}

bool HasLatency(const SimOptions& o) {
  return o.time_to_first_token || o.inter_token_latency || o.prefill_overhead ||
         o.prefill_time_per_token;
}

base::Status SetTiming(const SimOptions& o, engine::EngineConfig* config) {
  if (!HasLatency(o)) return base::OkStatus();
  if (std::holds_alternative<engine::StepCost>(config->timing)) {
    return base::InvalidArgument(base::Concat(
        "--profile ", o.profile, " sets the timing: give either it or --time-to-first-token, ",
        "--inter-token-latency, --prefill-overhead and --prefill-time-per-token"));
  }
  engine::Pace pace;
  pace.first_token = o.time_to_first_token.value_or(pace.first_token);
  pace.prefill_overhead = o.prefill_overhead.value_or(pace.prefill_overhead);
  pace.prefill_token = o.prefill_time_per_token.value_or(pace.prefill_token);
  pace.inter_token = o.inter_token_latency.value_or(pace.inter_token);
  if (pace.first_token.count() < 0 || pace.prefill_overhead.count() < 0 ||
      pace.prefill_token.count() < 0 || pace.inter_token.count() < 0) {
    return base::InvalidArgument("a latency is negative");
  }
  config->timing = pace;
  return base::OkStatus();
}

base::Result<engine::EngineConfig> EngineOf(const SimOptions& o, std::string* model) {
  LLMD_ASSIGN_OR_RETURN(engine::EngineConfig config, ProfileConfig(o, model));
  const uint64_t kv_tokens = uint64_t{config.kv_blocks} * config.block_tokens;
  config.model_tokens_max = o.model_tokens_max.value_or(config.model_tokens_max);
  config.sequences_max = o.sequences_max.value_or(config.sequences_max);
  config.block_tokens = o.block_tokens.value_or(config.block_tokens);
  if (o.kv_blocks) {
    config.kv_blocks = *o.kv_blocks;
  } else if (!o.profile.empty() && config.block_tokens > 0) {
    // The memory of a profile stays the same whatever the block size.
    config.kv_blocks = static_cast<uint32_t>(
        std::min<uint64_t>(kv_tokens / config.block_tokens, UINT32_MAX));
  }
  config.batched_tokens_max = o.batched_tokens_max.value_or(
      std::max(config.batched_tokens_max, config.sequences_max));
  config.waiting_max = o.waiting_max;
  config.prefix_caching = o.prefix_caching;
  config.hash_seed = o.seed;
  config.offload_blocks = o.offload_blocks;
  config.offload_load_token = o.offload_load_time_per_token;
  if (o.kv_events.enabled) {
    config.cache_changes = true;
    config.wire_hash = o.hash;
    config.wire_seed = o.hash_seed;
  }
  LLMD_RETURN_IF_ERROR(SetTiming(o, &config));
  LLMD_RETURN_IF_ERROR(config.Validate());
  return config;
}

base::Status CheckKvEvents(const SimOptions& options) {
  const KvEventOptions& o = options.kv_events;
  if (o.ranks < 1 || o.ranks > 1024) {
    return base::InvalidArgument("--data-parallel-size: allowed are 1 to 1024");
  }
  if (o.ranks > 1 && options.count > 1) {
    return base::InvalidArgument(
        "--data-parallel-size makes one server per rank: give either it or --count");
  }
  if (!o.enabled) return base::OkStatus();
  if (o.endpoint.empty()) return base::InvalidArgument("--zmq-endpoint is empty");
  if (!o.replay_endpoint.empty() && o.replay_steps_max < 1) {
    return base::InvalidArgument("--kv-events-replay-queue-size: allowed are 1 and more");
  }
  if (o.queue_messages_max < 1) {
    return base::InvalidArgument("--kv-events-hwm: allowed are 1 and more");
  }
  return base::OkStatus();
}

}  // namespace

std::optional<FailureType> ParseFailureType(std::string_view name) {
  const auto found = std::find(kFailureNames.begin(), kFailureNames.end(), name);
  if (found == kFailureNames.end()) return std::nullopt;
  return static_cast<FailureType>(found - kFailureNames.begin());
}

base::Result<ServerConfig> Resolve(const SimOptions& options) {
  std::string profile_model;
  LLMD_ASSIGN_OR_RETURN(engine::EngineConfig engine, EngineOf(options, &profile_model));
  ServerConfig config{.engine = engine,
                      .model = options.model.empty() ? profile_model : options.model,
                      .served = options.served_model_names,
                      .mode = options.mode,
                      .seed = options.seed,
                      .startup = options.startup,
                      .speedup = options.speedup,
                      .failure_percent = options.failure_percent,
                      .failure_types = options.failure_types,
                      .body_bytes_max = uint64_t{options.body_mib_max} << 20,
                      .metrics_page = options.metrics_page,
                      .kv_events = options.kv_events};
  auto refuse = [](std::string message) -> base::Result<ServerConfig> {
    return std::unexpected(base::InvalidArgument(std::move(message)));
  };
  if (config.model.empty()) return refuse("--model is missing: name it, or take a --profile");
  if (config.served.empty()) config.served.push_back(config.model);
  if (options.failure_percent > 100) {
    return refuse("--failure-injection-rate: allowed are 0 to 100");
  }
  if (options.body_mib_max < 1 || options.body_mib_max > 512) {
    return refuse("--max-request-body-size-mb: allowed are 1 to 512");
  }
  if (!(options.speedup >= 1e-3 && options.speedup <= 1e6)) {
    return refuse("--speedup: allowed are 0.001 to 1000000");
  }
  if (options.startup.count() < 0) return refuse("--startup-duration is negative");
  if (options.count < 1 || options.count > 1024) return refuse("--count: allowed are 1 to 1024");
  if (options.port != 0 &&
      options.port + std::max(options.count, options.kv_events.ranks) - 1 > 65535) {
    return refuse("--port and the number of servers go beyond port 65535");
  }
  LLMD_RETURN_IF_ERROR(CheckKvEvents(options));
  if (config.failure_types.empty()) {
    for (int i = 0; i < kFailureTypeCount; ++i) {
      config.failure_types.push_back(static_cast<FailureType>(i));
    }
  }
  return config;
}

}  // namespace llmd::sim
