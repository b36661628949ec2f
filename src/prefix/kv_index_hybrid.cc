#include "prefix/kv_index_hybrid.h"

namespace llmd::prefix {

void HybridMatch::Begin(const WeightTable& weights) {
  ++chain_;
  weights_ = weights;
  seen_.clear();
  seen_.reserve(holders_.size());
}

void HybridMatch::Open(uint32_t id, const Windows& windows) {
  Holder& holder = holders_[id];
  if (holder.chain != chain_) {
    holder = {.chain = chain_};
    seen_.push_back(static_cast<HolderId>(id));
    for (uint32_t g = kGroups; g-- > 0;) {
      holder.windows[g] = windows[g].load(std::memory_order_relaxed);
      if (holder.windows[g] == KvIndex::kFullAttention) holder.weighed = g;
    }
  }
  holder.masks = {};
}

uint32_t HybridMatch::StretchBefore(const Holder& holder, uint32_t group, uint32_t at,
                                    uint32_t count) {
  const uint64_t mask = holder.masks[group];
  const auto ones = static_cast<uint32_t>(std::countl_one(mask << (64 - count)));
  if (ones < count) return ones;
  return count + (holder.until[group] == at ? holder.stretch[group] : 0);
}

// The longest usable prefix that ends in (at, at + count], or 0.
uint32_t HybridMatch::Usable(const Holder& holder, uint32_t at, uint32_t count) const {
  uint32_t limit = count;
  for (uint32_t g = 0; g < kGroups; ++g) {
    if (holder.windows[g] != KvIndex::kFullAttention) continue;
    if (holder.until[g] != at || holder.stretch[g] != at) return 0;
    limit = std::min(limit, static_cast<uint32_t>(std::countr_one(holder.masks[g])));
  }
  for (; limit > 0; --limit) {
    bool all = true;
    for (uint32_t g = 0; g < kGroups && all; ++g) {
      const uint32_t window = holder.windows[g];
      if (window == 0 || window == KvIndex::kFullAttention) continue;
      all = StretchBefore(holder, g, at, limit) >= std::min(window, at + limit);
    }
    if (all) return at + limit;
  }
  return 0;
}

void HybridMatch::Close(uint32_t id, uint32_t at, uint32_t count,
                        const std::array<uint64_t, KvIndex::kTiersMax>& by_tier) {
  Holder& holder = holders_[id];
  const auto low = [](uint32_t bits) {
    return bits >= 64 ? ~uint64_t{0} : (uint64_t{1} << bits) - 1;
  };
  for (uint64_t& mask : holder.masks) mask &= low(count);
  if (const uint32_t usable = Usable(holder, at, count); usable > 0) {
    holder.best = usable;
    holder.best_weight = holder.weighed == kGroups
                             ? static_cast<float>(usable) * weights_.of[0]
                             : holder.weight + weights_.Sum(by_tier, low(usable - at));
  }
  holder.weight += weights_.Sum(by_tier, low(count));
  for (uint32_t g = 0; g < kGroups; ++g) {
    holder.stretch[g] = StretchBefore(holder, g, at, count);
    holder.until[g] = at + count;
  }
}

}  // namespace llmd::prefix
