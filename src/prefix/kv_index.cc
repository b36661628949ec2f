#include "prefix/kv_index.h"

#include <algorithm>
#include <array>
#include <bit>
#include <memory>
#include <new>
#include <utility>

#include "prefix/kv_index_impl.h"

namespace llmd::prefix {
namespace {

constexpr size_t kSpeculativeShare = 32;  // of the budget, one part

// Free words that one piece of a store can always be stored in: 64 runs and extents of one block,
// and a crowd. What very many records need beyond that may be refused.
constexpr size_t kWordsReserve = 8192;

size_t Bounded(size_t bytes_max) {
  return std::clamp(bytes_max, KvIndex::kBytesMaxSmallest, KvIndex::kBytesMaxLargest);
}

bool IsPlace(HolderId holder, Tier tier, Group group) {
  return holder < KvIndex::kHoldersMax && tier < KvIndex::kTiersMax && group < KvIndex::kGroupsMax;
}

}  // namespace

KvIndex::Impl::Impl(const Options& options)
    : budget(Bounded(options.bytes_max)),
      bytes_max(Bounded(options.bytes_max)),
      engine_seed(base::Mix64(options.seed, 1)),
      run_seed(base::Mix64(options.seed, 2)),
      arena(bytes_max, &budget, options.on_memory),
      runs(&budget),
      engine_table(&budget),
      speculative(bytes_max / kSpeculativeShare, base::Mix64(options.seed, 3), kSpeculativeStep,
                  kHoldersMax),
      holders(kHoldersMax) {
  budget.Take(sizeof(*this) + speculative.bytes() + holders.size() * sizeof(holders[0]));
}

// --- memory -------------------------------------------------------------------------------------

bool KvIndex::Impl::CarveRun() {
  if (runs_carved == run_chunks.size() * kRunsPerChunk) {
    const KvArena::Ref chunk = arena.TakeChunk();
    if (chunk == 0) return false;
    run_chunks.push_back(chunk);
  }
  const RunRef ref = RunAt(runs_carved++);
  Run* r = new (arena.At(ref)) Run;
  r->keys.Set(0);
  r->records.Set(0);
  r->crowd.Set(0);
  r->extents = runs_unused;
  runs_unused = ref;
  return true;
}

bool KvIndex::Impl::CarveExtent() {
  if (extents_carved >= kExtentsMax) return false;
  if (extents_carved >= extent_chunks.size() * kExtentsPerChunk) {
    const KvArena::Ref chunk = arena.TakeChunk();
    if (chunk == 0) return false;
    extent_chunks.push_back(reinterpret_cast<Extent*>(arena.At(chunk)));
  }
  const ExtentId id = extents_carved++;
  new (&extent(id)) Extent{.next = extents_unused};
  extents_unused = id;
  return true;
}

bool KvIndex::Impl::HasRoom() const {
  if (arena.CanGrow() && engine_table.CanGrow()) return true;
  const bool table = engine_table.CanGrow() ||
                     engine_table.size() < engine_table.capacity() - engine_table.capacity() / 8;
  const bool words = arena.free_words() >= kWordsReserve;
  const bool run = runs_unused != 0 || runs_carved < run_chunks.size() * kRunsPerChunk;
  const bool extents =
      extents_unused != 0 || extents_carved < extent_chunks.size() * kExtentsPerChunk;
  return table && (arena.CanGrow() || (words && run && extents));
}

void KvIndex::Impl::EnsureRoom() {
  if (!just_retired.empty() || !retired.empty()) FreeRetired();
  while (!HasRoom()) {
    if (!EvictOne()) break;
  }
}

bool KvIndex::Impl::EvictOne() {
  if (run_count == 0) return false;
  for (uint32_t step = 0;; ++step) {
    if (++clock_hand >= runs_carved) clock_hand = 0;
    Run& r = run(RunAt(clock_hand));
    if (r.extents == 0 || r.length() == 0) continue;
    if (step < kClockStepsMax && r.touched.load(std::memory_order_relaxed) != 0) {
      r.touched.store(0, std::memory_order_relaxed);
      continue;
    }
    // The last extent takes the run along.
    for (ExtentId id = r.extents; id != 0;) {
      const ExtentId next = extent(id).next;
      evicted += static_cast<uint64_t>(std::popcount(MaskOfAllTiers(r, extent(id))));
      FreeExtent(id);
      id = next;
    }
    return true;
  }
}

// Arrays that were replaced before the oldest Match now running began are seen by nobody.
void KvIndex::Impl::FreeRetired() {
  for (RunTable::Retired& array : just_retired) {
    retired.push_back({.array = std::move(array), .epoch = epoch.load(std::memory_order_relaxed)});
  }
  if (!just_retired.empty()) epoch.fetch_add(1, std::memory_order_seq_cst);
  just_retired.clear();
  std::atomic_thread_fence(std::memory_order_seq_cst);
  uint64_t oldest = ~uint64_t{0};
  {
    const std::scoped_lock lock(readers_mutex);
    for (const std::atomic<uint64_t>* reader : readers) {
      const uint64_t since = reader->load(std::memory_order_acquire);
      if (since != 0) oldest = std::min(oldest, since);
    }
  }
  std::erase_if(retired, [&](const RetiredArray& old) {
    if (old.epoch >= oldest) return false;
    budget.GiveBack(old.array.bytes);
    return true;
  });
}

// --- the public face ----------------------------------------------------------------------------

KvIndex::KvIndex(const Options& options) : impl_(std::make_unique<Impl>(options)) {}

KvIndex::~KvIndex() { LLMD_CHECK(impl_->readers.empty(), "a KvIndex went before its readers"); }

void KvIndex::Prefetch(HolderId holder, Group group,
                       std::span<const EngineKey> engine_keys) const {
  for (const EngineKey key : engine_keys) {
    impl_->engine_table.Prefetch(impl_->HashOf(holder, group, key));
  }
}

std::optional<KvIndex::BlockRef> KvIndex::Find(HolderId holder, Group group,
                                               EngineKey engine_key) const {
  if (!IsPlace(holder, 0, group)) return std::nullopt;
  const Impl& impl = *impl_;
  const uint32_t ref =
      impl.FindEngineKey(holder, group, engine_key, impl.HashOf(holder, group, engine_key));
  if (ref == 0) return std::nullopt;
  const RunRef run = impl.extent(ref >> 6).run;
  const uint32_t offset = ref & 63;
  const ArrayRef keys = ArrayRef::Unpack(impl.run(run).keys.Get());
  return BlockRef{.key = impl.arena.At(keys.ref)[offset].Get(), .run = run, .offset = offset};
}

size_t KvIndex::Store(HolderId holder, Tier tier, Group group, const BlockRef* parent,
                      std::span<const EngineKey> engine_keys,
                      std::span<const BlockKey> block_keys) {
  const Impl::Writing writing(*impl_);
  if (!IsPlace(holder, tier, group) || engine_keys.size() != block_keys.size()) {
    impl_->refused += block_keys.size();
    return 0;
  }
  if (holder >= impl_->holders_limit.load(std::memory_order_relaxed)) {
    impl_->holders_limit.store(holder + 1u, std::memory_order_release);
  }
  impl_->tiers_limit = std::max(impl_->tiers_limit, tier + 1u);
  return impl_->Store({holder, tier, group}, parent, engine_keys, block_keys);
}

size_t KvIndex::StoreTier(HolderId holder, Tier tier, Group group,
                          std::span<const EngineKey> engine_keys) {
  const Impl::Writing writing(*impl_);
  if (!IsPlace(holder, tier, group)) {
    impl_->refused += engine_keys.size();
    return 0;
  }
  impl_->tiers_limit = std::max(impl_->tiers_limit, tier + 1u);
  return impl_->StoreTier({holder, tier, group}, engine_keys);
}

KvIndex::Removed KvIndex::Remove(HolderId holder, Tier tier, Group group,
                                 std::span<const EngineKey> engine_keys) {
  const Impl::Writing writing(*impl_);
  if (!IsPlace(holder, tier, group)) return {.unknown = engine_keys.size()};
  return impl_->Remove({holder, tier, group}, engine_keys);
}

void KvIndex::Clear(HolderId holder) {
  const Impl::Writing writing(*impl_);
  if (holder < kHoldersMax) impl_->Clear(holder);
}

void KvIndex::SetGroups(HolderId holder, std::span<const uint32_t> windows) {
  const Impl::Writing writing(*impl_);
  if (holder < kHoldersMax) impl_->SetGroups(holder, windows);
}

void KvIndex::Impl::SetGroups(HolderId holder, std::span<const uint32_t> groups) {
  if (!windows_owned) {
    if (groups.empty()) return;
    // At most 256 KiB and needed for right answers, so it is taken even if nothing else fits.
    windows_owned = std::make_unique<Windows[]>(kHoldersMax);
    budget.TakeAnyway(kHoldersMax * sizeof(Windows));
    windows.store(windows_owned.get(), std::memory_order_release);
  }
  Windows& mine = windows_owned[holder];
  bool had_full = false;
  bool has_full = false;
  for (size_t g = 0; g < kGroupsMax; ++g) {
    const uint32_t window = g < groups.size() ? groups[g] : 0;
    had_full |= mine[g].load(std::memory_order_relaxed) == kFullAttention;
    has_full |= window == kFullAttention;
    mine[g].store(window, std::memory_order_relaxed);
  }
  std::atomic<uint64_t>& word = hybrid[holder / 64];
  const uint64_t bit = uint64_t{1} << (holder % 64);
  const bool was_hybrid = (word.load(std::memory_order_relaxed) & bit) != 0;
  if (was_hybrid && !had_full) without_full_attention.fetch_sub(1, std::memory_order_relaxed);
  if (!groups.empty() && !has_full) without_full_attention.fetch_add(1, std::memory_order_relaxed);
  if (groups.empty()) {
    word.fetch_and(~bit, std::memory_order_release);
  } else {
    word.fetch_or(bit, std::memory_order_release);
  }
}

void KvIndex::AddSpeculative(HolderId holder, std::span<const BlockKey> chain, base::TimePoint now,
                             base::TimePoint expires) {
  if (holder < kHoldersMax) impl_->speculative.Add(holder, chain, now, expires);
}

// --- snapshots ----------------------------------------------------------------------------------

void KvIndex::ForEach(HolderId holder, const std::function<void(const Stretch&)>& visit) const {
  if (holder >= kHoldersMax) return;
  const Impl& impl = *impl_;
  std::array<EngineKey, kRunBlocksMax> engine_keys;
  std::array<BlockKey, kRunBlocksMax> block_keys;
  std::array<uint32_t, kRunBlocksMax> references;
  for (ExtentId id = impl.holders[holder].newest; id != 0; id = impl.extent(id).older) {
    const Extent& e = impl.extent(id);
    const Run& r = impl.run(e.run);
    const Word* keys = impl.arena.At(ArrayRef::Unpack(r.keys.Get()).ref);
    for (Tier tier = 0; tier < impl.tiers_limit; ++tier) {
      const uint64_t mask = impl.MaskOf(r, e, tier);
      if (mask == 0) continue;
      const auto size = static_cast<uint32_t>(std::bit_width(mask));
      for (uint32_t i = 0; i < size; ++i) {
        const bool held = (mask >> i & 1) != 0;
        block_keys[i] = keys[i].Get();
        engine_keys[i] = held ? impl.engine_key(e, i).Get() : 0;
        references[i] = !held ? 0 : e.counted ? impl.References(id, i, tier) : 1;
      }
      visit({.tier = tier,
             .group = e.group,
             .engine_keys = {engine_keys.data(), size},
             .block_keys = {block_keys.data(), size},
             .references = {references.data(), size}});
    }
  }
}

size_t KvIndex::Restore(HolderId holder, const Stretch& s) {
  const size_t size = s.block_keys.size();
  if (s.engine_keys.size() != size || s.references.size() != size) return 0;
  size_t held = 0;
  for (size_t begin = 0; begin < size;) {
    size_t until = begin;
    while (until < size && s.references[until] > 0) ++until;
    if (until > begin) {
      const std::optional<BlockRef> parent = impl_->FindPath(s.block_keys.first(begin));
      held += Store(holder, s.tier, s.group, parent ? &*parent : nullptr,
                    s.engine_keys.subspan(begin, until - begin),
                    s.block_keys.subspan(begin, until - begin));
      for (; begin < until; ++begin) {
        for (uint32_t n = 1; n < s.references[begin]; ++n) {
          StoreTier(holder, s.tier, s.group, s.engine_keys.subspan(begin, 1));
        }
      }
    }
    ++begin;
  }
  return held;
}

// Where the last block of `path` is, if it lies in a run that begins within the path.
std::optional<KvIndex::BlockRef> KvIndex::Impl::FindPath(std::span<const BlockKey> path) const {
  BlockRef at;
  for (const BlockKey key : path) {
    const ArrayRef keys = at.run == 0 ? ArrayRef{} : ArrayRef::Unpack(run(at.run).keys.Get());
    if (at.offset + 1 < keys.count && arena.At(keys.ref)[at.offset + 1].Get() == key) {
      at = {.key = key, .run = at.run, .offset = at.offset + 1};
    } else {
      at = {.key = key, .run = FindRun(key, HashOf(key)), .offset = 0};
    }
  }
  if (at.run == 0) return std::nullopt;
  return at;
}

// --- numbers ------------------------------------------------------------------------------------

KvIndex::Stats KvIndex::stats() const {
  const Impl& impl = *impl_;
  return {.bytes = impl.budget.used(),
          .bytes_free = impl.arena.free_words() * sizeof(Word),
          .blocks = impl.blocks,
          .runs = impl.run_count,
          .pairs = impl.pairs,
          .evicted_blocks = impl.evicted,
          .refused_blocks = impl.refused};
}

uint64_t KvIndex::blocks(HolderId holder) const {
  return holder < kHoldersMax ? impl_->holders[holder].pairs : 0;
}

uint64_t KvIndex::read_failures() const {
  return impl_->read_failures.load(std::memory_order_relaxed);
}

}  // namespace llmd::prefix
