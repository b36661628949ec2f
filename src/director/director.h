// Director: what all sessions of one worker share. Made per worker by the door.
//
// Thread safety: belongs to one worker; the sources are thread-safe, and so are the RecordRing's
// readers.
#pragma once

#include <memory>

#include "base/snapshot.h"
#include "base/time.h"
#include "director/config.h"
#include "director/objects.h"
#include "director/record_ring.h"
#include "director/session.h"
#include "fleet/fleet.h"

namespace llmd::telemetry {
class Metrics;
class Tracer;
}

namespace llmd::director {

using GenerationSource = base::Snapshot<Generation>;
// Nothing published, or nullptr: no objectives and no rewrites.
using ObjectsSource = base::Snapshot<Objects>;

// Retries may add this share to the load at most (Envoy's retry budget has the same default).
inline constexpr double kRetryBudgetShare = 0.2;
inline constexpr uint32_t kRetriesMax = 2;         // per request
inline constexpr uint32_t kRetryBudgetFloor = 3;   // retries in flight always allowed per worker

// Seconds for Retry-After: a saturated pool moves within a batch, an empty one needs a server to
// start.
inline constexpr uint32_t kRetryAfterSaturatedSeconds = 1;
inline constexpr uint32_t kRetryAfterNoEndpointsSeconds = 5;

// How much of a multipart body is read in search of the model; then it is routed without one.
inline constexpr uint64_t kMultipartScanBytesMax = 64 << 10;

struct DirectorOptions {
  size_t worker = 0;
  std::string pool_name = "default";
  // Endpoints in every decision: the pick and its fallbacks, one for each retry.
  size_t endpoints_wanted = 1 + kRetriesMax;
  const ObjectsSource* objects = nullptr;  // outlives the director; nullptr: there are none
  scheduling::StageClock clock = nullptr;
  int64_t (*wall_clock_ns)() = nullptr;  // for the record's time stamp and for spans
  telemetry::Tracer* tracer = nullptr;   // outlives the director; nullptr: no tracing
};

struct DirectorCore;  // internal: director_core.h

class Director {
 public:
  // All references outlive the Director, and a generation has been published. `options.worker` is
  // the index of this worker in the fleet, in the ring and as a writer of the metrics.
  Director(const GenerationSource& generations, fleet::Fleet& fleet, telemetry::Metrics& metrics,
           RecordRing& records, DirectorOptions options);
  // Every session has ended.
  ~Director();
  Director(const Director&) = delete;
  Director& operator=(const Director&) = delete;

  fleet::View& view();
  const DirectorOptions& options() const;
  // The current generation, for a door's own use.
  const Generation& generation();
  // Sessions between their head and their end.
  size_t active() const;

 private:
  friend class Session;
  std::unique_ptr<DirectorCore> core_;
};

}  // namespace llmd::director
