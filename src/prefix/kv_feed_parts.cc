#include "prefix/kv_feed_parts.h"

#include <algorithm>
#include <unordered_set>

namespace llmd::prefix {

KvParts::KvParts(const TokenChain* chain, uint32_t parts, uint32_t part_tokens)
    : chain_(chain), count_(parts), part_tokens_(part_tokens) {}

KvParts::Result KvParts::Store(std::optional<EngineKey> parent, BlockKey root, EngineKey hash,
                               std::span<const uint32_t> tokens,
                               std::span<const std::string_view> extras, Tier tier,
                               std::vector<Complete>* complete) {
  Part made{.before_key = root};
  if (parent) {
    const auto it = parts_.find(*parent);
    if (it == parts_.end()) return Result::kUnknownParent;
    const Part& p = it->second;
    if (p.position + 1 == count_) {
      made.before = *parent;
      made.before_key = p.key;
    } else {
      made.previous = *parent;
      made.before = p.before;
      made.before_key = p.before_key;
      made.position = p.position + 1;
    }
  }
  const auto [it, is_new] = parts_.try_emplace(hash);
  Part& part = it->second;
  if (is_new) {
    part = std::move(made);
    part.tokens.assign(tokens.begin(), tokens.end());
    part.extras.assign(extras.begin(), extras.end());
    if (part.previous != 0) parts_.find(part.previous)->second.next.push_back(hash);
    if (part.position + 1 == count_) part.key = KeyOf(part);
  }
  Reference(hash, &part, tier, complete);
  return Result::kDone;
}

bool KvParts::StoreTier(EngineKey hash, Tier tier, std::vector<Complete>* complete) {
  const auto it = parts_.find(hash);
  if (it == parts_.end()) return false;
  Reference(hash, &it->second, tier, complete);
  return true;
}

KvParts::Removal KvParts::Remove(EngineKey hash, Tier tier, std::vector<EngineKey>* lost) {
  const auto it = parts_.find(hash);
  if (it == parts_.end() || it->second.references[tier] == 0) return Removal::kUnknown;
  if (--it->second.references[tier] > 0) return Removal::kStillReferenced;
  FindLost(hash, &it->second, tier, lost);
  EraseUnused(hash);
  return Removal::kRemoved;
}

void KvParts::Reference(EngineKey hash, Part* part, Tier tier, std::vector<Complete>* complete) {
  if (part->references[tier] == UINT16_MAX) return;
  if (++part->references[tier] == 1 && PreviousAreIn(*part, tier)) {
    FindComplete(hash, part, tier, complete);
  }
}

bool KvParts::PreviousAreIn(const Part& part, Tier tier) const {
  for (EngineKey hash = part.previous; hash != 0;) {
    const Part& previous = parts_.find(hash)->second;
    if (previous.references[tier] == 0) return false;
    hash = previous.previous;
  }
  return true;
}

// Depth first over what follows in the block; at most kPartsMax deep.
void KvParts::FindComplete(EngineKey hash, Part* part, Tier tier, std::vector<Complete>* complete) {
  if (part->references[tier] == 0) return;
  if (part->position + 1 == count_) {
    part->complete_tiers |= static_cast<uint8_t>(1 << tier);
    complete->push_back({hash, part->key, part->before});
  }
  for (const EngineKey next : part->next) {
    FindComplete(next, &parts_.find(next)->second, tier, complete);
  }
}

void KvParts::FindLost(EngineKey hash, Part* part, Tier tier, std::vector<EngineKey>* lost) {
  const auto bit = static_cast<uint8_t>(1 << tier);
  if ((part->complete_tiers & bit) != 0) {
    part->complete_tiers &= static_cast<uint8_t>(~bit);
    lost->push_back(hash);
  }
  for (const EngineKey next : part->next) {
    FindLost(next, &parts_.find(next)->second, tier, lost);
  }
}

// The extras of all parts, each text once: an image that spans parts is one item of the block.
BlockKey KvParts::KeyOf(const Part& last) {
  std::vector<const Part*> parts(count_);
  const Part* part = &last;
  for (uint32_t i = count_; i-- > 0;) {
    parts[i] = part;
    if (i > 0) part = &parts_.find(part->previous)->second;
  }
  tokens_.clear();
  std::vector<BlockExtra> extras;
  std::unordered_set<std::string_view> seen;
  for (const Part* p : parts) {
    tokens_.insert(tokens_.end(), p->tokens.begin(), p->tokens.end());
    for (const std::string& text : p->extras) {
      if (seen.insert(text).second) extras.push_back({0, text});
    }
  }
  BlockKey key = 0;
  chain_->Extend(last.before_key, tokens_, tokens_.size(), extras, {&key, 1});
  return key;
}

void KvParts::EraseUnused(EngineKey hash) {
  while (hash != 0) {
    const auto it = parts_.find(hash);
    const Part& part = it->second;
    if (!part.next.empty()) return;
    if (std::any_of(part.references.begin(), part.references.end(), [](auto n) { return n > 0; })) {
      return;
    }
    const EngineKey previous = part.previous;
    parts_.erase(it);
    if (previous != 0) std::erase(parts_.find(previous)->second.next, hash);
    hash = previous;
  }
}

}  // namespace llmd::prefix
