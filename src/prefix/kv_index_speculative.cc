#include "prefix/kv_index_speculative.h"

#include <algorithm>
#include <bit>
#include <mutex>

#include "base/hash.h"

namespace llmd::prefix {

SpeculativeTable::SpeculativeTable(size_t bytes, uint64_t seed, uint32_t step, uint32_t holders)
    : seed_(seed),
      step_(step),
      mask_(std::bit_floor(std::max<size_t>(bytes / sizeof(Mark), kWays)) - 1),
      marks_(std::make_unique<Mark[]>(mask_ + 1)),
      generations_(std::make_unique<std::atomic<uint8_t>[]>(holders)) {}

size_t SpeculativeTable::Home(BlockKey key) const {
  return base::Mix64(key, seed_) & mask_ & ~size_t{kWays - 1};
}

bool SpeculativeTable::Read(BlockKey key, std::array<uint64_t, kHoldersMax>* holders) const {
  const size_t home = Home(key);
  for (size_t way = 0; way < kWays; ++way) {
    const Mark& mark = marks_[home + way];
    if (mark.key.load(std::memory_order_acquire) != key) continue;
    for (size_t i = 0; i < kHoldersMax; ++i) {
      (*holders)[i] = mark.holders[i].load(std::memory_order_relaxed);
    }
    // A mark that is given to another key loses its own first, so the same key again means that
    // nothing of another one was read.
    std::atomic_thread_fence(std::memory_order_acquire);
    return mark.key.load(std::memory_order_relaxed) == key;
  }
  return false;
}

// The mark of `key`, old or new: the one that expires first gives way.
SpeculativeTable::Mark& SpeculativeTable::Claim(BlockKey key) {
  const size_t home = Home(key);
  Mark* oldest = nullptr;
  uint64_t oldest_expiry = ~uint64_t{0};
  for (size_t way = 0; way < kWays; ++way) {
    Mark& mark = marks_[home + way];
    if (mark.key.load(std::memory_order_relaxed) == key) return mark;
    uint64_t expiry = 0;
    for (const auto& holder : mark.holders) {
      expiry = std::max(expiry, holder.load(std::memory_order_relaxed) >> kExpiryShift);
    }
    if (expiry < oldest_expiry) {
      oldest_expiry = expiry;
      oldest = &mark;
    }
  }
  oldest->key.store(0, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_release);
  for (auto& holder : oldest->holders) holder.store(0, std::memory_order_relaxed);
  oldest->key.store(key, std::memory_order_release);
  return *oldest;
}

void SpeculativeTable::Add(uint32_t holder, std::span<const BlockKey> chain, base::TimePoint now,
                           base::TimePoint expires) {
  if (expires <= now) return;
  const uint64_t expiry = Microseconds(expires);
  const uint64_t who = Generation(holder) << kGenerationShift | holder;
  const std::scoped_lock lock(mutex_);
  if (expiry > latest_expiry_.load(std::memory_order_relaxed)) {
    latest_expiry_.store(expiry, std::memory_order_relaxed);
  }
  for (size_t blocks = FirstMark(chain.size()); blocks > 0 && blocks <= chain.size();
       blocks = NextMark(blocks, chain.size())) {
    Mark& mark = Claim(chain[blocks - 1]);
    // Its own place, else the one that expires first.
    std::atomic<uint64_t>* place = &mark.holders[0];
    for (auto& other : mark.holders) {
      const uint64_t entry = other.load(std::memory_order_relaxed);
      if ((entry & LowMask()) == who) {
        place = &other;
        break;
      }
      if (entry >> kExpiryShift < place->load(std::memory_order_relaxed) >> kExpiryShift) {
        place = &other;
      }
    }
    if (const uint64_t entry = place->load(std::memory_order_relaxed);
        (entry & LowMask()) == who && entry >> kExpiryShift >= expiry) {
      continue;
    }
    place->store(expiry << kExpiryShift | who, std::memory_order_relaxed);
  }
}

void SpeculativeTable::Clear(uint32_t holder) {
  generations_[holder].fetch_add(1, std::memory_order_relaxed);
}

uint64_t SpeculativeTable::live_entries(base::TimePoint now) const {
  uint64_t live = 0;
  for (size_t i = 0; i <= mask_; ++i) {
    for (const auto& holder : marks_[i].holders) {
      live += IsLive(holder.load(std::memory_order_relaxed), now) ? 1 : 0;
    }
  }
  return live;
}

}  // namespace llmd::prefix
