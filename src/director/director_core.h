// Internal to director/: what the sessions of one worker share. See director.h.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "base/arena.h"
#include "director/config.h"
#include "director/director.h"
#include "director/record_ring.h"
#include "fleet/fleet.h"
#include "scheduling/trace.h"
#include "telemetry/metrics.h"
#include "telemetry/request_metrics.h"
#include "telemetry/trace.h"
#include "wire/protobuf.h"

namespace llmd::director {

// A worker's hold on a generation, counted without atomics; times the generation's plugins.
class GenerationHold final : public scheduling::StageSink {
 public:
  GenerationHold(std::shared_ptr<const Generation> g, telemetry::Metrics& metrics, size_t writer);
  void OnStage(scheduling::ExtensionPoint point, uint32_t plugin, base::Duration took) override;

  // A data producer gave nothing: it failed, or its time was up. Takes a lock.
  void OnProducerFailure(uint32_t plugin, bool timed_out);
  // A prefix lookup found at best `matched` of the prompt's blocks on one endpoint.
  void OnPrefixLookup(const plugin::PrefixCacheMatchInfo& info, uint32_t matched);

  const std::shared_ptr<const Generation> generation;
  uint32_t references = 1;

 private:
  telemetry::HistogramHandle Resolve(scheduling::ExtensionPoint point, uint32_t plugin);

  telemetry::Metrics& metrics_;
  const size_t writer_;
  telemetry::HistogramHandle prefix_hit_ratio_, prefix_hit_bytes_;
  telemetry::HistogramHandle lookup_seconds_;
  std::vector<bool> looks_up_;  // [plugin]: it asks an index of KV blocks
  std::vector<telemetry::HistogramHandle> seconds_;  // [plugin * points + point], made on first use
};

enum class RetryDenied : uint8_t { kAttempts, kBudget, kBody, kNoEndpoint, kNotRetriable };
enum class AbortStage : uint8_t { kBeforeDecision, kBeforeResponse, kInResponse };

struct DirectorCore {
  DirectorCore(const GenerationSource& g, fleet::Fleet& f, telemetry::Metrics& m, RecordRing& r,
               DirectorOptions o);
  ~DirectorCore();

  // The current generation, held once more.
  GenerationHold* Hold();
  static void Release(GenerationHold* hold);
  // nullptr when there are none; good until the next call.
  const Objects* CurrentObjects();
  // scheduler_attempts_total for a decision; `endpoint` is nullptr when none was found. Cached.
  void CountAttempt(std::string_view target_model, const fleet::Endpoint* endpoint);
  // model_rewrite_decisions_total. Cached.
  void CountRewrite(std::string_view rewrite, std::string_view model, std::string_view target);
  std::unique_ptr<base::Arena> TakeArena();
  void GiveBack(std::unique_ptr<base::Arena> arena);
  bool RetryAllowed() const;
  base::TimePoint Clock() const { return options.clock ? options.clock() : base::TimePoint{}; }

  fleet::Fleet& fleet;
  fleet::View view;
  telemetry::Metrics& metrics;
  telemetry::RequestMetrics request_metrics;
  telemetry::RequestSeriesCache series;
  RecordRing& records;
  const DirectorOptions options;

  size_t active = 0;    // sessions between their head and their end
  size_t retrying = 0;  // of these, on their second or later attempt

  struct SpanWriter {
    base::BufferPool pool{1 << 20};
    wire::ProtoWriter writer{&pool};
  };
  std::unique_ptr<SpanWriter> span_writer;  // with a tracer only

  telemetry::HistogramHandle scheduler_seconds, request_processing, response_processing;
  telemetry::CounterHandle recorded, overwritten, replies_unread;
  std::array<telemetry::CounterHandle, 5> retries;         // by UpstreamFailure
  std::array<telemetry::CounterHandle, 5> retries_denied;  // by RetryDenied
  std::array<telemetry::CounterHandle, 3> aborts;          // by AbortStage

 private:
  GenerationSource::Reader generations_;
  GenerationHold* current_ = nullptr;
  std::vector<std::unique_ptr<base::Arena>> arenas_;
  std::optional<ObjectsSource::Reader> objects_;  // where the options name a source
  const Objects* pinned_ = nullptr;               // whose model names the metrics know
  struct CounterSlot {
    uint64_t key = 0;
    telemetry::CounterHandle counter;
  };
  // Direct-mapped; models times endpoints of a usual fleet fit. A collision costs a locked lookup.
  std::vector<CounterSlot> attempts_;
  std::vector<CounterSlot> rewrites_;  // likewise; none until something is rewritten
};

}  // namespace llmd::director
