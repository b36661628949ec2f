// llmd bench: flags to BenchOptions, progress to the terminal, report to the table and to JSON.
#include "bench/bench.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "base/strings.h"
#include "main/cli.h"
#include "main/commands.h"
#include "runtime/files.h"
#include "runtime/loop.h"
#include "runtime/signals.h"

namespace llmd {
namespace {

constexpr const char* kDescription =
    "Sends requests to an OpenAI endpoint and reports how fast it answered, how late the\n"
    "generator itself was, and what the processes you name spent on it.";

constexpr const char* kFooter = R"(
Lengths are written 512, uniform:MIN:MAX, normal:MEAN:STDDEV[:MIN:MAX] or
lognormal:MEAN:STDDEV[:MIN:MAX]. One token of the prompts is one word of four bytes.
Durations are written 500ms, 10s, 1m30s.

Closed or open loop?
  --concurrency 16   keeps 16 requests in flight: how much can it take, what does one cost?
  --rate 200         sends 200 per second whatever the replies do: what do users see at this
                     load? Read the line "schedule delay" with it: a generator that cannot
                     keep its schedule says so, and its latencies flatter the target.

Examples:
  a streamed chat, 16 at a time
      llmd bench http://127.0.0.1:8080 --concurrency 16 --stream
  latencies at 200 requests per second after ten seconds of warm-up, also as JSON
      llmd bench http://127.0.0.1:8080 --rate 200 --duration 60s --warmup 10s --json out.json
  prefix affinity: 150 system prompts of 6,000 tokens, 5 questions of 1,200 tokens to each
      llmd bench http://127.0.0.1:8080 --rate 20 --shared-prefix --num-groups 150 \
          --prompts-per-group 5 --system-prompt-len 6000 --question-len 1200 \
          --output-tokens 1000
  CPU per request of the gateway and of nginx with both its workers
      llmd bench http://127.0.0.1:8080 --concurrency 16 --prompt-bytes 131072 \
          --watch-pid llmd=4711 --watch-pid nginx=4801,4802
  decision latency of an endpoint picker at 300 requests per second of 16 KB
      llmd bench --ext-proc 127.0.0.1:9002 --rate 300 --prompt-bytes 16384

Exit status: 0 when at least one request succeeded, 1 when none did or the run could not
start, 2 for wrong usage.)";

// Flags as the user wrote them, before they are understood.
struct Flags {
  bench::BenchOptions options;
  std::string arrival = "poisson";
  std::string api = "chat";
  std::string prompt_tokens = "256";
  std::string prompt_bytes;
  std::string output_tokens = "16";
  std::string system_prompt_len = "100";
  std::string question_len = "50";
  base::Duration duration = std::chrono::seconds(10);
  base::Duration drain_timeout{};
  std::string api_key_file;
  std::string extra_body;
  std::string response = "body";
  std::string json_path;
  std::vector<std::string> watched;
  bool ignore_eos = true;
  bool quiet = false;
  bool rate_given = false;
  bool duration_given = false;
};

void AddLoadFlags(CLI::App& app, Flags& flags) {
  bench::BenchOptions& options = flags.options;
  app.add_option("url", options.urls, "Base URL, http://HOST:PORT[/v1]; several take turns");
  auto* rate = app.add_option("--rate", options.rate, "Open loop: requests per second");
  app.add_option("--arrival", flags.arrival,
                 "Open loop: poisson (independent gaps) or constant (exactly periodic)")
      ->check(CLI::IsMember({"poisson", "constant"}))
      ->needs(rate)
      ->capture_default_str();
  app.add_option("--concurrency,-c", options.concurrency, "Closed loop: requests in flight")
      ->excludes(rate)
      ->capture_default_str();
  AddDuration(app, "--duration", &flags.duration,
              "How long to send after the warm-up; with --requests no limit unless given");
  app.add_option("--requests,-n", options.request_count_max, "How many to send after the warm-up");
  AddDuration(app, "--warmup", &options.warm_up, "How long to send first, without counting");
  app.add_option("--max-in-flight", options.in_flight_max,
                 "Open loop: beyond it requests wait and count as late")
      ->needs(rate)
      ->capture_default_str();
  AddDuration(app, "--timeout", &options.request_timeout, "Longest a request may take");
  AddDuration(app, "--drain-timeout", &flags.drain_timeout,
              "Longest to wait after the last request; 0: as long as --timeout lets it");
  app.add_option("--workers", options.workers,
                 "Generator threads; what is sent does not depend on it")
      ->capture_default_str();
  app.add_option("--seed", options.seed, "Same seed, same prompts at the same times")
      ->capture_default_str();
}

void AddPromptFlags(CLI::App& app, Flags& flags) {
  bench::BenchOptions& options = flags.options;
  workload::SharedPrefixSpec& groups = options.prompts.groups;
  auto* tokens = app.add_option("--prompt-tokens", flags.prompt_tokens, "Prompt length in tokens")
                     ->capture_default_str();
  auto* bytes = app.add_option("--prompt-bytes", flags.prompt_bytes, "Prompt length in bytes")
                    ->excludes(tokens);
  app.add_option("--output-tokens", flags.output_tokens, "max_tokens of each request")
      ->capture_default_str();
  auto* shared = app.add_flag("--shared-prefix", options.prompts.shared_prefix,
                              "Groups of prompts with a common system prompt, shuffled once, "
                              "then sent in turn again and again")
                     ->excludes(tokens)
                     ->excludes(bytes);
  app.add_option("--num-groups", groups.group_count, "System prompts")
      ->needs(shared)
      ->capture_default_str();
  app.add_option("--prompts-per-group", groups.prompts_per_group, "Questions to each")
      ->needs(shared)
      ->capture_default_str();
  app.add_option("--system-prompt-len", flags.system_prompt_len, "In tokens")
      ->needs(shared)
      ->capture_default_str();
  app.add_option("--question-len", flags.question_len, "In tokens")
      ->needs(shared)
      ->capture_default_str();
}

void AddRequestFlags(CLI::App& app, Flags& flags) {
  bench::BenchOptions& options = flags.options;
  app.add_option("--api", flags.api, "chat or completions")
      ->check(CLI::IsMember({"chat", "completions"}))
      ->capture_default_str();
  app.add_option("--model", options.body.model, "Default: the first that /v1/models lists");
  app.add_flag("--stream", options.body.stream, "Stream the replies and time every event");
  app.add_flag("--ignore-eos,!--no-ignore-eos", flags.ignore_eos,
               "Ask for exactly max_tokens tokens, vLLM's field; on unless --no-ignore-eos");
  app.add_option("--extra-body", flags.extra_body, "JSON object: members to add to each body");
  app.add_option("--header,-H", options.headers, "\"Name: value\", may be repeated")
      ->allow_extra_args(false);
  app.add_option("--api-key", options.api_key, "Sent as Authorization: Bearer");
  app.add_option("--api-key-file", flags.api_key_file, "The same, from the first line of a file");
  app.add_option("--ca-file", options.ca_file, "PEM to check an https target with");
  app.add_flag("--insecure", options.insecure_skip_verify, "Do not check it");
}

void AddExtProcFlags(CLI::App& app, Flags& flags) {
  bench::ExtProcOptions& options = flags.options.ext_proc;
  auto* target = app.add_option("--ext-proc", options.target,
                                "HOST:PORT of an endpoint picker: play Envoy to it, no URL then");
  const auto add = [&](const char* name, auto& value, const char* help) {
    return app.add_option(name, value, help)->needs(target)->capture_default_str();
  };
  app.add_flag("--ext-proc-tls", options.tls, "The picker speaks TLS")->needs(target);
  add("--connections", options.connections, "HTTP/2 connections to open, over all workers");
  add("--response", flags.response,
      "What of the responses the picker sees: body (200 bytes of JSON or, with --stream, chunks of "
      "as many), headers (Envoy's response_body_mode NONE) or none")
      ->check(CLI::IsMember({"body", "headers", "none"}));
  add("--response-chunks", options.response_chunks, "Chunks of a streamed response");
  add("--chunk-window", options.chunk_window,
      "Chunks of one stream that may wait for their echo: 1 sends each after the one before came "
      "back");
  AddDuration(app, "--chunk-interval", &options.chunk_interval,
              "From one chunk of a stream to the next, as tokens come; 0: as the window lets them");
}

void AddOutputFlags(CLI::App& app, Flags& flags) {
  app.add_option("--json", flags.json_path, "Write the report as JSON; - for standard output");
  app.add_option("--watch-pid", flags.watched,
                 "NAME=PID[,PID...]: CPU time and memory of these processes, per request")
      ->allow_extra_args(false);
  app.add_flag("--quiet,-q", flags.quiet, "No progress");
}

// Puts everything that was added since `groups` was last filled under one heading of the help.
void GroupNewOptions(CLI::App& app, const char* heading) {
  for (CLI::Option* option : app.get_options()) {
    const bool ungrouped = option->get_group() == "Options" && !option->get_positional();
    if (ungrouped && option->get_name() != "--help") option->group(heading);
  }
}

base::Status ReadLength(std::string_view flag, const std::string& text, workload::LengthSpec* out) {
  auto length = workload::LengthSpec::Parse(text);
  if (!length) return length.error().WithContext(flag);
  *out = *length;
  return {};
}

base::Status ReadLengths(Flags& flags) {
  workload::PromptSpec& prompts = flags.options.prompts;
  workload::SharedPrefixSpec& groups = prompts.groups;
  prompts.length_in_bytes = !flags.prompt_bytes.empty();
  LLMD_RETURN_IF_ERROR(prompts.length_in_bytes
                           ? ReadLength("--prompt-bytes", flags.prompt_bytes, &prompts.length)
                           : ReadLength("--prompt-tokens", flags.prompt_tokens, &prompts.length));
  LLMD_RETURN_IF_ERROR(ReadLength("--output-tokens", flags.output_tokens, &prompts.output_tokens));
  LLMD_RETURN_IF_ERROR(
      ReadLength("--system-prompt-len", flags.system_prompt_len, &groups.system_tokens));
  return ReadLength("--question-len", flags.question_len, &groups.question_tokens);
}

base::Status ReadExtraBody(const std::string& text, std::string* members) {
  if (text.empty()) return {};
  const std::string_view object = base::Trim(text);
  if (object.size() < 2 || object.front() != '{' || object.back() != '}') {
    return base::InvalidArgument("--extra-body: expected an object such as {\"temperature\":0}");
  }
  *members = base::Trim(object.substr(1, object.size() - 2));
  return {};
}

base::Result<bench::BenchOptions> Understand(Flags flags) {
  bench::BenchOptions& options = flags.options;
  if (flags.rate_given) {
    options.arrival =
        flags.arrival == "constant" ? workload::Arrival::kConstant : workload::Arrival::kPoisson;
  }
  // A count alone means "until they are sent".
  const bool count_alone = options.request_count_max != UINT64_MAX && !flags.duration_given;
  options.duration = count_alone ? base::Duration::max() : flags.duration;
  if (flags.drain_timeout.count() > 0) options.drain_timeout = flags.drain_timeout;
  LLMD_RETURN_IF_ERROR(ReadLengths(flags));
  LLMD_RETURN_IF_ERROR(ReadExtraBody(flags.extra_body, &options.body.extra_members));
  options.body.api = flags.api == "chat" ? workload::Api::kChat : workload::Api::kCompletions;
  options.body.ignore_eos = flags.ignore_eos;
  options.ext_proc.response = flags.response == "none"      ? bench::ExtProcResponse::kNone
                              : flags.response == "headers" ? bench::ExtProcResponse::kHeaders
                                                            : bench::ExtProcResponse::kBody;
  if (!flags.api_key_file.empty()) {
    LLMD_ASSIGN_OR_RETURN(const std::string key, runtime::ReadFile(flags.api_key_file, 64 << 10));
    options.api_key = base::Trim(base::Split(key, '\n').front());
  }
  for (const std::string& text : flags.watched) {
    LLMD_ASSIGN_OR_RETURN(bench::WatchedProcess process, bench::ParseWatchedProcess(text));
    options.watched.push_back(std::move(process));
  }
  LLMD_RETURN_IF_ERROR(bench::Validate(options));
  return std::move(options);
}

// One line that rewrites itself on a terminal, and a line every ten seconds elsewhere.
class ProgressLine {
 public:
  void Show(const bench::Progress& progress) {
    const double seconds = base::ToSeconds(progress.elapsed);
    if (seconds - last_seconds_ < (is_tty_ ? 0.1 : 10)) return;
    const bench::WorkerProgress& total = progress.total;
    const double rate =
        static_cast<double>(total.succeeded - last_succeeded_) / (seconds - last_seconds_);
    last_succeeded_ = total.succeeded;
    last_seconds_ = seconds;
    fmt::print(stderr, "{}{:.1f} s{}: {} sent, {} ok ({:.0f}/s), {} failed, {} in flight{}",
               is_tty_ ? "\r\033[K" : "", seconds, progress.warm_up ? " (warm-up)" : "", total.sent,
               total.succeeded, rate, total.failed, total.in_flight, is_tty_ ? "" : "\n");
    std::fflush(stderr);
    shown_ = is_tty_;
  }
  ~ProgressLine() {
    if (shown_) fmt::print(stderr, "\r\033[K");
  }

 private:
  const bool is_tty_ = isatty(STDERR_FILENO) != 0;
  bool shown_ = false;
  uint64_t last_succeeded_ = 0;
  double last_seconds_ = 0;
};

base::Result<bench::Report> RunWithProgress(const bench::BenchOptions& options, bool quiet) {
  runtime::EventLoop loop;
  bench::BenchRun run(loop, options);
  runtime::SignalWatch signals(loop, [&run](int) { run.Interrupt(); });
  ProgressLine line;
  std::function<void(const bench::Progress&)> show;
  if (!quiet) show = [&line](const bench::Progress& progress) { line.Show(progress); };
  return run.Run(std::move(show));
}

base::Status Print(const bench::Report& report, const std::string& json_path) {
  const bool json_to_stdout = json_path == "-";
  // The table makes room on standard output for the JSON, but is not lost.
  fmt::print(json_to_stdout ? stderr : stdout, "{}", bench::ToTable(report));
  if (json_path.empty()) return {};
  const std::string json = bench::ToJson(report);
  if (!json_to_stdout) return runtime::WriteFileAtomically(json_path, json);
  fmt::print("{}", json);
  return {};
}

}  // namespace

int BenchMain(int argc, char** argv) {
  Flags flags;
  const AppPtr app_ptr = NewApp(kDescription, "llmd bench");
  CLI::App& app = *app_ptr;
  app.footer(kFooter);
  AddLoadFlags(app, flags);
  GroupNewOptions(app, "Load");
  AddPromptFlags(app, flags);
  GroupNewOptions(app, "Prompts");
  AddRequestFlags(app, flags);
  GroupNewOptions(app, "Requests");
  AddExtProcFlags(app, flags);
  GroupNewOptions(app, "Endpoint pickers");
  AddOutputFlags(app, flags);
  GroupNewOptions(app, "Output");
  if (const int status = ParseFlags(app, argc, argv); status >= 0) return status;
  flags.rate_given = app.count("--rate") > 0;
  flags.duration_given = app.count("--duration") > 0;
  const auto options = Understand(flags);
  if (!options) {
    Fail("bench", options.error());
    return 2;
  }
  const auto report = RunWithProgress(*options, flags.quiet);
  if (!report) return Fail("bench", report.error());
  if (const base::Status written = Print(*report, flags.json_path); !written.ok()) {
    return Fail("bench", written);
  }
  return report->measured.succeeded > 0 ? 0 : 1;
}

}  // namespace llmd
