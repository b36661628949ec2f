#include "bench/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "nlohmann/json.hpp"

namespace llmd::bench {
namespace {

using Json = nlohmann::ordered_json;

// The advice of inference-perf's documentation for a sound open loop.
constexpr double kLateMedianMs = 10;
// A worker this busy delays what it should time.
constexpr double kBusy = 0.9;
// An open loop that sent fewer than this share of what it should have.
constexpr double kAchievedShareMin = 0.98;
// Below this many requests the share is chance, not lateness.
constexpr uint64_t kRequestsForRate = 100;

double Ratio(double value, double by) { return by > 0 ? value / by : 0; }
double Ratio(double value, uint64_t by) { return Ratio(value, static_cast<double>(by)); }

bool IsOpenLoop(const BenchOptions& options) {
  return options.arrival != workload::Arrival::kClosedLoop;
}

std::string_view ArrivalName(workload::Arrival arrival) {
  switch (arrival) {
    case workload::Arrival::kClosedLoop:
      return "closed";
    case workload::Arrival::kConstant:
      return "constant";
    case workload::Arrival::kPoisson:
      return "poisson";
  }
  return "";
}

std::string_view ExtProcResponseName(ExtProcResponse response) {
  switch (response) {
    case ExtProcResponse::kNone:
      return "none";
    case ExtProcResponse::kHeaders:
      return "headers";
    case ExtProcResponse::kBody:
      return "body";
  }
  return "";
}

// 12345678 as "12,345,678".
std::string Grouped(uint64_t value) {
  std::string text = std::to_string(value);
  for (size_t at = text.size(); at > 3;) text.insert(at -= 3, ",");
  return text;
}

// A time in ms with three or four digits that mean something.
std::string Ms(double ns) {
  const double ms = ns * 1e-6;
  return fmt::format("{:.{}f}", ms, ms < 1 ? 3 : ms < 100 ? 2 : ms < 1000 ? 1 : 0);
}

void AppendHistogramRow(std::string* out, std::string_view name,
                        const telemetry::ValueHistogram& histogram) {
  if (histogram.count() == 0) return;
  fmt::format_to(std::back_inserter(*out), "{:<28}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}\n", name,
                 Ms(histogram.mean()), Ms(static_cast<double>(histogram.Percentile(50))),
                 Ms(static_cast<double>(histogram.Percentile(90))),
                 Ms(static_cast<double>(histogram.Percentile(99))),
                 Ms(static_cast<double>(histogram.Percentile(99.9))),
                 Ms(static_cast<double>(histogram.max())));
}

Json Distribution(const telemetry::ValueHistogram& histogram, double scale) {
  if (histogram.count() == 0) return nullptr;
  Json json = {{"mean", histogram.mean() * scale},
               {"min", static_cast<double>(histogram.min()) * scale},
               {"max", static_cast<double>(histogram.max()) * scale},
               {"stddev", histogram.StandardDeviation() * scale}};
  for (const double percent : {0.1, 1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9}) {
    const std::string key = percent == 50.0 ? "median" : fmt::format("p{:g}", percent);
    json[key] = static_cast<double>(histogram.Percentile(percent)) * scale;
  }
  return json;
}

Json Seconds(const telemetry::ValueHistogram& nanoseconds) {
  return Distribution(nanoseconds, 1e-9);
}

Json ConfigJson(const BenchOptions& options) {
  Json json = {{"urls", options.urls}, {"model", options.body.model}};
  if (!options.ext_proc.target.empty()) {
    json["ext_proc"] = {{"target", options.ext_proc.target},
                        {"connections", options.ext_proc.connections},
                        {"response", ExtProcResponseName(options.ext_proc.response)}};
    if (options.body.stream && options.ext_proc.response == ExtProcResponse::kBody) {
      json["ext_proc"]["response_chunks"] = options.ext_proc.response_chunks;
      json["ext_proc"]["chunk_window"] = options.ext_proc.chunk_window;
      json["ext_proc"]["chunk_interval_s"] = base::ToSeconds(options.ext_proc.chunk_interval);
    }
  }
  json["api"] = options.body.api == workload::Api::kChat ? "chat" : "completions";
  json["streaming"] = options.body.stream;
  json["load"] = ArrivalName(options.arrival);
  if (IsOpenLoop(options)) {
    json["rate"] = options.rate;
    json["max_in_flight"] = options.in_flight_max;
  } else {
    json["concurrency"] = options.concurrency;
  }
  const workload::PromptSpec& prompts = options.prompts;
  if (prompts.shared_prefix) {
    json["shared_prefix"] = {{"num_groups", prompts.groups.group_count},
                             {"num_prompts_per_group", prompts.groups.prompts_per_group},
                             {"system_prompt_len", prompts.groups.system_tokens.ToString()},
                             {"question_len", prompts.groups.question_tokens.ToString()}};
  } else {
    json[prompts.length_in_bytes ? "prompt_bytes" : "prompt_tokens"] = prompts.length.ToString();
  }
  json["output_tokens"] = prompts.output_tokens.ToString();
  json["seed"] = options.seed;
  json["workers"] = options.workers;
  json["warmup_s"] = base::ToSeconds(options.warm_up);
  return json;
}

Json SuccessJson(const Report& report) {
  const Measurements& m = report.measured;
  Json json = {{"count", m.succeeded}};
  json["latency"] = {{"request_latency", Seconds(m.latency)},
                     {"normalized_time_per_output_token", Seconds(m.ntpot)},
                     {"time_per_output_token", Seconds(m.tpot)},
                     {"time_to_first_token", Seconds(m.ttft)},
                     {"inter_token_latency", Seconds(m.inter_token)}};
  if (!report.options.ext_proc.target.empty()) {
    json["latency"]["decision"] = Seconds(m.decision);
    json["latency"]["chunk_echo"] = Seconds(m.chunk_echo);
  }
  const double in = Ratio(static_cast<double>(m.prompt_tokens_sum), report.elapsed_s);
  const double out = Ratio(static_cast<double>(m.output_tokens_sum), report.elapsed_s);
  json["throughput"] = {{"input_tokens_per_sec", in},
                        {"output_tokens_per_sec", out},
                        {"total_tokens_per_sec", in + out},
                        {"requests_per_sec", report.throughput()}};
  json["prompt_tokens"] = {{"total", m.prompt_tokens_sum}};
  if (m.replies_with_cached > 0) {
    json["prompt_tokens"]["cached"] = m.cached_tokens_sum;
    json["prompt_tokens"]["uncached"] =
        m.prompt_tokens_sum - std::min(m.prompt_tokens_sum, m.cached_tokens_sum);
  }
  json["prompt_len"] = Distribution(m.prompt_tokens, 1);
  json["output_len"] = Distribution(m.output_tokens, 1);
  json["output_tokens"] = {{"total", m.output_tokens_sum}};
  json["replies_with_usage"] = m.replies_with_usage;
  json["stream_events"] = m.events;
  json["stream_token_events"] = m.token_events;
  json["request_bytes"] = m.request_bytes;
  json["reply_bytes"] = m.reply_bytes;
  return json;
}

Json ProcessJson(const ProcessCost& process, const Report& report) {
  const Measurements& m = report.measured;
  Json json = {{"cpu_s", process.cpu_s},
               {"cores", Ratio(process.cpu_s, report.elapsed_s)},
               {"cpu_ms_per_request", Ratio(process.cpu_s * 1e3, m.succeeded + m.failed)}};
  if (m.events > 0) json["cpu_us_per_chunk"] = Ratio(process.cpu_s * 1e6, m.events);
  json["resident_bytes"] = process.resident_bytes;
  json["resident_bytes_max"] = process.resident_bytes_max;
  if (process.gone) json["gone"] = true;
  return json;
}

void AppendTokens(std::string* out, const Report& report) {
  const Measurements& m = report.measured;
  auto to = std::back_inserter(*out);
  if (m.replies_with_usage > 0) {
    fmt::format_to(to, "{:<28}{} prompt", "tokens", Grouped(m.prompt_tokens_sum));
    if (m.replies_with_cached > 0) {
      fmt::format_to(to, " ({:.1f} % cached)",
                     100 * Ratio(static_cast<double>(m.cached_tokens_sum), m.prompt_tokens_sum));
    }
    fmt::format_to(to, ", {} output ({:.0f}/s)\n", Grouped(m.output_tokens_sum),
                   Ratio(static_cast<double>(m.output_tokens_sum), report.elapsed_s));
  }
  if (m.events > 0) {
    fmt::format_to(to, "{:<28}{} ({} with tokens), {:.0f}/s\n", "stream events", Grouped(m.events),
                   Grouped(m.token_events), Ratio(static_cast<double>(m.events), report.elapsed_s));
  }
}

void AppendProcesses(std::string* out, const Report& report) {
  const Measurements& m = report.measured;
  const uint64_t requests = m.succeeded + m.failed;
  auto to = std::back_inserter(*out);
  fmt::format_to(to, "\n{:<28}{:>10}{:>10}{:>10}{:>10}{:>10}\n", "process", "ms/req", "us/chunk",
                 "cores", "MiB", "MiB max");
  const auto row = [&](std::string_view name, double cpu_s, std::string_view memory) {
    fmt::format_to(to, "{:<28}{:>10.4f}{:>10}{:>10.3f}{}\n", name, Ratio(cpu_s * 1e3, requests),
                   m.events > 0 ? fmt::format("{:.2f}", Ratio(cpu_s * 1e6, m.events)) : "-",
                   Ratio(cpu_s, report.elapsed_s), memory);
  };
  for (const ProcessCost& process : report.processes) {
    row(process.gone ? process.name + " (gone)" : process.name, process.cpu_s,
        fmt::format("{:>10.1f}{:>10.1f}", static_cast<double>(process.resident_bytes) / (1 << 20),
                    static_cast<double>(process.resident_bytes_max) / (1 << 20)));
  }
  row("(this generator)", report.generator.cpu_s, "");
}

}  // namespace

double Report::achieved_rate() const { return Ratio(static_cast<double>(measured.sent), send_s); }
double Report::throughput() const {
  return Ratio(static_cast<double>(measured.succeeded), elapsed_s);
}

std::vector<std::string> Warnings(const Report& report) {
  std::vector<std::string> warnings;
  const Measurements& m = report.measured;
  const double late_ms = static_cast<double>(m.delay.Percentile(50)) * 1e-6;
  if (IsOpenLoop(report.options)) {
    const bool slow = m.sent >= kRequestsForRate &&
                      report.achieved_rate() < kAchievedShareMin * report.options.rate;
    if (late_ms > kLateMedianMs || slow) {
      warnings.push_back(fmt::format(
          "the generator fell behind its schedule: {:.1f} of {:.1f} requests per second were sent, "
          "half of them more than {:.1f} ms late; {}",
          report.achieved_rate(), report.options.rate, late_ms,
          m.starts_at_limit > 0
              ? fmt::format("all {} places were taken (--max-in-flight): the target is slower than "
                            "the rate",
                            report.options.in_flight_max)
              : "lower --rate, raise --workers, or give the generator a machine of its own"));
    }
  }
  if (report.generator.busiest_worker > kBusy) {
    warnings.push_back(fmt::format(
        "a generator thread was busy {:.0f} % of the time: latencies include its own queue; "
        "raise --workers or lower the load",
        report.generator.busiest_worker * 100));
  }
  if (m.succeeded > 0 && m.failed > 0) {
    warnings.push_back(
        fmt::format("{:.2f} % of the requests failed: latencies cover the others only",
                    100 * Ratio(static_cast<double>(m.failed), m.succeeded + m.failed)));
  }
  for (const ProcessCost& process : report.processes) {
    if (process.gone) warnings.push_back("process " + process.name + " ended during the run");
  }
  if (m.sent == 0) warnings.push_back("nothing was measured: the run ended in its warm-up");
  if (report.interrupted) warnings.push_back("the run was interrupted");
  return warnings;
}

std::string Describe(const BenchOptions& options) {
  const workload::PromptSpec& prompts = options.prompts;
  std::string load = IsOpenLoop(options)
                         ? fmt::format("{} {:g}/s", ArrivalName(options.arrival), options.rate)
                         : fmt::format("{} at a time", options.concurrency);
  std::string size =
      prompts.length.ToString() + (prompts.length_in_bytes ? " prompt bytes" : " prompt tokens");
  if (prompts.shared_prefix) {
    size = fmt::format("{} groups of {} prompts, {} + {} tokens", prompts.groups.group_count,
                       prompts.groups.prompts_per_group, prompts.groups.system_tokens.ToString(),
                       prompts.groups.question_tokens.ToString());
  }
  if (!options.ext_proc.target.empty()) {
    const bool chunks = options.body.stream && options.ext_proc.response == ExtProcResponse::kBody;
    return fmt::format("ext_proc over {} connections, {}, {}, response: {}",
                       options.ext_proc.connections, load, size,
                       chunks ? fmt::format("{} chunks", options.ext_proc.response_chunks)
                              : std::string(ExtProcResponseName(options.ext_proc.response)));
  }
  return fmt::format("{}, {}{}, {}, {} output tokens, model {}", load,
                     options.body.api == workload::Api::kChat ? "chat" : "completions",
                     options.body.stream ? " streamed" : "", size, prompts.output_tokens.ToString(),
                     options.body.model);
}

std::string ToTable(const Report& report) {
  const Measurements& m = report.measured;
  std::string out = Describe(report.options) + "\n\n";
  auto to = std::back_inserter(out);
  fmt::format_to(to, "{:<28}{} ok, {} failed in {:.2f} s: {:.1f} requests/s\n", "requests",
                 Grouped(m.succeeded), Grouped(m.failed), report.elapsed_s, report.throughput());
  AppendTokens(&out, report);
  for (const auto& [kind, failure] : m.failures) {
    fmt::format_to(to, "  failed: {:<18}{}   {}\n", kind, Grouped(failure.count),
                   failure.first_detail);
  }
  fmt::format_to(to, "\n{:<28}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}\n", "milliseconds", "mean",
                 "p50", "p90", "p99", "p99.9", "max");
  AppendHistogramRow(&out, "request latency", m.latency);
  AppendHistogramRow(&out, "decision latency", m.decision);
  AppendHistogramRow(&out, "chunk to its echo", m.chunk_echo);
  AppendHistogramRow(&out, "time to first token", m.ttft);
  AppendHistogramRow(&out, "inter-token latency", m.inter_token);
  AppendHistogramRow(&out, "time per output token", m.tpot);
  if (IsOpenLoop(report.options)) AppendHistogramRow(&out, "schedule delay", m.delay);
  AppendProcesses(&out, report);
  for (const std::string& warning : Warnings(report)) out += "\nWARNING: " + warning + "\n";
  return out;
}

std::string ToJson(const Report& report) {
  const Measurements& m = report.measured;
  Json json;
  json["config"] = ConfigJson(report.options);
  json["load_summary"] = {{"count", m.sent},
                          {"schedule_delay", Seconds(m.delay)},
                          {"send_duration", report.send_s},
                          {"duration", report.elapsed_s}};
  if (IsOpenLoop(report.options)) json["load_summary"]["requested_rate"] = report.options.rate;
  json["load_summary"]["achieved_rate"] = report.achieved_rate();
  json["successes"] = SuccessJson(report);
  Json by_label = Json::object();
  for (const auto& [kind, failure] : m.failures) {
    by_label[kind] = {{"count", failure.count}, {"first", failure.first_detail}};
  }
  json["failures"] = {{"count", m.failed}, {"by_label", by_label}};
  Json processes = Json::object();
  for (const ProcessCost& process : report.processes) {
    processes[process.name] = ProcessJson(process, report);
  }
  json["processes"] = processes;
  json["generator"] = {
      {"workers", report.generator.workers},
      {"cpu_s", report.generator.cpu_s},
      {"cpu_us_per_request", Ratio(report.generator.cpu_s * 1e6, m.succeeded + m.failed)},
      {"busiest_worker", report.generator.busiest_worker}};
  json["warnings"] = Warnings(report);
  // Details of failures are bytes from a server: never fail over them.
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace llmd::bench
