// TokenBreaker: remembers whether a server of token ids is worth waiting for.
//
// After kFailuresMax failures in a row (no answer in time, no connection, a server at fault) nobody
// waits for it any more; its back end tries it with a small prompt now and then, and its first
// answer closes the breaker again. So a dead or saturated server costs a few requests their time,
// not every one.
//
// Thread safety: any thread.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/time.h"

namespace llmd::plugins {

class TokenBreaker {
 public:
  static constexpr uint32_t kFailuresMax = 3;
  static constexpr base::Duration kProbePause = std::chrono::seconds(2);

  bool open() const { return failures_.load(std::memory_order_relaxed) >= kFailuresMax; }
  void CountAnswer() { failures_.store(0, std::memory_order_relaxed); }
  // True when it opened with this one.
  bool CountFailure() {
    return failures_.fetch_add(1, std::memory_order_relaxed) + 1 == kFailuresMax;
  }

 private:
  std::atomic<uint32_t> failures_{0};  // in a row
};

}  // namespace llmd::plugins
