// Passive health of one endpoint: ejected when it keeps failing, back in slowly.
//
// `kFailuresToEject` failures in a row eject for kEjectionBase, doubled with every ejection in a
// row up to kEjectionMax. After that the endpoint is on probation: it takes a rising share of the
// traffic it would get (slow start, also for new endpoints) over kSlowStart; one failure on
// probation ejects again, kSuccessesToForget successes clear the history.
//
// Thread-safe: one 64-bit word changed by compare-and-swap, so that reading it in a View refresh is
// one load. Times are rounded to milliseconds. Outcomes of requests that were sent before an
// ejection and end during it change nothing.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/time.h"

namespace llmd::fleet {

class Health {
 public:
  static constexpr uint32_t kFailuresToEject = 5;
  static constexpr uint32_t kSuccessesToForget = 10;
  static constexpr base::Duration kEjectionBase = std::chrono::seconds(1);
  static constexpr base::Duration kEjectionMax = std::chrono::seconds(30);
  static constexpr base::Duration kSlowStart = std::chrono::seconds(10);
  static constexpr double kFirstShare = 0.1;  // at the start of slow start, rising linearly to 1

  enum class State { kSlowStart, kHealthy, kEjected };

  // A new owner of the number: slow start from `now`.
  void Reset(base::TimePoint now);
  void ReportSuccess(base::TimePoint now);
  // True when this failure ejected the endpoint.
  bool ReportFailure(base::TimePoint now);
  State state(base::TimePoint now) const;
  // Share of its traffic that the endpoint should take now: 0 ejected, 1 healthy, between in slow
  // start.
  double share(base::TimePoint now) const;
  // Healthy with nothing held against it and no slow start at `now`; one load and a compare.
  bool steady(base::TimePoint now) const;

 private:
  std::atomic<uint64_t> word_{0};
};

}  // namespace llmd::fleet
