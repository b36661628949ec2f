#include "plugins/producer/burst_assignment.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "base/hash.h"

namespace llmd::plugins {
namespace {

using prefix::BlockHash;

// Equal for equal leading blocks.
uint64_t Signature(std::span<const BlockHash> blocks) {
  uint64_t hash = blocks.size();
  for (const BlockHash block : blocks) hash = base::Mix64(hash, block);
  return hash;
}

struct Unit {
  std::vector<size_t> members;         // of the burst
  std::span<const BlockHash> blocks;
};

class Placement {
 public:
  Placement(std::span<const BurstReplica> replicas, const BurstRules& rules)
      : replicas_(replicas), rules_(rules), load_(replicas.size(), 0) {}

  void SetFairShare(size_t total) {
    fair_share_ = (total + replicas_.size() - 1) / replicas_.size();
  }

  void Place(const Unit& unit, std::vector<std::optional<size_t>>* assigned) {
    const std::vector<size_t> held = HeldBlocks(unit.blocks);
    std::vector<size_t> placed(replicas_.size(), 0);  // of this unit
    bool prefers_prefix = rules_.min_colocate_blocks > 0;
    for (size_t i = 0; i < unit.members.size();) {
      const size_t target = Choose(placed, held, prefers_prefix);
      size_t run = unit.members.size() - i;
      if (rules_.max_per_replica) {
        // All are full: one more each, in turn.
        const size_t room =
            placed[target] < *rules_.max_per_replica ? *rules_.max_per_replica - placed[target] : 1;
        run = std::min(run, room);
      }
      for (size_t j = i; j < i + run; ++j) (*assigned)[unit.members[j]] = target;
      if (!rules_.by_tokens) {
        load_[target] += run;
      } else if (placed[target] == 0) {
        load_[target] += unit.blocks.size() - std::min(held[target], unit.blocks.size());
      }
      placed[target] += run;
      i += run;
      prefers_prefix = false;  // only the first replica is chosen for what it holds
    }
    for (size_t r = 0; r < replicas_.size(); ++r) {
      if (placed[r] == 0) continue;
      for (const BlockHash block : unit.blocks) holders_[block].push_back(r);
    }
  }

 private:
  // Leading blocks that each replica got with earlier units.
  std::vector<size_t> HeldBlocks(std::span<const BlockHash> blocks) const {
    std::vector<size_t> held(replicas_.size(), 0);
    for (const BlockHash block : blocks) {
      const auto found = holders_.find(block);
      if (found == holders_.end()) break;
      std::vector<size_t> once = found->second;
      std::sort(once.begin(), once.end());
      once.erase(std::unique(once.begin(), once.end()), once.end());
      for (const size_t r : once) ++held[r];
    }
    return held;
  }

  bool Before(size_t a, size_t b) const {
    if (load_[a] != load_[b]) return load_[a] < load_[b];
    if (replicas_[a].running != replicas_[b].running) {
      return replicas_[a].running < replicas_[b].running;
    }
    return replicas_[a].name < replicas_[b].name;
  }

  // The best of those for which `may` holds, better as `better` says.
  template <class May, class Better>
  std::optional<size_t> Best(May may, Better better) const {
    std::optional<size_t> best;
    for (size_t r = 0; r < replicas_.size(); ++r) {
      if (may(r) && (!best || better(r, *best))) best = r;
    }
    return best;
  }

  size_t Choose(std::span<const size_t> placed, std::span<const size_t> held,
                bool prefers_prefix) const {
    const auto has_room = [&](size_t r) {
      return !rules_.max_per_replica || placed[r] < *rules_.max_per_replica;
    };
    const auto before = [&](size_t a, size_t b) { return Before(a, b); };
    if (prefers_prefix) {
      const auto best = Best(
          [&](size_t r) {
            return has_room(r) && load_[r] < fair_share_ && held[r] >= rules_.min_colocate_blocks;
          },
          [&](size_t a, size_t b) {
            return held[a] != held[b] ? held[a] > held[b] : before(a, b);
          });
      if (best) return *best;
    }
    if (const auto best = Best(has_room, before)) return *best;
    return *Best([](size_t) { return true; }, before);
  }

  const std::span<const BurstReplica> replicas_;
  const BurstRules& rules_;
  size_t fair_share_ = 0;
  std::vector<size_t> load_;
  std::unordered_map<BlockHash, std::vector<size_t>> holders_;
};

}  // namespace

std::vector<std::optional<size_t>> AssignBurst(std::span<const std::vector<BlockHash>> prompts,
                                               std::span<const BurstReplica> replicas,
                                               const BurstRules& rules) {
  std::vector<std::optional<size_t>> assigned(prompts.size());
  if (replicas.empty()) return assigned;
  // Identical prompts, in the order of their first request.
  std::vector<Unit> units;
  std::unordered_map<uint64_t, size_t> unit_of;
  std::unordered_map<uint64_t, size_t> sharing;  // requests by their first blocks
  const size_t colocate = rules.min_colocate_blocks;
  for (size_t i = 0; i < prompts.size(); ++i) {
    if (prompts[i].empty()) continue;
    const auto [at, fresh] = unit_of.try_emplace(Signature(prompts[i]), units.size());
    if (fresh) units.push_back({.members = {}, .blocks = prompts[i]});
    units[at->second].members.push_back(i);
    if (colocate > 0 && prompts[i].size() >= colocate) {
      ++sharing[Signature(std::span(prompts[i]).first(colocate))];
    }
  }
  const auto shares = [&](const Unit& unit) {
    return colocate > 0 && unit.blocks.size() >= colocate &&
           sharing[Signature(unit.blocks.first(colocate))] >= 2;
  };
  std::erase_if(units, [&](const Unit& u) { return u.members.size() < 2 && !shares(u); });
  std::sort(units.begin(), units.end(), [](const Unit& a, const Unit& b) {
    const bool a_is_group = a.members.size() >= 2, b_is_group = b.members.size() >= 2;
    if (a_is_group != b_is_group) return a_is_group;
    if (a.blocks.size() != b.blocks.size()) return a.blocks.size() > b.blocks.size();
    return a.members[0] < b.members[0];
  });
  size_t total = 0;
  for (const Unit& unit : units)
    total += rules.by_tokens ? unit.blocks.size() : unit.members.size();
  Placement placement(replicas, rules);
  placement.SetFairShare(total);
  for (const Unit& unit : units) placement.Place(unit, &assigned);
  return assigned;
}

}  // namespace llmd::plugins
