#include "prefix/kv_feed_apply.h"

#include <algorithm>

#include "base/check.h"
#include "base/hash.h"

namespace llmd::prefix {
namespace {

constexpr std::array<std::string_view, kKvSkips> kSkipNames = {
    "unsupported_cache_kind", "invalid_block_size", "non_dense_block_span",
    "unknown_group",          "too_many_groups",    "parts_full",           "too_many_extras",
};

// How many of the last tokens a group of this kind needs; 0: all, nullopt: it cannot be indexed.
std::optional<uint32_t> WindowOf(KvCacheKind kind, uint32_t sliding_window) {
  switch (kind) {
    case KvCacheKind::kFullAttention:
    case KvCacheKind::kMlaAttention:
    case KvCacheKind::kSinkFullAttention: return 0;
    case KvCacheKind::kSlidingWindow:
    case KvCacheKind::kSlidingWindowMla:
    case KvCacheKind::kChunkedLocalAttention:
      return sliding_window == 0 ? std::nullopt : std::optional(sliding_window);
    case KvCacheKind::kMamba: return 1;  // the state behind the last token
    default: return std::nullopt;
  }
}

}  // namespace

std::string_view KvSkipName(KvSkip skip) { return kSkipNames[static_cast<size_t>(skip)]; }

void KvHolderState::RememberSkipped(uint32_t engine_group, KvCacheKind kind) {
  if (!SkippedKind(engine_group) && skipped_.size() < kSkippedMax) {
    skipped_.push_back({engine_group, kind});
  }
}

std::optional<KvCacheKind> KvHolderState::SkippedKind(uint32_t engine_group) const {
  for (const Skipped& skipped : skipped_) {
    if (skipped.engine_group == engine_group) return skipped.kind;
  }
  return std::nullopt;
}

// Media come in long runs of the same.
Tier KvApplier::TierOf(std::string_view medium) {
  if (medium != last_medium_) {
    last_tier_ = options_.tiers.Number(medium);
    last_medium_ = medium;
  }
  return last_tier_;
}

// --- groups --------------------------------------------------------------------------------------

KvApplier::KvApplier(const KvApplyOptions& options, KvIndex* index)
    : options_(options), index_(index), last_tier_(options_.tiers.Number({})) {
  LLMD_CHECK(options_.chain != nullptr, "keys need a chain");
  LLMD_CHECK(options_.block_tokens > 0, "blocks hold tokens");
}

KvApplier::CacheGroup* KvApplier::FindGroup(KvHolderState* state, const KvEvent& event) {
  for (CacheGroup& group : state->groups_) {
    if (group.engine_group == event.group) return &group;
  }
  return nullptr;
}

// The group of a store, made if it is new; null and why if it is not indexed.
KvApplier::CacheGroup* KvApplier::LearnGroup(KvHolderState* state, const KvEvent& event,
                                             KvSkip* skip) {
  CacheGroup* known = FindGroup(state, event);
  const KvCacheKind kind = !event.group                      ? KvCacheKind::kFullAttention
                           : event.kind != KvCacheKind::kNone ? event.kind
                           : known != nullptr                 ? known->kind
                                                              : KvCacheKind::kNone;
  const uint32_t said = event.sliding_window != 0 ? event.sliding_window
                        : known != nullptr        ? known->window
                                                  : 0;
  const std::optional<uint32_t> window = WindowOf(kind, said);
  if (!window) {
    *skip = KvSkip::kUnsupportedCacheKind;
    state->RememberSkipped(*event.group, kind);
    return nullptr;
  }
  if (known != nullptr) {
    if (known->kind != kind || known->window != *window) {
      known->kind = kind;
      known->window = *window;
      TellGroups(*state);
    }
    return known;
  }
  // The first full-attention group is number 0, which windowed ones leave free.
  const auto is_free = [&](Group number) {
    return std::none_of(state->groups_.begin(), state->groups_.end(),
                        [&](const CacheGroup& g) { return g.number == number; });
  };
  Group number = *window == 0 ? 0 : 1;
  while (number < KvIndex::kGroupsMax && !is_free(number)) ++number;
  if (number == KvIndex::kGroupsMax) {
    *skip = KvSkip::kTooManyGroups;
    return nullptr;
  }
  Flush();  // it may point into groups_
  state->groups_.push_back(
      {.engine_group = event.group, .kind = kind, .number = number, .window = *window});
  TellGroups(*state);
  return &state->groups_.back();
}

void KvApplier::TellGroups(const KvHolderState& state) {
  std::array<uint32_t, KvIndex::kGroupsMax> windows;
  windows.fill(KvIndex::kFullAttention);
  size_t count = 0;
  for (const CacheGroup& group : state.groups_) {
    count = std::max<size_t>(count, group.number + size_t{1});
    // A window of w tokens reaches w - 1 back from the next one.
    if (group.window != 0) {
      const uint64_t tokens = std::max(group.window, 2u) - uint64_t{1};
      windows[group.number] =
          static_cast<uint32_t>((tokens + options_.block_tokens - 1) / options_.block_tokens);
    }
  }
  const bool is_plain = count <= 1 && windows[0] == KvIndex::kFullAttention;
  index_->SetGroups(state.holder_, std::span(windows).first(is_plain ? 0 : count));
}

// Whether the event's tokens fill its blocks, and its blocks fit among canonical ones.
bool KvApplier::LearnBlockSize(CacheGroup* group, const KvEvent& event, KvSkip* skip) {
  *skip = KvSkip::kInvalidBlockSize;
  uint32_t size = event.block_size;
  if (size == 0 && !event.hashes.empty()) {
    size = static_cast<uint32_t>(event.tokens.size() / event.hashes.size());
  }
  const uint32_t canonical = options_.block_tokens;
  if (size == 0) return false;
  if (event.tokens.size() != uint64_t{size} * event.hashes.size()) {
    *skip = KvSkip::kNonDenseBlockSpan;
    return false;
  }
  if (event.extras.size() * std::max<uint64_t>(1, size / canonical) > options_.limits.extras) {
    *skip = KvSkip::kTooManyExtras;
    return false;
  }
  if (group->block_size == size) return true;
  if (group->block_size != 0) return false;
  if (size % canonical != 0) {
    if (canonical % size != 0 || canonical / size > KvParts::kPartsMax) return false;
    group->parts =
        std::make_unique<KvParts>(options_.chain.get(), canonical / size, size);
  }
  group->block_size = size;
  return true;
}

uint32_t KvApplier::SubBlocks(const CacheGroup& group) const {
  return options_.engine_keys ? 1 : std::max(1u, group.block_size / options_.block_tokens);
}

// --- events --------------------------------------------------------------------------------------

void KvApplier::Apply(KvHolderState* state, KvEventType type, const KvEvent& event,
                      std::string_view model, base::TimePoint now) {
  ++stats_.events;
  switch (type) {
    case KvEventType::kStored:
      // It comes while what was removed before is worked on.
      if (const CacheGroup* group = FindGroup(state, event)) {
        index_->Prefetch(state->holder_, group->number, event.hashes);
      }
      Flush();
      return Stored(state, event, event.model.empty() ? model : event.model, now);
    case KvEventType::kRemoved: return Removed(state, event);
    case KvEventType::kCleared:
      Flush();
      return Cleared(state);
    case KvEventType::kEnd: return;
  }
}

void KvApplier::Stored(KvHolderState* state, const KvEvent& event, std::string_view model,
                       base::TimePoint now) {
  if (event.hashes.empty()) return;
  KvSkip skip;
  CacheGroup* group = LearnGroup(state, event, &skip);
  const bool is_tier_update = event.tokens.empty() && !options_.engine_keys;
  if (group == nullptr ||
      (!is_tier_update && !options_.engine_keys && !LearnBlockSize(group, event, &skip))) {
    KvCacheKind learned = event.kind;
    if (event.group) {
      learned = group ? group->kind : state->SkippedKind(*event.group).value_or(event.kind);
    }
    ++stats_.stores_skipped[static_cast<size_t>(learned)][static_cast<size_t>(skip)];
    return;
  }
  const Tier tier = TierOf(event.medium);
  if (is_tier_update) return StoreTier(state, group, tier, event);
  if (!Store(state, group, tier, event, event.lora_name.empty() ? model : event.lora_name)) {
    Park(state, *group, tier, event, now);
    return;
  }
  if (state->parked() > 0) Resolve(state, group, event.hashes);
}

// False: the parent is not known.
bool KvApplier::Store(KvHolderState* state, CacheGroup* group, Tier tier, const KvEvent& event,
                      std::string_view root) {
  if (group->parts) return StoreParts(state, group, tier, event, root);
  std::optional<KvIndex::BlockRef> parent;
  if (event.parent) {
    parent = index_->Find(state->holder_, group->number, *event.parent);
    ++(parent ? state->references_.known : state->references_.unknown);
    if (!parent) return false;
  }
  stats_.blocks_stored += event.hashes.size();
  const KvIndex::BlockRef* parent_ref = parent ? &*parent : nullptr;
  if (options_.engine_keys) {
    index_->Store(state->holder_, tier, group->number, parent_ref, event.hashes, event.hashes);
    Tell(*state, *group, tier, event.hashes, event.hashes);
    return true;
  }
  const uint32_t sub_blocks = SubBlocks(*group);
  const size_t count = event.hashes.size() * sub_blocks;
  if (keys_.size() < count) keys_.resize(count);
  const std::span<BlockKey> keys = std::span(keys_).first(count);
  options_.chain->Extend(parent ? parent->key : options_.chain->Root(root), event.tokens,
                         options_.block_tokens, CanonicalExtras(event, sub_blocks), keys);
  index_->Store(state->holder_, tier, group->number, parent_ref, SubKeys(event.hashes, sub_blocks),
                keys);
  Tell(*state, *group, tier, event.hashes, keys);
  return true;
}

bool KvApplier::StoreParts(KvHolderState* state, CacheGroup* group, Tier tier,
                           const KvEvent& event, std::string_view root) {
  KvParts& parts = *group->parts;
  if (event.parent) {
    const bool is_known = parts.Knows(*event.parent);
    ++(is_known ? state->references_.known : state->references_.unknown);
    if (!is_known) return false;
  }
  const BlockKey root_key = event.parent ? 0 : options_.chain->Root(root);
  const std::span<const BlockExtra> extras = CanonicalExtras(event, 1);
  std::optional<EngineKey> parent = event.parent;
  std::vector<std::string_view> texts;
  size_t next_extra = 0;
  complete_.clear();
  for (size_t i = 0; i < event.hashes.size(); ++i) {
    texts.clear();
    for (; next_extra < extras.size() && extras[next_extra].block == i; ++next_extra) {
      texts.push_back(extras[next_extra].text);
    }
    const size_t size_before = parts.size();
    if (stats_.parts_now >= options_.limits.parts && !parts.Knows(event.hashes[i])) {
      ++stats_.stores_skipped[static_cast<size_t>(group->kind)]
                             [static_cast<size_t>(KvSkip::kPartsFull)];
      break;
    }
    const auto tokens = event.tokens.subspan(i * parts.part_tokens(), parts.part_tokens());
    parts.Store(parent, root_key, event.hashes[i], tokens, texts, tier, &complete_);
    stats_.parts_now += parts.size() - size_before;
    ++stats_.blocks_stored;
    parent = event.hashes[i];
  }
  StoreComplete(*state, *group, tier);
  return true;
}

void KvApplier::StoreComplete(const KvHolderState& state, const CacheGroup& group, Tier tier) {
  for (const KvParts::Complete& block : complete_) {
    std::optional<KvIndex::BlockRef> before;
    if (block.before != 0) {
      // Evicted meanwhile: no match reaches what is behind it.
      before = index_->Find(state.holder_, group.number, block.before);
      if (!before) continue;
    }
    index_->Store(state.holder_, tier, group.number, before ? &*before : nullptr,
                  {&block.last, 1}, {&block.key, 1});
    Tell(state, group, tier, {&block.last, 1}, {&block.key, 1});
  }
}

// An event without tokens: known blocks are in a further tier.
void KvApplier::StoreTier(KvHolderState* state, CacheGroup* group, Tier tier,
                          const KvEvent& event) {
  size_t known = 0;
  if (group->parts) {
    complete_.clear();
    for (const EngineKey hash : event.hashes) {
      known += group->parts->StoreTier(hash, tier, &complete_);
    }
    StoreComplete(*state, *group, tier);
  } else {
    const uint32_t sub_blocks = SubBlocks(*group);
    const std::span<const EngineKey> sub_keys = SubKeys(event.hashes, sub_blocks);
    known = index_->StoreTier(state->holder_, tier, group->number, sub_keys) / sub_blocks;
    if (options_.sink) {
      told_.clear();
      for (const EngineKey key : sub_keys) {
        const auto block = index_->Find(state->holder_, group->number, key);
        if (block) told_.push_back(block->key);
      }
      Tell(*state, *group, tier, {}, told_);
    }
  }
  const auto unknown = static_cast<uint32_t>(event.hashes.size() - known);
  stats_.blocks_stored += known;
  stats_.tier_unknown += unknown;
  state->references_.known += static_cast<uint32_t>(known);
  state->references_.unknown += unknown;
}

void KvApplier::Removed(KvHolderState* state, const KvEvent& event) {
  CacheGroup* group = FindGroup(state, event);
  if (group == nullptr) {
    const std::optional<KvCacheKind> kind = state->SkippedKind(event.group.value_or(0));
    const KvSkip skip = kind ? KvSkip::kUnsupportedCacheKind : KvSkip::kUnknownGroup;
    ++stats_.removals_skipped[static_cast<size_t>(kind.value_or(event.kind))]
                             [static_cast<size_t>(skip)];
    return;
  }
  const Tier tier = TierOf(event.medium);
  if (removals_.state != state || removals_.group != group || removals_.tier != tier) {
    Flush();
    removals_.state = state;
    removals_.group = group;
    removals_.tier = tier;
  }
  removals_.hashes.insert(removals_.hashes.end(), event.hashes.begin(), event.hashes.end());
  index_->Prefetch(state->holder_, group->number, event.hashes);
}

void KvApplier::Flush() {
  if (removals_.hashes.empty()) return;
  KvHolderState* state = removals_.state;
  CacheGroup* group = removals_.group;
  if (state->parked() > 0) {
    const size_t parked = state->parked();
    stats_.parked_bytes -= state->parked_->bytes();
    std::erase_if(removals_.hashes, [&](EngineKey hash) {
      return state->parked_->Remove(group->number, removals_.tier, hash);
    });
    stats_.parked_bytes += state->parked_->bytes();
    stats_.parked_now -= parked - state->parked();
  }
  KvIndex::Removed result;
  if (group->parts) {
    RemoveParts(group, removals_.tier, &result);
    index_->Remove(state->holder_, removals_.tier, group->number, lost_);
  } else {
    result = RemoveBlocks(*state, *group);
  }
  if (options_.sink && group->window == 0 && !lost_.empty()) {
    options_.sink->OnRemoved(state->holder_, removals_.tier, group->engine_group, lost_);
  }
  stats_.blocks_removed += result.removed;
  stats_.removes_counted += result.still_referenced;
  stats_.removes_unknown += result.unknown;
  state->references_.known += static_cast<uint32_t>(result.removed + result.still_referenced);
  state->references_.unknown += static_cast<uint32_t>(result.unknown);
  removals_.hashes.clear();
}

// With a sink, lost_ are those engine blocks that have no reference any more.
KvIndex::Removed KvApplier::RemoveBlocks(const KvHolderState& state, const CacheGroup& group) {
  const uint32_t sub_blocks = SubBlocks(group);
  const auto remove = [&](std::span<const EngineKey> hashes) {
    KvIndex::Removed r =
        index_->Remove(state.holder_, removals_.tier, group.number, SubKeys(hashes, sub_blocks));
    r.removed /= sub_blocks;
    r.still_referenced /= sub_blocks;
    r.unknown /= sub_blocks;
    return r;
  };
  lost_.clear();
  if (!options_.sink) return remove(removals_.hashes);
  KvIndex::Removed all;
  for (const EngineKey& hash : removals_.hashes) {
    const KvIndex::Removed one = remove({&hash, 1});
    if (one.still_referenced == 0) lost_.push_back(hash);
    all.removed += one.removed;
    all.still_referenced += one.still_referenced;
    all.unknown += one.unknown;
  }
  return all;
}

void KvApplier::Tell(const KvHolderState& state, const CacheGroup& group, Tier tier,
                     std::span<const EngineKey> engine_keys, std::span<const BlockKey> blocks) {
  if (!options_.sink || group.window != 0 || blocks.empty()) return;
  options_.sink->OnStored(state.holder_, tier, group.engine_group, engine_keys, blocks);
}

void KvApplier::TellAgain(const KvHolderState& state) {
  if (!options_.sink) return;
  index_->ForEach(state.holder_, [&](const KvIndex::Stretch& stretch) {
    const auto group = std::ranges::find(state.groups_, stretch.group, &CacheGroup::number);
    if (group != state.groups_.end()) TellStretch(state, *group, stretch);
  });
}

void KvApplier::TellStretch(const KvHolderState& state, const CacheGroup& group,
                            const KvIndex::Stretch& stretch) {
  const uint32_t sub_blocks = SubBlocks(group);
  const auto is_held = [&](size_t i) { return stretch.references[i] > 0; };
  for (size_t begin = 0; begin < stretch.references.size();) {
    size_t end = begin + 1;
    if (is_held(begin) && sub_blocks == 1) {
      while (end < stretch.references.size() && is_held(end)) ++end;
      Tell(state, group, stretch.tier, stretch.engine_keys.subspan(begin, end - begin),
           stretch.block_keys.subspan(begin, end - begin));
    } else if (is_held(begin)) {
      // The keys of an engine's block are made from its own, which is the last of them.
      const std::span<const EngineKey> keys = SubKeys(stretch.engine_keys.subspan(begin, 1),
                                                      sub_blocks);
      told_.clear();
      for (const EngineKey key : keys) {
        const auto block = index_->Find(state.holder_, group.number, key);
        if (!block) break;
        told_.push_back(block->key);
      }
      if (told_.size() == sub_blocks) Tell(state, group, stretch.tier, {&keys.back(), 1}, told_);
    }
    begin = end;
  }
}

void KvApplier::RemoveParts(CacheGroup* group, Tier tier, KvIndex::Removed* result) {
  lost_.clear();
  const size_t size_before = group->parts->size();
  for (const EngineKey hash : removals_.hashes) {
    switch (group->parts->Remove(hash, tier, &lost_)) {
      case KvParts::Removal::kRemoved: ++result->removed; break;
      case KvParts::Removal::kStillReferenced: ++result->still_referenced; break;
      case KvParts::Removal::kUnknown: ++result->unknown; break;
    }
  }
  stats_.parts_now -= size_before - group->parts->size();
}

// The engine emptied its cache; its groups are what they were.
void KvApplier::Cleared(KvHolderState* state) {
  ++stats_.cleared;
  index_->Clear(state->holder_);
  if (options_.sink) options_.sink->OnCleared(state->holder_);
  DropParked(state);
  for (CacheGroup& group : state->groups_) {
    if (!group.parts) continue;
    const uint32_t size = group.parts->part_tokens();
    DropParts(&group);
    group.parts =
        std::make_unique<KvParts>(options_.chain.get(), options_.block_tokens / size, size);
  }
}

void KvApplier::Forget(KvHolderState* state) {
  Flush();
  // One of which nothing is known yet may be known to others that share the copy.
  const bool was_known = index_->blocks(state->holder_) > 0;
  index_->Clear(state->holder_);
  if (options_.sink && was_known) options_.sink->OnCleared(state->holder_);
  DropParked(state);
  for (CacheGroup& group : state->groups_) DropParts(&group);
  state->groups_.clear();
  state->skipped_.clear();
  index_->SetGroups(state->holder_, {});
  state->references_ = {};
  removals_.state = nullptr;
}

// --- parents that are not known ------------------------------------------------------------------

void KvApplier::Park(KvHolderState* state, const CacheGroup& group, Tier tier,
                     const KvEvent& event, base::TimePoint now) {
  if (!state->parked_) state->parked_ = std::make_unique<KvParked>(options_.limits.parked);
  const size_t before = state->parked();
  stats_.parked_bytes -= state->parked_->bytes();
  stats_.parked_dropped += state->parked_->Add(group.number, tier, event, now);
  stats_.parked_bytes += state->parked_->bytes();
  stats_.parked_now = stats_.parked_now - before + state->parked();
  ++stats_.parked;
}

// Applies what waited for these blocks, and what waited for that in turn. Removals that came
// meanwhile are applied last: a child may outlive its parent, but was stored behind it.
void KvApplier::Resolve(KvHolderState* state, CacheGroup* group,
                        std::span<const EngineKey> hashes) {
  std::vector<EngineKey> work(hashes.begin(), hashes.end());
  std::vector<KvParked::Store> resolved;
  while (!work.empty() && state->parked() > 0) {
    const EngineKey hash = work.back();
    stats_.parked_bytes -= state->parked_->bytes();
    std::optional<KvParked::Store> store = state->parked_->Take(group->number, hash);
    stats_.parked_bytes += state->parked_->bytes();
    if (!store) {
      work.pop_back();
      continue;
    }
    --stats_.parked_now;
    ++stats_.parked_resolved;
    // False if the parent found no room in the index.
    if (!Store(state, group, store->tier, store->event(), {})) continue;
    work.insert(work.end(), store->hashes.begin(), store->hashes.end());
    if (!store->removed.empty()) resolved.push_back(*std::move(store));
  }
  for (const KvParked::Store& store : resolved) {
    removals_ = {state, group, store.tier, {store.removed.begin(), store.removed.end()}};
    Flush();
  }
}

bool KvApplier::Expire(KvHolderState* state, base::TimePoint now) {
  if (state->parked() == 0) return false;
  stats_.parked_bytes -= state->parked_->bytes();
  const size_t dropped = state->parked_->DropOlder(now - options_.limits.parked_age);
  stats_.parked_bytes += state->parked_->bytes();
  stats_.parked_now -= dropped;
  stats_.parked_dropped += dropped;
  return dropped > 0;
}

void KvApplier::DropParked(KvHolderState* state) {
  if (!state->parked_) return;
  stats_.parked_bytes -= state->parked_->bytes();
  stats_.parked_now -= state->parked_->size();
  stats_.parked_dropped += state->parked_->size();
  state->parked_.reset();
}

void KvApplier::DropParts(CacheGroup* group) {
  if (!group->parts) return;
  stats_.parts_now -= group->parts->size();
  group->parts.reset();
}

// --- engine blocks and canonical blocks ----------------------------------------------------------

// The last of the canonical blocks in an engine's block has the engine's key, since that is what a
// child names as its parent; the others get keys made from it, the same at store and removal.
std::span<const EngineKey> KvApplier::SubKeys(std::span<const EngineKey> hashes,
                                              uint32_t sub_blocks) {
  if (sub_blocks == 1) return hashes;
  const size_t count = hashes.size() * sub_blocks;
  if (sub_keys_.size() < count) sub_keys_.resize(count);
  size_t next = 0;
  for (const EngineKey hash : hashes) {
    for (uint32_t i = 1; i < sub_blocks; ++i) {
      const EngineKey made = base::Mix64(hash, i);
      sub_keys_[next++] = made == 0 ? 1 : made;
    }
    sub_keys_[next++] = hash;
  }
  return std::span(sub_keys_).first(count);
}

// Extra keys by canonical block. In an engine's block of several canonical ones an item belongs to
// those from its start on (where it ends is not said), and what stands without a place in the first
// block of a prompt, the cache salt, to the first of them only, as requests have it.
std::span<const BlockExtra> KvApplier::CanonicalExtras(const KvEvent& event, uint32_t sub_blocks) {
  extras_.clear();
  const bool has_salt = !event.parent && !event.cache_salt.empty();
  if (event.extras.empty() && !has_salt) return {};
  size_t begin = 0;
  const auto put_block = [&](uint32_t block, std::span<const KvExtra> of_block) {
    if (!of_block.empty() && !event.lora_name.empty() && of_block[0].text == event.lora_name) {
      of_block = of_block.subspan(1);
    }
    const bool is_first = block == 0 && !event.parent;
    for (uint32_t sub = 0; sub < sub_blocks; ++sub) {
      for (const KvExtra& extra : of_block) {
        const int64_t first_token = std::max<int64_t>(extra.offset.value_or(0), 0);
        const bool is_in = extra.offset ? first_token / options_.block_tokens <= sub
                                        : sub == 0 || !is_first || extra.is_bytes;
        if (is_in) extras_.push_back({block * sub_blocks + sub, extra.text});
      }
      if (is_first && sub == 0 && has_salt) extras_.push_back({0, event.cache_salt});
    }
  };
  if (has_salt && (event.extras.empty() || event.extras[0].block != 0)) put_block(0, {});
  while (begin < event.extras.size() && event.extras[begin].block < event.hashes.size()) {
    size_t end = begin;
    while (end < event.extras.size() && event.extras[end].block == event.extras[begin].block) ++end;
    put_block(event.extras[begin].block, event.extras.subspan(begin, end - begin));
    begin = end;
  }
  return extras_;
}

}  // namespace llmd::prefix
