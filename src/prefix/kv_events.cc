#include "prefix/kv_events.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>

#include "prefix/kv_events_json.h"

namespace llmd::prefix {
namespace {

using wire::MsgpackReader;
using wire::MsgpackType;

constexpr std::array<std::string_view, kKvCacheKinds> kCacheKindNames = {
    "unknown",
    "full_attention",
    "mla_attention",
    "sink_full_attention",
    "sliding_window",
    "sliding_window_mla",
    "chunked_local_attention",
    "mamba",
    "encoder_only_attention",
    "cross_attention",
    "unknown",
};

// Whether `text`, which is as long as `literal`, is the same: a few words compared in place.
template <size_t kSize>
bool Is(std::string_view text, const char (&literal)[kSize]) {
  return std::memcmp(text.data(), literal, kSize - 1) == 0;
}

// kEnd: no event that we know.
KvEventType EventTypeOf(std::string_view tag) {
  const auto if_is = [tag](const auto& literal, KvEventType type) {
    return Is(tag, literal) ? type : KvEventType::kEnd;
  };
  switch (tag.size()) {
    case 11: return if_is("BlockStored", KvEventType::kStored);
    case 12: return if_is("BlockRemoved", KvEventType::kRemoved);
    case 16: return if_is("AllBlocksCleared", KvEventType::kCleared);
    case 6: return if_is("stored", KvEventType::kStored);
    case 7:
      return Is(tag, "removed") ? KvEventType::kRemoved : if_is("cleared", KvEventType::kCleared);
    default: return KvEventType::kEnd;
  }
}

// Digests count by their last 8 bytes, shorter ones are padded in front.
bool ReadHash(MsgpackReader* in, EngineKey* key) {
  if (in->ReadBits(key)) return true;
  std::string_view digest;
  if (!in->ReadBinary(&digest) || digest.empty()) return false;
  *key = 0;
  for (const char c : digest.substr(digest.size() - std::min<size_t>(digest.size(), 8))) {
    *key = *key << 8 | static_cast<uint8_t>(c);
  }
  return true;
}

bool ReadTextOrNil(MsgpackReader* in, std::string_view* text) {
  *text = {};
  return in->ReadNil() || in->ReadText(text);
}

template <class T>
bool ReadOptional(MsgpackReader* in, std::optional<T>* value) {
  value->reset();
  if (in->ReadNil()) return true;
  uint64_t bits;
  if (!in->ReadUint(&bits) || bits > std::numeric_limits<T>::max()) return false;
  *value = static_cast<T>(bits);
  return true;
}

}  // namespace

std::optional<KvDialect> ParseKvDialect(std::string_view name) {
  if (name == "vllm") return KvDialect::kVllm;
  if (name == "sglang") return KvDialect::kSglang;
  if (name == "mooncake") return KvDialect::kMooncake;
  return std::nullopt;
}

std::string_view KvCacheKindName(KvCacheKind kind) {
  return kCacheKindNames[static_cast<size_t>(kind)];
}

KvCacheKind ParseKvCacheKind(std::string_view name) {
  if (name.empty()) return KvCacheKind::kNone;
  for (size_t i = 1; i < kCacheKindNames.size(); ++i) {
    if (kCacheKindNames[i] == name) return static_cast<KvCacheKind>(i);
  }
  return KvCacheKind::kUnknown;
}

// --- batches -------------------------------------------------------------------------------------

bool KvEventReader::Begin(std::string_view payload) {
  events_left_ = 0;
  timestamp_ = 0;
  rank_.reset();
  malformed_ = 0;
  lone_pairs_.reset();
  // No msgpack batch begins with a small integer, so that is where JSON text is told apart.
  if (!payload.empty() && static_cast<uint8_t>(payload[0]) < 0x80 &&
      payload.size() <= kPayloadBytesMax) {
    json_.Clear();
    payload = JsonToMsgpack(payload, &json_) ? std::string_view(json_.bytes()) : "";
  }
  in_ = MsgpackReader(payload);
  uint32_t count;
  bool is_batch = false;
  if (payload.size() <= kPayloadBytesMax) {
    if (in_.ReadArray(&count)) {
      is_batch = BeginArray(count, payload);
    } else if (in_.ReadMap(&count)) {
      is_batch = BeginMap(count);
    }
  }
  if (!is_batch) {
    events_left_ = 0;
    malformed_ = 1;
  }
  return is_batch;
}

// [timestamp, events, rank], or the events alone.
bool KvEventReader::BeginArray(uint32_t fields, std::string_view payload) {
  if (fields == 0) return true;
  const MsgpackType first = in_.Peek();
  if (first == MsgpackType::kArray || first == MsgpackType::kMap || first == MsgpackType::kBinary) {
    events_left_ = fields;
    return true;
  }
  if (!in_.ReadNumber(&timestamp_)) return false;
  if (fields == 1 || in_.ReadNil()) return true;
  if (!in_.ReadArray(&events_left_)) return false;
  if (fields < 3) return true;
  // The rank stands behind the events, but who applies them must know it first. Ranks below 128 and
  // nil are one byte, the last, and stepping over all events to find it would take as long as
  // reading them. A longer form ends in any byte, but its tag gives it away.
  const auto from_end = [&](size_t bytes) {
    return payload.size() < bytes ? 0 : static_cast<uint8_t>(payload[payload.size() - bytes]);
  };
  const auto is_tag = [&](size_t value_bytes, uint8_t is_unsigned) {
    return from_end(value_bytes + 1) == is_unsigned || from_end(value_bytes + 1) == is_unsigned + 4;
  };
  const uint8_t last = from_end(1);
  if (fields == 3 && (last < 0x80 || last == 0xc0) && !is_tag(1, 0xcc) && !is_tag(2, 0xcd) &&
      !is_tag(4, 0xce) && !is_tag(8, 0xcf)) {
    if (last != 0xc0) rank_ = last;
    return true;
  }
  MsgpackReader ahead = in_;
  for (uint32_t i = 0; i < events_left_; ++i) {
    if (!ahead.Skip()) return true;  // Next will find out where
  }
  ReadRank(&ahead);
  return true;
}

// {"ts": , "events": , "data_parallel_rank": } in any order, or one event.
bool KvEventReader::BeginMap(uint32_t pairs) {
  const MsgpackReader start = in_;
  MsgpackReader ahead = in_;
  std::optional<MsgpackReader> events;
  bool is_event = false;
  for (uint32_t i = 0; i < pairs; ++i) {
    std::string_view key;
    if (!ahead.ReadText(&key) && !ahead.Skip()) break;
    if (key == "ts" && ahead.ReadNumber(&timestamp_)) continue;
    if ((key == "data_parallel_rank" || key == "attn_dp_rank" || key == "dp_rank") &&
        ReadRank(&ahead)) {
      continue;
    }
    if (key == "events") events = ahead;
    is_event |= key == "type" || key == "event_type";
    if (!ahead.Skip()) break;
  }
  if (events) {
    in_ = *events;
    return in_.ReadNil() || in_.ReadArray(&events_left_);
  }
  // A lone event: ReadEvent wants the map's head once more.
  in_ = start;
  lone_pairs_ = pairs;
  events_left_ = is_event ? 1 : 0;
  return is_event;
}

bool KvEventReader::ReadRank(MsgpackReader* in) {
  int64_t rank;
  if (in->ReadNil()) return true;
  if (!in->ReadInt(&rank)) return false;
  if (rank >= 0 && rank <= UINT32_MAX) rank_ = static_cast<uint32_t>(rank);
  return true;
}

KvEventType KvEventReader::Next() {
  while (events_left_ > 0) {
    --events_left_;
    const MsgpackReader start = in_;
    const KvEventType type = ReadEvent(&in_);
    if (type == KvEventType::kRemoved && event_.hashes.size() == 1) MergeRemovals(start);
    if (type != KvEventType::kEnd) return type;
    ++malformed_;
    in_ = start;
    if (lone_pairs_ || !in_.Skip()) {  // nobody knows where the next event begins
      malformed_ += events_left_;
      events_left_ = 0;
    }
  }
  return KvEventType::kEnd;
}

// Takes in the events behind the one that began at `first` for as long as they are the same bytes
// but for the hash.
void KvEventReader::MergeRemovals(const MsgpackReader& first) {
  const char* begin = first.position();
  const char* end = in_.position();
  const auto tag = static_cast<uint8_t>(*hash_at_);
  const bool is_digest = tag == 0xc4;
  const size_t hash_bytes = is_digest ? static_cast<uint8_t>(hash_at_[1]) : sizeof(EngineKey);
  if ((tag != 0xcf && !is_digest) || hash_bytes < sizeof(EngineKey)) return;
  const std::string_view before(begin, static_cast<size_t>(hash_at_ + (is_digest ? 2 : 1) - begin));
  const std::string_view behind(before.end() + hash_bytes,
                                static_cast<size_t>(end - before.end()) - hash_bytes);
  const auto bytes = static_cast<size_t>(end - begin);
  size_t count = 1;
  size_t left = in_.bytes_left();
  for (; events_left_ > 0 && left >= bytes; --events_left_, left -= bytes, end += bytes) {
    const char* hash_end = end + before.size() + hash_bytes;
    if (std::memcmp(end, before.data(), before.size()) != 0 ||
        std::memcmp(hash_end, behind.data(), behind.size()) != 0) {
      break;
    }
    if (count == hashes_.size()) hashes_.resize(2 * count);
    uint64_t hash;
    std::memcpy(&hash, hash_end - sizeof(hash), sizeof(hash));
    if constexpr (std::endian::native == std::endian::little) hash = std::byteswap(hash);
    hashes_[count++] = hash + (hash == 0);
  }
  in_ = MsgpackReader({end, left});
  event_.hashes = std::span(hashes_).first(count);
}

// --- events --------------------------------------------------------------------------------------

enum class KvEventReader::Field : uint8_t {
  kUnknown,
  kType,
  kBlockHashes,
  kParent,
  kTokenIds,
  kBlockSize,
  kLoraId,
  kMedium,
  kLoraName,
  kExtraKeys,
  kGroup,
  kKind,
  kSlidingWindow,
  kMetadata,
  kCacheSalt,
  kModel,
  kTenant,
  kBackend,
  kBaseBlock,
  kEventId,
};

KvEventReader::Field KvEventReader::FieldOf(std::string_view key) {
  const auto is = [key](const auto& a, Field fa) { return Is(key, a) ? fa : Field::kUnknown; };
  const auto either = [key](const auto& a, Field fa, const auto& b, Field fb) {
    return Is(key, a) ? fa : Is(key, b) ? fb : Field::kUnknown;
  };
  switch (key.size()) {
    case 4: return is("type", Field::kType);
    case 6: return is("medium", Field::kMedium);
    case 7: return is("lora_id", Field::kLoraId);
    case 8: return either("metadata", Field::kMetadata, "event_id", Field::kEventId);
    case 9:
      switch (key[0]) {
        case 't': return either("token_ids", Field::kTokenIds, "tenant_id", Field::kTenant);
        case 'l': return is("lora_name", Field::kLoraName);
        case 'g': return is("group_idx", Field::kGroup);
        default: return Field::kUnknown;
      }
    case 10:
      switch (key[0]) {
        case 'b': return either("block_size", Field::kBlockSize, "backend_id", Field::kBackend);
        case 'e': return either("extra_keys", Field::kExtraKeys, "event_type", Field::kType);
        case 's': return is("seq_hashes", Field::kBlockHashes);
        case 'm': return is("model_name", Field::kModel);
        case 'c': return is("cache_salt", Field::kCacheSalt);
        default: return Field::kUnknown;
      }
    case 11: return is("parent_hash", Field::kParent);
    case 12: return is("block_hashes", Field::kBlockHashes);
    case 14: return is("base_block_idx", Field::kBaseBlock);
    case 17: return is("parent_block_hash", Field::kParent);
    case 18: return is("kv_cache_spec_kind", Field::kKind);
    case 28: return is("kv_cache_spec_sliding_window", Field::kSlidingWindow);
    default: return Field::kUnknown;
  }
}

KvEventReader::Field KvEventReader::FieldAt(KvDialect dialect, KvEventType type,
                                            uint32_t position) {
  static constexpr Field kStored[] = {
      Field::kType,   Field::kBlockHashes, Field::kParent,    Field::kTokenIds,
      Field::kBlockSize, Field::kLoraId,   Field::kMedium,    Field::kLoraName,
      Field::kExtraKeys, Field::kGroup,    Field::kKind,      Field::kSlidingWindow,
  };
  static constexpr Field kRemoved[] = {Field::kType, Field::kBlockHashes, Field::kMedium,
                                       Field::kGroup};
  // SGLang's arrays agree with vLLM's up to extra_keys and medium.
  const bool is_sglang = dialect == KvDialect::kSglang;
  if (type == KvEventType::kStored) {
    return position < (is_sglang ? 9 : std::size(kStored)) ? kStored[position] : Field::kUnknown;
  }
  if (type == KvEventType::kRemoved) {
    return position < (is_sglang ? 3 : std::size(kRemoved)) ? kRemoved[position] : Field::kUnknown;
  }
  return Field::kUnknown;
}

KvEventType KvEventReader::ReadEvent(MsgpackReader* in) {
  event_ = {};
  has_hashes_ = false;
  if (lone_pairs_) return ReadEventMap(in, *lone_pairs_);
  uint32_t count;
  if (in->ReadMap(&count)) return ReadEventMap(in, count);
  if (in->ReadArray(&count)) return ReadEventArray(in, count);
  std::string_view wrapped;
  if (!in->ReadBinary(&wrapped)) return KvEventType::kEnd;
  MsgpackReader inside(wrapped);
  if (inside.ReadMap(&count)) return ReadEventMap(&inside, count);
  if (inside.ReadArray(&count)) return ReadEventArray(&inside, count);
  return KvEventType::kEnd;
}

KvEventType KvEventReader::ReadEventArray(MsgpackReader* in, uint32_t fields) {
  std::string_view tag;
  if (fields == 0 || !in->ReadText(&tag)) return KvEventType::kEnd;
  const KvEventType type = EventTypeOf(tag);
  const uint32_t required = type == KvEventType::kStored    ? 5
                            : type == KvEventType::kRemoved ? 2
                                                            : 1;
  if (type == KvEventType::kEnd || fields < required) return KvEventType::kEnd;
  for (uint32_t position = 1; position < fields; ++position) {
    if (!ReadField(in, FieldAt(dialect_, type, position))) return KvEventType::kEnd;
  }
  return type;
}

KvEventType KvEventReader::ReadEventMap(MsgpackReader* in, uint32_t pairs) {
  KvEventType type = KvEventType::kEnd;
  for (uint32_t i = 0; i < pairs; ++i) {
    std::string_view key;
    if (!in->ReadText(&key) && !in->Skip()) return KvEventType::kEnd;
    const Field field = FieldOf(key);
    if (field == Field::kType) {
      std::string_view tag;
      if (!in->ReadText(&tag)) return KvEventType::kEnd;
      type = EventTypeOf(tag);
    } else if (!ReadField(in, field)) {
      return KvEventType::kEnd;
    }
  }
  if (type == KvEventType::kCleared) {
    event_.hashes = {};  // of all blocks, whatever it names
    return type;
  }
  return has_hashes_ ? type : KvEventType::kEnd;
}

bool KvEventReader::ReadField(MsgpackReader* in, Field field) {
  KvEvent& e = event_;
  switch (field) {
    case Field::kBlockHashes: return ReadHashes(in);
    case Field::kTokenIds: return ReadTokens(in);
    case Field::kExtraKeys: return ReadExtraKeys(in);
    case Field::kMetadata: return ReadMetadata(in);
    case Field::kParent: {
      e.parent.reset();
      EngineKey parent;
      if (in->ReadNil()) return true;
      if (!ReadHash(in, &parent)) return false;
      if (parent != 0) e.parent = parent;
      return true;
    }
    case Field::kBlockSize: {
      std::optional<uint32_t> size;
      if (!ReadOptional(in, &size)) return false;
      e.block_size = size.value_or(0);
      return true;
    }
    case Field::kSlidingWindow: {
      std::optional<uint32_t> window;
      if (!ReadOptional(in, &window)) return false;
      e.sliding_window = window.value_or(0);
      return true;
    }
    case Field::kLoraId: {
      e.lora_id.reset();
      int64_t id;
      if (in->ReadNil()) return true;
      if (!in->ReadInt(&id)) return false;
      e.lora_id = id;
      return true;
    }
    case Field::kKind: {
      std::string_view kind;
      if (!ReadTextOrNil(in, &kind)) return false;
      e.kind = ParseKvCacheKind(kind);
      return true;
    }
    case Field::kMedium: return ReadTextOrNil(in, &e.medium);
    case Field::kLoraName: return ReadTextOrNil(in, &e.lora_name);
    case Field::kCacheSalt: return ReadTextOrNil(in, &e.cache_salt);
    case Field::kModel: return ReadTextOrNil(in, &e.model);
    case Field::kTenant: return ReadTextOrNil(in, &e.tenant);
    case Field::kBackend: return ReadTextOrNil(in, &e.backend);
    case Field::kGroup: return ReadOptional(in, &e.group);
    case Field::kBaseBlock: return ReadOptional(in, &e.base_block);
    case Field::kEventId: return ReadOptional(in, &e.event_id);
    case Field::kType:
    case Field::kUnknown: return in->Skip();
  }
  return false;
}

bool KvEventReader::ReadHashes(MsgpackReader* in) {
  uint32_t count;
  if (!in->ReadArray(&count)) return false;
  if (hashes_.size() < count) hashes_.resize(count);
  const std::span<EngineKey> hashes = std::span(hashes_).first(count);
  hash_at_ = in->position();
  if (!in->ReadBitsRun(hashes)) {
    for (EngineKey& hash : hashes) {
      if (!ReadHash(in, &hash)) return false;
    }
  }
  for (EngineKey& hash : hashes) hash += hash == 0;
  event_.hashes = hashes;
  has_hashes_ = true;
  return true;
}

bool KvEventReader::ReadTokens(MsgpackReader* in) {
  event_.tokens = {};
  uint32_t count;
  if (in->ReadNil()) return true;
  if (!in->ReadArray(&count)) return false;
  if (tokens_.size() < count) tokens_.resize(count);
  const std::span<uint32_t> tokens = std::span(tokens_).first(count);
  event_.tokens = tokens;
  return in->ReadUint32s(tokens);
}

// Per block nil, or a list of what it depends on besides tokens.
bool KvEventReader::ReadExtraKeys(MsgpackReader* in) {
  extras_.clear();
  event_.extras = {};
  uint32_t blocks;
  if (in->ReadNil()) return true;
  if (!in->ReadArray(&blocks)) return false;
  for (uint32_t block = 0; block < blocks; ++block) {
    if (in->ReadNil()) continue;
    uint32_t count;
    if (!in->ReadArray(&count) || count > TokenChain::kExtrasPerBlockMax ||
        extras_.size() + count > kExtrasMax) {
      return false;
    }
    for (uint32_t i = 0; i < count; ++i) {
      if (!ReadExtra(in, block)) return false;
    }
  }
  event_.extras = extras_;
  return true;
}

// "text", bytes, or ["text", offset]; numbers (LoRA ids of old) and the like say nothing that the
// event does not say elsewhere.
bool KvEventReader::ReadExtra(MsgpackReader* in, uint32_t block) {
  KvExtra extra{.block = block};
  if (in->ReadText(&extra.text)) {
    extras_.push_back(extra);
    return true;
  }
  if (in->ReadBinary(&extra.text)) {
    extra.is_bytes = true;
    extras_.push_back(extra);
    return true;
  }
  uint32_t count;
  const MsgpackReader start = *in;
  if (in->ReadArray(&count) && count > 0 && in->ReadText(&extra.text)) {
    int64_t offset;
    uint32_t i = 1;
    if (i < count && in->ReadInt(&offset)) {
      extra.offset = offset;
      ++i;
    }
    for (; i < count; ++i) {
      if (!in->Skip()) return false;
    }
    extras_.push_back(extra);
    return true;
  }
  *in = start;
  return in->Skip();
}

bool KvEventReader::ReadMetadata(MsgpackReader* in) {
  uint32_t pairs;
  if (!in->ReadMap(&pairs)) return in->Skip();
  for (uint32_t i = 0; i < pairs; ++i) {
    std::string_view key;
    if (!in->ReadText(&key) && !in->Skip()) return false;
    if (key == "cache_salt" ? !ReadTextOrNil(in, &event_.cache_salt) : !in->Skip()) return false;
  }
  return true;
}

size_t KvEventReader::scratch_bytes() const {
  return hashes_.capacity() * sizeof(EngineKey) + tokens_.capacity() * sizeof(uint32_t) +
         extras_.capacity() * sizeof(KvExtra) + json_.bytes().capacity();
}

}  // namespace llmd::prefix
