// The KV-block index that several pickers share in one Redis or Valkey server, in llm-d-router's
// layout, so that its pickers and ours read each other's entries:
//
//   HASH <block key>          field: an entry, value: empty. Who has the block.
//     {"PodIdentifier":"10.0.0.7:8000","DeviceTier":"gpu","Speculative":false,"HasGroup":false,
//      "GroupIdx":0}          without the line break, byte for byte as Go's encoding/json writes it
//   ZSET engine:<engine key>  member: a block key, score: its place in the engine's block
//
// Keys are decimal; block keys are those of TokenChain's kCborFnv or kXxh64, with the seed that all
// pickers share. Source: llm-d-router ebab6879, pkg/kvcache/kvblock/redis.go, index.go and
// pkg/kvcache/kvblock_scorer.go; what its code leaves behind is in conformance/recorded/redis.
//
// Operations are commands appended to a string; each function returns how many. Where upstream asks
// first and then acts (the block keys of an engine key, whether a hash is empty), one script does
// both: nothing comes between, and commands need no answers to keep their order. Redis deletes a
// hash with its last field by itself.
//
// Thread safety: none; nothing is shared. Nothing here does I/O. Fields and replies may hold
// anything: what is not an entry is stepped over.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/hash.h"
#include "prefix/kv_feed_apply.h"
#include "prefix/kv_index.h"
#include "prefix/token_chain.h"
#include "wire/resp.h"

namespace llmd::prefix {

// --- entries -------------------------------------------------------------------------------------

struct KvRedisEntry {
  std::string_view pod;   // "ip:port"
  std::string_view tier;  // lower case: "gpu"; of speculative entries ""
  bool speculative = false;
  std::optional<int64_t> group = {};

  friend bool operator==(const KvRedisEntry&, const KvRedisEntry&) = default;
};

void AppendKvRedisField(const KvRedisEntry& entry, std::string* out);
std::string KvRedisField(const KvRedisEntry& entry);

class KvRedisFieldReader {
 public:
  // nullptr: it is not an entry. The entry lives until the next call, and as long as `field`.
  const KvRedisEntry* Read(std::string_view field);

 private:
  bool ReadSlowly(std::string_view field);

  KvRedisEntry entry_;
  std::string pod_, tier_;  // unescaped
};

// --- operations ----------------------------------------------------------------------------------

// `entry` has `blocks`. With `engine_keys` (of the same tokens: as many, or the one number divides
// the other) these lead to the blocks from now on; without, the blocks are speculative, or known
// under their engine keys already.
size_t AppendKvRedisStore(const KvRedisEntry& entry, std::span<const EngineKey> engine_keys,
                          std::span<const BlockKey> blocks, std::string* out);
// `entry` has no longer what these lead to. An engine key whose blocks nobody has leads nowhere.
size_t AppendKvRedisRemove(const KvRedisEntry& entry, std::span<const EngineKey> engine_keys,
                           std::string* out);
// The same for blocks: the end of speculative entries.
size_t AppendKvRedisRemoveBlocks(const KvRedisEntry& entry, std::span<const BlockKey> blocks,
                                 std::string* out);

// Everything of one pod, in all tiers: walks over all keys in pages.
class KvRedisClear final : public wire::RespProgram {
 public:
  explicit KvRedisClear(std::string pod) : pod_(std::move(pod)) {}

  size_t NextRound(std::string* commands) override;
  void OnReply(size_t index, const wire::RespValue& reply) override;
  const std::string& pod() const { return pod_; }
  uint64_t removed() const { return removed_; }
  // What the server said when it would not go on; "" when the walk went well.
  const std::string& error() const { return error_; }

 private:
  static constexpr std::string_view kPageKeys = "1024";
  enum class Step : uint8_t { kScan, kFields, kRemove, kDone };

  size_t AskFields(std::string* commands);
  size_t AskRemove(std::string* commands);
  void OnScan(const wire::RespValue& reply);
  void OnFields(const wire::RespValue& reply, size_t index);

  std::string pod_;
  Step step_ = Step::kScan;
  bool is_begun_ = false;
  std::string cursor_ = "0";
  std::vector<std::string> keys_;  // hashes of the page
  struct Stale {
    size_t key;  // in keys_
    std::vector<std::string> fields;
  };
  std::vector<Stale> stale_;
  KvRedisFieldReader reader_;
  uint64_t removed_ = 0;
  std::string error_;
};

// --- lookups -------------------------------------------------------------------------------------

// The pods that a lookup is about, numbered from 0; no name: nobody. Immutable, shared by lookups.
class KvRedisPods {
 public:
  explicit KvRedisPods(std::span<const std::string> names);
  std::optional<uint32_t> Find(std::string_view name) const {
    const auto it = numbers_.find(name);
    if (it == numbers_.end()) return std::nullopt;
    return it->second;
  }
  size_t size() const { return size_; }

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view name) const { return base::Hash64(name); }
  };
  std::unordered_map<std::string, uint32_t, Hash, std::equal_to<>> numbers_;
  size_t size_;
};

// How many blocks of each chain every pod has, from the start on and without a hole, and the sum of
// what they are worth: each the most that one of its tiers in that pod is worth. Sums over chains.
// Asks in rounds of growing size and goes on while some pod still has everything.
class KvRedisLookup final : public wire::RespProgram {
 public:
  // Blocks asked for of each chain in the first round, doubled in each that follows: 2,048 tokens
  // of 16 per block cost one round trip, 100,000 five; a prompt that nobody knows does not cost the
  // server more than 128 commands.
  static constexpr size_t kFirstRoundBlocks = 128;

  // `tiers` outlives the lookup; `chains` are copied.
  KvRedisLookup(std::shared_ptr<const KvRedisPods> pods, const KvTiers* tiers,
                std::span<const std::span<const BlockKey>> chains);

  size_t NextRound(std::string* commands) override;
  void OnReply(size_t index, const wire::RespValue& reply) override;

  // Of the finished program, by number of pod.
  std::span<const uint32_t> blocks() const { return blocks_; }
  std::span<const float> weights() const { return weights_; }
  // Sum over chains of what the best pod has.
  uint64_t best() const { return best_; }
  // The first refusal of the server; "": none. With one nothing above is to be relied on.
  const std::string& error() const { return error_; }

 private:
  struct Chain {
    std::vector<BlockKey> keys;
    size_t asked = 0;
    size_t answered = 0;
    bool is_over = false;  // no pod has all of what was answered
    std::vector<uint32_t> held;   // by pod
    std::vector<float> last;      // by pod: worth of the newest block
  };

  void OnFields(const wire::RespValue& reply, Chain* chain);

  std::shared_ptr<const KvRedisPods> pods_;
  const KvTiers* tiers_;
  std::vector<Chain> chains_;
  std::vector<uint32_t> blocks_;
  std::vector<float> weights_;
  size_t round_blocks_ = kFirstRoundBlocks;
  size_t current_ = 0;  // chain whose answers come
  uint64_t best_ = 0;
  KvRedisFieldReader reader_;
  std::string error_;
};

}  // namespace llmd::prefix
