// The usable prefix of holders whose layers form several groups, each with a KV cache of its own:
// the longest d such that every full-attention group holds blocks [0, d) and every group with a
// sliding window of W blocks holds blocks [d - min(W, d), d). Fed with what the holder has, run by
// run along a chain; keeps per group how long an unbroken stretch ends where the run ends.
//
// Weights are those of the first full-attention group; a holder without one counts tier 0.
//
// Thread safety: thread-compatible.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "prefix/kv_index.h"

namespace llmd::prefix {

// What a block weighs by its tier.
struct WeightTable {
  static constexpr uint32_t kTiers = KvIndex::kTiersMax;
  std::array<float, kTiers> of{1, 1, 1, 1};
  std::array<Tier, kTiers> by_weight{0, 1, 2, 3};  // the heaviest first
  bool first_is_best = true;

  WeightTable() = default;
  explicit WeightTable(std::span<const float> weights) {
    std::copy_n(weights.begin(), std::min<size_t>(weights.size(), kTiers), of.begin());
    std::sort(by_weight.begin(), by_weight.end(), [this](Tier a, Tier b) {
      return of[a] != of[b] ? of[a] > of[b] : a < b;
    });
    first_is_best = by_weight[0] == 0;
  }
  // Of `wanted` blocks, each by its best tier.
  float Sum(const std::array<uint64_t, kTiers>& held, uint64_t wanted) const {
    float sum = 0;
    for (const Tier tier : by_weight) {
      sum += static_cast<float>(std::popcount(held[tier] & wanted)) * of[tier];
      wanted &= ~held[tier];
    }
    return sum;
  }
};

class HybridMatch {
 public:
  static constexpr uint32_t kGroups = KvIndex::kGroupsMax;
  using Windows = std::array<std::atomic<uint32_t>, kGroups>;

  HybridMatch() : holders_(KvIndex::kHoldersMax) {}

  // A new chain.
  void Begin(const WeightTable& weights);
  // A new run; its blocks follow. Again without Close, if reading the run has to begin anew.
  void Open(uint32_t holder, const Windows& windows);
  // True if it is by this group that blocks are weighed.
  bool AddBlocks(uint32_t holder, uint32_t group, uint64_t mask) {
    holders_[holder].masks[group] |= mask;
    return group == holders_[holder].weighed;
  }
  // The run had blocks [at, at + count) of the chain; by_tier: of the group that is weighed.
  void Close(uint32_t holder, uint32_t at, uint32_t count,
             const std::array<uint64_t, KvIndex::kTiersMax>& by_tier);
  // visit(holder, blocks, weight) for all that were closed since Begin.
  template <class Visit>
  void ForEach(Visit&& visit) const {
    for (const HolderId id : seen_) visit(id, holders_[id].best, holders_[id].best_weight);
  }

 private:
  struct Holder {
    uint64_t chain = 0;  // the number of the chain that all this is about
    uint32_t best = 0;
    float best_weight = 0;
    uint32_t weighed = kGroups;  // first full-attention group
    float weight = 0;            // of the blocks before `until[weighed]`
    std::array<uint32_t, kGroups> windows{};
    std::array<uint64_t, kGroups> masks{};
    std::array<uint32_t, kGroups> until{};    // where the last stretch ends
    std::array<uint32_t, kGroups> stretch{};  // and how long it is
  };

  uint32_t Usable(const Holder& holder, uint32_t at, uint32_t count) const;
  // Length of the unbroken stretch of `group` that ends before block at + count.
  static uint32_t StretchBefore(const Holder& holder, uint32_t group, uint32_t at, uint32_t count);

  std::vector<Holder> holders_;
  std::vector<HolderId> seen_;
  uint64_t chain_ = 0;
  WeightTable weights_;
};

}  // namespace llmd::prefix
