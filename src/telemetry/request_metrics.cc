#include "telemetry/request_metrics.h"

#include <mutex>
#include <unordered_map>
#include <utility>

#include "base/hash.h"

namespace llmd::telemetry {
namespace {

uint64_t HashOf(const RequestLabels& labels) {
  const uint64_t models =
      base::Mix64(base::Hash64(labels.model), base::Hash64(labels.target_model));
  const uint64_t rest = base::Mix64(base::Hash64(labels.fairness_id),
                                    static_cast<uint64_t>(static_cast<uint32_t>(labels.priority)));
  return base::Mix64(models, rest);
}

bool Same(std::string_view exposed, std::string_view asked) {
  return exposed == asked || exposed == kOverflow;
}

}  // namespace

std::string_view ErrorCodeName(ErrorCode code) {
  static constexpr std::string_view kNames[kErrorCodeCount] = {
      "BadRequest", "Unauthorized",       "Forbidden",
      "NotFound",   "PreconditionFailed", "ResourceExhausted",
      "Internal",   "ServiceUnavailable", "ModelServerError",
      "Unknown"};
  return kNames[static_cast<size_t>(code)];
}

bool RequestSeries::Matches(const RequestLabels& labels) const {
  return any_ || (Same(model_, labels.model) && Same(target_model_, labels.target_model) &&
                  Same(fairness_id_, labels.fairness_id) && priority_ == labels.priority);
}

CounterHandle RequestSeries::Error(ErrorCode code) const {
  std::atomic<CounterHandle>& slot = errors_[static_cast<size_t>(code)];
  CounterHandle handle = slot.load(std::memory_order_acquire);
  if (!handle) [[unlikely]] {
    handle = metrics_->Counter(MetricId::kRequestErrorTotal, {model_, target_model_, fairness_id_,
                                                              priority_text_, ErrorCodeName(code)});
    slot.store(handle, std::memory_order_release);
  }
  return handle;
}

struct RequestMetrics::State {
  std::mutex mutex;
  std::string key;  // reused under the lock
  std::unordered_map<std::string, std::unique_ptr<RequestSeries>> tuples;
};

RequestMetrics::RequestMetrics(Metrics* metrics)
    : metrics_(metrics), state_(std::make_unique<State>()) {}
RequestMetrics::~RequestMetrics() = default;

const RequestSeries* RequestMetrics::Resolve(const RequestLabels& labels) {
  std::string_view model = metrics_->BoundModelName(labels.model);
  std::string_view target = metrics_->BoundModelName(labels.target_model);
  std::string_view fairness = metrics_->BoundFairnessId(labels.fairness_id);
  std::string priority = std::to_string(labels.priority);

  const std::lock_guard lock(state_->mutex);
  const auto find = [&]() -> const RequestSeries* {
    std::string& key = state_->key;
    key.clear();
    for (std::string_view part : {model, target, fairness, std::string_view(priority)}) {
      const size_t size = part.size();
      key.append(reinterpret_cast<const char*>(&size), sizeof(size));
      key.append(part);
    }
    const auto it = state_->tuples.find(key);
    return it == state_->tuples.end() ? nullptr : it->second.get();
  };
  if (const RequestSeries* series = find()) return series;
  const bool full = state_->tuples.size() >= kTuplesMax;
  if (full) {
    model = target = fairness = kOverflow;
    priority = kOverflow;
    if (const RequestSeries* series = find()) return series;
  }

  auto series = std::make_unique<RequestSeries>();
  series->metrics_ = metrics_;
  series->model_ = model;
  series->target_model_ = target;
  series->fairness_id_ = fairness;
  series->priority_text_ = priority;
  series->priority_ = labels.priority;
  series->any_ = full;
  const std::string_view r[] = {model, target, fairness, priority};
  const auto histogram = [&](MetricId id) { return metrics_->Histogram(id, LabelValues(r)); };
  series->total = metrics_->Counter(MetricId::kRequestTotal, LabelValues(r));
  series->running = metrics_->Gauge(MetricId::kRequestRunning, LabelValues(r));
  series->duration_seconds = histogram(MetricId::kRequestDurationSeconds);
  series->request_bytes = histogram(MetricId::kRequestSizeBytes);
  series->response_bytes = histogram(MetricId::kResponseSizeBytes);
  series->input_tokens = histogram(MetricId::kRequestInputTokens);
  series->output_tokens = histogram(MetricId::kRequestOutputTokens);
  series->cached_tokens = histogram(MetricId::kRequestCachedTokens);
  series->ntpot_seconds = histogram(MetricId::kRequestNtpotSeconds);
  series->tpot_seconds = histogram(MetricId::kRequestStreamingTpotSeconds);
  series->itl_seconds = histogram(MetricId::kRequestStreamingItlSeconds);
  series->ttft_seconds = metrics_->Histogram(MetricId::kRequestTtftSeconds,
                                             {model, target, fairness, priority, "false"});
  series->ttft_streaming_seconds = metrics_->Histogram(MetricId::kRequestTtftSeconds,
                                                       {model, target, fairness, priority, "true"});
  return state_->tuples.emplace(state_->key, std::move(series)).first->second.get();
}

const RequestSeries* RequestSeriesCache::Find(const RequestLabels& labels) {
  const uint64_t hash = HashOf(labels);
  Slot& slot = slots_[hash % kSlots];
  if (slot.series && slot.hash == hash && slot.series->Matches(labels)) [[likely]] {
    return slot.series;
  }
  slot = {hash, metrics_->Resolve(labels)};
  return slot.series;
}

}  // namespace llmd::telemetry
