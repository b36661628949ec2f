// The memory that bodies held for a decision or a retry may take, shared by all workers.
//
// Workers lease it in steps, so that a request changes a worker-local number and not a cache line
// that all workers share. Thread safety: MemoryBudget is thread-safe; a BudgetLease belongs to one
// worker. Invariants: 1. The sum of what leases hold never exceeds the limit. 2. A lease that is
// destroyed has given everything back.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/check.h"

namespace llmd::control {

class MemoryBudget {
 public:
  MemoryBudget(uint64_t limit_bytes, size_t workers)
      : limit_(static_cast<int64_t>(limit_bytes)),
        step_(std::clamp<int64_t>(limit_ / static_cast<int64_t>(8 * workers), 1, kStepMax)) {}

  uint64_t limit_bytes() const { return static_cast<uint64_t>(limit_); }
  // Leased by workers, a little above what bodies take.
  uint64_t leased_bytes() const {
    return static_cast<uint64_t>(leased_.load(std::memory_order_relaxed));
  }

 private:
  friend class BudgetLease;
  static constexpr int64_t kStepMax = 4 << 20;

  bool Lease(int64_t bytes) {
    if (leased_.fetch_add(bytes, std::memory_order_relaxed) + bytes <= limit_) return true;
    leased_.fetch_sub(bytes, std::memory_order_relaxed);
    return false;
  }
  void Return(int64_t bytes) { leased_.fetch_sub(bytes, std::memory_order_relaxed); }

  const int64_t limit_;
  const int64_t step_;
  std::atomic<int64_t> leased_{0};
};

class BudgetLease {
 public:
  explicit BudgetLease(MemoryBudget& budget) : budget_(budget) {}
  ~BudgetLease() {
    LLMD_CHECK(held_ == 0, "a body outlived its worker's lease");
    budget_.Return(free_);
  }
  BudgetLease(const BudgetLease&) = delete;
  BudgetLease& operator=(const BudgetLease&) = delete;

  // False when the budget does not allow it; nothing is held then.
  bool Take(size_t bytes) {
    const auto need = static_cast<int64_t>(bytes);
    if (need > free_) {
      // A whole step first, for the requests after this one; just the need when that is too much.
      const int64_t missing = need - free_;
      const int64_t wanted = std::max(missing, budget_.step_);
      if (budget_.Lease(wanted)) {
        free_ += wanted;
      } else if (budget_.Lease(missing)) {
        free_ += missing;
      } else {
        return false;
      }
    }
    free_ -= need;
    held_ += need;
    return true;
  }
  void Give(size_t bytes) {
    free_ += static_cast<int64_t>(bytes);
    held_ -= static_cast<int64_t>(bytes);
    if (free_ > 2 * budget_.step_) {
      budget_.Return(free_ - budget_.step_);
      free_ = budget_.step_;
    }
  }
  int64_t held_bytes() const { return held_; }

 private:
  MemoryBudget& budget_;
  int64_t free_ = 0;
  int64_t held_ = 0;
};

}  // namespace llmd::control
