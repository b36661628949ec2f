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
// CPU time used by the calling thread.
base::Duration ThreadCpuTime();
// A fresh seed from the kernel.
uint64_t EntropySeed();

}  // namespace llmd::runtime
