// GoneEndpoints: tells what an index by EndpointNumber must forget when the fleet's membership
// changes: numbers whose endpoint left, or that another endpoint has now.
//
// Thread-safe. Costs one atomic load while nothing changed.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "fleet/fleet.h"

namespace llmd::plugins {

class GoneEndpoints {
 public:
  // Calls forget(number) for each, once.
  template <class Forget>
  void Visit(const fleet::Fleet& fleet, Forget forget) {
    if (fleet.version() == seen_version_.load(std::memory_order_acquire)) return;
    std::lock_guard lock(mutex_);
    const std::shared_ptr<const fleet::Members> members = fleet.members();
    if (members->version == seen_version_.load(std::memory_order_relaxed)) return;
    generations_.resize(std::max(generations_.size(), members->by_number.size()), 0);
    for (uint32_t n = 0; n < generations_.size(); ++n) {
      const bool member = n < members->by_number.size() && members->by_number[n];
      // Generations may begin at 0, so one more is kept; 0 is "not a member".
      const uint64_t now = member ? members->by_number[n]->generation + 1 : 0;
      if (generations_[n] != 0 && generations_[n] != now) forget(n);
      generations_[n] = now;
    }
    seen_version_.store(members->version, std::memory_order_release);
  }

 private:
  std::atomic<uint64_t> seen_version_{0};
  std::mutex mutex_;
  std::vector<uint64_t> generations_;  // by number, 0 = not a member
};

}  // namespace llmd::plugins
