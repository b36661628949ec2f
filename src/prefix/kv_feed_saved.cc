// What KvApplier knows of a holder beside the index, written into snapshots and read back.
#include <type_traits>
#include <utility>

#include "prefix/kv_feed_apply.h"

namespace llmd::prefix {

// [[engine group or nil, kind, number, block size, window]...], [[engine group, kind]...] skipped
bool KvHolderState::Save(wire::MsgpackWriter* out) const {
  for (const CacheGroup& group : groups_) {
    if (group.parts) return false;
  }
  out->Array(2);
  out->Array(groups_.size());
  for (const CacheGroup& group : groups_) {
    out->Array(5);
    group.engine_group ? out->Uint(*group.engine_group) : out->Nil();
    out->Uint(static_cast<uint64_t>(group.kind));
    out->Uint(group.number);
    out->Uint(group.block_size);
    out->Uint(group.window);
  }
  out->Array(skipped_.size());
  for (const Skipped& skipped : skipped_) {
    out->Array(2);
    out->Uint(skipped.engine_group);
    out->Uint(static_cast<uint64_t>(skipped.kind));
  }
  return true;
}

bool KvApplier::Resume(KvHolderState* state, wire::MsgpackReader* in) {
  const auto read = [in](auto* value, uint64_t below) {
    uint64_t number;
    if (!in->ReadUint(&number) || number >= below) return false;
    *value = static_cast<std::remove_pointer_t<decltype(value)>>(number);
    return true;
  };
  constexpr uint64_t kAny32 = uint64_t{1} << 32;
  KvHolderState made(state->holder_);
  uint32_t count, fields;
  if (!in->ReadArray(&fields) || fields != 2 || !in->ReadArray(&count)) return false;
  if (count > KvIndex::kGroupsMax) return false;
  for (uint32_t i = 0; i < count; ++i) {
    KvHolderState::CacheGroup group;
    uint32_t engine_group;
    if (!in->ReadArray(&fields) || fields != 5) return false;
    if (!in->ReadNil()) {
      if (!read(&engine_group, kAny32)) return false;
      group.engine_group = engine_group;
    }
    if (!read(&group.kind, kKvCacheKinds) || !read(&group.number, KvIndex::kGroupsMax) ||
        !read(&group.block_size, kAny32) || !read(&group.window, kAny32) ||
        group.block_size % options_.block_tokens != 0) {
      return false;
    }
    made.groups_.push_back(std::move(group));
  }
  if (!in->ReadArray(&count) || count > KvHolderState::kSkippedMax) return false;
  for (uint32_t i = 0; i < count; ++i) {
    KvHolderState::Skipped skipped;
    if (!in->ReadArray(&fields) || fields != 2 || !read(&skipped.engine_group, kAny32) ||
        !read(&skipped.kind, kKvCacheKinds)) {
      return false;
    }
    made.skipped_.push_back(skipped);
  }
  *state = std::move(made);
  TellGroups(*state);
  return true;
}

}  // namespace llmd::prefix
