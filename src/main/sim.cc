// llmd sim: flags to SimOptions, then simulated servers until a signal.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>
#include <vector>

#include "base/strings.h"
#include "engine/profile.h"
#include "main/cli.h"
#include "main/commands.h"
#include "runtime/clock.h"
#include "runtime/files.h"
#include "runtime/loop.h"
#include "runtime/machine.h"
#include "runtime/signals.h"
#include "sim/server.h"

namespace llmd {
namespace {

constexpr const char* kDescription =
    "Simulated vLLM servers: vLLM's HTTP API in front of a model of its engine, in real time and\n"
    "without a GPU.";

constexpr const char* kFooter = R"(
Timing: a profile is measured hardware (steps, batching, prefix cache and memory behave as there);
without one no time passes unless a latency is given. Durations are written 500us, 12ms, 1.5s.

Examples:
  four servers that answer like Qwen3-32B on two H100 each, ports 8001 to 8004
      llmd sim --profile qwen3-32b-h100-tp2 --port 8001 --count 4
  a stream of 50 tokens per second
      llmd sim --model demo --time-to-first-token 100ms --inter-token-latency 20ms
      curl -N localhost:8000/v1/chat/completions -H 'Content-Type: application/json' -d \
        '{"model":"demo","stream":true,"max_tokens":50,"messages":[{"role":"user","content":"Hi"}]}'
  an endless fast backend, to load what stands in front of it
      llmd sim --profile instant --count 4 --port 8001 --workers 2
  an hour of traffic in six minutes
      llmd sim --profile qwen3-32b-h100-tp2 --speedup 10
  a server that fails one request in twenty
      llmd sim --profile instant --failure-injection-rate 5 --failure-types server_error rate_limit
  a page of metrics for scrape tests
      llmd sim --profile instant --metrics-file page.txt

KV events tell a router which prefixes a server holds: ZeroMQ messages of topic, sequence and
msgpack batch, as vLLM 0.32 sends them. Evicted blocks, CPU memory (--cpu-kv-cache-size, medium
CPU) and POST /reset_prefix_cache are told of too; GET /kv_event_sources says where.
  four servers whose events one picker takes at its port 5557
      llmd sim --profile qwen3-32b-h100-tp2 --count 4 --enable-kvcache
  servers to be subscribed to, at 5557 and 5558, with replay at 6557 and 6558
      llmd sim --profile instant --count 2 --enable-kvcache --zmq-endpoint 'tcp://*:5557' \
        --kv-events-replay-endpoint 'tcp://*:6557'
  hashes that other programs can compute
      llmd sim --model demo --enable-kvcache --hash-seed 0

Profiles (model; source of the numbers):)";

std::string Footer() {
  std::string text = kFooter;
  for (const engine::Profile& profile : engine::Profiles()) {
    std::string name(profile.name);
    name.resize(std::max<size_t>(name.size(), 28), ' ');
    text += base::Concat("\n  ", name, " ", profile.model, "; ", profile.source);
  }
  return text;
}

struct Flags {
  sim::SimOptions options;
  std::string mode;
  std::vector<std::string> failure_types;
  std::string metrics_file;
  bool prefix_caching = true;
  std::string zmq_mode = "auto";
  std::string hash = "sha256_cbor";
  std::string curve_server_key_file, curve_secret_key_file;
  base::Duration time_to_first_token{0};
  base::Duration prefill_overhead{0};
  base::Duration prefill_time_per_token{0};
  base::Duration inter_token_latency{0};
};

struct Latency {
  const char* flag;
  base::Duration Flags::*value;
  std::optional<base::Duration> sim::SimOptions::*option;
  const char* help;
};
constexpr Latency kLatencies[] = {
    {"--time-to-first-token", &Flags::time_to_first_token, &sim::SimOptions::time_to_first_token,
     "Whatever the prompt's length"},
    {"--prefill-overhead", &Flags::prefill_overhead, &sim::SimOptions::prefill_overhead,
     "Before the first token"},
    {"--prefill-time-per-token", &Flags::prefill_time_per_token,
     &sim::SimOptions::prefill_time_per_token, "Times the prompt's tokens that are not cached"},
    {"--inter-token-latency", &Flags::inter_token_latency, &sim::SimOptions::inter_token_latency,
     "Between two tokens"},
};

template <class T>
void AddOptional(CLI::App& app, const std::string& name, std::optional<T>* value,
                 const std::string& help, const char* group) {
  app.add_option_function<T>(name, [value](const T& v) { *value = v; }, help)->group(group);
}

void AddServerFlags(CLI::App& app, Flags& flags) {
  sim::SimOptions& o = flags.options;
  const char* group = "Servers";
  app.add_option("--host", o.host, "Address to listen on; all if not given")->group(group);
  app.add_option("--port", o.port, "Port of the first server; 0: any free one")
      ->capture_default_str()->group(group);
  app.add_option("--count", o.count, "Number of servers, each with a port of its own")
      ->capture_default_str()->group(group);
  app.add_option("--workers", o.workers, "Threads to share them")
      ->capture_default_str()->group(group);
  app.add_option("--model", o.model, "Model to serve; a profile names one")
      ->envname("SIM_MODEL")->group(group);
  app.add_option("--served-model-name", o.served_model_names,
                 "Names that requests may use instead of the model's")->group(group);
  app.add_option("--max-request-body-size-mb", o.body_mib_max, "Larger bodies get 413")
      ->capture_default_str()->group(group);
  app.add_option("--metrics-file", flags.metrics_file, "Serve this file at /metrics as it is")
      ->check(CLI::ExistingFile)->group(group);
}

void AddEngineFlags(CLI::App& app, Flags& flags) {
  sim::SimOptions& o = flags.options;
  const char* group = "Engine (what is given wins over the profile)";
  app.add_option("--profile", o.profile, "Calibrated engine, see below")->group(group);
  AddOptional(app, "--max-model-len", &o.model_tokens_max, "Tokens of prompt and output [1024]",
              group);
  AddOptional(app, "--max-num-seqs", &o.sequences_max, "Requests computed at once [5]", group);
  app.add_option("--max-waiting-queue-length", o.waiting_max, "More get 429")
      ->capture_default_str()->group(group);
  AddOptional(app, "--max-num-batched-tokens", &o.batched_tokens_max,
              "Tokens computed per step [8192]", group);
  AddOptional(app, "--kv-cache-size", &o.kv_blocks, "Blocks of KV memory [1024]", group);
  AddOptional(app, "--block-size", &o.block_tokens, "Tokens per block [16]", group);
  app.add_flag("--enable-prefix-caching", flags.prefix_caching,
               "Find prefixes in the KV cache; --enable-prefix-caching=false does not")
      ->group(group);
  app.add_option("--cpu-kv-cache-size", o.offload_blocks,
                 "Blocks of CPU memory that full blocks are copied to and loaded from; 0: none")
      ->capture_default_str()->group(group);
  AddDuration(app, "--cpu-kv-load-time-per-token", &o.offload_load_time_per_token,
              "Instead of computing it");
}

// Names are llm-d-inference-sim's where it has them, else vLLM's.
void AddKvEventFlags(CLI::App& app, Flags& flags) {
  sim::KvEventOptions& o = flags.options.kv_events;
  const char* group = "KV events (see below)";
  app.add_flag("--enable-kvcache", o.enabled, "Publish what the prefix cache stores and evicts")
      ->group(group);
  app.add_option("--zmq-endpoint", o.endpoint,
                 "Where to; server i of several that bind, and rank i, use port + i")
      ->capture_default_str()->group(group);
  app.add_option("--zmq-mode", flags.zmq_mode,
                 "connect, bind, or auto: bind what has a * (vLLM's rule), connect to the rest")
      ->check(CLI::IsMember({"auto", "bind", "connect"}))->capture_default_str()->group(group);
  app.add_option("--kv-events-replay-endpoint", o.replay_endpoint,
                 "Address to bind for replays of missed messages; server i uses port + i")
      ->group(group);
  app.add_option("--kv-events-replay-queue-size", o.replay_steps_max, "Messages kept for replay")
      ->capture_default_str()->group(group);
  app.add_flag("--kv-events-replay-topic", o.replay_topic,
               "Replays name the topic; =false as older engines")->group(group);
  app.add_option("--kv-events-hwm", o.queue_messages_max,
                 "Messages queued per subscriber, more are lost")
      ->capture_default_str()->group(group);
  app.add_option("--kv-events-topic", o.topic, "Instead of kv@<pod ip>:<port>@<model>")
      ->group(group);
  app.add_option("--pod-ip", o.pod_ip, "In the topic; --host or 127.0.0.1 if not given")
      ->envname("POD_IP")->group(group);
  app.add_flag("--use-vllm-map-event-format", o.maps,
               "Events are maps with a type, as today's vLLM; =false: positional arrays")
      ->group(group);
  app.add_flag("--kv-events-byte-hashes", o.byte_hashes,
               "Hashes are whole digests, not integers (VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES=0)")
      ->group(group);
  app.add_option("--event-batch-size", o.batch_events_max,
                 "Events per message; 0: those of a step, as vLLM")
      ->capture_default_str()->group(group);
  app.add_option("--prefix-caching-hash-algo", flags.hash,
                 "sha256_cbor or xxhash_cbor, bit for bit as vLLM")
      ->check(CLI::IsMember({"sha256_cbor", "xxhash_cbor"}))->capture_default_str()->group(group);
  app.add_option_function<std::string>(
         "--hash-seed", [&flags](const std::string& seed) { flags.options.hash_seed = seed; },
         "Seed of the hash chain, as vLLM's PYTHONHASHSEED; random if not given")
      ->envname("PYTHONHASHSEED")->group(group);
  app.add_option("--data-parallel-size", o.ranks, "Ranks: one server each, on consecutive ports")
      ->capture_default_str()->group(group);
  app.add_option_function<int>(
         "--data-parallel-rank",
         [&o](int rank) { o.rank = rank < 0 ? std::nullopt : std::optional<uint32_t>(rank); },
         "Rank that a single server says it is")->group(group);
  app.add_option("--zmq-curve-server-key", flags.curve_server_key_file,
                 "Public key of a CURVE picker to connect to (file)")
      ->check(CLI::ExistingFile)->group(group);
  app.add_option("--zmq-curve-key", flags.curve_secret_key_file,
                 "Own CURVE secret key (file): of what is bound, or for the server above")
      ->check(CLI::ExistingFile)->group(group);
}

void AddBehaviourFlags(CLI::App& app, Flags& flags) {
  sim::SimOptions& o = flags.options;
  for (const Latency& latency : kLatencies) {
    AddDuration(app, latency.flag, &(flags.*latency.value), latency.help);
  }
  app.add_option("--speedup", o.speedup, "Simulated seconds per second")
      ->capture_default_str()->group("Timing");
  AddDuration(app, "--startup-duration", &o.startup, "/health/ready answers 503 for so long");
  const char* group = "Replies";
  app.add_option("--mode", flags.mode,
                 "fixed (exactly max_tokens, 16 if not given), random (lengths as upstream's) or "
                 "echo")
      ->check(CLI::IsMember({"fixed", "random", "echo"}))->capture_default_str()->group(group);
  app.add_option("--seed", o.seed, "Of everything random; drawn if not given")->group(group);
  app.add_option("--failure-injection-rate", o.failure_percent, "Percent of requests that fail")
      ->capture_default_str()->group(group);
  app.add_option("--failure-types", flags.failure_types,
                 "rate_limit, invalid_api_key, context_length, server_error, invalid_request, "
                 "model_not_found; all if not given")->group(group);
}

// What charts of llm-d-inference-sim and of vLLM pass and a model of an engine does not need.
void AddIgnoredFlags(CLI::App& app) {
  for (const char* name : {"--tensor-parallel-size", "--mm-processor-kwargs",
                           "--ec-transfer-config", "-v,--v"}) {
    app.add_option_function<std::string>(name, [](const std::string&) {}, "Ignored")->group("");
  }
  for (const char* name : {"--enforce-eager", "--force-dummy-tokenizer", "--log-http"}) {
    app.add_flag_function(name, [](int64_t) {}, "Ignored")->group("");
  }
}

base::Status CompleteKvEvents(Flags& flags) {
  sim::KvEventOptions& o = flags.options.kv_events;
  o.mode = flags.zmq_mode == "bind"      ? sim::ZmqMode::kBind
           : flags.zmq_mode == "connect" ? sim::ZmqMode::kConnect
                                         : sim::ZmqMode::kAuto;
  flags.options.hash = *engine::ParseWireHashKind(flags.hash);
  const bool client = !flags.curve_server_key_file.empty();
  if (client) {
    LLMD_ASSIGN_OR_RETURN(o.security.server_public_key,
                          net::LoadZmqPublicKey(flags.curve_server_key_file));
  }
  if (flags.curve_secret_key_file.empty()) return base::OkStatus();
  LLMD_ASSIGN_OR_RETURN(const net::ZmqKeyPair own,
                        net::LoadZmqKeyPair(flags.curve_secret_key_file));
  if (client) {
    o.security.client = own;
  } else {
    o.security.server_secret_key = own.secret_key;
  }
  return base::OkStatus();
}

base::Status Complete(const CLI::App& app, Flags& flags, bool as_upstream) {
  sim::SimOptions& o = flags.options;
  o.mode = flags.mode == "echo"     ? sim::ReplyMode::kEcho
           : flags.mode == "random" ? sim::ReplyMode::kRandom
                                    : sim::ReplyMode::kFixed;
  for (const Latency& latency : kLatencies) {
    if (app.count(latency.flag) > 0) o.*latency.option = flags.*latency.value;
  }
  // Upstream's simulator has no prefix cache without --enable-kvcache.
  o.prefix_caching = flags.prefix_caching && (o.kv_events.enabled || !as_upstream);
  LLMD_RETURN_IF_ERROR(CompleteKvEvents(flags));
  for (const std::string& name : flags.failure_types) {
    const auto type = sim::ParseFailureType(name);
    if (!type) {
      return base::InvalidArgument(base::Concat("--failure-types: ", name, " is not one"));
    }
    o.failure_types.push_back(*type);
  }
  if (!flags.metrics_file.empty()) {
    LLMD_ASSIGN_OR_RETURN(std::string page, runtime::ReadFile(flags.metrics_file));
    o.metrics_page = std::make_shared<const std::string>(std::move(page));
  }
  return base::OkStatus();
}

std::string Started(const sim::SimServers& servers, std::string_view host) {
  std::string text = "llmd sim: " + servers.config().served[0] + " at";
  for (const uint16_t port : servers.ports()) {
    text += base::Concat(" http://", host.empty() ? "127.0.0.1" : host, ":", std::to_string(port));
  }
  return text + "\n";
}

}  // namespace

int SimMain(int argc, char** argv) {
  const std::string_view name = base::Split(argv[0], '/').back();
  const bool as_upstream = name == "llm-d-inference-sim";
  Flags flags;
  flags.mode = as_upstream ? "random" : "fixed";
  if (as_upstream) {
    flags.options.kv_events.maps = false;
    flags.options.kv_events.batch_events_max = 16;
  }
  flags.options.seed = runtime::EntropySeed();
  const AppPtr app_ptr = NewApp(kDescription, as_upstream ? std::string(name) : "llmd sim");
  CLI::App& app = *app_ptr;
  app.footer(Footer());
  AddServerFlags(app, flags);
  AddEngineFlags(app, flags);
  AddKvEventFlags(app, flags);
  AddBehaviourFlags(app, flags);
  AddIgnoredFlags(app);
  if (const int status = ParseFlags(app, argc, argv); status >= 0) return status;
  if (const base::Status status = Complete(app, flags, as_upstream); !status.ok())
    return Fail("sim", status);

  runtime::RaiseOpenFileLimit();
  runtime::EventLoop loop;
  runtime::SignalWatch signals(loop, [&loop](int) { loop.Stop(); });
  auto servers = sim::Start(flags.options);
  if (!servers) return Fail("sim", servers.error());
  std::fputs(Started(**servers, flags.options.host).c_str(), stdout);
  std::fflush(stdout);
  loop.Run();
  return 0;
}

}  // namespace llmd
