// What the ingest thread does: store, remove, clear.
#include <algorithm>
#include <array>
#include <bit>

#include "prefix/kv_index_impl.h"

namespace llmd::prefix {

// Up to kRunBlocksMax consecutive blocks of one call, with what is known of each.
struct KvIndex::Impl::Piece {
  const Place at;
  const std::span<const EngineKey> engine_keys;
  const std::span<const BlockKey> block_keys;
  std::array<uint64_t, kRunBlocksMax> engine_hashes;
  std::array<uint64_t, kRunBlocksMax> run_hashes;
  size_t held = 0;

  size_t size() const { return block_keys.size(); }
};

namespace {

// Finds out whether an engine key came before within one piece.
class Seen {
 public:
  // Whether keys[at] is among keys[begin..at).
  bool Again(std::span<const EngineKey> keys, size_t begin, size_t at, uint64_t hash) {
    uint64_t& word = filter_[hash >> 6 & 15];
    const uint64_t bit = uint64_t{1} << (hash & 63);
    const bool maybe = (word & bit) != 0;
    word |= bit;
    return maybe && std::find(keys.begin() + begin, keys.begin() + at, keys[at]) !=
                        keys.begin() + at;
  }

 private:
  std::array<uint64_t, 16> filter_{};
};

}  // namespace

// --- storing ------------------------------------------------------------------------------------

size_t KvIndex::Impl::Store(const Place& at, const BlockRef* parent,
                            std::span<const EngineKey> engine_keys,
                            std::span<const BlockKey> block_keys) {
  Cursor cursor;
  if (parent != nullptr) {
    cursor = {.run = parent->run, .offset = parent->offset + 1, .key = parent->key};
  }
  size_t held = 0;
  for (size_t begin = 0; begin < block_keys.size(); begin += kRunBlocksMax) {
    const size_t size = std::min<size_t>(block_keys.size() - begin, kRunBlocksMax);
    Piece piece{.at = at,
                .engine_keys = engine_keys.subspan(begin, size),
                .block_keys = block_keys.subspan(begin, size)};
    for (size_t i = 0; i < size; ++i) {
      piece.engine_hashes[i] = HashOf(at.holder, at.group, piece.engine_keys[i]);
      piece.run_hashes[i] = HashOf(piece.block_keys[i]);
      engine_table.Prefetch(piece.engine_hashes[i]);
      runs.Prefetch(piece.run_hashes[i]);
    }
    EnsureRoom();
    const bool all = StorePiece(piece, cursor);
    held += piece.held;
    // Blocks are placed by what comes before them, so nothing can follow what found no place.
    if (!all) break;
  }
  refused += block_keys.size() - held;
  return held;
}

bool KvIndex::Impl::StorePiece(Piece& piece, Cursor& cursor) {
  const Place& at = piece.at;
  const auto find = [&](size_t i) {
    return FindEngineKey(at.holder, at.group, piece.engine_keys[i], piece.engine_hashes[i]);
  };
  for (size_t i = 0; i < piece.size();) {
    const uint32_t known = find(i);
    if (known != 0 && StoreKnown(piece, i, known, cursor)) {
      ++piece.held;
      ++i;
      continue;
    }
    Seen seen;
    const size_t begin = i;
    seen.Again(piece.engine_keys, begin, i, piece.engine_hashes[i]);
    for (++i; i < piece.size() && find(i) == 0; ++i) {
      if (seen.Again(piece.engine_keys, begin, i, piece.engine_hashes[i])) break;
    }
    if (!StoreUnknown(piece, begin, i, cursor)) return false;
  }
  return true;
}

// Whether the engine key stands for this block. If for another one, that one is forgotten.
bool KvIndex::Impl::StoreKnown(const Piece& piece, size_t i, uint32_t ref, Cursor& cursor) {
  const ExtentId id = ref >> 6;
  const uint32_t offset = ref & 63;
  Extent& e = extent(id);
  Run& r = run(e.run);
  const BlockKey key = arena.At(ArrayRef::Unpack(r.keys.Get()).ref)[offset].Get();
  if (key != piece.block_keys[i]) {
    for (Tier tier = 0; tier < tiers_limit; ++tier) {
      if ((MaskOf(r, e, tier) >> offset & 1) == 0) continue;
      if (!ClearBit(id, tier, offset, piece.engine_hashes[i])) break;
    }
    return false;
  }
  cursor = {.run = e.run, .offset = offset + 1, .key = key};
  r.touched.store(1, std::memory_order_relaxed);
  if ((MaskOf(r, e, piece.at.tier) >> offset & 1) != 0) {
    AddReference(id, offset, piece.at.tier);
    return true;
  }
  // Without room the block is held, only not in this tier.
  AddBits(r, id, piece.at.tier, uint64_t{1} << offset);
  return true;
}

bool KvIndex::Impl::IsAt(const Cursor& cursor) const {
  if (cursor.run == 0) return false;
  const ArrayRef keys = ArrayRef::Unpack(run(cursor.run).keys.Get());
  return cursor.offset <= keys.count && arena.At(keys.ref)[cursor.offset - 1].Get() == cursor.key;
}

bool KvIndex::Impl::CanExtend(const Piece& piece, const Cursor& cursor) const {
  const Run& r = run(cursor.run);
  const ArrayRef keys = ArrayRef::Unpack(r.keys.Get());
  return cursor.offset == keys.count && keys.count < 1u << keys.order && !r.has_crowd() &&
         HeldByOnly(r, piece.at.holder);
}

// Blocks [begin, end) of the piece, whose engine keys are all new to the holder. False: no room.
bool KvIndex::Impl::StoreUnknown(Piece& piece, size_t begin, size_t end, Cursor& cursor) {
  while (begin < end) {
    if (!IsAt(cursor)) cursor.run = 0;
    RunRef ref = 0;
    uint32_t offset = 0;
    if (cursor.run != 0 && cursor.offset < run(cursor.run).length()) {
      const ArrayRef keys = ArrayRef::Unpack(run(cursor.run).keys.Get());
      if (arena.At(keys.ref)[cursor.offset].Get() == piece.block_keys[begin]) {
        ref = cursor.run;
        offset = cursor.offset;
      }
    }
    if (ref == 0) ref = FindRun(piece.block_keys[begin], piece.run_hashes[begin]);
    if (ref != 0) {
      run(ref).touched.store(1, std::memory_order_relaxed);
    } else {
      size_t fresh = begin + 1;
      while (fresh < end && FindRun(piece.block_keys[fresh], piece.run_hashes[fresh]) == 0) ++fresh;
      ref = PlaceFresh(piece, begin, fresh, cursor);
      if (ref == 0) return false;
      if (ref == cursor.run) offset = cursor.offset;
    }
    Run& r = run(ref);
    if (ref != cursor.run && cursor.run != 0) {
      std::atomic<uint32_t>& next = run(cursor.run).next;
      if (next.load(std::memory_order_relaxed) != ref) next.store(ref, std::memory_order_release);
    }
    const ArrayRef keys = ArrayRef::Unpack(r.keys.Get());
    const Word* words = arena.At(keys.ref);
    size_t same = 1;
    while (begin + same < end && offset + same < keys.count &&
           words[offset + same].Get() == piece.block_keys[begin + same]) {
      ++same;
    }
    // Who forks off in the middle of the run will not need the rest of it.
    const bool forks = begin + same < piece.size() && offset + same < keys.count;
    const size_t places = forks ? same : std::max<size_t>(same, keys.count - offset);
    const size_t stored = AddBlocks(piece, begin, same, places, ref, offset);
    if (stored == 0) return false;
    piece.held += stored;
    begin += stored;
    cursor = {.run = ref,
              .offset = offset + static_cast<uint32_t>(stored),
              .key = piece.block_keys[begin - 1]};
  }
  return true;
}

// The run in which blocks [begin, until), new to the index, or the first ones of them, lie from now
// on: that at the cursor, grown, or a new one. 0: no room.
RunRef KvIndex::Impl::PlaceFresh(const Piece& piece, size_t begin, size_t until,
                                 const Cursor& cursor) {
  const size_t fresh = until - begin;
  if (cursor.run != 0 && CanExtend(piece, cursor)) {
    const ArrayRef keys = ArrayRef::Unpack(run(cursor.run).keys.Get());
    const size_t count = std::min<size_t>(fresh, (1u << keys.order) - keys.count);
    AppendKeys(run(cursor.run), piece.block_keys.subspan(begin, count));
    return cursor.run;
  }
  uint32_t order = KvArena::OrderFor(fresh);
  // What goes on will go on: each run of a chain gets twice the room of the one before.
  if (cursor.run != 0) {
    const uint32_t before = ArrayRef::Unpack(run(cursor.run).keys.Get()).order;
    order = std::max(order, std::min(before + 1, kRunOrderMax));
  }
  // Where memory is in pieces, shorter runs will do.
  for (;; --order) {
    const size_t count = std::min<size_t>(fresh, size_t{1} << order);
    const RunRef ref = AddRun(piece.block_keys.subspan(begin, count), order);
    if (ref != 0 || order == KvArena::kOrderMin) return ref;
  }
}

// The holder of the piece now has `count` blocks from the i-th on, which lie in the run from
// `offset` on, and may come to have `places`. Returns how many of them were stored; the run goes if
// nobody has any of it.
size_t KvIndex::Impl::AddBlocks(const Piece& piece, size_t i, size_t count, size_t places,
                                RunRef ref, uint32_t offset) {
  Run& r = run(ref);
  ExtentId id = r.extents == 0 ? 0 : FindExtentFor(r, piece.at, offset);
  const bool is_new = id == 0;
  if (is_new) {
    // Who has a run alone may let it grow, and needs the places for it.
    const uint32_t order =
        r.extents == 0 ? ArrayRef::Unpack(r.keys.Get()).order : KvArena::OrderFor(places);
    id = AddExtent(ref, piece.at, offset, order);
    if (id == 0) {
      if (r.extents == 0) FreeRun(ref);
      return 0;
    }
  }
  const Extent& e = extent(id);
  const uint64_t taken = is_new ? 0 : MaskOfAllTiers(r, e) >> offset;
  count = std::min<size_t>({count, e.until() - offset,
                            static_cast<size_t>(std::countr_zero(taken))});
  size_t stored = 0;
  for (; stored < count; ++stored) {
    const auto at = offset + static_cast<uint32_t>(stored);
    engine_key(e, at).Set(piece.engine_keys[i + stored]);
    if (!engine_table.Insert(piece.engine_hashes[i + stored], id << 6 | at, EngineHash{*this})) {
      break;
    }
  }
  if (stored == 0 ||
      !AddBits(r, id, piece.at.tier, LowBits(static_cast<uint32_t>(stored)) << offset)) {
    for (; stored > 0; --stored) {
      engine_table.Erase(piece.engine_hashes[i + stored - 1],
                         id << 6 | (offset + static_cast<uint32_t>(stored) - 1));
    }
    if (is_new) FreeExtent(id);
    return 0;
  }
  pairs += stored;
  holders[piece.at.holder].pairs += stored;
  return stored;
}

size_t KvIndex::Impl::StoreTier(const Place& at, std::span<const EngineKey> engine_keys) {
  std::array<uint64_t, kRunBlocksMax> hashes;
  size_t known = 0;
  for (size_t begin = 0; begin < engine_keys.size(); begin += kRunBlocksMax) {
    const auto keys =
        engine_keys.subspan(begin, std::min<size_t>(engine_keys.size() - begin, kRunBlocksMax));
    PrefetchKnown(at, keys, hashes);
    EnsureRoom();
    for (size_t i = 0; i < keys.size(); ++i) {
      const uint32_t ref = FindEngineKey(at.holder, at.group, keys[i], hashes[i]);
      if (ref == 0) continue;
      const ExtentId id = ref >> 6;
      const uint32_t offset = ref & 63;
      Extent& e = extent(id);
      Run& r = run(e.run);
      if ((MaskOf(r, e, at.tier) >> offset & 1) != 0) {
        AddReference(id, offset, at.tier);
      } else if (!AddBits(r, id, at.tier, uint64_t{1} << offset)) {
        ++refused;
        continue;
      }
      ++known;
    }
  }
  return known;
}

// --- removing -----------------------------------------------------------------------------------

// Hashes the keys and fetches, for all of them at once, what will be looked at: the table, then the
// extents, then their engine keys and runs.
void KvIndex::Impl::PrefetchKnown(const Place& at, std::span<const EngineKey> engine_keys,
                                  std::span<uint64_t> hashes) const {
  for (size_t i = 0; i < engine_keys.size(); ++i) {
    hashes[i] = HashOf(at.holder, at.group, engine_keys[i]);
    engine_table.Prefetch(hashes[i]);
  }
  for (size_t i = 0; i < engine_keys.size(); ++i) {
    engine_table.ForCandidates(hashes[i],
                               [&](uint32_t ref) { __builtin_prefetch(&extent(ref >> 6)); });
  }
  for (size_t i = 0; i < engine_keys.size(); ++i) {
    engine_table.ForCandidates(hashes[i], [&](uint32_t ref) {
      const Extent& e = extent(ref >> 6);
      if (e.holder != at.holder) return;
      __builtin_prefetch(&engine_key(e, ref & 63));
      __builtin_prefetch(&run(e.run));
    });
  }
}

KvIndex::Removed KvIndex::Impl::Remove(const Place& at, std::span<const EngineKey> engine_keys) {
  Removed result;
  std::array<uint64_t, kRunBlocksMax> hashes;
  for (size_t begin = 0; begin < engine_keys.size(); begin += kRunBlocksMax) {
    const auto keys =
        engine_keys.subspan(begin, std::min<size_t>(engine_keys.size() - begin, kRunBlocksMax));
    PrefetchKnown(at, keys, hashes);
    for (size_t i = 0; i < keys.size(); ++i) RemoveOne(at, keys[i], hashes[i], &result);
  }
  return result;
}

void KvIndex::Impl::RemoveOne(const Place& at, EngineKey key, uint64_t hash, Removed* result) {
  const uint32_t ref = FindEngineKey(at.holder, at.group, key, hash);
  const ExtentId id = ref >> 6;
  const uint32_t offset = ref & 63;
  if (ref == 0 || (MaskOf(run(extent(id).run), extent(id), at.tier) >> offset & 1) == 0) {
    ++result->unknown;
  } else if (DropReference(id, offset, at.tier)) {
    ++result->still_referenced;
  } else {
    ClearBit(id, at.tier, offset, hash);
    ++result->removed;
  }
}

void KvIndex::Impl::Clear(HolderId holder) {
  while (holders[holder].newest != 0) FreeExtent(holders[holder].newest);
  speculative.Clear(holder);
}

// --- references ---------------------------------------------------------------------------------

void KvIndex::Impl::AddReference(ExtentId id, uint32_t offset, Tier tier) {
  const auto found = counts.find(CountKey(id, offset, tier));
  if (found != counts.end()) {
    ++found->second;
    return;
  }
  // Beyond the budget a block goes with its first removal.
  if (!budget.Take(kCountBytes)) return;
  counts.emplace(CountKey(id, offset, tier), 2);
  extent(id).counted = true;
}

bool KvIndex::Impl::DropReference(ExtentId id, uint32_t offset, Tier tier) {
  if (!extent(id).counted) return false;
  const auto found = counts.find(CountKey(id, offset, tier));
  if (found == counts.end()) return false;
  if (--found->second == 1) {
    counts.erase(found);
    budget.GiveBack(kCountBytes);
  }
  return true;
}

void KvIndex::Impl::ForgetReferences(ExtentId id, uint32_t offset, Tier tier) {
  if (counts.erase(CountKey(id, offset, tier)) > 0) budget.GiveBack(kCountBytes);
}

uint32_t KvIndex::Impl::References(ExtentId id, uint32_t offset, Tier tier) const {
  const auto found = counts.find(CountKey(id, offset, tier));
  return found == counts.end() ? 1 : found->second;
}

}  // namespace llmd::prefix
