#include "fleet/health.h"

#include <algorithm>

namespace llmd::fleet {
namespace {

// The word: start of slow start in ms (40 bits: 34 years of uptime), then counts. Zero = nothing
// ever happened, which is healthy.
struct Fields {
  int64_t start_ms;    // slow start begins; an ejected endpoint's lies in the future
  uint32_t failures;   // in a row, while healthy
  uint32_t successes;  // on probation
  uint32_t ejections;  // in a row; not zero = ejected or on probation
};

constexpr int64_t kTimeMask = (int64_t{1} << 40) - 1;
constexpr uint32_t kCountMask = 0xff;

int64_t ToMs(base::TimePoint t) {
  return std::clamp<int64_t>(t.time_since_epoch() / std::chrono::milliseconds(1), 0, kTimeMask);
}
constexpr int64_t kSlowStartMs = Health::kSlowStart / std::chrono::milliseconds(1);

Fields Unpack(uint64_t word) {
  return {.start_ms = static_cast<int64_t>(word >> 24),
          .failures = static_cast<uint32_t>(word >> 16) & kCountMask,
          .successes = static_cast<uint32_t>(word >> 8) & kCountMask,
          .ejections = static_cast<uint32_t>(word) & kCountMask};
}
uint64_t Pack(const Fields& f) {
  return static_cast<uint64_t>(f.start_ms) << 24 | uint64_t{f.failures} << 16 |
         uint64_t{f.successes} << 8 | f.ejections;
}

bool Ejected(const Fields& f, int64_t now_ms) { return f.ejections > 0 && now_ms < f.start_ms; }

void Eject(Fields* f, int64_t now_ms) {
  base::Duration length = Health::kEjectionMax;
  if (f->ejections < 16) length = std::min(length, Health::kEjectionBase * (1 << f->ejections));
  f->ejections = std::min(f->ejections + 1, kCountMask);
  f->failures = f->successes = 0;
  f->start_ms = now_ms + length / std::chrono::milliseconds(1);
}

}  // namespace

void Health::Reset(base::TimePoint now) {
  word_.store(Pack({.start_ms = ToMs(now)}), std::memory_order_relaxed);
}

void Health::ReportSuccess(base::TimePoint now) {
  uint64_t word = word_.load(std::memory_order_relaxed);
  while (true) {
    Fields f = Unpack(word);
    if ((f.failures == 0 && f.ejections == 0) || Ejected(f, ToMs(now))) return;
    f.failures = 0;
    if (f.ejections > 0 && ++f.successes >= kSuccessesToForget) f.ejections = f.successes = 0;
    if (word_.compare_exchange_weak(word, Pack(f), std::memory_order_relaxed)) return;
  }
}

bool Health::ReportFailure(base::TimePoint now) {
  const int64_t now_ms = ToMs(now);
  uint64_t word = word_.load(std::memory_order_relaxed);
  while (true) {
    Fields f = Unpack(word);
    if (Ejected(f, now_ms)) return false;
    const bool ejects = f.ejections > 0 || f.failures + 1 >= kFailuresToEject;
    if (ejects) {
      Eject(&f, now_ms);
    } else {
      ++f.failures;
    }
    if (word_.compare_exchange_weak(word, Pack(f), std::memory_order_relaxed)) return ejects;
  }
}

Health::State Health::state(base::TimePoint now) const {
  const Fields f = Unpack(word_.load(std::memory_order_relaxed));
  const int64_t now_ms = ToMs(now);
  if (Ejected(f, now_ms)) return State::kEjected;
  if (f.start_ms == 0) return State::kHealthy;
  return now_ms - f.start_ms < kSlowStartMs ? State::kSlowStart : State::kHealthy;
}

double Health::share(base::TimePoint now) const {
  const Fields f = Unpack(word_.load(std::memory_order_relaxed));
  const int64_t now_ms = ToMs(now);
  if (Ejected(f, now_ms)) return 0;
  if (f.start_ms == 0) return 1;
  const double progress = static_cast<double>(std::max<int64_t>(0, now_ms - f.start_ms)) /
                          static_cast<double>(kSlowStartMs);
  return std::min(1.0, kFirstShare + (1 - kFirstShare) * progress);
}

bool Health::steady(base::TimePoint now) const {
  const uint64_t word = word_.load(std::memory_order_relaxed);
  return static_cast<int64_t>(word >> 24) + kSlowStartMs <= ToMs(now) || word >> 24 == 0;
}

}  // namespace llmd::fleet
