// What was just sent to a holder and is about to be held there: an overlay of the index with a time
// limit. Chains are remembered by every kStep-th key and their last one; because keys are chained,
// a key that is found stands for everything before it. Each key has a cache line of its own with
// the kHoldersMax holders that came last: a prefix that went to more of them within the time limit
// needs no speculation.
//
// Thread safety: Add takes a mutex, for about 1 us per 50 marks; Match takes none.
// Invariants: 1. What is found had been added and is not expired. 2. Memory is fixed. At the limit
// the mark of a set that expires first is overwritten.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/adaptive_mutex.h"
#include "base/time.h"
#include "prefix/token_chain.h"

namespace llmd::prefix {

class SpeculativeTable {
 public:
  static constexpr uint32_t kHoldersMax = 7;

  // Rounded down to a power of two of cache lines.
  SpeculativeTable(size_t bytes, uint64_t seed, uint32_t step, uint32_t holders);

  void Add(uint32_t holder, std::span<const BlockKey> chain, base::TimePoint now,
           base::TimePoint expires);
  // Forgets what the holder was sent. For any thread.
  void Clear(uint32_t holder);

  // Calls visit(holder, blocks) for holders that were sent the first `blocks` of `chain`, several
  // times for some, in ascending order of `blocks`.
  template <class Visit>
  void Match(std::span<const BlockKey> chain, base::TimePoint now, Visit&& visit) const {
    if (latest_expiry_.load(std::memory_order_relaxed) <= Microseconds(now)) return;
    for (size_t blocks = FirstMark(chain.size()); blocks > 0 && blocks <= chain.size();
         blocks = NextMark(blocks, chain.size())) {
      std::array<uint64_t, kHoldersMax> holders;
      if (!Read(chain[blocks - 1], &holders)) break;
      for (const uint64_t entry : holders) {
        if (!IsLive(entry, now)) continue;
        visit(static_cast<uint32_t>(entry & kHolderMask), static_cast<uint32_t>(blocks));
      }
    }
  }

  size_t bytes() const { return (mask_ + 1) * sizeof(Mark); }
  // Of entries that have not expired. Walks the table.
  uint64_t live_entries(base::TimePoint now) const;

 private:
  static constexpr uint32_t kWays = 4;  // lines that a mark may lie in
  static constexpr uint64_t kHolderMask = 0x1fff;
  static constexpr uint32_t kGenerationShift = 13;
  static constexpr uint32_t kExpiryShift = 16;  // microseconds above it: 8 years

  struct alignas(64) Mark {
    std::atomic<uint64_t> key{0};
    // expiry << 16 | generation of the holder << 13 | holder
    std::array<std::atomic<uint64_t>, kHoldersMax> holders{};
  };
  static_assert(sizeof(Mark) == 64);

  static constexpr uint64_t LowMask() { return (uint64_t{1} << kExpiryShift) - 1; }
  static uint64_t Microseconds(base::TimePoint t) {
    return static_cast<uint64_t>(t.time_since_epoch().count()) / 1000;
  }
  size_t FirstMark(size_t size) const { return size < step_ ? size : step_; }
  size_t NextMark(size_t blocks, size_t size) const {
    if (blocks >= size) return size + 1;
    return blocks + step_ < size ? blocks + step_ : size;
  }
  uint64_t Generation(uint32_t holder) const {
    return generations_[holder].load(std::memory_order_relaxed) & 7;
  }
  bool IsLive(uint64_t entry, base::TimePoint now) const {
    return entry >> kExpiryShift > Microseconds(now) &&
           (entry >> kGenerationShift & 7) == Generation(entry & kHolderMask);
  }
  bool Read(BlockKey key, std::array<uint64_t, kHoldersMax>* holders) const;
  Mark& Claim(BlockKey key);
  size_t Home(BlockKey key) const;

  const uint64_t seed_;
  const uint32_t step_;
  size_t mask_ = 0;
  std::unique_ptr<Mark[]> marks_;
  std::unique_ptr<std::atomic<uint8_t>[]> generations_;  // by holder
  std::atomic<uint64_t> latest_expiry_{0};
  base::AdaptiveMutex mutex_;
};

}  // namespace llmd::prefix
