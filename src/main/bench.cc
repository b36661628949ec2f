// llmd bench: flags to BenchOptions, progress to the terminal, report to the table and to JSON.
#include "bench/bench.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>
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
    "Sends requests to an OpenAI endpoint and reports how fast it answered, how late the "
    "generator\n"
    "itself was, and what the processes you name spent on it.";

constexpr const char* kFooter = R"(
Lengths are written 512, uniform:MIN:MAX, normal:MEAN:STDDEV[:MIN:MAX] or
lognormal:MEAN:STDDEV[:MIN:MAX]. One token of the prompts is one word of four bytes.
Durations are written 500ms, 10s, 1m30s.

Closed or open loop?
  --concurrency 16       keeps 16 requests in flight: how much can it take, what does one cost?
  --rate 200             sends 200 per second whatever the replies do: what do users see at this
                         load? Read the line "schedule delay" with it: a generator that cannot keep
                         its schedule says so, and its latencies flatter the target.

Examples:
  what a streamed chat costs at 16 at a time
      llmd bench http://127.0.0.1:8080 --concurrency 16 --stream
  latencies at 200 requests per second, ten seconds of warm-up, result also as JSON
      llmd bench http://127.0.0.1:8080 --rate 200 --duration 60s --warmup 10s --json result.json
  prefix affinity: 150 system prompts of 6,000 tokens, 5 questions of 1,200 tokens to each
      llmd bench http://127.0.0.1:8080 --rate 20 --shared-prefix --num-groups 150 \
          --prompts-per-group 5 --system-prompt-len 6000 --question-len 1200 --output-tokens 1000
  CPU per request of the gateway and of nginx with both its workers
      llmd bench http://127.0.0.1:8080 --concurrency 16 --prompt-bytes 131072 \
          --watch-pid llmd=4711 --watch-pid nginx=4801,4802

Exit status: 0 when at least one request succeeded, 1 when none did or the run could not start.)";

// Flags as the user wrote them, before they are understood.
struct Flags {
  bench::BenchOptions options;
  std::string arrival = "poisson";
  std::string api = "chat";
  std::string prompt_tokens, prompt_bytes;
  std::string output_tokens = "16";
  std::string system_prompt_len = "100";
  std::string question_len = "50";
  base::Duration duration = std::chrono::seconds(10);
  base::Duration drain_timeout{};
  std::string api_key_file;
  std::string extra_body;
  std::string json_path;
  std::vector<std::string> watched;
  bool ignore_eos = true;
  bool quiet = false;
};

void AddLoadFlags(CLI::App& app, Flags& flags) {
  bench::BenchOptions& options = flags.options;
  app.add_option("url", options.urls, "Base URL; several take turns (http://HOST:PORT[/v1])")
      ->required();
  CLI::Option* rate =
      app.add_option("--rate", options.rate, "Open loop: requests per second")->group("Load");
  app.add_option("--arrival", flags.arrival,
                 "Open loop: poisson (independent gaps) or constant (exactly periodic)")
      ->check(CLI::IsMember({"poisson", "constant"}))
      ->needs(rate)
      ->capture_default_str()
      ->group("Load");
  app.add_option("--concurrency,-c", options.concurrency, "Closed loop: requests in flight")
      ->excludes(rate)
      ->capture_default_str()
      ->group("Load");
  const bool count_alone = options.request_count_max != UINT64_MAX && !duration_given;
  options.duration = count_alone ? base::Duration::max() : flags.duration;
  if (flags.drain_timeout.count() > 0) options.drain_timeout = flags.drain_timeout;
  LLMD_RETURN_IF_ERROR(ReadLengths(flags));
  LLMD_RETURN_IF_ERROR(ReadExtraBody(flags.extra_body, &options.body.extra_members));
  options.body.api = flags.api == "chat" ? workload::Api::kChat : workload::Api::kCompletions;
  options.body.ignore_eos = flags.ignore_eos;
  if (!flags.api_key_file.empty()) {
    LLMD_ASSIGN_OR_RETURN(const std::string key, runtime::ReadFile(flags.api_key_file, 64 << 10));
    options.api_key = base::Trim(base::Split(key, '\n').front());
  }
  for (const std::string& text : flags.watched) {
    LLMD_ASSIGN_OR_RETURN(bench::WatchedProcess process, bench::ParseWatchedProcess(text));
    options.watched.push_back(std::move(process));
  }
  return std::move(options);
}

// One line that rewrites itself on a terminal, and a line every ten seconds elsewhere.
class ProgressLine {
 public:
  void Show(const bench::Progress& progress) {
    const double seconds = base::ToSeconds(progress.elapsed);
    const bench::WorkerProgress& total = progress.total;
    const double rate =
        static_cast<double>(total.succeeded - last_succeeded_) / (seconds - last_seconds_);
    if (!is_tty_ && seconds - last_seconds_ < 10) return;
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
  return run.Run(quiet ? std::function<void(const bench::Progress&)>()
                       : [&line](const bench::Progress& progress) { line.Show(progress); });
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
  CLI::App app(kDescription, "llmd bench");
  app.footer(kFooter);
  AddLoadFlags(app, flags);
  AddRequestFlags(app, flags);
  AddOutputFlags(app, flags);
  if (const int status = ParseFlags(app, argc, argv); status >= 0) return status;
  const std::string json_path = flags.json_path;
  const bool quiet = flags.quiet;
  auto options = Understand(std::move(flags), app.count("--duration") > 0);
  if (!options) return Fail("bench", options.error());
  const auto report = RunWithProgress(*options, quiet);
  if (!report) return Fail("bench", report.error());
  if (const base::Status written = Print(*report, json_path); !written.ok())
    return Fail("bench", written);
  return report->measured.succeeded > 0 ? 0 : 1;
}

}  // namespace llmd
