// KvIndex: which server holds which KV block in which tier, exactly.
//
//   KvIndex index({.bytes_max = 1 << 30});
//   index.Store(holder, kTierGpu, 0, nullptr, engine_keys, block_keys);   // ingest thread
//   KvIndex::Reader reader(index);                                        // one per request thread
//   reader.Match(chain, tier_weights, now, blocks, weighted);             // answers by HolderId
//
// A block is named twice: by its *block key*, the same for all holders and chained over everything
// before it (token_chain.h), and by the *engine key* under which its holder speaks of it. Blocks
// that follow each other lie in runs of up to 64; because keys are chained, equal keys mean equal
// prefixes, so a run needs no pointer to what came before it and is found by its first key alone.
// A match walks from run to run, a handful of cache lines for hundreds of blocks, and keeps a set
// of the holders that are still with it.
//
// What counts. A holder counts the blocks from the start of the chain that it holds in any tier
// without a gap, and the weights of their best tiers. Holders with several groups of layers
// (SetGroups) count the usable prefix: the longest one of which the full-attention groups hold
// every block and each window group the last `window_blocks`. Speculative entries are what was just
// sent to a holder and is about to be held there; they count as tier 0 where they reach further
// than what is held.
//
// References. A block that is stored again under the same engine key and in the same tier counts a
// reference and goes with its last one. One block may be held under several engine keys.
//
// Memory. Everything comes out of `bytes_max`, headers, tables and free space included. When a
// store finds no room, runs go that no match and no store has touched since the clock hand came by
// last; the hand looks at kClockStepsMax runs at most, then takes the next one as it is. A run goes
// with all its holders, and blocks behind it stop to match until it is stored again; since a match
// touches all runs of its prefix, a prefix outlives what depends on it. Speculative entries have a
// thirty-second of the budget to themselves; those that expire first go first.
//
// Thread safety: one writer (the ingest thread; two at once are a bug found in debug builds) calls
// the methods of KvIndex, any number of readers Match at the same time; each Reader belongs to one
// thread. AddSpeculative is for any thread. Readers take no lock and wait for nobody: a run that
// changes under a reader is read again, at most kReadAttemptsMax times, then the match ends before
// it and read_failures counts it.
// Invariants: 1. Without evictions and read failures, Match is exact at every moment between two
// writer calls, and each run is read as it was at one moment. 2. stats().bytes <= bytes_max. 3. A
// block key lies in one place only. 4. What a holder is said to hold, Remove of its engine keys or
// Clear takes away completely. 5. No call but a reader's construction takes time or memory that
// grows with the size of the index; Clear and ForEach grow with what the holder holds.
// Limits: kHoldersMax, kTiersMax, kGroupsMax, 32 GiB. Calls with numbers beyond the limits do
// nothing; blocks that were to be stored count as refused.
// Cost (kv_index_bench.cc): see docs/performance.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "base/time.h"
#include "prefix/token_chain.h"

namespace llmd::prefix {

// One data-parallel rank of one endpoint, numbered densely by whoever feeds the index.
using HolderId = uint16_t;
// Where a block lies: device memory, host memory, storage... 0 is the tier that most blocks are in.
using Tier = uint8_t;
// A group of layers with a KV cache of its own; 0 for models that have one group.
using Group = uint8_t;
// The engine's name of a block: the low 64 bits of its hash.
using EngineKey = uint64_t;

class KvIndex {
 public:
  static constexpr uint32_t kHoldersMax = 8192;
  static constexpr uint32_t kTiersMax = 4;
  static constexpr uint32_t kGroupsMax = 8;
  static constexpr uint32_t kRunBlocksMax = 64;
  static constexpr uint32_t kReadAttemptsMax = 64;
  static constexpr uint32_t kClockStepsMax = 1024;
  // What full_attention groups have for a window.
  static constexpr uint32_t kFullAttention = ~uint32_t{0};

  static constexpr size_t kBytesMaxDefault = size_t{1} << 30;   // 30 to 40 million blocks
  static constexpr size_t kBytesMaxSmallest = size_t{16} << 20;  // a smaller limit counts as this
  static constexpr size_t kBytesMaxLargest = size_t{32} << 30;   // and a larger one as this

  struct Options {
    size_t bytes_max = kBytesMaxDefault;
    // Secret start of the hash that spreads engine keys, which may be crafted.
    uint64_t seed = 0;
    // Called with each new piece of memory (2 MiB, aligned to its size) before it is used, for
    // advice to the kernel such as huge pages. May be empty.
    std::function<void(std::span<std::byte>)> on_memory;
  };

  // A block known to the writer; valid until the writer's next call that changes the index.
  struct BlockRef {
    BlockKey key = 0;
    uint32_t run = 0;     // opaque
    uint32_t offset = 0;  // opaque
  };

  struct Removed {
    size_t removed = 0;           // no longer held in that tier
    size_t still_referenced = 0;  // had been stored more often than removed
    size_t unknown = 0;           // not held in that tier
  };

  explicit KvIndex(const Options& options);
  KvIndex() : KvIndex(Options{}) {}
  ~KvIndex();  // no Reader may be left
  KvIndex(const KvIndex&) = delete;
  KvIndex& operator=(const KvIndex&) = delete;

  // --- the writer ---
  // Calls with many keys are several times faster per key than calls with one: memory is fetched
  // for all of them at once. So gather neighbouring events of one holder, tier and group.

  // Begins to fetch what a Store or Remove of these keys looks at first. Worth it where other work
  // comes before that call.
  void Prefetch(HolderId holder, Group group, std::span<const EngineKey> engine_keys) const;

  // Where the block is that `holder` calls `engine_key`: the parent of a store to come.
  std::optional<BlockRef> Find(HolderId holder, Group group, EngineKey engine_key) const;

  // `holder` has stored blocks that follow each other, the first one behind `parent`; nullptr means
  // that a prompt begins here. What lies behind an unknown parent cannot be stored: elsewhere in
  // the index it may be known, and a block must lie in one place only. Keys are not 0; the spans
  // have one size. An engine key that stood for another block stands for the new one from here on.
  // Returns how many blocks from the front are held now: fewer than all only if there was no room
  // or a number was beyond its limit.
  size_t Store(HolderId holder, Tier tier, Group group, const BlockRef* parent,
               std::span<const EngineKey> engine_keys, std::span<const BlockKey> block_keys);

  // Blocks that the holder has in some tier are in `tier` as well (events that name no tokens).
  // Returns how many of them are known; others are ignored.
  size_t StoreTier(HolderId holder, Tier tier, Group group, std::span<const EngineKey> engine_keys);

  Removed Remove(HolderId holder, Tier tier, Group group, std::span<const EngineKey> engine_keys);

  // The holder holds nothing any more, speculation included; its groups stay as they were set.
  void Clear(HolderId holder);

  // What the holder's groups are, by number: kFullAttention or the blocks of a sliding window (1 or
  // more). Without this, or with an empty list, only group 0 counts and it is full attention.
  void SetGroups(HolderId holder, std::span<const uint32_t> windows);

  // --- snapshots (the writer) ---
  // What a holder has of one run in one tier: consecutive blocks, from the first of the run to the
  // last that it has. Those between that it does not have come along because a place in the index
  // is found by what lies before it; they have 0 references. Spans are of equal size, at most
  // kRunBlocksMax, and valid during the call only.
  struct Stretch {
    Tier tier = 0;
    Group group = 0;
    std::span<const EngineKey> engine_keys;  // 0 for blocks without references
    std::span<const BlockKey> block_keys;
    std::span<const uint32_t> references;
  };
  // All that `holder` has, as of now: so an index can be written out in pieces, holder by holder,
  // each with the number of the event it corresponds to.
  void ForEach(HolderId holder, const std::function<void(const Stretch&)>& visit) const;
  // Puts one stretch back; returns how many blocks are held. For an index in which nothing else was
  // stored yet. Where runs were cut anew between the pieces of one snapshot, a block may come to
  // lie in two places; matches then end early there, until it is gone from both.
  size_t Restore(HolderId holder, const Stretch& stretch);

  // --- any thread ---
  // The holder is about to have `chain`. Seen by matches whose `now` is before `expires`. Depths
  // are kept in steps of kSpeculativeStep blocks, rounded down, and at the end of the chain.
  static constexpr uint32_t kSpeculativeStep = 8;
  void AddSpeculative(HolderId holder, std::span<const BlockKey> chain, base::TimePoint now,
                      base::TimePoint expires);

  class Reader {
   public:
    // The index outlives the reader.
    explicit Reader(const KvIndex& index);
    ~Reader();
    Reader(const Reader&) = delete;
    Reader& operator=(const Reader&) = delete;

    // For every holder h below blocks.size(): blocks[h] = blocks from the start of `chain` that h
    // can use, weighted[h] = the sum of their weights. tier_weights[t] is the weight of tier t;
    // tiers that it does not name weigh 1. `weighted` is as large as `blocks`, or empty when not
    // wanted. Returns the largest of blocks[]. Allocates nothing.
    uint32_t Match(std::span<const BlockKey> chain, std::span<const float> tier_weights,
                   base::TimePoint now, std::span<uint32_t> blocks, std::span<float> weighted);
    // The same for what is in `tier`, whatever the others hold; without speculation, which is of no
    // tier.
    uint32_t MatchTier(std::span<const BlockKey> chain, Tier tier, std::span<uint32_t> blocks);

   private:
    friend class KvIndex;
    struct State;
    std::unique_ptr<State> state_;
  };

  struct Stats {
    size_t bytes = 0;                // allocated
    size_t bytes_free = 0;           // of these not in use
    uint64_t blocks = 0;             // different block keys
    uint64_t runs = 0;
    uint64_t pairs = 0;              // (block, holder, group): engine keys
    uint64_t evicted_blocks = 0;     // pairs that went for want of room
    uint64_t refused_blocks = 0;     // blocks not stored: no room, or a number beyond its limit
  };
  // For the writer.
  Stats stats() const;
  // Engine keys of this holder, all groups. For the writer.
  uint64_t blocks(HolderId holder) const;
  // Matches cut short by a run that did not hold still. For any thread.
  uint64_t read_failures() const;

  // Walks everything and checks that all parts agree; false says that they do not.
  bool CheckForTest() const;
  // Whether every block key lies in one place only.
  bool IsUniqueForTest() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace llmd::prefix
