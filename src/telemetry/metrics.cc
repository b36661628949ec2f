#include "telemetry/metrics.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <mutex>
#include <new>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "base/check.h"
#include "base/strings.h"
#include "telemetry/exposition.h"

namespace llmd::telemetry {
namespace {

using internal::BucketIndex;
using internal::Cell;
using internal::kCellsPerWriter;
using internal::kCellsPerWriterLog2;

// Bucket sets (llm-d-router: pkg/epp/metrics; 32778 is upstream's and kept for its dashboards).
constexpr double kBucketsGeneral[] = {
    .005, .025, .05, .1, .2, .4,  .6,  .8,  1,   1.25, 1.5, 2,   3,   4,    5,    6,    8,   10,
    15,   20,   30,  45, 60, 120, 180, 240, 300, 360,  480, 600, 900, 1200, 1800, 2700, 3600};
constexpr double kBucketsTtft[] = {.005, .025, .05, .1, .2, .4, .6, .8, 1,  1.25, 1.5, 2,
                                   3,    4,    5,   6,  8,  10, 15, 20, 30, 45,   60,  120};
constexpr double kBucketsScheduling[] = {.0001, .0002, .0005, .001, .002, .005, .01, .02, .05, .1};
constexpr double kBucketsTokens[] = {1,     8,      16,     32,     64,     128,   256,
                                     512,   1024,   2048,   4096,   8192,   16384, 32778,
                                     65536, 131072, 262144, 524288, 1048576};
constexpr double kBucketsOutputTokens[] = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192};
constexpr double kBucketsRequestSize[] = {0x1p6,  0x1p7,  0x1p8,  0x1p9,  0x1p10, 0x1p11, 0x1p12,
                                          0x1p13, 0x1p14, 0x1p15, 0x1p16, 0x1p17, 0x1p18, 0x1p19,
                                          0x1p20, 0x1p21, 0x1p22, 0x1p23, 0x1p24, 0x1p25, 0x1p26,
                                          0x1p27, 0x1p28, 0x1p29, 0x1p30};
constexpr double kBucketsResponseSize[] = {1,    8,    16,   32,   64,    128,   256,  512,
                                           1024, 2048, 4096, 8192, 16384, 32778, 65536};
constexpr double kBucketsNtpot[] = {.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10};
constexpr double kBucketsStreamingTpot[] = {.0005, .00205, .005, .01, .02, .04, .06, .08, .1, .125,
                                            .15,   .2,     .3,   .4,  .5,  .6,  .8,  1,   2};
constexpr double kBucketsStreamingItl[] = {.001, .005, .01, .02, .04, .06, .08, .1,
                                           .15,  .2,   .3,  .5,  .75, 1,   2};
constexpr double kBucketsRequestProcessing[] = {.0005, .001, .002, .005, .01, .015, .025, .04,
                                                .06,   .1,   .25,  .5,   1,   2.5,  5,    10};
constexpr double kBucketsResponseProcessing[] = {.0001, .00025, .0005, .001, .0025, .005, .01, .025,
                                                 .05,   .1,     .25,   .5,   1,     2.5,  5};
constexpr double kBucketsTenths[] = {0, .1, .2, .3, .4, .5, .6, .7, .8, .9, 1};
constexpr double kBucketsPrefixBytes[] = {0,    16,   32,   64,   128,   256,   512,
                                          1024, 2048, 4096, 8192, 16384, 32768, 65536};
constexpr double kBucketsStreamDuration[] = {.001, .005, .01, .05, .1,  .5,  1,
                                             5,    10,   30,  60,  120, 300, 600};
// Ours: from well below a loop turn to well above the scrape timeout.
constexpr double kBucketsLateness[] = {.0001, .0005, .001, .0025, .005, .01,
                                       .025,  .05,   .1,   .25,   .5,   1};
constexpr std::span<const double> kBucketsNone;

constexpr std::string_view kUnitNone = "", kUnitSeconds = "seconds", kUnitBytes = "bytes",
                           kUnitTokens = "tokens", kUnitRatio = "ratio", kUnitRequests = "requests",
                           kUnitEndpoints = "endpoints", kUnitBlocks = "blocks";

const MetricInfo kTable[] = {
#define LLMD_METRIC(id, kind, origin, unit, buckets, name, labels, help, twin, twin_labels) \
  {MetricId::k##id,                                                                         \
   MetricKind::k##kind,                                                                     \
   MetricOrigin::k##origin,                                                                 \
   kUnit##unit,                                                                             \
   kBuckets##buckets,                                                                       \
   name,                                                                                    \
   labels,                                                                                  \
   help,                                                                                    \
   twin,                                                                                    \
   twin_labels},
#include "telemetry/metrics.def"
#undef LLMD_METRIC
};
constexpr size_t kMetricCount = std::size(kTable);

std::vector<std::string_view> Words(std::string_view text) {
  return text.empty() ? std::vector<std::string_view>{} : base::Split(text, ' ');
}

// Admits at most `kLabelValuesMax` values for ever; pinned ones are extra.
class LabelCap {
 public:
  std::string_view Bound(std::string_view value) {
    if (value.empty()) return "";
    key_.assign(value);
    if (auto it = pinned_.find(key_); it != pinned_.end()) return *it;
    if (auto it = seen_.find(key_); it != seen_.end()) return *it;
    if (seen_.size() >= kLabelValuesMax) return kOverflow;
    return *seen_.insert(key_).first;
  }
  void Pin(std::string_view value) {
    if (!value.empty()) pinned_.emplace(value);
  }

 private:
  std::string key_;  // reused, so that looking up allocates nothing
  std::unordered_set<std::string> seen_;
  std::unordered_set<std::string> pinned_;
};

struct Series {
  std::string labels;       // rendered: a="x",b="y"
  std::string twin_labels;  // the same for the deprecated twin
  Cell* cells = nullptr;    // nullptr: from a collector
  double value = 0;         // from a collector
};

struct TwinLabel {
  std::string_view name;
  size_t source;  // index of the label in the family
};

struct Family {
  const MetricInfo* info = nullptr;
  std::vector<std::string_view> labels;
  std::vector<TwinLabel> twin;
  std::unique_ptr<BucketIndex> buckets;
  std::unordered_map<std::string, uint32_t> index;  // joined label values -> series
  std::vector<Series> series;
  std::unordered_map<std::string, uint32_t> scraped_index;
  std::vector<Series> scraped;  // this scrape's, from collectors
  uint64_t overflows = 0;

  bool histogram() const { return info->kind == MetricKind::kHistogram; }
  size_t cells() const { return histogram() ? buckets->bounds().size() + 2 : 1; }
};

// Sorted by label name, as Go's client orders them.
std::string RenderLabels(std::vector<std::pair<std::string_view, std::string_view>> labels) {
  std::sort(labels.begin(), labels.end());
  std::string out;
  for (const auto& [name, value] : labels) AppendLabel(&out, name, value);
  return out;
}

struct Exposed {
  std::string_view name;
  Family* family;
  bool twin;
};

// What one written line group shows: the sum of one or more series.
struct Total {
  double value = 0;               // counter and gauge; sum of a histogram
  uint64_t count = 0;             // histogram
  std::vector<uint64_t> buckets;  // histogram, not yet cumulative
};

}  // namespace

std::span<const MetricInfo> AllMetrics() { return kTable; }

const MetricInfo& InfoOf(MetricId id) { return kTable[static_cast<size_t>(id)]; }

internal::BucketIndex::BucketIndex(std::span<const double> bounds)
    : bounds_(bounds.begin(), bounds.end()) {
  LLMD_CHECK(bounds.size() < 255 && std::is_sorted(bounds.begin(), bounds.end()),
             "bucket bounds are sorted and fewer than 255");
  bounds_.push_back(std::numeric_limits<double>::infinity());
  const auto positive = std::find_if(bounds.begin(), bounds.end(), [](double b) { return b > 0; });
  if (positive == bounds.end()) {
    first_.push_back(0);
    return;
  }
  first_key_ = std::bit_cast<int64_t>(*positive) >> kShift;
  // One bin beyond the last bound, so that everything above it goes straight to +Inf.
  last_ = (std::bit_cast<int64_t>(bounds.back()) >> kShift) - first_key_ + 1;
  first_.push_back(0);  // everything below, zero and negative values included
  for (int64_t key = 1; key <= last_; ++key) {
    const double low = std::bit_cast<double>((key + first_key_) << kShift);
    const auto at = std::lower_bound(bounds_.begin(), bounds_.end(), low);
    first_.push_back(static_cast<uint8_t>(at - bounds_.begin()));
  }
}

struct Metrics::State final : ScrapeSeries {
  explicit State(size_t writers) : writers(writers) {}

  void BuildFamilies();
  Family& FamilyOf(MetricId id, MetricKind kind, size_t label_count);
  // The key and bounded values of a label set, in key and values.
  void Bound(const Family& family, LabelValues labels);
  Cell* FindOrMake(MetricId id, MetricKind kind, LabelValues labels);
  Cell* AllocateCells(size_t n);
  void Render(const Family& family, Series* series);
  void Set(MetricId id, LabelValues labels, double value) override;

  Total Sum(const Family& family, const Series& series) const;
  void WriteFamily(const Exposed& exposed, std::string* out);
  void WriteTotal(const Exposed& exposed, std::string_view labels, const Total& total,
                  std::string* out);
  void CollectOwn();

  const size_t writers;
  mutable std::mutex mutex;
  std::vector<Family> families;
  std::vector<Exposed> exposed;  // sorted by name
  std::vector<std::unique_ptr<Cell[]>> chunks;
  size_t cells_left = 0;
  LabelCap models, fairness_ids;
  std::vector<std::pair<uint64_t, Collector>> collectors;
  uint64_t next_collector = 1;

  // Scratch of Bound, reused under the lock.
  std::string key;
  std::vector<std::string_view> values;
};

void Metrics::State::BuildFamilies() {
  families.resize(kMetricCount);
  for (size_t i = 0; i < kMetricCount; ++i) {
    Family& family = families[i];
    family.info = &kTable[i];
    family.labels = Words(family.info->labels);
    if (family.histogram()) family.buckets = std::make_unique<BucketIndex>(family.info->buckets);
    for (std::string_view word : Words(family.info->twin_labels)) {
      const size_t equals = word.find('=');
      const std::string_view source =
          equals == std::string_view::npos ? word : word.substr(equals + 1);
      const auto at = std::find(family.labels.begin(), family.labels.end(), source);
      LLMD_CHECK(at != family.labels.end(),
                 "metrics.def: a twin label is not a label of its metric");
      family.twin.push_back(
          {word.substr(0, equals), static_cast<size_t>(at - family.labels.begin())});
    }
    exposed.push_back({family.info->name, &family, false});
    if (!family.info->twin.empty()) exposed.push_back({family.info->twin, &family, true});
  }
  std::sort(exposed.begin(), exposed.end(),
            [](const Exposed& a, const Exposed& b) { return a.name < b.name; });
}

Family& Metrics::State::FamilyOf(MetricId id, MetricKind kind, size_t label_count) {
  Family& family = families[static_cast<size_t>(id)];
  LLMD_CHECK(family.info->kind == kind, family.info->name);
  LLMD_CHECK(family.labels.size() == label_count, family.info->name);
  return family;
}

void Metrics::State::Bound(const Family& family, LabelValues labels) {
  values.assign(labels.values().begin(), labels.values().end());
  key.clear();
  for (size_t i = 0; i < values.size(); ++i) {
    const std::string_view name = family.labels[i];
    if (name == "model_name" || name == "target_model_name") values[i] = models.Bound(values[i]);
    if (name == "fairness_id") values[i] = fairness_ids.Bound(values[i]);
    const size_t size = values[i].size();
    key.append(reinterpret_cast<const char*>(&size), sizeof(size));
    key.append(values[i]);
  }
}

void Metrics::State::Render(const Family& family, Series* series) {
  std::vector<std::pair<std::string_view, std::string_view>> labels, twin;
  for (size_t i = 0; i < values.size(); ++i) labels.emplace_back(family.labels[i], values[i]);
  for (const TwinLabel& label : family.twin) twin.emplace_back(label.name, values[label.source]);
  series->labels = RenderLabels(std::move(labels));
  series->twin_labels = RenderLabels(std::move(twin));
}

Cell* Metrics::State::FindOrMake(MetricId id, MetricKind kind, LabelValues labels) {
  const std::lock_guard lock(mutex);
  Family& family = FamilyOf(id, kind, labels.values().size());
  Bound(family, labels);
  if (auto it = family.index.find(key); it != family.index.end()) {
    return family.series[it->second].cells;
  }
  if (family.series.size() >= kSeriesPerFamilyMax && !family.labels.empty()) {
    ++family.overflows;
    const std::vector<std::string_view> other(family.labels.size(), kOverflow);
    Bound(family, std::span(other));
    if (auto it = family.index.find(key); it != family.index.end()) {
      return family.series[it->second].cells;
    }
  }
  Series series;
  Render(family, &series);
  series.cells = AllocateCells(family.cells());
  family.index.emplace(key, static_cast<uint32_t>(family.series.size()));
  family.series.push_back(std::move(series));
  return family.series.back().cells;
}

Cell* Metrics::State::AllocateCells(size_t n) {
  if (cells_left < n) {
    chunks.push_back(std::make_unique<Cell[]>(writers * kCellsPerWriter));
    cells_left = kCellsPerWriter;
  }
  Cell* cells = chunks.back().get() + (kCellsPerWriter - cells_left);
  cells_left -= n;
  return cells;
}

// Runs under the lock that WriteText holds.
void Metrics::State::Set(MetricId id, LabelValues labels, double value) {
  Family& family = families[static_cast<size_t>(id)];
  LLMD_CHECK(!family.histogram() && family.labels.size() == labels.values().size(),
             family.info->name);
  Bound(family, labels);
  if (auto it = family.scraped_index.find(key); it != family.scraped_index.end()) {
    // What shares the label of everything beyond a cap adds up.
    double& there = family.scraped[it->second].value;
    there = value + (std::ranges::find(values, kOverflow) != values.end() ? there : 0);
    return;
  }
  if (family.scraped.size() >= kSeriesPerFamilyMax) {
    ++family.overflows;
    return;
  }
  Series series;
  Render(family, &series);
  series.value = value;
  family.scraped_index.emplace(key, static_cast<uint32_t>(family.scraped.size()));
  family.scraped.push_back(std::move(series));
}

Total Metrics::State::Sum(const Family& family, const Series& series) const {
  Total total;
  total.value = series.value;
  if (!series.cells) return total;
  if (family.histogram()) total.buckets.resize(family.buckets->bounds().size() + 1);
  for (size_t w = 0; w < writers; ++w) {
    const Cell* cells = series.cells + (w << kCellsPerWriterLog2);
    const uint64_t first = cells[0].load(std::memory_order_relaxed);
    total.value += family.info->kind == MetricKind::kCounter ? static_cast<double>(first)
                                                             : std::bit_cast<double>(first);
    for (size_t i = 0; i < total.buckets.size(); ++i) {
      const uint64_t n = cells[1 + i].load(std::memory_order_relaxed);
      total.buckets[i] += n;
      total.count += n;
    }
  }
  return total;
}

void Metrics::State::WriteTotal(const Exposed& exposed, std::string_view labels, const Total& total,
                                std::string* out) {
  if (!exposed.family->histogram()) {
    AppendSample(out, exposed.name, "", labels, total.value);
    return;
  }
  const std::span<const double> bounds = exposed.family->buckets->bounds();
  AppendHistogram(out, exposed.name, labels, bounds, total.buckets, total.value);
}

void Metrics::State::WriteFamily(const Exposed& exposed, std::string* out) {
  const Family& family = *exposed.family;
  bool headed = false;
  const auto write = [&](std::string_view labels, const Total& total) {
    // A labelled histogram without observations says nothing and costs forty lines.
    if (family.histogram() && !family.labels.empty() && total.count == 0) return;
    if (!std::exchange(headed, true)) {
      const std::string_view alpha =
          family.info->origin == MetricOrigin::kUpstream ? "[ALPHA] " : "";
      std::string help(alpha);
      if (exposed.twin) help.append(base::Concat("[Deprecated: use ", family.info->name, "] "));
      AppendHeader(out, exposed.name, family.info->kind, help.append(family.info->help));
    }
    WriteTotal(exposed, labels, total, out);
  };
  if (!exposed.twin) {
    for (const auto* list : {&family.series, &family.scraped}) {
      for (const Series& series : *list) write(series.labels, Sum(family, series));
    }
    return;
  }
  std::unordered_map<std::string_view, size_t> index;
  std::vector<std::pair<std::string_view, Total>> groups;
  for (const auto* list : {&family.series, &family.scraped}) {
    for (const Series& series : *list) {
      const auto [it, is_new] = index.emplace(series.twin_labels, groups.size());
      if (is_new) groups.emplace_back(series.twin_labels, Total{});
      Total& group = groups[it->second].second;
      const Total one = Sum(family, series);
      group.value += one.value;
      group.count += one.count;
      group.buckets.resize(std::max(group.buckets.size(), one.buckets.size()));
      for (size_t i = 0; i < one.buckets.size(); ++i) group.buckets[i] += one.buckets[i];
    }
  }
  for (const auto& [labels, total] : groups) write(labels, total);
}

void Metrics::State::CollectOwn() {
  for (const Family& family : families) {
    if (family.overflows == 0) continue;
    Set(MetricId::kSeriesOverflowTotal, {family.info->name}, static_cast<double>(family.overflows));
  }
  for (const base::BugSite* site = base::FirstBugSite(); site; site = site->next) {
    const std::string name = base::Concat(site->file, ":", std::to_string(site->line));
    Set(MetricId::kInternalBugTotal, {name},
        static_cast<double>(site->count.load(std::memory_order_relaxed)));
  }
}

Metrics::Metrics(size_t writers) : writers_(writers), state_(std::make_unique<State>(writers)) {
  LLMD_CHECK(writers > 0, "metrics need at least one writer");
  state_->BuildFamilies();
}

Metrics::~Metrics() {
  LLMD_CHECK(state_->collectors.empty(), "a metrics collector outlived its registry");
}

CounterHandle Metrics::Counter(MetricId id, LabelValues labels) {
  return CounterHandle(state_->FindOrMake(id, MetricKind::kCounter, labels));
}

GaugeHandle Metrics::Gauge(MetricId id, LabelValues labels) {
  return GaugeHandle(state_->FindOrMake(id, MetricKind::kGauge, labels));
}

HistogramHandle Metrics::Histogram(MetricId id, LabelValues labels) {
  return HistogramHandle(state_->FindOrMake(id, MetricKind::kHistogram, labels),
                         state_->families[static_cast<size_t>(id)].buckets.get());
}

void Metrics::PinModelNames(std::span<const std::string_view> names) {
  const std::lock_guard lock(state_->mutex);
  for (std::string_view name : names) state_->models.Pin(name);
}

std::string_view Metrics::BoundModelName(std::string_view name) {
  const std::lock_guard lock(state_->mutex);
  return state_->models.Bound(name);
}

std::string_view Metrics::BoundFairnessId(std::string_view id) {
  const std::lock_guard lock(state_->mutex);
  return state_->fairness_ids.Bound(id);
}

std::unique_ptr<Metrics::Registration> Metrics::AddCollector(Collector collector) {
  const std::lock_guard lock(state_->mutex);
  const uint64_t id = state_->next_collector++;
  state_->collectors.emplace_back(id, std::move(collector));
  return std::make_unique<Registration>(this, id);
}

Metrics::Registration::~Registration() {
  const std::lock_guard lock(metrics_->state_->mutex);
  std::erase_if(metrics_->state_->collectors, [this](const auto& c) { return c.first == id_; });
}

void Metrics::WriteText(std::string* out, std::span<const std::string_view> names) {
  const std::lock_guard lock(state_->mutex);
  for (Family& family : state_->families) {
    family.scraped.clear();
    family.scraped_index.clear();
  }
  for (const auto& [id, collect] : state_->collectors) collect(*state_);
  state_->CollectOwn();
  for (const Exposed& exposed : state_->exposed) {
    if (names.empty() || std::find(names.begin(), names.end(), exposed.name) != names.end()) {
      state_->WriteFamily(exposed, out);
    }
  }
}

size_t Metrics::cell_bytes() const {
  const std::lock_guard lock(state_->mutex);
  return state_->chunks.size() * writers_ * kCellsPerWriter * sizeof(Cell);
}

double Metrics::ValueOf(MetricId id, LabelValues labels) {
  const std::lock_guard lock(state_->mutex);
  Family& family = state_->FamilyOf(id, InfoOf(id).kind, labels.values().size());
  state_->Bound(family, labels);
  const auto it = family.index.find(state_->key);
  if (it == family.index.end()) return 0;
  const Total total = state_->Sum(family, family.series[it->second]);
  return family.histogram() ? static_cast<double>(total.count) : total.value;
}

}  // namespace llmd::telemetry
