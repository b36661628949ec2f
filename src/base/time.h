// Time as a value. Pure code never reads a clock: `now` comes with the event.
#pragma once

#include <chrono>
#include <cstdint>

namespace llmd::base {

using Duration = std::chrono::nanoseconds;

// Monotonic nanoseconds since an arbitrary start. Only runtime/ (or a test, or a simulation) makes
// them; the clock type has no now() on purpose.
struct MonotonicClock {
  using duration = Duration;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<MonotonicClock>;
  static constexpr bool is_steady = true;
};
using TimePoint = MonotonicClock::time_point;

// Nanoseconds since the Unix epoch, for logs and protocol fields only.
struct WallTime {
  int64_t unix_ns = 0;
};

constexpr double ToSeconds(Duration d) { return static_cast<double>(d.count()) * 1e-9; }
constexpr Duration FromSeconds(double s) {
  return Duration(static_cast<Duration::rep>(s * 1e9 + (s < 0 ? -0.5 : 0.5)));
}

}  // namespace llmd::base
