#include "director/director.h"

#include <algorithm>
#include <string>

#include "base/check.h"
#include "base/hash.h"
#include "director/director_core.h"
#include "plugin/prefix_query.h"

namespace llmd::director {
namespace {

using telemetry::MetricId;

constexpr size_t kPoints = static_cast<size_t>(scheduling::ExtensionPoint::kResponseComplete) + 1;
// A session's state and the usual request's pieces fit; longer ones grow and shrink again.
constexpr size_t kArenaBytes = 16 << 10;
// Arenas kept for reuse: the requests in flight of a busy worker. 64 MiB at most.
constexpr size_t kArenasKeptMax = 4096;
constexpr size_t kAttemptSlots = 4096;
constexpr size_t kRewriteSlots = 256;

constexpr std::string_view kRetryReasons[] = {"connect", "stale_connection", "reset", "timeout",
                                              "status"};
constexpr std::string_view kDeniedReasons[] = {"attempts", "budget", "body", "no_endpoint",
                                               "not_retriable"};
constexpr std::string_view kAbortStages[] = {"before_decision", "before_response", "in_response"};

}  // namespace

// ---- GenerationHold
// ------------------------------------------------------------------------------

GenerationHold::GenerationHold(std::shared_ptr<const Generation> g, telemetry::Metrics& metrics,
                               size_t writer)
    : generation(std::move(g)),
      metrics_(metrics),
      writer_(writer),
      looks_up_(generation->plugins().size()),
      seconds_(generation->plugins().size() * kPoints) {
  for (size_t i = 0; i < looks_up_.size(); ++i) {
    if (!dynamic_cast<const plugin::PrefixQuery*>(generation->plugins()[i].object.get())) continue;
    looks_up_[i] = true;
    lookup_seconds_ = metrics.Histogram(telemetry::MetricId::kKvIndexLookupSeconds);
  }
  if (const plugin::Plugin* producer = generation->prefix_producer()) {
    prefix_hit_ratio_ = metrics.Histogram(telemetry::MetricId::kPrefixIndexerHitRatio,
                                          {producer->name(), producer->type()});
    prefix_hit_bytes_ = metrics.Histogram(telemetry::MetricId::kPrefixIndexerHitBytes,
                                          {producer->name(), producer->type()});
  }
}

void GenerationHold::OnPrefixLookup(const plugin::PrefixCacheMatchInfo& info, uint32_t matched) {
  constexpr double kBytesPerToken = 4;  // as the index counts
  if (info.total_blocks == 0) return;
  prefix_hit_ratio_.Observe(writer_, static_cast<double>(matched) / info.total_blocks);
  prefix_hit_bytes_.Observe(writer_, kBytesPerToken * matched * info.block_tokens);
}

void GenerationHold::OnProducerFailure(uint32_t plugin, bool timed_out) {
  metrics_
      .Counter(MetricId::kProducerFailuresTotal,
               {generation->plugins()[plugin].object->name(), timed_out ? "timeout" : "error"})
      .Add(writer_);
}

void GenerationHold::OnStage(scheduling::ExtensionPoint point, uint32_t plugin,
                             base::Duration took) {
  telemetry::HistogramHandle& handle = seconds_[plugin * kPoints + static_cast<size_t>(point)];
  if (!handle) handle = Resolve(point, plugin);
  handle.Observe(writer_, base::ToSeconds(took));
  if (point == scheduling::ExtensionPoint::kDataProducer && looks_up_[plugin]) {
    lookup_seconds_.Observe(writer_, base::ToSeconds(took));
  }
}

telemetry::HistogramHandle GenerationHold::Resolve(scheduling::ExtensionPoint point,
                                                   uint32_t plugin) {
  const plugin::Plugin& p = *generation->plugins()[plugin].object;
  return metrics_.Histogram(MetricId::kPluginSeconds,
                            {scheduling::ExtensionPointName(point), p.type(), p.name()});
}

// ---- DirectorCore
// --------------------------------------------------------------------------------

DirectorCore::DirectorCore(const GenerationSource& g, fleet::Fleet& f, telemetry::Metrics& m,
                           RecordRing& r, DirectorOptions o)
    : fleet(f),
      view(f, o.worker),
      metrics(m),
      request_metrics(&m),
      series(&request_metrics),
      records(r),
      options(std::move(o)),
      generations_(g),
      attempts_(kAttemptSlots) {
  if (options.objects) objects_.emplace(*options.objects);
  if (options.tracer) span_writer = std::make_unique<SpanWriter>();
  scheduler_seconds = m.Histogram(MetricId::kSchedulerE2eSeconds);
  request_processing = m.Histogram(MetricId::kRequestProcessingSeconds);
  response_processing = m.Histogram(MetricId::kResponseProcessingSeconds);
  recorded = m.Counter(MetricId::kDecisionsRecordedTotal);
  overwritten = m.Counter(MetricId::kDecisionsOverwrittenTotal);
  replies_unread = m.Counter(MetricId::kRepliesUnreadTotal);
  for (size_t i = 0; i < retries.size(); ++i) {
    retries[i] = m.Counter(MetricId::kRetriesTotal, {kRetryReasons[i]});
  }
  for (size_t i = 0; i < retries_denied.size(); ++i) {
    retries_denied[i] = m.Counter(MetricId::kRetriesDeniedTotal, {kDeniedReasons[i]});
  }
  for (size_t i = 0; i < aborts.size(); ++i) {
    aborts[i] = m.Counter(MetricId::kClientAbortsTotal, {kAbortStages[i]});
  }
}

DirectorCore::~DirectorCore() {
  LLMD_CHECK(active == 0, "a director outlives its sessions");
  if (current_) Release(current_);
}

GenerationHold* DirectorCore::Hold() {
  const std::shared_ptr<const Generation>& now = generations_.GetShared();
  LLMD_CHECK(now != nullptr, "a generation is published before the first request");
  if (!current_ || current_->generation != now) {
    auto* next = new GenerationHold(now, metrics, options.worker);
    if (current_) Release(current_);
    current_ = next;
  }
  ++current_->references;
  return current_;
}

void DirectorCore::Release(GenerationHold* hold) {
  if (--hold->references == 0) delete hold;
}

void DirectorCore::CountAttempt(std::string_view target_model, const fleet::Endpoint* endpoint) {
  const uint64_t owner =
      endpoint ? base::Mix64(endpoint->number + uint64_t{1}, endpoint->generation) : 0;
  const uint64_t key = base::Mix64(base::Hash64(target_model), owner) | 1;
  CounterSlot& slot = attempts_[(key >> 1) % kAttemptSlots];
  if (slot.key != key) {
    slot.key = key;
    const std::string_view model = metrics.BoundModelName(target_model);
    const std::string port = endpoint ? std::to_string(endpoint->spec.port) : "";
    slot.counter =
        endpoint
            ? metrics.Counter(
                  MetricId::kSchedulerAttemptsTotal,
                  {"success", model, endpoint->spec.name, endpoint->spec.name_space, port})
            : metrics.Counter(MetricId::kSchedulerAttemptsTotal, {"failure", model, "", "", ""});
  }
  slot.counter.Add(options.worker);
}

void DirectorCore::CountRewrite(std::string_view rewrite, std::string_view model,
                                std::string_view target) {
  if (rewrites_.empty()) rewrites_.resize(kRewriteSlots);
  const uint64_t names = base::Mix64(base::Hash64(model), base::Hash64(target));
  const uint64_t key = base::Mix64(base::Hash64(rewrite), names) | 1;
  CounterSlot& slot = rewrites_[(key >> 1) % kRewriteSlots];
  if (slot.key != key) {
    slot.key = key;
    slot.counter =
        metrics.Counter(MetricId::kModelRewriteDecisionsTotal,
                        {rewrite, metrics.BoundModelName(model), metrics.BoundModelName(target)});
  }
  slot.counter.Add(options.worker);
}

const Objects* DirectorCore::CurrentObjects() {
  if (!objects_) return nullptr;
  const Objects* now = objects_->Get();
  if (now && now != pinned_) {
    const std::vector<std::string_view> names(now->model_names().begin(),
                                              now->model_names().end());
    metrics.PinModelNames(names);
  }
  pinned_ = now;
  return now;
}

std::unique_ptr<base::Arena> DirectorCore::TakeArena() {
  if (arenas_.empty()) return std::make_unique<base::Arena>(kArenaBytes);
  std::unique_ptr<base::Arena> arena = std::move(arenas_.back());
  arenas_.pop_back();
  return arena;
}

void DirectorCore::GiveBack(std::unique_ptr<base::Arena> arena) {
  if (arenas_.size() >= kArenasKeptMax) return;
  arena->Reset();
  arenas_.push_back(std::move(arena));
}

bool DirectorCore::RetryAllowed() const {
  const auto share = static_cast<size_t>(kRetryBudgetShare * static_cast<double>(active));
  return retrying < std::max<size_t>(kRetryBudgetFloor, share);
}

// ---- Director
// ------------------------------------------------------------------------------------

Director::Director(const GenerationSource& generations, fleet::Fleet& fleet,
                   telemetry::Metrics& metrics, RecordRing& records, DirectorOptions options)
    : core_(std::make_unique<DirectorCore>(generations, fleet, metrics, records,
                                           std::move(options))) {}

Director::~Director() = default;

fleet::View& Director::view() { return core_->view; }
const DirectorOptions& Director::options() const { return core_->options; }
size_t Director::active() const { return core_->active; }

const Generation& Director::generation() {
  GenerationHold* hold = core_->Hold();
  DirectorCore::Release(hold);  // the core's own hold stays
  return *hold->generation;
}

}  // namespace llmd::director
