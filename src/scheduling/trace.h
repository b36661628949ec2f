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
  base::TimePoint end{};  // where the next one began
};

// One run of a profile, for spans. Times are readings of the stage clock, each the end of what is
// named; a stage that was not reached has the time of the one before.
struct ProfileTrace {
  std::string_view profile;
  base::TimePoint begin{}, filtered{}, scored{}, ordered{}, picked{};
  size_t candidates = 0, left = 0;  // before and after the filters
  std::span<const ScorerTrace> scorers;
  std::span<const plugin::ScoredCandidate> totals;  // weighted sums of all that were left
};

struct Trace {
  StageClock clock = nullptr;
  StageSink* sink = nullptr;
  uint32_t handler_plugin = 0;  // index of the profile handler, for the sink
  base::TimePoint border{};     // end of the last stage; the next one begins here
  bool keep_scores = false;  // fill the three spans below (arena memory)
  bool keep_runs = false;    // fill `runs` (arena memory)

  std::span<const plugin::EndpointNumber> scored;  // candidates after the last profile's filters
  std::span<const ScorerTrace> scorers;
  std::span<const double> totals;  // weighted sums, in the order of `scored`
  std::span<ProfileTrace> runs;  // in the order in which profiles ran
};

}  // namespace llmd::scheduling
