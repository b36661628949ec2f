// Distributed tracing as data: the context that travels in headers, who is sampled, and the queue
// between the workers, which encode finished spans, and the exporter, which sends them.
//
// Thread safety: contexts and samplers are values; a Tracer is thread-safe and shared by all
// workers. A request that is not sampled never comes near its lock.
// Invariants: 1. Of every span given to Push exactly one of exported, dropped, failed is counted in
// the end, unless the process ends first. 2. The queue holds at most TracerOptions' spans and
// bytes; what does not fit is dropped, the new before the old.
// Formats: W3C Trace Context (w3.org/TR/trace-context-2), versions 00 and, as far as it says how,
// later ones. The ratio is OpenTelemetry's TraceIdRatioBased as Go's SDK computes it, so that all
// services of a trace agree.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llmd::telemetry {

struct TraceContext {
  static constexpr uint8_t kSampledFlag = 1;

  uint64_t trace_high = 0, trace_low = 0;  // the trace id's 16 bytes, big endian; not both 0
  uint64_t span_id = 0;                    // not 0
  uint8_t flags = 0;

  bool sampled() const { return (flags & kSampledFlag) != 0; }
  bool operator==(const TraceContext&) const = default;
};

inline constexpr size_t kTraceparentBytes = 55;

// Nothing when `header` is malformed: then there is no caller's trace. Keeps the flags that W3C
// defines (sampled, random id).
std::optional<TraceContext> ParseTraceparent(std::string_view header);
std::array<char, kTraceparentBytes> FormatTraceparent(const TraceContext& context);

struct TraceSampler {
  bool parent_based = true;  // a caller's decision stands; the ratio is for those without a caller
  uint64_t bound = 0;        // of 2^63: the lower trace ids are sampled

  static TraceSampler Ratio(double ratio, bool parent_based);
  bool Samples(const std::optional<TraceContext>& parent, uint64_t trace_low) const {
    if (parent_based && parent) return parent->sampled();
    return (trace_low >> 1) < bound;
  }
};

struct TracerOptions {
  TraceSampler sampler;
  // Both bound what is kept while the collector is away. A request makes some 10 spans of 300
  // bytes: this holds 6,000 sampled requests.
  size_t queue_spans_max = 64 << 10;
  size_t queue_bytes_max = 32 << 20;
};

class Tracer {
 public:
  explicit Tracer(const TracerOptions& options) : options_(options) {}
  Tracer(const Tracer&) = delete;
  Tracer& operator=(const Tracer&) = delete;

  const TraceSampler& sampler() const { return options_.sampler; }

  // `spans` are `count` encoded spans (wire/otlp.h). False: dropped.
  bool Push(std::string spans, size_t count);

  struct Batch {
    std::vector<std::string> spans;
    size_t count = 0;
    bool empty() const { return count == 0; }
  };
  // The oldest, at most `spans_max` unless a single Push brought more.
  Batch Take(size_t spans_max);

  // What became of a batch; `rejected` are those that the collector did not want.
  void CountExported(size_t spans, size_t rejected);
  void CountFailed(size_t spans) { failed_.fetch_add(spans, std::memory_order_relaxed); }

  struct Stats {
    uint64_t exported = 0, dropped = 0, failed = 0;
  };
  Stats stats() const;

 private:
  struct Entry {
    std::string spans;
    size_t count;
  };
  const TracerOptions options_;
  std::mutex mutex_;
  std::deque<Entry> queue_;
  size_t queued_spans_ = 0, queued_bytes_ = 0;
  std::atomic<uint64_t> exported_{0}, dropped_{0}, failed_{0};
};

}  // namespace llmd::telemetry
