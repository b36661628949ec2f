// The only place that reads the real clock or the system's entropy. Everything else is told `now`
// with the event, and a seed where chance enters. Thread-safe.
#pragma once

#include <cstdint>

#include "base/time.h"

namespace llmd::runtime {

// CLOCK_MONOTONIC. Code on a loop prefers EventLoop::now(), which is constant within a turn and
// free.
base::TimePoint Now();
base::WallTime WallNow();
// The same seconds from an origin of its own, for differences only: the processor's time stamp
// counter where it is constant, else Now(). Cheaper than Now(), which every stage of every decision
// would pay; calibrated over 2 ms, so good to 0.1 %.
base::TimePoint StageNow();
// CPU time used by the calling thread.
base::Duration ThreadCpuTime();
// A fresh seed from the kernel.
uint64_t EntropySeed();

}  // namespace llmd::runtime
