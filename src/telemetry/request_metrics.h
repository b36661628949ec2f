// The series of one kind of request: everything labelled {model_name, target_model_name,
// fairness_id, priority}, resolved together.
//
// RequestMetrics owns one RequestSeries per label tuple. RequestSeriesCache is a worker's private
// view of it: Find is one hash and a few comparisons (about 25 ns), no lock, no allocation, when
// the worker saw the tuple before; else it asks RequestMetrics under its lock.
//
// Thread safety: RequestMetrics is thread-safe, a cache belongs to one worker, a RequestSeries is
// immutable but for its lazily made error counters (atomic).
// Limits: kTuplesMax tuples: one costs about 2.5 KiB of cells per writer, so 4,096 are 10 MiB per
// writer. Beyond, all labels read `other`. Caps on single values as in metrics.h.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "telemetry/metrics.h"

namespace llmd::telemetry {

// Values of the error_code label (llm-d-router: pkg/epp/util/error), the same for every door.
enum class ErrorCode : uint8_t {
  kBadRequest,
  kUnauthorized,
  kForbidden,
  kNotFound,
  kPreconditionFailed,
  kResourceExhausted,
  kInternal,
  kServiceUnavailable,
  kModelServerError,
  kUnknown,
};
inline constexpr size_t kErrorCodeCount = 10;
std::string_view ErrorCodeName(ErrorCode code);

struct RequestLabels {
  std::string_view model;
  std::string_view target_model;
  std::string_view fairness_id;
  int32_t priority = 0;
};

class RequestSeries {
 public:
  CounterHandle total;
  GaugeHandle running;
  HistogramHandle duration_seconds;
  HistogramHandle request_bytes;
  HistogramHandle response_bytes;
  HistogramHandle input_tokens;
  HistogramHandle output_tokens;
  HistogramHandle cached_tokens;
  HistogramHandle ntpot_seconds;
  HistogramHandle ttft_seconds;            // streaming="false"
  HistogramHandle ttft_streaming_seconds;  // streaming="true"
  HistogramHandle tpot_seconds;
  HistogramHandle itl_seconds;

  void AddError(size_t writer, ErrorCode code) const { Error(code).Add(writer); }
  // The labels as exposed.
  std::string_view model() const { return model_; }
  std::string_view target_model() const { return target_model_; }
  std::string_view fairness_id() const { return fairness_id_; }

 private:
  friend class RequestMetrics;
  friend class RequestSeriesCache;
  CounterHandle Error(ErrorCode code) const;
  bool Matches(const RequestLabels& labels) const;

  Metrics* metrics_ = nullptr;
  std::string model_, target_model_, fairness_id_, priority_text_;
  int32_t priority_ = 0;
  bool any_ = false;  // stands for every tuple beyond kTuplesMax
  // Made on first use (an error that never happened is not exposed); making one twice gives the
  // same handle, so racing threads agree.
  mutable std::array<std::atomic<CounterHandle>, kErrorCodeCount> errors_{};
};

class RequestMetrics {
 public:
  static constexpr size_t kTuplesMax = 4096;

  // `metrics` outlives this object.
  explicit RequestMetrics(Metrics* metrics);
  ~RequestMetrics();
  RequestMetrics(const RequestMetrics&) = delete;
  RequestMetrics& operator=(const RequestMetrics&) = delete;

  // Find or make; never null; lives as long as this object.
  const RequestSeries* Resolve(const RequestLabels& labels);

 private:
  struct State;
  Metrics* metrics_;
  std::unique_ptr<State> state_;
};

class RequestSeriesCache {
 public:
  // `metrics` outlives the cache.
  explicit RequestSeriesCache(RequestMetrics* metrics) : metrics_(metrics) {}
  const RequestSeries* Find(const RequestLabels& labels);

 private:
  // Direct-mapped: a fleet serves tens of tuples, so 1,024 slots (16 KiB) rarely collide; a
  // collision costs one locked lookup.
  static constexpr size_t kSlots = 1024;
  struct Slot {
    uint64_t hash = 0;
    const RequestSeries* series = nullptr;
  };
  RequestMetrics* metrics_;
  std::array<Slot, kSlots> slots_{};
};

}  // namespace llmd::telemetry
