// Metrics: one table of every name (metrics.def), per-worker cells, text exposition.
//
// Hot path: a handle is resolved once and then adds to its worker's own cell, a plain relaxed load
// and store (1-3 ns, no lock, no shared cache line). A scrape sums the cells of all writers.
// Labelled series are interned on first use; per-request series come from RequestMetrics
// (request_metrics.h), whose lookup allocates nothing.
//
// Thread safety: Metrics is thread-safe. A handle may be copied freely and used from any thread,
// but a writer index belongs to one thread at a time: two threads that use the same one lose
// updates. A collector runs on the thread that scrapes, under the registry's lock; it must not call
// back. Invariants: 1. A cell is written by its writer only. 2. Cells never move and are never
// freed while the registry lives, so a handle stays valid as long. 3. _count of a histogram is the
// sum of the buckets written beside it. Limits: kSeriesPerFamilyMax series per family,
// kLabelValuesMax different model names (model_name and target_model_name together) and fairness
// ids; beyond that a label reads `other` (kOverflow) and llmd_series_overflow_total counts it. A
// collector's series obey kSeriesPerFamilyMax, too. Format: Prometheus text 0.0.4; numbers as Go's
// client prints them (strconv 'g', shortest).
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llmd::telemetry {

enum class MetricId : uint16_t {
#define LLMD_METRIC(id, ...) k##id,
#include "telemetry/metrics.def"
#undef LLMD_METRIC
};

enum class MetricKind : uint8_t { kCounter, kGauge, kHistogram };
enum class MetricOrigin : uint8_t { kUpstream, kOurs };

// One row of metrics.def.
struct MetricInfo {
  MetricId id;
  MetricKind kind;
  MetricOrigin origin;
  std::string_view unit;  // "seconds", "bytes", ... or ""
  std::span<const double> buckets;
  std::string_view name;
  std::string_view labels;  // names separated by one space
  std::string_view help;
  std::string_view twin;         // deprecated second name or ""
  std::string_view twin_labels;  // `name` or `twin_name=name`, separated by one space
};
std::span<const MetricInfo> AllMetrics();
const MetricInfo& InfoOf(MetricId id);
// docs/metrics.md.
std::string MetricsReference();

inline constexpr std::string_view kOverflow = "other";
inline constexpr size_t kLabelValuesMax = 1000;  // upstream's cap
// 10,000 endpoints (the largest fleet we plan for) must fit a family with an endpoint label.
inline constexpr size_t kSeriesPerFamilyMax = 10'000;
inline constexpr std::string_view kExpositionContentType =
    "text/plain; version=0.0.4; charset=utf-8";

namespace internal {
using Cell = std::atomic<uint64_t>;
// Cells are allocated in chunks that hold kCellsPerWriter cells of every writer, one writer after
// the other; so a handle needs no table to find the cell of writer w. 2,048 cells are 16 KiB: no
// two writers share a cache line or a page.
inline constexpr size_t kCellsPerWriterLog2 = 11;
inline constexpr size_t kCellsPerWriter = size_t{1} << kCellsPerWriterLog2;

inline void AddTo(Cell& cell, uint64_t n) {
  cell.store(cell.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
}
inline void AddTo(Cell& cell, double v) {
  const double old = std::bit_cast<double>(cell.load(std::memory_order_relaxed));
  cell.store(std::bit_cast<uint64_t>(old + v), std::memory_order_relaxed);
}

// Bucket bounds with a table from the leading bits of a double (sign, exponent, three bits of
// mantissa) to the first bound that can hold it, so that finding a bucket costs one load and about
// one comparison instead of a search.
class BucketIndex {
 public:
  explicit BucketIndex(std::span<const double> bounds);
  // Number of the first bound >= value; bounds().size() is the +Inf bucket.
  size_t Find(double value) const {
    const int64_t key = (std::bit_cast<int64_t>(value) >> kShift) - first_key_;
    size_t i = first_[key < 0 ? 0 : key > last_ ? last_ : key];
    while (value > bounds_[i]) ++i;
    return i;
  }
  std::span<const double> bounds() const { return {bounds_.data(), bounds_.size() - 1}; }

 private:
  static constexpr int kShift = 49;
  int64_t first_key_ = 0;
  int64_t last_ = 0;
  std::vector<uint8_t> first_;
  std::vector<double> bounds_;  // with +Inf at the end
};
}  // namespace internal

// An empty handle (default-constructed) ignores what it is given.
class CounterHandle {
 public:
  CounterHandle() = default;
  void Add(size_t writer, uint64_t n = 1) const {
    if (cell_) internal::AddTo(cell_[writer << internal::kCellsPerWriterLog2], n);
  }
  explicit operator bool() const { return cell_ != nullptr; }

 private:
  friend class Metrics;
  explicit CounterHandle(internal::Cell* cell) : cell_(cell) {}
  internal::Cell* cell_ = nullptr;
};

// Either every writer Adds its own share, or one owner Sets; not both on one series.
class GaugeHandle {
 public:
  GaugeHandle() = default;
  void Add(size_t writer, double delta) const {
    if (cell_) internal::AddTo(cell_[writer << internal::kCellsPerWriterLog2], delta);
  }
  void Set(double value) const {
    if (cell_) cell_->store(std::bit_cast<uint64_t>(value), std::memory_order_relaxed);
  }
  explicit operator bool() const { return cell_ != nullptr; }

 private:
  friend class Metrics;
  explicit GaugeHandle(internal::Cell* cell) : cell_(cell) {}
  internal::Cell* cell_ = nullptr;
};

class HistogramHandle {
 public:
  HistogramHandle() = default;
  // NaN is ignored: it would poison the sum for good.
  void Observe(size_t writer, double value) const {
    if (!cells_ || value != value) return;
    internal::Cell* cells = cells_ + (writer << internal::kCellsPerWriterLog2);
    internal::AddTo(cells[0], value);
    internal::AddTo(cells[1 + buckets_->Find(value)], uint64_t{1});
  }
  explicit operator bool() const { return cells_ != nullptr; }

 private:
  friend class Metrics;
  HistogramHandle(internal::Cell* cells, const internal::BucketIndex* buckets)
      : cells_(cells), buckets_(buckets) {}
  internal::Cell* cells_ = nullptr;  // sum, then one count per bucket, +Inf last
  const internal::BucketIndex* buckets_ = nullptr;
};

// Label values in the order of the table; views must live for the call.
class LabelValues {
 public:
  LabelValues() = default;
  LabelValues(std::initializer_list<std::string_view> values)
      : values_(values.begin(), values.size()) {}
  LabelValues(std::span<const std::string_view> values) : values_(values) {}
  template <size_t kCount>
  LabelValues(const std::string_view (&values)[kCount]) : values_(values) {}
  std::span<const std::string_view> values() const { return values_; }

 private:
  std::span<const std::string_view> values_;
};

// What a collector fills: series that exist for this scrape only (endpoints come and go; their
// gauges leave with them).
class ScrapeSeries {
 public:
  virtual void Set(MetricId id, LabelValues labels, double value) = 0;

 protected:
  ~ScrapeSeries() = default;
};

class Metrics {
 public:
  // `writers`: worker threads plus every other thread that updates handles, each with an index of
  // its own below `writers`.
  explicit Metrics(size_t writers);
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // Find or make a series. The kind must be the table's, the number of labels too. Takes a lock;
  // for start-up and for caches, not per request. A series is exposed from then on, except a
  // labelled histogram, which is exposed once it has an observation.
  CounterHandle Counter(MetricId id, LabelValues labels = {});
  GaugeHandle Gauge(MetricId id, LabelValues labels = {});
  HistogramHandle Histogram(MetricId id, LabelValues labels = {});

  // Names from configuration: always exposed by name, outside of the cap.
  void PinModelNames(std::span<const std::string_view> names);
  // What the cap makes of a value: itself or kOverflow (a view that lives as long as the registry).
  // An empty value stays empty and is not counted.
  std::string_view BoundModelName(std::string_view name);
  std::string_view BoundFairnessId(std::string_view id);

  // Called in every scrape. The returned object ends the registration when destroyed, and must be
  // destroyed before the registry.
  using Collector = std::function<void(ScrapeSeries&)>;
  class Registration;
  [[nodiscard]] std::unique_ptr<Registration> AddCollector(Collector collector);

  // Appends the page to `out`. With `names`, only families of exactly these names. Families are in
  // the order of their names.
  void WriteText(std::string* out, std::span<const std::string_view> names = {});

  size_t writers() const { return writers_; }
  size_t cell_bytes() const;  // memory of all cells
  // Sum over writers of a counter or gauge, observation count of a histogram; 0 if there is no such
  // series. For tests and debug pages.
  double ValueOf(MetricId id, LabelValues labels = {});

 private:
  struct State;
  const size_t writers_;
  std::unique_ptr<State> state_;
};

class Metrics::Registration {
 public:
  Registration(Metrics* metrics, uint64_t id) : metrics_(metrics), id_(id) {}
  ~Registration();
  Registration(const Registration&) = delete;
  Registration& operator=(const Registration&) = delete;

 private:
  Metrics* metrics_;
  uint64_t id_;
};

}  // namespace llmd::telemetry
