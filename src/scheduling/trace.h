// Trace: what a cycle saw and why it chose, for decision records, explain and metrics.
//
// The stage clock is handed in by the door (nullptr: stages are not timed), because floors 0-4 read
// no clock of their own. One reading per stage border, not two per stage.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "plugin/plugin.h"

namespace llmd::scheduling {

// Extension point label values are upstream's (epp metrics, plugin_duration_seconds).
enum class ExtensionPoint : uint8_t {
  kProfilePicker,
  kFilter,
  kScorer,
  kPicker,
  kProcessProfilesResults,
  kAdmission,
  kDataProducer,
  kPreRequest,
  kRequestHeader,
  kRequestParsing,
  kResponseReceived,
  kResponseStreaming,
  kResponseComplete,
};
std::string_view ExtensionPointName(ExtensionPoint point);

// Receives the duration of every stage. Implemented by the director over metric cells.
class StageSink {
 public:
  virtual ~StageSink() = default;
  virtual void OnStage(ExtensionPoint point, uint32_t plugin, base::Duration took) = 0;
};

using StageClock = base::TimePoint (*)();

// One scorer's clamped, unweighted scores in candidate order.
struct ScorerTrace {
  uint32_t plugin;
  double weight;
  std::span<const double> scores;
};

struct Trace {
  StageClock clock = nullptr;
  StageSink* sink = nullptr;
  uint32_t handler_plugin = 0;  // index of the profile handler, for the sink
  base::TimePoint border{};     // end of the last stage; the next one begins here
  bool keep_scores = false;  // fill the spans below (arena memory)

  std::span<const plugin::EndpointNumber> scored;  // candidates after the last profile's filters
  std::span<const ScorerTrace> scorers;
};

}  // namespace llmd::scheduling
