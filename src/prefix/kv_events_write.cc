// The writing half of kv_events.h, topics and sequence frames.
#include "prefix/kv_events.h"

namespace llmd::prefix {

void KvEventWriter::Key(std::string_view name) {
  if (form_ == KvEventForm::kMap) out_.Text(name);
}

void KvEventWriter::Hashes(std::span<const KvWireHash> hashes) {
  Key("block_hashes");
  out_.Array(hashes.size());
  for (const KvWireHash& hash : hashes) {
    hash.bytes.empty() ? out_.Uint(hash.value) : out_.Binary(hash.bytes);
  }
}

void KvEventWriter::TextOrNil(std::string_view text) {
  text.empty() ? out_.Nil() : out_.Text(text);
}

void KvEventWriter::ExtraKeys(const KvStoredFields& fields) {
  if (!fields.has_extra_keys) return out_.Nil();
  out_.Array(fields.hashes.size());
  size_t next = 0;
  for (uint32_t block = 0; block < fields.hashes.size(); ++block) {
    size_t end = next;
    while (end < fields.extras.size() && fields.extras[end].block == block) ++end;
    if (end == next) {
      out_.Nil();
      continue;
    }
    out_.Array(end - next);
    for (; next < end; ++next) {
      const KvExtra& extra = fields.extras[next];
      if (extra.offset) out_.Array(2);
      extra.is_bytes ? out_.Binary(extra.text) : out_.Text(extra.text);
      if (extra.offset) out_.Int(*extra.offset);
    }
  }
}

// Fields whose value is the default are left out of a map, and off the end of an array: extra_keys
// and what comes after it have nil for a default.
void KvEventWriter::Stored(const KvStoredFields& fields) {
  ++events_;
  const bool has[] = {fields.has_extra_keys, fields.group.has_value(),
                      fields.kind != KvCacheKind::kNone, fields.sliding_window != 0};
  size_t named = 0, last = 0;
  for (size_t i = 0; i < std::size(has); ++i) {
    named += has[i];
    if (has[i]) last = i + 1;
  }
  const bool is_map = form_ == KvEventForm::kMap;
  const auto is_written = [&](size_t i) { return is_map ? has[i] : i < last; };
  is_map ? out_.Map(8 + named) : out_.Array(8 + last);
  Key("type");
  out_.Text("BlockStored");
  Hashes(fields.hashes);
  Key("parent_block_hash");
  if (!fields.parent) {
    out_.Nil();
  } else {
    fields.parent->bytes.empty() ? out_.Uint(fields.parent->value)
                                 : out_.Binary(fields.parent->bytes);
  }
  Key("token_ids");
  out_.Array(fields.tokens.size());
  for (const uint32_t token : fields.tokens) out_.Uint(token);
  Key("block_size");
  out_.Uint(fields.block_size);
  Key("lora_id");
  fields.lora_id ? out_.Int(*fields.lora_id) : out_.Nil();
  Key("medium");
  TextOrNil(fields.medium);
  Key("lora_name");
  TextOrNil(fields.lora_name);
  if (is_written(0)) {
    Key("extra_keys");
    ExtraKeys(fields);
  }
  if (is_written(1)) {
    Key("group_idx");
    fields.group ? out_.Uint(*fields.group) : out_.Nil();
  }
  if (is_written(2)) {
    Key("kv_cache_spec_kind");
    fields.kind == KvCacheKind::kNone ? out_.Nil() : out_.Text(KvCacheKindName(fields.kind));
  }
  if (is_written(3)) {
    Key("kv_cache_spec_sliding_window");
    out_.Uint(fields.sliding_window);
  }
}

void KvEventWriter::Removed(std::span<const KvWireHash> hashes, std::string_view medium,
                            std::optional<uint32_t> group) {
  ++events_;
  const size_t fields = group ? 4 : 3;
  form_ == KvEventForm::kMap ? out_.Map(fields) : out_.Array(fields);
  Key("type");
  out_.Text("BlockRemoved");
  Hashes(hashes);
  Key("medium");
  TextOrNil(medium);
  if (!group) return;
  Key("group_idx");
  out_.Uint(*group);
}

void KvEventWriter::Cleared() {
  ++events_;
  form_ == KvEventForm::kMap ? out_.Map(1) : out_.Array(1);
  Key("type");
  out_.Text("AllBlocksCleared");
}

std::string KvEventWriter::Finish(double timestamp, std::optional<uint32_t> rank) {
  wire::MsgpackWriter batch;
  batch.Array(rank ? 3 : 2);
  batch.Float(timestamp);
  batch.Array(events_);
  batch.Raw(out_.bytes());
  if (rank) batch.Uint(*rank);
  out_.Clear();
  events_ = 0;
  return batch.Take();
}

// --- topics and sequence frames ------------------------------------------------------------------

KvTopic ParseKvTopic(std::string_view topic) {
  const size_t pod = topic.find('@');
  if (pod == topic.npos) return {topic, {}};
  const size_t model = topic.find('@', pod + 1);
  if (model == topic.npos) return {topic, {}};
  return {topic.substr(pod + 1, model - pod - 1), topic.substr(model + 1)};
}

std::optional<KvSequence> ParseKvSequence(std::string_view frame) {
  if (frame.size() != 8 && frame.size() != 24) return std::nullopt;
  KvSequence sequence;
  for (const char c : frame.substr(0, 8)) {
    sequence.number = sequence.number << 8 | static_cast<uint8_t>(c);
  }
  sequence.incarnation = frame.substr(8);
  return sequence;
}

void AppendKvSequence(uint64_t number, std::string* out) {
  for (int shift = 56; shift >= 0; shift -= 8) out->push_back(static_cast<char>(number >> shift));
}

}  // namespace llmd::prefix
