// Runs, extents, records and crowds: what changes together when somebody holds a block or no longer
// does.
#include <algorithm>
#include <bit>

#include "prefix/kv_index_impl.h"

namespace llmd::prefix {

// --- runs ---------------------------------------------------------------------------------------

RunRef KvIndex::Impl::AddRun(std::span<const BlockKey> keys, uint32_t order) {
  if (runs_unused == 0 && !CarveRun()) return 0;
  const KvArena::Ref memory = arena.Allocate(order);
  if (memory == 0) return 0;
  const RunRef ref = runs_unused;
  Run& r = run(ref);
  r.Begin();
  Word* words = arena.At(memory);
  for (size_t i = 0; i < keys.size(); ++i) words[i].Set(keys[i]);
  r.last_key.Set(keys.back());
  r.records.Set(0);
  r.crowd.Set(0);
  r.next.store(0, std::memory_order_relaxed);
  // It has a round of the clock hand, which is just past it or far away, to be used once more.
  r.touched.store(0, std::memory_order_relaxed);
  const auto count = static_cast<uint32_t>(keys.size());
  r.keys.SetRelease(ArrayRef{.ref = memory, .count = count, .order = order}.Pack());
  r.End();
  const auto hash_of = [this](RunRef other) {
    return HashOf(arena.At(ArrayRef::Unpack(run(other).keys.Get()).ref)->Get());
  };
  if (!runs.Insert(HashOf(keys[0]), ref, hash_of, &just_retired)) {
    r.Begin();
    r.keys.Set(0);
    r.End();
    arena.Free(memory, order);
    return 0;
  }
  runs_unused = r.extents;
  r.extents = 0;
  blocks += count;
  ++run_count;
  return ref;
}

void KvIndex::Impl::AppendKeys(Run& r, std::span<const BlockKey> keys) {
  ArrayRef array = ArrayRef::Unpack(r.keys.Get());
  r.Begin();
  Word* words = arena.At(array.ref) + array.count;
  for (size_t i = 0; i < keys.size(); ++i) words[i].Set(keys[i]);
  array.count += static_cast<uint32_t>(keys.size());
  r.last_key.Set(keys.back());
  r.keys.SetRelease(array.Pack());
  r.End();
  blocks += keys.size();
}

void KvIndex::Impl::FreeRun(RunRef ref) {
  Run& r = run(ref);
  const ArrayRef keys = ArrayRef::Unpack(r.keys.Get());
  const ArrayRef records = ArrayRef::Unpack(r.records.Get());
  const ArrayRef crowd = ArrayRef::Unpack(r.crowd.Get());
  runs.Erase(HashOf(arena.At(keys.ref)->Get()), ref);
  r.Begin();
  r.keys.Set(0);
  r.records.Set(0);
  r.crowd.Set(0);
  r.End();
  arena.Free(keys.ref, keys.order);
  if (records.ref != 0) arena.Free(records.ref, records.order);
  if (crowd.ref != 0) arena.Free(crowd.ref, crowd.order);
  r.extents = runs_unused;
  runs_unused = ref;
  blocks -= keys.count;
  --run_count;
}

// --- extents ------------------------------------------------------------------------------------

ExtentId KvIndex::Impl::AddExtent(RunRef ref, const Place& at, uint32_t first, uint32_t order) {
  if (extents_unused == 0 && !CarveExtent()) return 0;
  const KvArena::Ref memory = arena.Allocate(order);
  if (memory == 0) return 0;
  const ExtentId id = extents_unused;
  Extent& e = extent(id);
  extents_unused = e.next;
  Run& r = run(ref);
  Holder& holder = holders[at.holder];
  e = {.run = ref,
       .engine_keys = memory,
       .older = holder.newest,
       .next = r.extents,
       .holder = at.holder,
       .group = at.group,
       .first = static_cast<uint8_t>(first),
       .order = static_cast<uint8_t>(order)};
  if (e.older != 0) extent(e.older).newer = id;
  if (e.next != 0) extent(e.next).previous = id;
  holder.newest = id;
  r.extents = id;
  return id;
}

void KvIndex::Impl::FreeExtent(ExtentId id) {
  Extent& e = extent(id);
  Run& r = run(e.run);
  const uint64_t held = MaskOfAllTiers(r, e);
  std::array<uint64_t, kRunBlocksMax> hashes;
  for (uint64_t left = held; left != 0; left &= left - 1) {
    const auto offset = static_cast<uint32_t>(std::countr_zero(left));
    hashes[offset] = HashOf(e.holder, e.group, engine_key(e, offset).Get());
    engine_table.Prefetch(hashes[offset]);
  }
  for (uint64_t left = held; left != 0; left &= left - 1) {
    const auto offset = static_cast<uint32_t>(std::countr_zero(left));
    engine_table.Erase(hashes[offset], id << 6 | offset);
    if (!e.counted) continue;
    for (Tier tier = 0; tier < kTiersMax; ++tier) ForgetReferences(id, offset, tier);
  }
  const auto count = static_cast<uint64_t>(std::popcount(held));
  pairs -= count;
  holders[e.holder].pairs -= count;

  r.Begin();
  for (Tier tier = 0; tier < kTiersMax; ++tier) {
    if (e.record[tier] == Extent::kNone) continue;
    if (e.record[tier] == Extent::kInCrowd) {
      ClearCrowdBit(r, e.holder, tier);
    } else {
      RemoveRecord(r, e.record[tier]);
    }
  }
  r.End();
  if (e.newer != 0) extent(e.newer).older = e.older;
  else holders[e.holder].newest = e.older;
  if (e.older != 0) extent(e.older).newer = e.newer;
  if (e.previous != 0) extent(e.previous).next = e.next;
  else r.extents = e.next;
  if (e.next != 0) extent(e.next).previous = e.previous;
  arena.Free(e.engine_keys, e.order);
  const RunRef ref = e.run;
  e = {.next = extents_unused};
  extents_unused = id;
  if (r.extents == 0) FreeRun(ref);
}

ExtentId KvIndex::Impl::FindExtentFor(const Run& r, const Place& at, uint32_t offset) const {
  const ArrayRef array = ArrayRef::Unpack(r.records.Get());
  const Word* words = Records(r, array);
  for (uint32_t i = 0; i < array.count; ++i) {
    const Record record{.who = words[2 * i].Get()};
    if (record.holder() != at.holder || record.group() != at.group) continue;
    const Extent& e = extent(record.extent());
    if (offset < e.first || offset >= e.until()) continue;
    if ((MaskOfAllTiers(r, e) >> offset & 1) == 0) return record.extent();
  }
  return 0;
}

bool KvIndex::Impl::HeldByOnly(const Run& r, HolderId holder) const {
  for (ExtentId id = r.extents; id != 0; id = extent(id).next) {
    if (extent(id).holder != holder) return false;
  }
  return true;
}

// --- records ------------------------------------------------------------------------------------

uint64_t KvIndex::Impl::MaskOf(const Run& r, const Extent& e, Tier tier) const {
  const uint16_t index = e.record[tier];
  if (index == Extent::kNone) return 0;
  if (index == Extent::kInCrowd) return r.full_mask();
  return Records(r, ArrayRef::Unpack(r.records.Get()))[2 * index + 1].Get();
}

uint64_t KvIndex::Impl::MaskOfAllTiers(const Run& r, const Extent& e) const {
  uint64_t mask = 0;
  for (Tier tier = 0; tier < tiers_limit; ++tier) mask |= MaskOf(r, e, tier);
  return mask;
}

bool KvIndex::Impl::AppendRecord(Run& r, ExtentId id, Tier tier, uint64_t mask) {
  Extent& e = extent(id);
  ArrayRef array = ArrayRef::Unpack(r.records.Get());
  Word* words = Records(r, array);
  const uint32_t capacity = array.ref == 0 ? 1 : 1u << (array.order - 1);
  if (array.count == capacity) {
    if (array.count >= Extent::kRecordIndexMax) return false;
    const uint32_t order = array.ref == 0 ? KvArena::kOrderMin : array.order + 1;
    const KvArena::Ref larger = arena.Allocate(order);
    if (larger == 0) return false;
    Word* moved = arena.At(larger);
    for (uint32_t i = 0; i < 2 * array.count; ++i) moved[i].Set(words[i].Get());
    if (array.ref != 0) arena.Free(array.ref, array.order);
    array.ref = larger;
    array.order = order;
    words = moved;
  }
  e.record[tier] = static_cast<uint16_t>(array.count);
  words[2 * array.count].Set(Record::Who(id, e.holder, tier, e.group));
  words[2 * array.count + 1].Set(mask);
  ++array.count;
  r.records.SetRelease(array.Pack());
  return true;
}

void KvIndex::Impl::RemoveRecord(Run& r, uint32_t index) {
  ArrayRef array = ArrayRef::Unpack(r.records.Get());
  Word* words = Records(r, array);
  const uint32_t last = array.count - 1;
  if (index != last) {
    const Record moved{.who = words[2 * last].Get(), .mask = words[2 * last + 1].Get()};
    words[2 * index].Set(moved.who);
    words[2 * index + 1].Set(moved.mask);
    extent(moved.extent()).record[moved.tier()] = static_cast<uint16_t>(index);
  }
  array.count = last;
  if (array.ref != 0 && array.count <= 1) {
    r.inline_record[0].Set(words[0].Get());
    r.inline_record[1].Set(words[1].Get());
    arena.Free(array.ref, array.order);
    array.ref = array.order = 0;
  }
  r.records.SetRelease(array.Pack());
}

bool KvIndex::Impl::AddBits(Run& r, ExtentId id, Tier tier, uint64_t bits) {
  Extent& e = extent(id);
  const uint16_t index = e.record[tier];
  if (index == Extent::kInCrowd) return true;
  bool held = true;
  r.Begin();
  if (index == Extent::kNone) {
    if (bits != r.full_mask() || !JoinCrowd(r, e, tier)) held = AppendRecord(r, id, tier, bits);
  } else {
    const ArrayRef array = ArrayRef::Unpack(r.records.Get());
    Word& mask = Records(r, array)[2 * index + 1];
    mask.Set(mask.Get() | bits);
    if (mask.Get() == r.full_mask() && JoinCrowd(r, e, tier)) RemoveRecord(r, index);
  }
  const uint32_t records = ArrayRef::Unpack(r.records.Get()).count;
  if (records > kRecordsMax && !r.has_crowd()) MakeCrowd(r);
  r.End();
  return held;
}

bool KvIndex::Impl::ClearBit(ExtentId id, Tier tier, uint32_t offset, uint64_t hash) {
  Extent& e = extent(id);
  Run& r = run(e.run);
  if (e.counted) ForgetReferences(id, offset, tier);
  r.Begin();
  if (e.record[tier] == Extent::kInCrowd) {
    if (!AppendRecord(r, id, tier, r.full_mask())) {
      // No room to say less than everything: then nothing is said.
      r.End();
      evicted += static_cast<uint64_t>(std::popcount(MaskOfAllTiers(r, e))) - 1;
      FreeExtent(id);
      return false;
    }
    ClearCrowdBit(r, e.holder, tier);
  }
  const uint16_t index = e.record[tier];
  Word& mask = Records(r, ArrayRef::Unpack(r.records.Get()))[2 * index + 1];
  mask.Set(mask.Get() & ~(uint64_t{1} << offset));
  if (mask.Get() == 0) {
    e.record[tier] = Extent::kNone;
    RemoveRecord(r, index);
  }
  r.End();
  const uint64_t held = MaskOfAllTiers(r, e);
  if ((held >> offset & 1) != 0) return true;
  engine_table.Erase(hash, id << 6 | offset);
  --pairs;
  --holders[e.holder].pairs;
  if (held != 0) return true;
  FreeExtent(id);
  return false;
}

// --- crowds -------------------------------------------------------------------------------------

ArrayRef KvIndex::Impl::CrowdShape() const {
  const uint32_t limit = holders_limit.load(std::memory_order_relaxed);
  const auto words = static_cast<uint32_t>(std::bit_width((limit + 63) / 64 - 1));
  const auto tiers = static_cast<uint32_t>(std::bit_width(tiers_limit - 1));
  return {.count = words, .order = std::max(words + tiers, KvArena::kOrderMin)};
}

// From here on, whoever holds the whole run is a bit, and the run does not grow any more.
void KvIndex::Impl::MakeCrowd(Run& r) {
  if (!FitCrowd(r)) return;
  for (uint32_t i = ArrayRef::Unpack(r.records.Get()).count; i-- > 0;) {
    const Word* words = Records(r, ArrayRef::Unpack(r.records.Get()));
    const Record record{.who = words[2 * i].Get(), .mask = words[2 * i + 1].Get()};
    const auto tier = static_cast<Tier>(record.tier());
    if (record.mask != r.full_mask()) continue;
    if (JoinCrowd(r, extent(record.extent()), tier)) RemoveRecord(r, i);
  }
}

// Gives the run a crowd with room for all holders and tiers there are.
bool KvIndex::Impl::FitCrowd(Run& r) {
  const ArrayRef old = ArrayRef::Unpack(r.crowd.Get());
  ArrayRef shape = CrowdShape();
  shape.ref = arena.Allocate(shape.order);
  if (shape.ref == 0) return false;
  Word* words = arena.At(shape.ref);
  for (uint32_t i = 0; i < 1u << shape.order; ++i) words[i].Set(0);
  if (old.ref != 0) {
    for (uint32_t i = 0; i < 1u << old.order; ++i) {
      const uint32_t tier = i >> old.count;
      if (tier >= tiers_limit) break;
      const uint32_t word = i & ((1u << old.count) - 1);
      words[(tier << shape.count) + word].Set(arena.At(old.ref)[i].Get());
    }
  }
  r.crowd.SetRelease(shape.Pack());
  if (old.ref != 0) arena.Free(old.ref, old.order);
  return true;
}

bool KvIndex::Impl::JoinCrowd(Run& r, Extent& e, Tier tier) {
  if (!r.has_crowd() || e.group != 0) return false;
  ArrayRef crowd = ArrayRef::Unpack(r.crowd.Get());
  const auto fits = [&] {
    return e.holder >> 6 < 1u << crowd.count && (tier + 1u) << crowd.count <= 1u << crowd.order;
  };
  if (!fits()) {
    if (!FitCrowd(r)) return false;
    crowd = ArrayRef::Unpack(r.crowd.Get());
  }
  Word& word = arena.At(crowd.ref)[(tier << crowd.count) + (e.holder >> 6)];
  const uint64_t bit = uint64_t{1} << (e.holder & 63);
  // Taken if the holder has the same blocks under other engine keys as well.
  if ((word.Get() & bit) != 0) return false;
  word.Set(word.Get() | bit);
  e.record[tier] = Extent::kInCrowd;
  return true;
}

void KvIndex::Impl::ClearCrowdBit(Run& r, HolderId holder, Tier tier) {
  const ArrayRef crowd = ArrayRef::Unpack(r.crowd.Get());
  Word& word = arena.At(crowd.ref)[(tier << crowd.count) + (holder >> 6)];
  word.Set(word.Get() & ~(uint64_t{1} << (holder & 63)));
}

}  // namespace llmd::prefix
