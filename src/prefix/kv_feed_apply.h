// KvApplier: decoded KV events of one publisher into the KvIndex.
//
// What it settles, so that the index sees only (holder, tier, group, engine key -> block key):
//   tiers        an event's medium, lower-cased, names a tier; tiers of equal weight share a number
//   LoRA         the adapter's name replaces the model in the root of a chain, and a first extra
//                key equal to it is not a multimodal item
//   groups       full-attention groups and windowed ones (sliding, chunked, Mamba's last state) are
//                told apart by kv_cache_spec_kind, which later events may omit; the index gets the
//                window of each. Other kinds, and stores whose tokens do not fill their blocks, are
//                skipped and counted with the reason.
//   sizes        an engine's block of n canonical ones becomes n index entries with derived engine
//                keys; n engine blocks of one canonical one are gathered (kv_feed_parts.h)
//   parents      a store whose parent is unknown is parked under it (kv_feed_parked.h) and applied
//                when the parent comes
//   references   a block stored twice in one tier must be removed twice (the index counts)
//
// Thread safety: none; owned by the ingest thread.
// Invariants: 1. Nothing in an event makes a check fail. 2. In the steady state nothing is
// allocated for engines whose blocks are canonical ones or larger. 3. Holders are independent.
// Limits: KvApplyLimits; what is over one is dropped and counted.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/time.h"
#include "prefix/kv_events.h"
#include "prefix/kv_feed_parked.h"
#include "prefix/kv_feed_parts.h"
#include "prefix/kv_feed_tiers.h"
#include "prefix/kv_index.h"
#include "prefix/token_chain.h"
#include "wire/msgpack.h"

namespace llmd::prefix {

struct KvApplyLimits {
  // Parked stores: those over a limit, oldest first, and those of that age are given up.
  KvParked::Limits parked;  // per holder
  base::Duration parked_age = std::chrono::seconds(30);
  // Extra keys of a store, counted for each canonical block that they stand for.
  size_t extras = 1u << 20;
  // Engine blocks smaller than a canonical one, of all holders; further ones are not indexed. About
  // 300 bytes each.
  size_t parts = 2'000'000;
};

// Hears what is applied of full-attention groups, for a copy of the index that others share
// (kv_redis.h). Called by the ingest thread.
class KvApplySink {
 public:
  // Engine keys lead to the blocks: as many, or one to each run of them. None: the blocks are known
  // under theirs.
  virtual void OnStored(HolderId holder, Tier tier, std::optional<uint32_t> engine_group,
                        std::span<const EngineKey> engine_keys,
                        std::span<const BlockKey> blocks) = 0;
  // Without those that still have references; unknown ones included.
  virtual void OnRemoved(HolderId holder, Tier tier, std::optional<uint32_t> engine_group,
                         std::span<const EngineKey> engine_keys) = 0;
  // The engine emptied its cache, or what was known of it cannot be trusted any more.
  virtual void OnCleared(HolderId holder) = 0;

 protected:
  ~KvApplySink() = default;
};

struct KvApplyOptions {
  std::shared_ptr<const TokenChain> chain;
  uint32_t block_tokens = 16;  // canonical block
  KvTiers tiers = KvTiers::Default();
  KvApplyLimits limits;
  // Block keys are the engine's own hashes, tokens are not looked at: for engines whose hashes
  // requests reproduce (a fixed PYTHONHASHSEED and a canonical encoding).
  bool engine_keys = false;
  KvApplySink* sink = nullptr;  // outlives the applier; removals cost more with one
};

// Why a store or removal was not applied.
enum class KvSkip : uint8_t {
  kUnsupportedCacheKind,  // upstream's reasons
  kInvalidBlockSize,
  kNonDenseBlockSpan,
  kUnknownGroup,
  kTooManyGroups,  // ours
  kPartsFull,
  kTooManyExtras,
};
inline constexpr size_t kKvSkips = 7;
// "unsupported_cache_kind" and so on.
std::string_view KvSkipName(KvSkip skip);

struct KvApplyStats {
  uint64_t events = 0;            // well-formed ones
  uint64_t malformed = 0;         // events that were not
  uint64_t blocks_stored = 0;     // engine blocks, tier updates included
  uint64_t blocks_removed = 0;    // engine blocks whose last reference went
  uint64_t removes_counted = 0;   // removals that left references
  uint64_t removes_unknown = 0;   // removals of what is not held
  uint64_t tier_unknown = 0;      // blocks of tier updates that are not held
  uint64_t cleared = 0;           // AllBlocksCleared
  uint64_t parked = 0;            // stores put aside, ever
  uint64_t parked_resolved = 0;   // of these, applied later
  uint64_t parked_dropped = 0;    // of these, given up by age or limit
  uint64_t parked_now = 0;        // stores
  uint64_t parked_bytes = 0;
  uint64_t parts_now = 0;
  // [cache kind][reason], events.
  std::array<std::array<uint64_t, kKvSkips>, kKvCacheKinds> stores_skipped{};
  std::array<std::array<uint64_t, kKvSkips>, kKvCacheKinds> removals_skipped{};
};

// What is known of one holder beside what is in the index. It stays where it is while an applier
// works on it.
class KvHolderState {
 public:
  explicit KvHolderState(HolderId holder) : holder_(holder) {}

  HolderId holder() const { return holder_; }
  // References to blocks, by parents and removals, since the last call: how many, how many unknown.
  struct References {
    uint32_t known = 0;
    uint32_t unknown = 0;
  };
  References TakeReferences() { return std::exchange(references_, {}); }
  // What was learned about groups, as msgpack; false if blocks are gathered from parts, which are
  // not saved.
  bool Save(wire::MsgpackWriter* out) const;
  size_t parked() const { return parked_ ? parked_->size() : 0; }

 private:
  friend class KvApplier;
  struct CacheGroup {
    std::optional<uint32_t> engine_group;
    KvCacheKind kind = KvCacheKind::kNone;
    Group number = 0;
    uint32_t block_size = 0;  // tokens of an engine block, 0: not known yet
    uint32_t window = 0;      // tokens, 0: all
    std::unique_ptr<KvParts> parts;  // while blocks are smaller than canonical ones
  };

  // Groups of kinds that are not indexed; a removal does not say its group's kind.
  struct Skipped {
    uint32_t engine_group;
    KvCacheKind kind;
  };
  static constexpr size_t kSkippedMax = 32;  // an engine has a handful of groups
  void RememberSkipped(uint32_t engine_group, KvCacheKind kind);
  std::optional<KvCacheKind> SkippedKind(uint32_t engine_group) const;

  HolderId holder_;
  References references_;
  std::vector<Skipped> skipped_;
  std::vector<CacheGroup> groups_;  // those that are indexed
  std::unique_ptr<KvParked> parked_;  // made when there is something to park
};

class KvApplier {
 public:
  // `index` outlives it. `options.chain` is there, `options.block_tokens` positive.
  KvApplier(const KvApplyOptions& options, KvIndex* index);

  // `model` is the base model's name, for events that do not name one. Removals may wait for Flush.
  void Apply(KvHolderState* state, KvEventType type, const KvEvent& event, std::string_view model,
             base::TimePoint now);
  // Ends a batch.
  void Flush();
  // Nothing of the holder is left, what was learned about it included.
  void Forget(KvHolderState* state);
  // Reads what Save wrote into a new state; false, and nothing is changed, if it cannot be.
  bool Resume(KvHolderState* state, wire::MsgpackReader* in);
  // Tells the sink of everything that is held, as if it were stored now.
  void TellAgain(const KvHolderState& state);
  // Gives up parked stores that waited too long; true if there were any.
  bool Expire(KvHolderState* state, base::TimePoint now);
  void CountMalformed(uint32_t events) { stats_.malformed += events; }

  const KvApplyStats& stats() const { return stats_; }

 private:
  using CacheGroup = KvHolderState::CacheGroup;
  // Neighbouring removals, gathered: engines send one event a block.
  struct Removals {
    KvHolderState* state = nullptr;
    CacheGroup* group = nullptr;
    Tier tier = 0;
    std::vector<EngineKey> hashes;
  };

  Tier TierOf(std::string_view medium);
  CacheGroup* FindGroup(KvHolderState* state, const KvEvent& event);
  CacheGroup* LearnGroup(KvHolderState* state, const KvEvent& event, KvSkip* skip);
  void TellGroups(const KvHolderState& state);
  bool LearnBlockSize(CacheGroup* group, const KvEvent& event, KvSkip* skip);
  uint32_t SubBlocks(const CacheGroup& group) const;

  void Stored(KvHolderState* state, const KvEvent& event, std::string_view model,
              base::TimePoint now);
  bool Store(KvHolderState* state, CacheGroup* group, Tier tier, const KvEvent& event,
             std::string_view root);
  bool StoreParts(KvHolderState* state, CacheGroup* group, Tier tier, const KvEvent& event,
                  std::string_view root);
  void StoreComplete(const KvHolderState& state, const CacheGroup& group, Tier tier);
  void StoreTier(KvHolderState* state, CacheGroup* group, Tier tier, const KvEvent& event);
  void Removed(KvHolderState* state, const KvEvent& event);
  KvIndex::Removed RemoveBlocks(const KvHolderState& state, const CacheGroup& group);
  void RemoveParts(CacheGroup* group, Tier tier, KvIndex::Removed* result);
  void Tell(const KvHolderState& state, const CacheGroup& group, Tier tier,
            std::span<const EngineKey> engine_keys, std::span<const BlockKey> blocks);
  void TellStretch(const KvHolderState& state, const CacheGroup& group,
                   const KvIndex::Stretch& stretch);
  void Cleared(KvHolderState* state);

  void Park(KvHolderState* state, const CacheGroup& group, Tier tier, const KvEvent& event,
            base::TimePoint now);
  void Resolve(KvHolderState* state, CacheGroup* group, std::span<const EngineKey> hashes);
  void DropParked(KvHolderState* state);
  void DropParts(CacheGroup* group);

  std::span<const BlockExtra> CanonicalExtras(const KvEvent& event, uint32_t sub_blocks);
  std::span<const EngineKey> SubKeys(std::span<const EngineKey> hashes, uint32_t sub_blocks);

  KvApplyOptions options_;
  KvIndex* index_;
  KvApplyStats stats_;
  Removals removals_;
  std::string last_medium_;
  Tier last_tier_;
  // Scratch, kept between events.
  std::vector<BlockKey> keys_;
  std::vector<EngineKey> sub_keys_;
  std::vector<BlockExtra> extras_;
  std::vector<KvParts::Complete> complete_;
  std::vector<EngineKey> lost_;
  std::vector<BlockKey> told_;
};

}  // namespace llmd::prefix
