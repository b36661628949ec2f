// Pacer: which request starts when. The pure core of a load generator worker.
//
//   while (auto start = pacer.TryStart(now)) Send(start->index);
//   ... wake up at pacer.next_due() and whenever a request finished (call OnFinished first).
//
// Open loop: requests are due at times that do not depend on replies; a late start keeps its due
// time, so that the delay can be reported. Closed loop: `concurrency` requests are kept in flight.
// A run is a warm-up, whose requests are marked, and then the measured part; indices begin at 0 in
// each. Poisson arrivals have independent exponential gaps; constant ones are exactly periodic.
//
// Thread safety: none. Each of `worker_count` workers has its own Pacer with the same options and
// draws the same schedule, of which it takes every worker_count-th request.
// Invariants: 1. The set of (index, due) over all workers of an open loop depends on rate, arrival
// and seed alone. 2. At most the worker's share of in_flight_max (open) or concurrency (closed) is
// in flight. 3. Due times never go back. 4. After exhausted() nothing starts any more.
#pragma once

#include <cstdint>
#include <optional>

#include "base/random.h"
#include "base/time.h"

namespace llmd::workload {

enum class Arrival : uint8_t { kClosedLoop, kConstant, kPoisson };

struct PacerOptions {
  Arrival arrival = Arrival::kClosedLoop;
  double rate = 0;                // requests per second over all workers; open loop only, > 0
  uint32_t concurrency = 1;       // over all workers; closed loop only
  uint32_t in_flight_max = 4096;  // over all workers; open loop: beyond it starts are late
  uint64_t request_count_max = UINT64_MAX;  // measured requests over all workers
  base::Duration warm_up{};
  base::Duration duration = base::Duration::max();  // of the measured part
  uint64_t seed = 1;
  uint32_t worker = 0;
  uint32_t worker_count = 1;
};

struct Start {
  uint64_t index = 0;  // over all workers, from 0 in the warm-up and from 0 after it
  bool warm_up = false;
  base::TimePoint due{};  // when it should start; `now` in a closed loop
};

class Pacer {
 public:
  Pacer(const PacerOptions& options, base::TimePoint begin);

  // The next request if one may start at `now`; `now` must not go back.
  std::optional<Start> TryStart(base::TimePoint now);
  // A started request ended, however.
  void OnFinished() { --in_flight_; }
  // When TryStart can succeed next without an OnFinished before; max() when not at all.
  base::TimePoint next_due() const;
  bool exhausted() const { return exhausted_; }
  // Nothing starts any more from now on.
  void Stop() { exhausted_ = true; }
  uint32_t in_flight() const { return in_flight_; }
  base::TimePoint measured_from() const { return measured_from_; }
  // Nothing is due at or after this time.
  base::TimePoint until() const { return until_; }

 private:
  std::optional<Start> TryStartClosed(base::TimePoint now);
  void DrawNext();

  PacerOptions options_;
  base::TimePoint begin_;
  base::TimePoint measured_from_;
  base::TimePoint until_;
  base::Random random_;
  uint32_t in_flight_max_ = 0;  // this worker's share
  uint64_t measured_left_ = 0;  // this worker's share of request_count_max
  uint32_t in_flight_ = 0;
  bool exhausted_ = false;
  // Open loop: the schedule over all workers up to the next request of this worker.
  double at_s_ = 0;
  uint64_t drawn_ = 0;
  uint64_t phase_drawn_ = 0;  // of these in the present phase
  Start next_;
  // Closed loop: starts of this worker in the present phase.
  uint64_t started_ = 0;
  bool was_warm_up_ = false;
};

}  // namespace llmd::workload
