// KvParts: engine blocks that are smaller than a canonical block, gathered until one is full.
//
// An engine with 16-token blocks under a canonical 64 names four blocks where the index knows one;
// blocks that fill up while tokens are generated come one at a time. A canonical block is held in a
// tier while all its parts are; losing any of them loses it, and getting it back gives it back. The
// engine key of a canonical block is that of its last part.
//
// Thread safety: none; one object per holder and group.
// Invariants: 1. Complete and lost are reported in turns for each (canonical block, tier). 2. A
// part is known while it has references in some tier or parts behind it in its block. Limits: the
// caller counts size(); a canonical block has at most kPartsMax parts. Not built for speed: several
// hash map accesses and an allocation per part.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "prefix/kv_index.h"
#include "prefix/token_chain.h"

namespace llmd::prefix {

class KvParts {
 public:
  static constexpr uint32_t kPartsMax = 256;

  // A canonical block of which all parts are there.
  struct Complete {
    EngineKey last = 0;    // its last part
    BlockKey key = 0;
    EngineKey before = 0;  // last part of the canonical block before it; 0: it is the first
  };
  enum class Result : uint8_t { kDone, kUnknownParent };

  // `chain` outlives it. `parts` per canonical block, 2 to kPartsMax; each of `part_tokens`.
  KvParts(const TokenChain* chain, uint32_t parts, uint32_t part_tokens);

  bool Knows(EngineKey hash) const { return parts_.contains(hash); }
  // One engine block behind `parent` (none: the first of a chain that starts at `root`). Canonical
  // blocks that are complete in `tier` now are appended to `complete`.
  Result Store(std::optional<EngineKey> parent, BlockKey root, EngineKey hash,
               std::span<const uint32_t> tokens, std::span<const std::string_view> extras,
               Tier tier, std::vector<Complete>* complete);
  // A known part is in `tier` as well; false: it is not known.
  bool StoreTier(EngineKey hash, Tier tier, std::vector<Complete>* complete);
  enum class Removal : uint8_t { kRemoved, kStillReferenced, kUnknown };
  // Last parts of canonical blocks that are no longer complete in `tier` are appended to `lost`.
  Removal Remove(EngineKey hash, Tier tier, std::vector<EngineKey>* lost);

  size_t size() const { return parts_.size(); }
  uint32_t part_tokens() const { return part_tokens_; }

 private:
  struct Part {
    EngineKey previous = 0;     // in the same canonical block; 0 for its first part
    EngineKey before = 0;       // as in Complete
    BlockKey before_key = 0;    // the chain up to this canonical block
    BlockKey key = 0;           // of the canonical block; last parts only
    uint32_t position = 0;      // in the canonical block
    uint8_t complete_tiers = 0;  // bits, of the canonical block; last parts only
    std::array<uint16_t, KvIndex::kTiersMax> references{};
    std::vector<EngineKey> next;  // parts behind it in the same canonical block
    std::vector<uint32_t> tokens;
    std::vector<std::string> extras;
  };

  void Reference(EngineKey hash, Part* part, Tier tier, std::vector<Complete>* complete);
  bool PreviousAreIn(const Part& part, Tier tier) const;
  void FindComplete(EngineKey hash, Part* part, Tier tier, std::vector<Complete>* complete);
  void FindLost(EngineKey hash, Part* part, Tier tier, std::vector<EngineKey>* lost);
  BlockKey KeyOf(const Part& last);
  void EraseUnused(EngineKey hash);

  const TokenChain* chain_;
  uint32_t count_;
  uint32_t part_tokens_;
  std::unordered_map<EngineKey, Part> parts_;
  std::vector<uint32_t> tokens_;  // scratch
};

}  // namespace llmd::prefix
