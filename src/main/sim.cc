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
  bool kv_cache = true;
  bool prefix_caching = true;
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
  app.add_flag("--enable-kvcache", flags.kv_cache, "The same, by upstream's name")->group(group);
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

base::Status Complete(const CLI::App& app, Flags& flags) {
  sim::SimOptions& o = flags.options;
  o.mode = flags.mode == "echo"     ? sim::ReplyMode::kEcho
           : flags.mode == "random" ? sim::ReplyMode::kRandom
                                    : sim::ReplyMode::kFixed;
  for (const Latency& latency : kLatencies) {
    if (app.count(latency.flag) > 0) o.*latency.option = flags.*latency.value;
  }
  o.prefix_caching = flags.kv_cache && flags.prefix_caching;
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
  flags.kv_cache = !as_upstream;
  flags.options.seed = runtime::EntropySeed();
  CLI::App app{kDescription, as_upstream ? std::string(name) : "llmd sim"};
  app.footer(Footer());
  AddServerFlags(app, flags);
  AddEngineFlags(app, flags);
  AddBehaviourFlags(app, flags);
  AddIgnoredFlags(app);
  if (const int status = ParseFlags(app, argc, argv); status >= 0) return status;
  if (const base::Status status = Complete(app, flags); !status.ok()) return Fail("sim", status);

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
