#include "runtime/clock.h"

#include <sys/random.h>
#include <time.h>

#include "base/check.h"

namespace llmd::runtime {
namespace {

int64_t ReadNs(clockid_t clock) {
  timespec t;
  clock_gettime(clock, &t);
  return static_cast<int64_t>(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
}

}  // namespace

base::TimePoint Now() { return base::TimePoint(base::Duration(ReadNs(CLOCK_MONOTONIC))); }
base::WallTime WallNow() { return {ReadNs(CLOCK_REALTIME)}; }
base::Duration ThreadCpuTime() { return base::Duration(ReadNs(CLOCK_THREAD_CPUTIME_ID)); }

uint64_t EntropySeed() {
  uint64_t seed;
  LLMD_CHECK(getrandom(&seed, sizeof(seed), 0) == sizeof(seed), "the kernel gives no entropy");
  return seed;
}

}  // namespace llmd::runtime
