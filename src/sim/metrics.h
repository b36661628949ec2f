// The /metrics page of a simulated server: vLLM 0.32's families, names, labels, buckets, order and
// number format (see conformance/recorded/vllm-0.32/metrics.txt); families of the Python process
// and of its HTTP server are left out.
//
// The page is laid out once; a scrape writes it into a buffer that is used again. With `name[]` in
// the query only samples of those names are written, as prometheus_client does.
//
// Thread safety: none. A ServerMetrics must not move while a MetricsPage shows it.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/time.h"
#include "engine/engine.h"

namespace llmd::sim {

class Histogram {
 public:
  explicit Histogram(std::vector<double> bounds)
      : bounds_(std::move(bounds)), counts_(bounds_.size() + 1) {}
  void Observe(double value, uint64_t times = 1);
  std::span<const double> bounds() const { return bounds_; }
  // Of bucket i alone, not cumulative; the last one has no upper bound.
  uint64_t count_of(size_t i) const { return counts_[i]; }
  double sum() const { return sum_; }

 private:
  std::vector<double> bounds_;
  std::vector<uint64_t> counts_;
  double sum_ = 0;
};

struct ServerMetrics {
  // Token histograms have buckets 1, 2, 5, 10, ... up to the model's length.
  explicit ServerMetrics(uint32_t model_tokens_max);

  // Gauges and counters, refreshed from the engine before a page is written.
  double running = 0, waiting = 0, kv_usage = 0;
  uint64_t prefix_queries = 0, prefix_hits = 0, external_queries = 0, external_hits = 0,
           cached_tokens = 0, preemptions = 0, prompt_tokens = 0,
           prompt_tokens_computed = 0, generation_tokens = 0;
  uint64_t success_stop = 0, success_length = 0, success_abort = 0, success_error = 0;
  uint64_t rejected_queue_full = 0;
  uint64_t zero = 0;
  double zero_gauge = 0, one_gauge = 1;

  Histogram request_prompt_tokens, request_generation_tokens, iteration_tokens,
      request_max_num_generation_tokens, request_params_n, request_params_max_tokens,
      time_to_first_token, inter_token_latency, request_time_per_output_token, e2e_latency,
      queue_time, inference_time, prefill_time, decode_time, request_num_preemptions,
      request_prefill_kv_computed_tokens;

  void Refresh(const engine::EngineStats& stats, double kv_usage_now);
  // `scale` turns simulated into real seconds.
  void ObserveFinished(const engine::RequestReport& report, double scale);
};

class MetricsPage {
 public:
  // `metrics` outlives the page. `created_at` stands in the *_created samples.
  MetricsPage(const ServerMetrics& metrics, std::string_view model,
              const engine::EngineConfig& config, base::WallTime created_at);

  // Valid until the next call. `query` is the request's query string, undecoded.
  std::string_view Write(std::string_view query);

 private:
  struct Line {
    enum class Source : uint8_t { kText, kCounter, kGauge, kBucket, kCount, kSum };
    std::string text;        // up to the value, or all of it
    size_t name_bytes = 0;   // of the sample's name, at the start of `text`
    Source source = Source::kText;
    uint32_t family = 0;
    const void* value = nullptr;
    uint32_t bucket = 0;

    std::string_view name() const { return std::string_view(text).substr(0, name_bytes); }
  };
  struct Label {
    std::string_view name;
    std::string_view value;
  };

  void BeginFamily(std::string_view name, std::string_view type, std::string_view help);
  void Sample(Line::Source source, std::string_view name, std::initializer_list<Label> labels,
              const void* value, uint32_t bucket = 0);
  void Gauge(std::string_view name, std::string_view help, const double& value);
  void Counter(std::string_view name, std::string_view help, const uint64_t& value);
  struct Series {
    std::string_view label_value;
    const void* value;
  };
  void LabelledCounter(std::string_view name, std::string_view label, std::string_view help,
                       std::initializer_list<Series> series);
  void AddHistogram(std::string_view name, std::string_view help, const Histogram& histogram);
  void LayOutGauges();
  void LayOutCounters();
  void LayOutRejections();
  void LayOutHistograms();
  void LayOutCacheConfig(const engine::EngineConfig& config);
  void AppendLine(const Line& line);
  void Select(std::string_view query);

  const ServerMetrics& metrics_;
  const std::string model_;
  const double created_at_;
  std::vector<Line> lines_;
  uint32_t family_ = 0;
  std::string page_;
  std::string query_;               // that selected_ was made for
  std::vector<uint32_t> selected_;  // lines to write
};

}  // namespace llmd::sim
