// KV events: what model servers publish about the blocks in their caches, decoded and encoded.
//
//   KvEventReader reader(KvDialect::kVllm);
//   reader.Begin(payload);
//   for (KvEventType type; (type = reader.Next()) != KvEventType::kEnd;) {
//     if (type == KvEventType::kStored) Store(reader.event());
//   }
//   lost += reader.malformed();
//
// Read are, whatever the dialect says: arrays and maps for batches and events, keys in any order,
// unknown keys, integer (signed or not) and byte hashes, events wrapped in bin, batches without
// their outer array, Mooncake's event maps (RFC 1527), and the same in JSON text. The dialect
// decides only what positions in an array mean.
//
// Thread safety: none; one reader per thread. What event() shows lives until the next call.
// Invariants: 1. Next takes time linear in the bytes and allocates nothing once the scratch has
// grown to the largest event. 2. One malformed event is counted and stepped over; only broken
// msgpack or JSON ends the batch early. 3. Sizes named in the bytes are believed only as far as
// bytes are left.
// Limits: kPayloadBytesMax; an event with more extras than kExtrasMax, or for one block than
// TokenChain::kExtrasPerBlockMax, is malformed; nesting as in wire/msgpack.h.
// Formats: vllm distributed/kv_events.py, sglang disaggregation/kv_events.py, Mooncake issue 1527.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "prefix/token_chain.h"
#include "wire/msgpack.h"

namespace llmd::prefix {

// The last 8 bytes of an engine's block hash, big endian, or its integer; never 0 (a hash that is 0
// becomes 1). Two publishers' keys have nothing to do with each other.
using EngineKey = uint64_t;

enum class KvDialect : uint8_t { kVllm, kSglang, kMooncake };
// "vllm", "sglang", "mooncake"; nullopt for others.
std::optional<KvDialect> ParseKvDialect(std::string_view name);

enum class KvEventType : uint8_t {
  kEnd,      // of the batch
  kStored,   // hashes, after parent, hold tokens
  kRemoved,  // hashes are no longer in medium
  kCleared,  // nothing is held any more
};

// The kinds of vLLM's KVCacheSpecKind. kNone: the event did not say.
enum class KvCacheKind : uint8_t {
  kNone,
  kFullAttention,
  kMlaAttention,
  kSinkFullAttention,
  kSlidingWindow,
  kSlidingWindowMla,
  kChunkedLocalAttention,
  kMamba,
  kEncoderOnlyAttention,
  kCrossAttention,
  kUnknown,  // a name that is not in this list
};
inline constexpr size_t kKvCacheKinds = 11;
// "full_attention" and so on; "unknown" for kNone, as in upstream's label cache_kind.
std::string_view KvCacheKindName(KvCacheKind kind);
KvCacheKind ParseKvCacheKind(std::string_view name);

// One entry of a block's extra_keys.
struct KvExtra {
  uint32_t block = 0;                // index into hashes
  std::string_view text;          // identifier, salt or name; bytes of a digest
  std::optional<int64_t> offset;  // of a multimodal item's start, relative to the block's
  bool is_bytes = false;          // prompt-embedding digest

  friend bool operator==(const KvExtra&, const KvExtra&) = default;
};

// All fields that an event can have; which of them mean something depends on its type.
struct KvEvent {
  std::span<const EngineKey> hashes;
  std::optional<EngineKey> parent;  // none: the first hash starts a prompt
  std::span<const uint32_t> tokens;
  uint32_t block_size = 0;  // tokens per engine block; 0: not said
  std::optional<int64_t> lora_id;
  std::string_view lora_name;  // empty: base model
  std::string_view medium;          // as the engine spells it; empty: not said
  std::span<const KvExtra> extras;  // ordered by block
  std::optional<uint32_t> group;
  KvCacheKind kind = KvCacheKind::kNone;
  uint32_t sliding_window = 0;  // tokens; 0: not said
  // Said by Mooncake, and the salt by newer SGLang.
  std::string_view model;
  std::string_view cache_salt;
  std::string_view tenant;
  std::string_view backend;
  std::optional<uint32_t> base_block;  // depth of the first hash
  std::optional<uint64_t> event_id;
};

class KvEventReader {
 public:
  // A batch of 100,000 blocks of 16 tokens is 8 MiB; larger ones than this are refused as a whole.
  // Scratch may take eight times as much.
  static constexpr size_t kPayloadBytesMax = 16u << 20;

  static constexpr size_t kExtrasMax = 1u << 16;

  explicit KvEventReader(KvDialect dialect) : dialect_(dialect) {}

  // False: not a batch; it counts as one malformed event and Next gives kEnd. `payload` outlives
  // the reading of the batch.
  bool Begin(std::string_view payload);
  // The next well-formed event. Engines publish one removal a block; neighbours that differ in
  // their hash only are given as one event.
  KvEventType Next();
  const KvEvent& event() const { return event_; }

  // Of the batch. The rank is known from Begin on, though it stands behind the events.
  double timestamp() const { return timestamp_; }
  std::optional<uint32_t> rank() const { return rank_; }
  // Of the batch so far.
  uint32_t malformed() const { return malformed_; }
  // Bytes of scratch held, for who counts memory.
  size_t scratch_bytes() const;

 private:
  enum class Field : uint8_t;

  static Field FieldOf(std::string_view key);
  static Field FieldAt(KvDialect dialect, KvEventType type, uint32_t position);
  bool BeginArray(uint32_t fields, std::string_view payload);
  bool BeginMap(uint32_t pairs);
  bool ReadRank(wire::MsgpackReader* in);
  void MergeRemovals(const wire::MsgpackReader& first);
  KvEventType ReadEvent(wire::MsgpackReader* in);
  KvEventType ReadEventArray(wire::MsgpackReader* in, uint32_t fields);
  KvEventType ReadEventMap(wire::MsgpackReader* in, uint32_t pairs);
  bool ReadField(wire::MsgpackReader* in, Field field);
  bool ReadHashes(wire::MsgpackReader* in);
  bool ReadTokens(wire::MsgpackReader* in);
  bool ReadExtraKeys(wire::MsgpackReader* in);
  bool ReadExtra(wire::MsgpackReader* in, uint32_t block);
  bool ReadMetadata(wire::MsgpackReader* in);

  KvDialect dialect_;
  wire::MsgpackReader in_{std::string_view()};
  uint32_t events_left_ = 0;
  std::optional<uint32_t> lone_pairs_;  // the payload is one event, and its map's head is read
  double timestamp_ = 0;
  std::optional<uint32_t> rank_;
  uint32_t malformed_ = 0;
  KvEvent event_;
  bool has_hashes_ = false;
  const char* hash_at_ = nullptr;  // where the first hash stands in the payload
  // Scratch behind the spans of event_, kept between events.
  std::vector<EngineKey> hashes_;
  std::vector<uint32_t> tokens_;
  std::vector<KvExtra> extras_;
  wire::MsgpackWriter json_;  // a JSON batch as msgpack
};

// --- writing, for simulated engines and tests ----------------------------------------------------

enum class KvEventForm : uint8_t {
  kMap,    // vLLM since June 2026: maps with key "type"
  kArray,  // before: positional arrays
};

// A hash as it goes on the wire: `bytes` (a digest) if there are any, else the integer.
struct KvWireHash {
  EngineKey value = 0;
  std::string_view bytes;
};

// The fields of vLLM's events in its order; byte for byte what msgspec writes.
struct KvStoredFields {
  std::span<const KvWireHash> hashes;
  std::optional<KvWireHash> parent;
  std::span<const uint32_t> tokens;
  uint32_t block_size = 0;
  std::optional<int64_t> lora_id;
  std::string_view medium;     // empty: nil
  std::string_view lora_name;  // empty: nil
  bool has_extra_keys = true;  // false: the field is nil; true: a list or nil per block
  std::span<const KvExtra> extras;
  std::optional<uint32_t> group;
  KvCacheKind kind = KvCacheKind::kNone;
  uint32_t sliding_window = 0;
};

// Builds one batch at a time. Not thread-safe.
class KvEventWriter {
 public:
  explicit KvEventWriter(KvEventForm form) : form_(form) {}

  void Stored(const KvStoredFields& fields);
  void Removed(std::span<const KvWireHash> hashes, std::string_view medium,
               std::optional<uint32_t> group);
  void Cleared();
  size_t events() const { return events_; }
  // The batch as payload [timestamp, events, rank]; the writer is empty afterwards.
  std::string Finish(double timestamp, std::optional<uint32_t> rank);

 private:
  void Key(std::string_view name);
  void Hashes(std::span<const KvWireHash> hashes);
  void TextOrNil(std::string_view text);
  void ExtraKeys(const KvStoredFields& fields);

  KvEventForm form_;
  size_t events_ = 0;
  wire::MsgpackWriter out_;
};

// --- topics and sequence frames ------------------------------------------------------------------

// "kv@<pod>@<model>"; any other topic is all pod and no model. Models may contain '@'.
struct KvTopic {
  std::string_view pod;
  std::string_view model;
};
KvTopic ParseKvTopic(std::string_view topic);

// Second frame of a message: 8 bytes big endian, or the same and 16 bytes that name the publisher's
// incarnation.
struct KvSequence {
  uint64_t number = 0;
  std::string_view incarnation;  // 16 bytes, or empty

  // What ends a replay: -1.
  bool is_end() const { return number == ~uint64_t{0}; }
};
std::optional<KvSequence> ParseKvSequence(std::string_view frame);
void AppendKvSequence(uint64_t number, std::string* out);

}  // namespace llmd::prefix
