#include "sim/metrics.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/strings.h"

namespace llmd::sim {
namespace {

std::vector<double> TokenBuckets(uint32_t most) {
  std::vector<double> bounds;
  for (double decade = 1;; decade *= 10) {
    for (const double step : {1.0, 2.0, 5.0}) {
      if (step * decade > most) return bounds;
      bounds.push_back(step * decade);
    }
  }
}

const std::vector<double> kTtftBounds = {.001, .005, .01, .02, .04, .06, .08, .1,  .25, .5,  .75,
                                         1,    2.5,  5,   7.5, 10,  20,  40,  80,  160, 640, 2560};
const std::vector<double> kTpotBounds = {.01, .025, .05, .075, .1, .15, .2, .3, .4, .5,
                                         .75, 1,    2.5, 5,    7.5, 10, 20, 40, 80};
const std::vector<double> kLatencyBounds = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,  15,  20,
                                            30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};

// As prometheus_client prints: Python's repr, with Go's exponents from a million up.
void AppendPythonFloat(double value, std::string* out) {
  char text[40];
  if (std::isinf(value)) {
    out->append(value > 0 ? "+Inf" : "-Inf");
    return;
  }
  if (value >= 1e6 && value < 1e16) {
    // repr's digits, its point moved behind the first, trailing zeros gone: 1.8e+09.
    char* end = std::to_chars(text, text + sizeof text, value, std::chars_format::scientific).ptr;
    out->append(text, end);
    return;
  }
  const bool plain = value == 0 || (std::abs(value) >= 1e-4 && std::abs(value) < 1e16);
  char* end = std::to_chars(text, text + sizeof text, value,
                            plain ? std::chars_format::fixed : std::chars_format::scientific).ptr;
  const std::string_view written(text, static_cast<size_t>(end - text));
  out->append(written);
  if (plain && !written.contains('.')) out->append(".0");
}

void AppendLabelValue(std::string_view value, std::string* out) {
  for (const char c : value) {
    if (c == '\\' || c == '"') out->push_back('\\');
    if (c == '\n') {
      out->append("\\n");
    } else {
      out->push_back(c);
    }
  }
}

std::string Decode(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    int byte;
    if (text[i] == '%' && i + 2 < text.size() &&
        std::from_chars(&text[i + 1], &text[i + 1] + 2, byte, 16).ptr == &text[i + 1] + 2) {
      out.push_back(static_cast<char>(byte));
      i += 2;
    } else {
      out.push_back(text[i] == '+' ? ' ' : text[i]);
    }
  }
  return out;
}

}  // namespace

void Histogram::Observe(double value, uint64_t times) {
  const size_t bucket = static_cast<size_t>(
      std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin());
  counts_[bucket] += times;
  sum_ += value * static_cast<double>(times);
}

ServerMetrics::ServerMetrics(uint32_t most)
    : request_prompt_tokens(TokenBuckets(most)),
      request_generation_tokens(TokenBuckets(most)),
      iteration_tokens({1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384}),
      request_max_num_generation_tokens(TokenBuckets(most)),
      request_params_n({1, 2, 5, 10, 20}),
      request_params_max_tokens(TokenBuckets(most)),
      time_to_first_token(kTtftBounds),
      inter_token_latency(kTpotBounds),
      request_time_per_output_token(kTpotBounds),
      e2e_latency(kLatencyBounds),
      queue_time(kLatencyBounds),
      inference_time(kLatencyBounds),
      prefill_time(kLatencyBounds),
      decode_time(kLatencyBounds),
      request_num_preemptions({1, 2, 3, 4, 5, 10, 20}),
      request_prefill_kv_computed_tokens(TokenBuckets(most)) {}

void ServerMetrics::Refresh(const engine::EngineStats& stats, double kv_usage_now) {
  running = stats.running;
  waiting = stats.waiting;
  kv_usage = kv_usage_now;
  prefix_queries = stats.prefix_queried_tokens;
  prefix_hits = stats.prefix_hit_tokens;
  external_queries = stats.offload_queried_tokens;
  external_hits = stats.offload_hit_tokens;
  cached_tokens = prefix_hits + external_hits;
  preemptions = stats.preemptions;
  prompt_tokens = stats.prompt_tokens;
  // Hits are counted when a request starts, its prompt when it gave a token.
  prompt_tokens_computed = prompt_tokens - std::min(prompt_tokens, cached_tokens);
  generation_tokens = stats.generated_tokens;
}

void ServerMetrics::ObserveFinished(const engine::RequestReport& r, double scale) {
  auto seconds = [scale](base::TimePoint from, base::TimePoint to) {
    return base::ToSeconds(to - from) * scale;
  };
  (r.reason == engine::FinishReason::kStop ? success_stop : success_length) += 1;
  request_prompt_tokens.Observe(r.prompt_tokens);
  request_generation_tokens.Observe(r.output_tokens);
  request_max_num_generation_tokens.Observe(r.output_tokens);
  request_prefill_kv_computed_tokens.Observe(r.prompt_tokens - r.cached_tokens);
  request_num_preemptions.Observe(r.preemptions);
  const double decode = seconds(r.first_token_at, r.finished_at);
  e2e_latency.Observe(seconds(r.arrived_at, r.finished_at));
  queue_time.Observe(seconds(r.queued_at, r.scheduled_at));
  inference_time.Observe(seconds(r.scheduled_at, r.finished_at));
  prefill_time.Observe(seconds(r.scheduled_at, r.first_token_at));
  decode_time.Observe(decode);
  request_time_per_output_token.Observe(
      r.output_tokens > 1 ? decode / (r.output_tokens - 1) : 0);
}

MetricsPage::MetricsPage(const ServerMetrics& metrics, std::string_view model,
                         const engine::EngineConfig& config, base::WallTime created_at)
    : metrics_(metrics),
      model_(model),
      created_at_(static_cast<double>(created_at.unix_ns / 1000) * 1e-6) {
  LayOutGauges();
  LayOutCounters();
  LayOutHistograms();
  LayOutCacheConfig(config);
}

void MetricsPage::LayOutGauges() {
  const ServerMetrics& m = metrics_;
  Gauge("vllm:num_requests_running", "Number of requests in model execution batches.", m.running);
  Gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.", m.waiting);
  const char* by_reason =
      "Number of waiting requests by reason. Reason labels: 'capacity' = waiting for scheduling "
      "capacity; 'deferred' = deferred by transient constraints (LoRA budget, KV transfer, blocked "
      "status). Sum of all reasons equals vllm:num_requests_waiting.";
  BeginFamily("vllm:num_requests_waiting_by_reason", "gauge", by_reason);
  for (const auto& [reason, value] :
       {std::pair{"capacity", &m.waiting}, std::pair{"deferred", &m.zero_gauge}}) {
    Sample(Line::Source::kGauge, "vllm:num_requests_waiting_by_reason",
           {{"engine", "0"}, {"model_name", model_}, {"reason", reason}}, value);
  }
  BeginFamily("vllm:engine_sleep_state", "gauge",
              "Engine sleep state; awake = 0 means engine is sleeping; awake = 1 means engine is "
              "awake; weights_offloaded = 1 means sleep level 1; discard_all = 1 means sleep "
              "level 2.");
  for (const auto& [state, value] :
       {std::pair{"awake", &m.one_gauge}, std::pair{"weights_offloaded", &m.zero_gauge},
        std::pair{"discard_all", &m.zero_gauge}}) {
    Sample(Line::Source::kGauge, "vllm:engine_sleep_state",
           {{"engine", "0"}, {"model_name", model_}, {"sleep_state", state}}, value);
  }
  Gauge("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", m.kv_usage);
}

void MetricsPage::LayOutCounters() {
  const ServerMetrics& m = metrics_;
  Counter("vllm:prefix_cache_queries",
          "Prefix cache queries, in terms of number of queried tokens.", m.prefix_queries);
  Counter("vllm:prefix_cache_hits", "Prefix cache hits, in terms of number of cached tokens.",
          m.prefix_hits);
  Counter("vllm:external_prefix_cache_queries",
          "External prefix cache queries from KV connector cross-instance cache sharing, in terms "
          "of number of queried tokens.", m.external_queries);
  Counter("vllm:external_prefix_cache_hits",
          "External prefix cache hits from KV connector cross-instance cache sharing, in terms of "
          "number of cached tokens.", m.external_hits);
  Counter("vllm:mm_cache_queries",
          "Multi-modal cache queries, in terms of number of queried items.", m.zero);
  Counter("vllm:mm_cache_hits", "Multi-modal cache hits, in terms of number of cached items.",
          m.zero);
  Counter("vllm:num_preemptions", "Cumulative number of preemption from the engine.",
          m.preemptions);
  Counter("vllm:prompt_tokens", "Number of prefill tokens processed.", m.prompt_tokens);
  LabelledCounter("vllm:prompt_tokens_by_source", "source", "Number of prompt tokens by source.",
                  {{"local_compute", &m.prompt_tokens_computed},
                   {"local_cache_hit", &m.prefix_hits},
                   {"external_kv_transfer", &m.external_hits}});
  Counter("vllm:prompt_tokens_cached", "Number of cached prompt tokens (local + external).",
          m.cached_tokens);
  LabelledCounter("vllm:prompt_tokens_cached_by_source", "source",
                  "Prefix-cache hit tokens by the cache tier that supplied them: device (local "
                  "HBM), host (offloaded to DRAM), disk, p2p (transferred from another vLLM "
                  "instance) or external_unspecified. Counted at admission; sums to "
                  "vllm:prefix_cache_hits + vllm:external_prefix_cache_hits.",
                  {{"device", &m.prefix_hits}, {"host", &m.external_hits}, {"p2p", &m.zero},
                   {"disk", &m.zero}, {"external_unspecified", &m.zero}});
  Counter("vllm:generation_tokens", "Number of generation tokens processed.",
          m.generation_tokens);
  LabelledCounter("vllm:request_success", "finished_reason",
                  "Count of successfully processed requests.",
                  {{"stop", &m.success_stop}, {"length", &m.success_length},
                   {"abort", &m.success_abort}, {"error", &m.success_error},
                   {"repetition", &m.zero}});
  LayOutRejections();
}

// Has no engine label: the front end refuses before a request has an engine.
void MetricsPage::LayOutRejections() {
  const char* help = "Number of admission attempts rejected by a queue limit, by reason.";
  const std::pair<const char*, const uint64_t*> series[] = {
      {"max_num_queued_reqs", &metrics_.rejected_queue_full},
      {"max_num_queued_tokens", &metrics_.zero}};
  BeginFamily("vllm:admission_rejections_total", "counter", help);
  for (const auto& [reason, value] : series) {
    Sample(Line::Source::kCounter, "vllm:admission_rejections_total",
           {{"model_name", model_}, {"reason", reason}}, value);
  }
  BeginFamily("vllm:admission_rejections_created", "gauge", help);
  for (const auto& [reason, value] : series) {
    Sample(Line::Source::kGauge, "vllm:admission_rejections_created",
           {{"model_name", model_}, {"reason", reason}}, &created_at_);
  }
}

void MetricsPage::LayOutHistograms() {
  const ServerMetrics& m = metrics_;
  AddHistogram("vllm:request_prompt_tokens", "Number of prefill tokens processed.",
               m.request_prompt_tokens);
  AddHistogram("vllm:request_generation_tokens", "Number of generation tokens processed.",
               m.request_generation_tokens);
  AddHistogram("vllm:iteration_tokens_total", "Histogram of number of tokens per engine_step.",
               m.iteration_tokens);
  AddHistogram("vllm:request_max_num_generation_tokens",
               "Histogram of maximum number of requested generation tokens.",
               m.request_max_num_generation_tokens);
  AddHistogram("vllm:request_params_n", "Histogram of the n request parameter.",
               m.request_params_n);
  AddHistogram("vllm:request_params_max_tokens",
               "Histogram of the max_tokens request parameter.", m.request_params_max_tokens);
  AddHistogram("vllm:time_to_first_token_seconds",
               "Histogram of time to first token in seconds.", m.time_to_first_token);
  AddHistogram("vllm:inter_token_latency_seconds",
               "Histogram of inter-token latency in seconds.", m.inter_token_latency);
  AddHistogram("vllm:request_time_per_output_token_seconds",
               "Histogram of time_per_output_token_seconds per request.",
               m.request_time_per_output_token);
  AddHistogram("vllm:e2e_request_latency_seconds",
               "Histogram of e2e request latency in seconds.", m.e2e_latency);
  AddHistogram("vllm:request_queue_time_seconds",
               "Histogram of time spent in WAITING phase for request.", m.queue_time);
  AddHistogram("vllm:request_inference_time_seconds",
               "Histogram of time spent in RUNNING phase for request.", m.inference_time);
  AddHistogram("vllm:request_prefill_time_seconds",
               "Histogram of time spent in PREFILL phase for request.", m.prefill_time);
  AddHistogram("vllm:request_decode_time_seconds",
               "Histogram of time spent in DECODE phase for request.", m.decode_time);
  AddHistogram("vllm:request_num_preemptions",
               "Histogram of the number of times a request was preempted.",
               m.request_num_preemptions);
  AddHistogram("vllm:request_prefill_kv_computed_tokens",
               "Histogram of new KV tokens computed during prefill (excluding cached tokens).",
               m.request_prefill_kv_computed_tokens);
}

void MetricsPage::LayOutCacheConfig(const engine::EngineConfig& config) {
  const std::string block = std::to_string(config.block_tokens);
  const std::string blocks = std::to_string(config.kv_blocks);
  const std::string tokens = std::to_string(uint64_t{config.kv_blocks} * config.block_tokens);
  BeginFamily("vllm:cache_config_info", "gauge", "Information of the LLMEngine CacheConfig");
  Sample(Line::Source::kGauge, "vllm:cache_config_info",
         {{"block_size", block},
          {"cache_dtype", "auto"},
          {"enable_prefix_caching", config.prefix_caching ? "True" : "False"},
          {"engine", "0"},
          {"gpu_memory_utilization", "0.9"},
          {"kv_cache_size_tokens", tokens},
          {"num_cpu_blocks", "None"},
          {"num_gpu_blocks", blocks},
          {"prefix_caching_hash_algo", "sha256_cbor"}},
         &metrics_.one_gauge);
}

void MetricsPage::BeginFamily(std::string_view name, std::string_view type,
                              std::string_view help) {
  ++family_;
  lines_.push_back({.text = base::Concat("# HELP ", name, " ", help, "\n"), .family = family_});
  lines_.push_back({.text = base::Concat("# TYPE ", name, " ", type, "\n"), .family = family_});
}

void MetricsPage::Sample(Line::Source source, std::string_view name,
                         std::initializer_list<Label> labels, const void* value,
                         uint32_t bucket) {
  Line line{.source = source, .family = family_, .value = value, .bucket = bucket};
  line.text = name;
  char separator = '{';
  for (const Label& label : labels) {
    line.text += separator;
    line.text += label.name;
    line.text += "=\"";
    AppendLabelValue(label.value, &line.text);
    line.text += '"';
    separator = ',';
  }
  line.text += "} ";
  line.name_bytes = name.size();
  lines_.push_back(std::move(line));
}

void MetricsPage::Gauge(std::string_view name, std::string_view help, const double& value) {
  BeginFamily(name, "gauge", help);
  Sample(Line::Source::kGauge, name, {{"engine", "0"}, {"model_name", model_}}, &value);
}

void MetricsPage::Counter(std::string_view name, std::string_view help, const uint64_t& value) {
  const std::string total = base::Concat(name, "_total");
  BeginFamily(total, "counter", help);
  Sample(Line::Source::kCounter, total, {{"engine", "0"}, {"model_name", model_}}, &value);
  const std::string created = base::Concat(name, "_created");
  BeginFamily(created, "gauge", help);
  Sample(Line::Source::kGauge, created, {{"engine", "0"}, {"model_name", model_}}, &created_at_);
}

void MetricsPage::LabelledCounter(std::string_view name, std::string_view label,
                                  std::string_view help, std::initializer_list<Series> series) {
  // Labels stand in the order of their names.
  const bool before_model = label < "model_name";
  auto sample = [&](Line::Source source, std::string_view full, std::string_view value,
                    const void* number) {
    const Label own{label, value}, model{"model_name", model_};
    Sample(source, full, {{"engine", "0"}, before_model ? own : model, before_model ? model : own},
           number);
  };
  const std::string total = base::Concat(name, "_total");
  BeginFamily(total, "counter", help);
  for (const Series& s : series) sample(Line::Source::kCounter, total, s.label_value, s.value);
  const std::string created = base::Concat(name, "_created");
  BeginFamily(created, "gauge", help);
  for (const Series& s : series) sample(Line::Source::kGauge, created, s.label_value, &created_at_);
}

void MetricsPage::AddHistogram(std::string_view name, std::string_view help,
                               const Histogram& histogram) {
  BeginFamily(name, "histogram", help);
  const std::string bucket = base::Concat(name, "_bucket");
  for (uint32_t i = 0; i <= histogram.bounds().size(); ++i) {
    std::string le;
    AppendPythonFloat(i < histogram.bounds().size() ? histogram.bounds()[i] : INFINITY, &le);
    Sample(Line::Source::kBucket, bucket,
           {{"engine", "0"}, {"le", le}, {"model_name", model_}}, &histogram, i);
  }
  Sample(Line::Source::kCount, base::Concat(name, "_count"),
         {{"engine", "0"}, {"model_name", model_}}, &histogram);
  Sample(Line::Source::kSum, base::Concat(name, "_sum"),
         {{"engine", "0"}, {"model_name", model_}}, &histogram);
  const std::string created = base::Concat(name, "_created");
  BeginFamily(created, "gauge", help);
  Sample(Line::Source::kGauge, created, {{"engine", "0"}, {"model_name", model_}}, &created_at_);
}

std::string_view MetricsPage::Write(std::string_view query) {
  page_.clear();
  if (!query.contains("name")) {
    for (const Line& line : lines_) AppendLine(line);
    return page_;
  }
  if (query != query_) Select(query);
  for (const uint32_t index : selected_) AppendLine(lines_[index]);
  return page_;
}

void MetricsPage::AppendLine(const Line& line) {
  page_ += line.text;
  switch (line.source) {
    case Line::Source::kText: return;
    case Line::Source::kCounter:
      AppendPythonFloat(static_cast<double>(*static_cast<const uint64_t*>(line.value)), &page_);
      break;
    case Line::Source::kGauge:
      AppendPythonFloat(*static_cast<const double*>(line.value), &page_);
      break;
    case Line::Source::kBucket:
    case Line::Source::kCount: {
      const Histogram& h = *static_cast<const Histogram*>(line.value);
      const size_t last =
          line.source == Line::Source::kBucket ? line.bucket : h.bounds().size();
      uint64_t sum = 0;
      for (size_t i = 0; i <= last; ++i) sum += h.count_of(i);
      AppendPythonFloat(static_cast<double>(sum), &page_);
      break;
    }
    case Line::Source::kSum:
      AppendPythonFloat(static_cast<const Histogram*>(line.value)->sum(), &page_);
      break;
  }
  page_ += '\n';
}

// Samples whose name is asked for, and the heads of their families.
void MetricsPage::Select(std::string_view query) {
  std::vector<std::string> names;
  for (const std::string_view pair : base::Split(query, '&')) {
    const size_t equals = pair.find('=');
    if (equals == std::string_view::npos) continue;
    if (Decode(pair.substr(0, equals)) != "name[]") continue;
    names.push_back(Decode(pair.substr(equals + 1)));
  }
  query_ = query;
  selected_.clear();
  auto wanted = [&](const Line& line) {
    return names.empty() || std::ranges::find(names, line.name()) != names.end();
  };
  for (uint32_t i = 0; i < lines_.size(); ++i) {
    if (lines_[i].source == Line::Source::kText) {
      const bool any = std::ranges::any_of(lines_, [&](const Line& line) {
        return line.family == lines_[i].family && line.source != Line::Source::kText &&
               wanted(line);
      });
      if (any) selected_.push_back(i);
    } else if (wanted(lines_[i])) {
      selected_.push_back(i);
    }
  }
}

}  // namespace llmd::sim
