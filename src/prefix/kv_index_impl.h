// The inside of KvIndex: how runs, holdings and tables hang together. For kv_index*.cc only.
//
//   RunTable   first key of a run  -> Run
//   Run        block keys, and for readers who holds which of them (records, crowd)
//   Extent     what one holder has of one run in one group: engine keys; for the writer only
//   EngineTable (holder, group, engine key) -> (Extent, offset in the run)
//
// A *record* says which blocks of a run an extent holds in one tier, as a mask. A run that few hold
// has records only. When they exceed kRecordsMax a *crowd* is added: for each tier one bit per
// holder that has the whole run there in group 0, whose record then goes. So a run that a thousand
// servers hold costs a reader sixteen words, and one that some hold in part costs it their records.
//
// The writer changes what readers see of a run between Run::Begin and Run::End only; a reader that
// saw the same even version before and after has read the run as it was at one moment. Words with
// a reference in them also say how large the block is, so that even a torn reading stays inside the
// memory of the arena.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/check.h"
#include "base/hash.h"
#include "prefix/kv_index.h"
#include "prefix/kv_index_arena.h"
#include "prefix/kv_index_speculative.h"
#include "prefix/kv_index_tables.h"

namespace llmd::prefix {

using RunRef = KvArena::Ref;
using ExtentId = uint32_t;  // below 2^26: with 6 bits for the offset they are references of 4 bytes

inline constexpr uint32_t kRunOrderMax = 6;
// Four cache lines of records are read about as fast as the words of a crowd.
inline constexpr uint32_t kRecordsMax = 16;

inline uint64_t LowBits(uint32_t count) {
  return count >= 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1;
}

// Where something lies in the arena and how large it is, in one word.
struct ArrayRef {
  KvArena::Ref ref = 0;
  uint32_t count = 0;  // in use
  uint32_t order = 0;

  static ArrayRef Unpack(uint64_t word) {
    return {static_cast<uint32_t>(word), static_cast<uint32_t>(word >> 32 & 0xffff),
            static_cast<uint32_t>(word >> 48 & 0xff)};
  }
  uint64_t Pack() const { return ref | uint64_t{count} << 32 | uint64_t{order} << 48; }
};

struct Record {
  uint64_t who = 0;
  uint64_t mask = 0;

  static uint64_t Who(ExtentId extent, HolderId holder, Tier tier, Group group) {
    return extent | uint64_t{holder} << 32 | uint64_t{tier} << 48 | uint64_t{group} << 52;
  }
  ExtentId extent() const { return static_cast<ExtentId>(who); }
  uint32_t holder() const { return static_cast<uint32_t>(who >> 32 & 0xffff); }
  uint32_t tier() const { return static_cast<uint32_t>(who >> 48 & 0xf); }
  uint32_t group() const { return static_cast<uint32_t>(who >> 52 & 0xf); }
};

// One cache line. Lives in a chunk that holds nothing but runs, for good: a reader may always look
// at the version of what once was a run.
struct alignas(64) Run {
  std::atomic<uint32_t> version{0};  // odd: being changed
  std::atomic<uint32_t> next{0};     // the run that was last stored behind this one; a hint
  Word keys;     // ArrayRef of block keys; count 0: not in use
  Word last_key;
  Word records;  // ArrayRef of pairs of words; ref 0: at most one, in `inline_record`
  std::array<Word, 2> inline_record;
  Word crowd;  // ArrayRef, ref 0: none; count is the binary logarithm of words per tier
  ExtentId extents = 0;              // the writer's list; of unused runs: the next unused one
  std::atomic<uint8_t> touched{0};   // since the clock hand came by

  void Begin() {
    version.store(version.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_release);
  }
  void End() {
    version.store(version.load(std::memory_order_relaxed) + 1, std::memory_order_release);
  }
  uint32_t length() const { return ArrayRef::Unpack(keys.Get()).count; }
  uint64_t full_mask() const { return LowBits(length()); }
  bool has_crowd() const { return crowd.Get() != 0; }
};
static_assert(sizeof(Run) == 64);

struct Extent {
  static constexpr uint16_t kNone = 0xffff;
  static constexpr uint16_t kInCrowd = 0xfffe;
  static constexpr uint32_t kRecordIndexMax = 0xfff0;

  RunRef run = 0;             // 0: not in use
  KvArena::Ref engine_keys = 0;  // of blocks first, first + 1, ...
  ExtentId newer = 0;         // of the same holder
  ExtentId older = 0;
  ExtentId next = 0;          // of the same run
  ExtentId previous = 0;
  std::array<uint16_t, KvIndex::kTiersMax> record{kNone, kNone, kNone, kNone};
  HolderId holder = 0;
  Group group = 0;
  uint8_t first = 0;
  uint8_t order = 0;     // of engine_keys
  bool counted = false;  // some block has more than one reference

  uint32_t until() const { return std::min(first + (1u << order), KvIndex::kRunBlocksMax); }
};
static_assert(sizeof(Extent) == 40);

struct Place {
  HolderId holder;
  Tier tier;
  Group group;
};

struct KvIndex::Impl {
  explicit Impl(const Options& options);

  // --- tables and memory (kv_index.cc) ---
  Run& run(RunRef ref) const { return *reinterpret_cast<Run*>(arena.At(ref)); }
  Extent& extent(ExtentId id) const {
    return extent_chunks[id / kExtentsPerChunk][id % kExtentsPerChunk];
  }
  Word& engine_key(const Extent& e, uint32_t offset) const {
    return arena.At(e.engine_keys)[offset - e.first];
  }
  uint64_t HashOf(HolderId holder, Group group, EngineKey key) const {
    const unsigned __int128 product =
        static_cast<unsigned __int128>(key ^ engine_seed) *
        (0x9e3779b97f4a7c15u ^ (uint64_t{holder} << 40 | uint64_t{group} << 60));
    return base::Mix64(static_cast<uint64_t>(product), static_cast<uint64_t>(product >> 64));
  }
  uint64_t HashOf(BlockKey key) const { return base::Mix64(key, run_seed); }
  // The n-th header of a run that ever was in use.
  RunRef RunAt(uint32_t n) const {
    return run_chunks[n / kRunsPerChunk] +
           static_cast<RunRef>(n % kRunsPerChunk * (sizeof(Run) / sizeof(Word)));
  }
  RunRef FindRun(BlockKey key, uint64_t hash) const {
    return runs.Find(hash, [&](RunRef ref) {
      const auto keys = ArrayRef::Unpack(run(ref).keys.GetAcquire());
      return keys.count > 0 && arena.At(keys.ref)->Get() == key;
    });
  }
  // Extent and offset of an engine key, packed as EngineTable::Ref; 0 if not known.
  uint32_t FindEngineKey(HolderId holder, Group group, EngineKey key, uint64_t hash) const {
    return engine_table.Find(hash, [&](uint32_t ref) {
      const Extent& e = extent(ref >> 6);
      return e.holder == holder && e.group == group && engine_key(e, ref & 63).Get() == key;
    });
  }

  // --- runs, extents, records (kv_index_holdings.cc) ---
  RunRef AddRun(std::span<const BlockKey> keys, uint32_t order);  // 0: no room
  void AppendKeys(Run& run, std::span<const BlockKey> keys);
  void FreeRun(RunRef ref);
  ExtentId AddExtent(RunRef run, const Place& at, uint32_t first, uint32_t order);  // 0: no room
  // With everything it holds; the run goes if nobody else holds anything of it.
  void FreeExtent(ExtentId id);
  uint64_t MaskOf(const Run& run, const Extent& e, Tier tier) const;
  uint64_t MaskOfAllTiers(const Run& run, const Extent& e) const;
  // False: no room.
  bool AddBits(Run& run, ExtentId id, Tier tier, uint64_t bits);
  // Takes one block out of one tier. With the last tier of a block goes its engine key, with the
  // last block the extent. Returns whether the extent is still there.
  bool ClearBit(ExtentId id, Tier tier, uint32_t offset, uint64_t hash);
  Word* Records(const Run& run, const ArrayRef& array) const {
    return array.ref == 0 ? const_cast<Word*>(run.inline_record.data()) : arena.At(array.ref);
  }
  // Of `at.holder` and `at.group`, with a free place for the block at `offset`; 0: none.
  ExtentId FindExtentFor(const Run& run, const Place& at, uint32_t offset) const;
  bool HeldByOnly(const Run& run, HolderId holder) const;

  // --- the writer's calls (kv_index_write.cc) ---
  struct Cursor {
    RunRef run = 0;  // of the block before the next one
    uint32_t offset = 0;
    BlockKey key = 0;  // and its key: without it at that place the cursor points nowhere
  };
  struct Piece;
  size_t Store(const Place& at, const BlockRef* parent, std::span<const EngineKey> engine_keys,
               std::span<const BlockKey> block_keys);
  bool StorePiece(Piece& piece, Cursor& cursor);
  bool StoreKnown(const Piece& piece, size_t i, uint32_t ref, Cursor& cursor);
  bool StoreUnknown(Piece& piece, size_t begin, size_t end, Cursor& cursor);
  RunRef PlaceFresh(const Piece& piece, size_t begin, size_t until, const Cursor& cursor);
  size_t AddBlocks(const Piece& piece, size_t i, size_t count, size_t places, RunRef run,
                   uint32_t offset);
  // For EngineTable::Insert: how the hash of an entry comes about.
  struct EngineHash {
    const Impl& index;
    void Prefetch(uint32_t ref, uint32_t pass) const {
      const Extent& e = index.extent(ref >> 6);
      if (pass == 0) {
        __builtin_prefetch(&e);
      } else {
        __builtin_prefetch(&index.engine_key(e, ref & 63));
      }
    }
    uint64_t operator()(uint32_t ref) const {
      const Extent& e = index.extent(ref >> 6);
      return index.HashOf(e.holder, e.group, index.engine_key(e, ref & 63).Get());
    }
  };
  bool IsAt(const Cursor& cursor) const;
  // Whether the holder of `piece` may let the run at the cursor grow.
  bool CanExtend(const Piece& piece, const Cursor& cursor) const;
  size_t StoreTier(const Place& at, std::span<const EngineKey> engine_keys);
  Removed Remove(const Place& at, std::span<const EngineKey> engine_keys);
  void RemoveOne(const Place& at, EngineKey key, uint64_t hash, Removed* result);
  void PrefetchKnown(const Place& at, std::span<const EngineKey> engine_keys,
                     std::span<uint64_t> hashes) const;
  void Clear(HolderId holder);
  void SetGroups(HolderId holder, std::span<const uint32_t> groups);

  // References beyond the first of a block in a tier.
  static uint64_t CountKey(ExtentId id, uint32_t offset, Tier tier) {
    return uint64_t{id} << 8 | offset << 2 | tier;
  }
  void AddReference(ExtentId id, uint32_t offset, Tier tier);
  bool DropReference(ExtentId id, uint32_t offset, Tier tier);  // false: it was the only one
  void ForgetReferences(ExtentId id, uint32_t offset, Tier tier);
  uint32_t References(ExtentId id, uint32_t offset, Tier tier) const;

  // Makes room for one piece of a store: evicts until there is.
  void EnsureRoom();
  bool HasRoom() const;
  bool EvictOne();
  void FreeRetired();

  std::optional<BlockRef> FindPath(std::span<const BlockKey> path) const;
  bool IsHybrid(uint32_t holder) const {
    return (hybrid[holder / 64].load(std::memory_order_relaxed) >> (holder % 64) & 1) != 0;
  }
  const std::array<std::atomic<uint32_t>, kGroupsMax>& WindowsOf(uint32_t holder) const {
    return windows.load(std::memory_order_acquire)[holder];
  }

  bool Check() const;
  bool CheckRun(RunRef ref, uint64_t* pairs) const;
  bool CheckRecords(const Run& run) const;

  // A node of the hash map and its share of the buckets.
  static constexpr size_t kCountBytes = 64;
  static constexpr size_t kExtentsPerChunk = KvArena::kChunkBytes / sizeof(Extent);
  static constexpr uint32_t kExtentsMax = 1u << 26;
  static constexpr size_t kRunsPerChunk = KvArena::kChunkBytes / sizeof(Run);

  Budget budget;
  const size_t bytes_max;
  const uint64_t engine_seed;
  const uint64_t run_seed;
  KvArena arena;
  RunTable runs;
  EngineTable engine_table;
  SpeculativeTable speculative;

  std::vector<RunRef> run_chunks;
  uint32_t runs_carved = 0;  // headers that have been in use
  RunRef runs_unused = 0;    // list through Run::extents
  std::vector<Extent*> extent_chunks;
  uint32_t extents_carved = 1;  // number 0 is none
  ExtentId extents_unused = 0;  // list through Extent::next
  uint32_t clock_hand = 0;

  struct Holder {
    ExtentId newest = 0;
    uint32_t unused = 0;
    uint64_t pairs = 0;
  };
  std::vector<Holder> holders;
  std::atomic<uint32_t> holders_limit{0};  // above every number ever stored
  uint32_t tiers_limit = 1;
  std::unordered_map<uint64_t, uint32_t> counts;

  // Windows by holder and group, 0: no such group. Published at the first SetGroups.
  using Windows = std::array<std::atomic<uint32_t>, kGroupsMax>;
  std::unique_ptr<Windows[]> windows_owned;
  std::atomic<Windows*> windows{nullptr};
  std::array<std::atomic<uint64_t>, kHoldersMax / 64> hybrid{};  // bit: the holder has windows
  std::atomic<uint32_t> without_full_attention{0};               // holders with windows only

  // Arrays of `runs` that readers may still see, with the epoch in which they were replaced.
  struct RetiredArray {
    RunTable::Retired array;
    uint64_t epoch = 0;
  };
  std::vector<RunTable::Retired> just_retired;
  std::vector<RetiredArray> retired;
  std::atomic<uint64_t> epoch{1};
  mutable std::mutex readers_mutex;  // registration, and the writer's look at all readers
  mutable std::vector<const std::atomic<uint64_t>*> readers;

  uint64_t blocks = 0;
  uint64_t run_count = 0;
  uint64_t pairs = 0;
  uint64_t evicted = 0;
  uint64_t refused = 0;
  mutable std::atomic<uint64_t> read_failures{0};
  mutable std::atomic<bool> writing{false};

  // Marks the writer at work; finds a second one in debug builds.
  class Writing {
   public:
    explicit Writing(const Impl& impl) : impl_(impl) {
      LLMD_DCHECK(!impl_.writing.exchange(true), "two writers at once");
    }
    ~Writing() { impl_.writing.store(false, std::memory_order_relaxed); }

   private:
    const Impl& impl_;
  };

 private:
  bool CarveRun();
  bool CarveExtent();
  bool AppendRecord(Run& run, ExtentId id, Tier tier, uint64_t mask);
  void RemoveRecord(Run& run, uint32_t index);
  void MakeCrowd(Run& run);
  bool FitCrowd(Run& run);
  bool JoinCrowd(Run& run, Extent& e, Tier tier);
  void ClearCrowdBit(Run& run, HolderId holder, Tier tier);
  ArrayRef CrowdShape() const;  // for all holders and tiers so far
};

}  // namespace llmd::prefix
