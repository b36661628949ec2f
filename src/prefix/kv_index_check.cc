// Every invariant of a KvIndex that can be checked by walking it.
#include <bit>
#include <set>
#include <unordered_set>

#include "prefix/kv_index_impl.h"

namespace llmd::prefix {

bool KvIndex::CheckForTest() const { return impl_->Check(); }

bool KvIndex::IsUniqueForTest() const {
  std::unordered_set<BlockKey> keys;
  for (uint32_t n = 0; n < impl_->runs_carved; ++n) {
    const ArrayRef array = ArrayRef::Unpack(impl_->run(impl_->RunAt(n)).keys.Get());
    for (uint32_t i = 0; i < array.count; ++i) {
      if (!keys.insert(impl_->arena.At(array.ref)[i].Get()).second) return false;
    }
  }
  return true;
}

bool KvIndex::Impl::Check() const {
  if (budget.used() > bytes_max || !arena.CheckForTest()) return false;
  uint64_t seen_runs = 0;
  uint64_t seen_blocks = 0;
  uint64_t seen_pairs = 0;
  for (uint32_t n = 0; n < runs_carved; ++n) {
    const Run& r = run(RunAt(n));
    const ArrayRef array = ArrayRef::Unpack(r.keys.Get());
    if (array.count == 0) continue;
    ++seen_runs;
    seen_blocks += array.count;
    if (!CheckRun(RunAt(n), &seen_pairs)) return false;
  }
  if (seen_runs != run_count || seen_blocks != blocks || seen_pairs != pairs) return false;
  if (engine_table.size() != pairs) return false;
  for (HolderId h = 0; h < kHoldersMax; ++h) {
    uint64_t held = 0;
    ExtentId newer = 0;
    for (ExtentId id = holders[h].newest; id != 0; id = extent(id).older) {
      const Extent& e = extent(id);
      if (e.holder != h || e.newer != newer || e.run == 0) return false;
      held += static_cast<uint64_t>(std::popcount(MaskOfAllTiers(run(e.run), e)));
      newer = id;
    }
    if (held != holders[h].pairs) return false;
  }
  return true;
}

// Keys, extents and engine keys of one run; adds to `pairs` how many blocks are held.
bool KvIndex::Impl::CheckRun(RunRef ref, uint64_t* held_pairs) const {
  const Run& r = run(ref);
  const ArrayRef array = ArrayRef::Unpack(r.keys.Get());
  const Word* keys = arena.At(array.ref);
  if (r.extents == 0 || (r.version.load() & 1) != 0 || array.count > 1u << array.order)
    return false;
  if (r.last_key.Get() != keys[array.count - 1].Get()) return false;
  if (FindRun(keys[0].Get(), HashOf(keys[0].Get())) != ref) return false;
  ExtentId previous = 0;
  for (ExtentId id = r.extents; id != 0; id = extent(id).next) {
    const Extent& e = extent(id);
    if (e.run != ref || e.previous != previous) return false;
    previous = id;
    const uint64_t mask = MaskOfAllTiers(r, e);
    const uint64_t places = LowBits(e.until()) & ~LowBits(e.first);
    if (mask == 0 || (mask & ~places) != 0 || (mask & ~r.full_mask()) != 0) return false;
    for (uint64_t left = mask; left != 0; left &= left - 1) {
      const auto offset = static_cast<uint32_t>(std::countr_zero(left));
      const EngineKey key = engine_key(e, offset).Get();
      const uint64_t hash = HashOf(e.holder, e.group, key);
      if (FindEngineKey(e.holder, e.group, key, hash) != (id << 6 | offset)) return false;
    }
    *held_pairs += static_cast<uint64_t>(std::popcount(mask));
  }
  return CheckRecords(r);
}

// Records and extents name each other; whoever is in the crowd has no record for that tier.
bool KvIndex::Impl::CheckRecords(const Run& r) const {
  const ArrayRef array = ArrayRef::Unpack(r.records.Get());
  const Word* records = Records(r, array);
  for (uint32_t i = 0; i < array.count; ++i) {
    const Record record{.who = records[2 * i].Get(), .mask = records[2 * i + 1].Get()};
    const Extent& e = extent(record.extent());
    if (e.holder != record.holder() || e.group != record.group() || record.mask == 0) return false;
    if (e.record[record.tier()] != i) return false;
  }
  uint64_t with_record = 0;
  std::set<uint32_t> with_bit;
  for (ExtentId id = r.extents; id != 0; id = extent(id).next) {
    const Extent& e = extent(id);
    for (uint32_t tier = 0; tier < kTiersMax; ++tier) {
      if (e.record[tier] == Extent::kNone) continue;
      if (e.record[tier] != Extent::kInCrowd) {
        ++with_record;
      } else if (e.group != 0 || !with_bit.insert(tier << 16 | e.holder).second) {
        return false;
      }
    }
  }
  uint64_t bits = 0;
  if (const ArrayRef crowd = ArrayRef::Unpack(r.crowd.Get()); crowd.ref != 0) {
    const Word* words = arena.At(crowd.ref);
    for (uint32_t i = 0; i < 1u << crowd.order; ++i) {
      const uint32_t tier = i >> crowd.count;
      const uint32_t base = (i & ((1u << crowd.count) - 1)) * 64;
      for (uint64_t left = words[i].Get(); left != 0; left &= left - 1) {
        ++bits;
        const uint32_t holder = base + static_cast<uint32_t>(std::countr_zero(left));
        if (!with_bit.contains(tier << 16 | holder)) return false;
      }
    }
  }
  return with_record == array.count && bits == with_bit.size();
}

}  // namespace llmd::prefix
