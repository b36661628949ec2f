#include "runtime/clock.h"

#include <sys/random.h>
#include <time.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <x86intrin.h>
#endif

#include "base/check.h"

namespace llmd::runtime {
namespace {

int64_t ReadNs(clockid_t clock) {
  timespec t;
  clock_gettime(clock, &t);
  return static_cast<int64_t>(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
}

// Nanoseconds per tick in 2^-32, or 0 when the counter cannot be trusted.
uint64_t CalibrateTicks() {
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(0x80000007, &a, &b, &c, &d) || !(d >> 8 & 1)) return 0;  // not invariant
  // Two milliseconds: the reading error of both ends is below 100 ns.
  const int64_t begin_ns = ReadNs(CLOCK_MONOTONIC);
  const uint64_t begin = __rdtsc();
  int64_t end_ns;
  while ((end_ns = ReadNs(CLOCK_MONOTONIC)) < begin_ns + 2'000'000) {
  }
  const uint64_t ticks = __rdtsc() - begin;
  return ticks == 0 ? 0 : (static_cast<uint64_t>(end_ns - begin_ns) << 32) / ticks;
#else
  return 0;
#endif
}

}  // namespace

base::TimePoint StageNow() {
#if defined(__x86_64__)
  static const uint64_t scale = CalibrateTicks();
  if (scale != 0) [[likely]] {
    const auto ns = static_cast<int64_t>(static_cast<unsigned __int128>(__rdtsc()) * scale >> 32);
    return base::TimePoint(base::Duration(ns));
  }
#endif
  return Now();
}

base::TimePoint Now() { return base::TimePoint(base::Duration(ReadNs(CLOCK_MONOTONIC))); }
base::WallTime WallNow() { return {ReadNs(CLOCK_REALTIME)}; }
base::Duration ThreadCpuTime() { return base::Duration(ReadNs(CLOCK_THREAD_CPUTIME_ID)); }

uint64_t EntropySeed() {
  uint64_t seed;
  LLMD_CHECK(getrandom(&seed, sizeof(seed), 0) == sizeof(seed), "the kernel gives no entropy");
  return seed;
}

}  // namespace llmd::runtime
