// KvTwin: the obviously right twin of a KvIndex without a budget, out of maps.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <tuple>
#include <vector>

#include "prefix/kv_index.h"

namespace llmd::prefix {

class KvTwin {
 public:
  static constexpr uint32_t kTiers = KvIndex::kTiersMax;

  void Store(HolderId holder, Tier tier, Group group, std::span<const EngineKey> engine_keys,
             std::span<const BlockKey> block_keys) {
    for (size_t i = 0; i < engine_keys.size(); ++i) {
      const Name name{holder, group, engine_keys[i]};
      const auto found = entries_.find(name);
      if (found != entries_.end() && found->second.key != block_keys[i]) Forget(name);
      Entry& entry = entries_[name];
      entry.key = block_keys[i];
      Count(name, tier, 1);
    }
  }
  size_t StoreTier(HolderId holder, Tier tier, Group group,
                   std::span<const EngineKey> engine_keys) {
    size_t known = 0;
    for (const EngineKey key : engine_keys) {
      const Name name{holder, group, key};
      if (!entries_.contains(name)) continue;
      Count(name, tier, 1);
      ++known;
    }
    return known;
  }
  KvIndex::Removed Remove(HolderId holder, Tier tier, Group group,
                          std::span<const EngineKey> engine_keys) {
    KvIndex::Removed result;
    for (const EngineKey key : engine_keys) {
      const Name name{holder, group, key};
      const auto found = entries_.find(name);
      if (found == entries_.end() || found->second.references[tier] == 0) {
        ++result.unknown;
        continue;
      }
      Count(name, tier, -1);
      const auto& references = found->second.references;
      ++(references[tier] > 0 ? result.still_referenced : result.removed);
      if (std::all_of(references.begin(), references.end(), [](int n) { return n == 0; })) {
        entries_.erase(found);
      }
    }
    return result;
  }
  void Clear(HolderId holder) {
    std::vector<Name> names;
    for (const auto& [name, entry] : entries_) {
      if (std::get<0>(name) == holder) names.push_back(name);
    }
    for (const Name& name : names) Forget(name);
  }
  void SetGroups(HolderId holder, std::span<const uint32_t> windows) {
    groups_[holder].assign(windows.begin(), windows.end());
  }

  // Tiers in which the holder has the block, as bits.
  uint32_t TiersOf(HolderId holder, Group group, BlockKey key) const {
    const auto found = held_.find({holder, group, key});
    if (found == held_.end()) return 0;
    uint32_t tiers = 0;
    for (uint32_t t = 0; t < kTiers; ++t) tiers |= found->second[t] > 0 ? 1u << t : 0;
    return tiers;
  }
  struct Answer {
    uint32_t blocks = 0;
    double weight = 0;
  };
  Answer Match(HolderId holder, std::span<const BlockKey> chain,
               std::span<const float> weights) const {
    const auto groups = groups_.find(holder);
    if (groups != groups_.end() && !groups->second.empty()) {
      return MatchGroups(holder, chain, weights, groups->second);
    }
    Answer answer;
    for (const BlockKey key : chain) {
      const uint32_t tiers = TiersOf(holder, 0, key);
      if (tiers == 0) break;
      ++answer.blocks;
      answer.weight += Best(tiers, weights);
    }
    return answer;
  }

  // (holder, group, engine key) -> block key and references per tier
  using Name = std::tuple<HolderId, Group, EngineKey>;
  struct Entry {
    BlockKey key = 0;
    std::array<int, kTiers> references{};
    friend bool operator==(const Entry&, const Entry&) = default;
  };
  const std::map<Name, Entry>& entries() const { return entries_; }

 private:
  static double Best(uint32_t tiers, std::span<const float> weights) {
    double best = -1e30;
    for (uint32_t t = 0; t < kTiers; ++t) {
      if ((tiers >> t & 1) == 0) continue;
      best = std::max(best, t < weights.size() ? static_cast<double>(weights[t]) : 1.0);
    }
    return best;
  }
  Answer MatchGroups(HolderId holder, std::span<const BlockKey> chain,
                     std::span<const float> weights,
                     const std::vector<uint32_t>& windows) const {
    const auto full = std::find(windows.begin(), windows.end(), KvIndex::kFullAttention);
    for (size_t d = chain.size(); d > 0; --d) {
      bool usable = true;
      for (Group g = 0; g < windows.size() && usable; ++g) {
        const size_t from = windows[g] >= d ? 0 : d - windows[g];
        for (size_t i = from; i < d && usable; ++i) usable = TiersOf(holder, g, chain[i]) != 0;
      }
      if (!usable) continue;
      Answer answer{.blocks = static_cast<uint32_t>(d)};
      for (size_t i = 0; i < d; ++i) {
        answer.weight += full == windows.end()
                             ? Best(1, weights)
                             : Best(TiersOf(holder, static_cast<Group>(full - windows.begin()),
                                            chain[i]),
                                    weights);
      }
      return answer;
    }
    return {};
  }
  void Count(const Name& name, Tier tier, int by) {
    Entry& entry = entries_[name];
    const bool had = entry.references[tier] > 0;
    entry.references[tier] += by;
    const bool has = entry.references[tier] > 0;
    if (had == has) return;
    const auto& [holder, group, engine_key] = name;
    auto& tiers = held_[{holder, group, entry.key}];
    tiers[tier] += has ? 1 : -1;
    if (std::all_of(tiers.begin(), tiers.end(), [](int n) { return n == 0; })) {
      held_.erase({holder, group, entry.key});
    }
  }
  void Forget(const Name& name) {
    for (Tier t = 0; t < kTiers; ++t) {
      if (const int n = entries_[name].references[t]; n > 0) Count(name, t, -n);
    }
    entries_.erase(name);
  }

  std::map<Name, Entry> entries_;
  // (holder, group, block key) -> engine keys per tier
  std::map<std::tuple<HolderId, Group, BlockKey>, std::array<int, kTiers>> held_;
  std::map<HolderId, std::vector<uint32_t>> groups_;
};

}  // namespace llmd::prefix
