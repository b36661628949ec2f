#include "prefix/kv_events.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/random.h"

namespace llmd::prefix {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using Json = nlohmann::json;
using wire::MsgpackWriter;

std::vector<KvWireHash> Ints(std::initializer_list<EngineKey> values) {
  std::vector<KvWireHash> hashes;
  for (const EngineKey value : values) hashes.push_back({.value = value});
  return hashes;
}

// An engine's batch, written and read.
TEST(KvEvents, Tutorial) {
  const std::vector<uint32_t> tokens = {1, 2, 3, 70000};
  const std::vector<KvWireHash> hashes = Ints({11, 12});
  KvEventWriter writer(KvEventForm::kMap);
  writer.Stored({.hashes = hashes, .tokens = tokens, .block_size = 2, .medium = "GPU"});
  writer.Removed(hashes, "GPU", std::nullopt);
  writer.Cleared();
  const std::string payload = writer.Finish(/*timestamp=*/1.5, /*rank=*/0);

  KvEventReader reader(KvDialect::kVllm);
  ASSERT_TRUE(reader.Begin(payload));
  EXPECT_EQ(reader.timestamp(), 1.5);
  EXPECT_EQ(reader.rank(), 0u);
  ASSERT_EQ(reader.Next(), KvEventType::kStored);
  EXPECT_THAT(reader.event().hashes, ElementsAre(11, 12));
  EXPECT_EQ(reader.event().parent, std::nullopt);
  EXPECT_THAT(reader.event().tokens, ElementsAre(1, 2, 3, 70000));
  EXPECT_EQ(reader.event().medium, "GPU");
  ASSERT_EQ(reader.Next(), KvEventType::kRemoved);
  EXPECT_EQ(reader.Next(), KvEventType::kCleared);
  EXPECT_EQ(reader.Next(), KvEventType::kEnd);
  EXPECT_EQ(reader.malformed(), 0u);
}

// --- recorded from an engine ---------------------------------------------------------------------

struct Recorded {
  std::vector<std::string> frames;
  Json decoded;
};

std::string FromHex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

std::vector<Recorded> ReadRecorded(const std::string& name) {
  std::ifstream file(std::string(LLMD_SOURCE_DIR) + "/conformance/recorded/vllm-0.32/" + name);
  std::vector<Recorded> all;
  for (std::string line; std::getline(file, line);) {
    const Json json = Json::parse(line);
    Recorded one;
    for (const auto& frame : json["frames_hex"]) {
      one.frames.push_back(FromHex(frame.get<std::string>()));
    }
    one.decoded = json["decoded"];
    all.push_back(one);
  }
  return all;
}

void ExpectStored(const KvEvent& event, const Json& expected) {
  EXPECT_EQ(Json(std::vector(event.hashes.begin(), event.hashes.end())), expected["block_hashes"]);
  EXPECT_EQ(event.parent ? Json(*event.parent) : Json(), expected["parent_block_hash"]);
  EXPECT_EQ(Json(std::vector(event.tokens.begin(), event.tokens.end())), expected["token_ids"]);
  EXPECT_EQ(Json(event.block_size), expected["block_size"]);
  EXPECT_EQ(event.lora_id, std::nullopt);
  EXPECT_EQ(event.lora_name, "");
  EXPECT_EQ(Json(event.medium), expected["medium"]);
  EXPECT_EQ(event.group, expected["group_idx"].get<uint32_t>());
  EXPECT_EQ(Json(KvCacheKindName(event.kind)), expected["kv_cache_spec_kind"]);
  EXPECT_EQ(event.sliding_window, 0u);
  Json extras = Json::array();
  for (size_t i = 0; i < event.hashes.size(); ++i) extras.push_back(nullptr);
  for (const KvExtra& extra : event.extras) {
    EXPECT_FALSE(extra.offset);
    extras[extra.block].push_back(extra.text);
  }
  EXPECT_EQ(extras, expected["extra_keys"]);
}

void ExpectBatch(const std::string& payload, const Json& decoded, KvEventReader* reader) {
  ASSERT_TRUE(reader->Begin(payload));
  EXPECT_EQ(Json(reader->timestamp()), decoded[0]);
  EXPECT_EQ(reader->rank(), decoded[2].get<uint32_t>());
  for (const Json& expected : decoded[1]) {
    const KvEventType type = reader->Next();
    if (expected["type"] == "AllBlocksCleared") {
      EXPECT_EQ(type, KvEventType::kCleared);
      continue;
    }
    ASSERT_EQ(type, KvEventType::kStored);
    ExpectStored(reader->event(), expected);
  }
  EXPECT_EQ(reader->Next(), KvEventType::kEnd);
  EXPECT_EQ(reader->malformed(), 0u);
}

// Whatever else it says.
TEST(KvEvents, AClearingNamesNoBlocks) {
  const Json event = {{"block_hashes", {1, 2}}, {"type", "AllBlocksCleared"}};
  const std::vector<uint8_t> payload = Json::to_msgpack(Json{1.5, Json::array({event}), 0});
  KvEventReader reader(KvDialect::kVllm);
  ASSERT_TRUE(reader.Begin({reinterpret_cast<const char*>(payload.data()), payload.size()}));
  EXPECT_EQ(reader.Next(), KvEventType::kCleared);
  EXPECT_THAT(reader.event().hashes, IsEmpty());
}

TEST(KvEvents, RecordedLive) {
  KvEventReader reader(KvDialect::kVllm);
  uint64_t number = 9;
  for (const Recorded& r : ReadRecorded("kv_events.jsonl")) {
    ASSERT_EQ(r.frames.size(), 3u);
    const KvTopic topic = ParseKvTopic(r.frames[0]);
    EXPECT_EQ(topic.pod, "127.0.0.1:18000");
    EXPECT_EQ(topic.model, "tiny");
    EXPECT_EQ(ParseKvSequence(r.frames[1])->number, number++);
    ExpectBatch(r.frames[2], r.decoded, &reader);
  }
  EXPECT_EQ(number, 17u);
}

TEST(KvEvents, RecordedReplay) {
  KvEventReader reader(KvDialect::kVllm);
  const std::vector<Recorded> all = ReadRecorded("kv_replay.jsonl");
  ASSERT_GT(all.size(), 2u);
  for (const Recorded& r : all) {
    ASSERT_EQ(r.frames.size(), 4u);
    if (&r == &all.back()) {
      EXPECT_TRUE(ParseKvSequence(r.frames[2])->is_end());
    } else {
      ExpectBatch(r.frames[3], r.decoded, &reader);
    }
  }
}

// What was read, written again, is what the engine wrote, byte for byte.
TEST(KvEvents, WriterGivesTheEnginesBytes) {
  KvEventReader reader(KvDialect::kVllm);
  KvEventWriter writer(KvEventForm::kMap);
  for (const Recorded& r : ReadRecorded("kv_events.jsonl")) {
    ASSERT_TRUE(reader.Begin(r.frames[2]));
    for (KvEventType type; (type = reader.Next()) != KvEventType::kEnd;) {
      if (type == KvEventType::kCleared) {
        writer.Cleared();
        continue;
      }
      const KvEvent& e = reader.event();
      std::vector<KvWireHash> hashes;
      for (const EngineKey hash : e.hashes) hashes.push_back({.value = hash});
      std::optional<KvWireHash> parent;
      if (e.parent) parent = KvWireHash{.value = *e.parent};
      writer.Stored({.hashes = hashes,
                     .parent = parent,
                     .tokens = e.tokens,
                     .block_size = e.block_size,
                     .medium = e.medium,
                     .extras = e.extras,
                     .group = e.group,
                     .kind = e.kind});
    }
    EXPECT_EQ(writer.Finish(reader.timestamp(), reader.rank()), r.frames[2]);
  }
}

// --- every form ----------------------------------------------------------------------------------

// All fields of an event, however it is written.
struct Sample {
  std::string digest_a = std::string(24, '\x01') + "abcdefgh";
  std::string digest_b = std::string(8, '\x02') + "ijklmnop";
  std::vector<KvWireHash> hashes = {{.bytes = digest_a}, {.bytes = digest_b}};
  std::vector<uint32_t> tokens = {1, 200, 40000, 128255};
  std::vector<KvExtra> extras = {
      {0, "adapter"}, {0, "image", 3}, {1, "image", -1}, {1, "\x7f", {}, true}};

  KvStoredFields fields() const {
    return {.hashes = hashes,
            .parent = KvWireHash{.value = 0xfedcba9876543210u},
            .tokens = tokens,
            .block_size = 2,
            .lora_id = 7,
            .medium = "CPU",
            .lora_name = "adapter",
            .extras = extras,
            .group = 1,
            .kind = KvCacheKind::kSlidingWindow,
            .sliding_window = 4096};
  }
  void Expect(const KvEvent& e) const {
    EXPECT_THAT(e.hashes, ElementsAre(0x6162636465666768u, 0x696a6b6c6d6e6f70u));
    EXPECT_EQ(e.parent, 0xfedcba9876543210u);
    EXPECT_THAT(e.tokens, testing::ElementsAreArray(tokens));
    EXPECT_EQ(e.block_size, 2u);
    EXPECT_EQ(e.lora_id, 7);
    EXPECT_EQ(e.medium, "CPU");
    EXPECT_EQ(e.lora_name, "adapter");
    EXPECT_THAT(e.extras, testing::ElementsAreArray(extras));
    EXPECT_EQ(e.group, 1u);
    EXPECT_EQ(e.kind, KvCacheKind::kSlidingWindow);
    EXPECT_EQ(e.sliding_window, 4096u);
  }
};

TEST(KvEvents, EveryFieldInBothForms) {
  const Sample sample;
  for (const KvEventForm form : {KvEventForm::kMap, KvEventForm::kArray}) {
    KvEventWriter writer(form);
    writer.Stored(sample.fields());
    writer.Removed(sample.hashes, "CPU", 1);
    writer.Cleared();
    const std::string payload = writer.Finish(2, 3);
    KvEventReader reader(KvDialect::kVllm);
    ASSERT_TRUE(reader.Begin(payload));
    EXPECT_EQ(reader.rank(), 3u);
    ASSERT_EQ(reader.Next(), KvEventType::kStored);
    sample.Expect(reader.event());
    ASSERT_EQ(reader.Next(), KvEventType::kRemoved);
    EXPECT_THAT(reader.event().hashes, ElementsAre(0x6162636465666768u, 0x696a6b6c6d6e6f70u));
    EXPECT_EQ(reader.event().medium, "CPU");
    EXPECT_EQ(reader.event().group, 1u);
    EXPECT_EQ(reader.Next(), KvEventType::kCleared);
    EXPECT_EQ(reader.Next(), KvEventType::kEnd);
  }
}

// The first `from` fields of an event in array form, as msgpack of their own.
std::vector<std::string> Fields(const std::string& payload) {
  wire::MsgpackReader in(payload);
  uint32_t count;
  EXPECT_TRUE(in.ReadArray(&count) && in.Skip() && in.ReadArray(&count) && in.ReadArray(&count));
  std::vector<std::string> fields;
  for (uint32_t i = 0; i < count; ++i) {
    const char* begin = in.position();
    EXPECT_TRUE(in.Skip());
    fields.emplace_back(begin, in.position());
  }
  return fields;
}

constexpr std::string_view kNames[] = {
    "type",       "block_hashes", "parent_block_hash",  "token_ids",
    "block_size", "lora_id",      "medium",             "lora_name",
    "extra_keys", "group_idx",    "kv_cache_spec_kind", "kv_cache_spec_sliding_window"};

std::string ArrayFields(const Sample& sample, std::vector<std::string>* fields) {
  KvEventWriter writer(KvEventForm::kArray);
  writer.Stored(sample.fields());
  const std::string payload = writer.Finish(2, 3);
  *fields = Fields(payload);
  return payload;
}

// Keys in any order, keys that nobody knows, and events and batches wrapped in whatever there is.
TEST(KvEvents, AnyOrderAndWrapping) {
  const Sample sample;
  std::vector<std::string> fields;
  ArrayFields(sample, &fields);
  ASSERT_EQ(fields.size(), std::size(kNames));
  base::Random random(1);
  std::vector<size_t> order(fields.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  for (int round = 0; round < 200; ++round) {
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.Below(i)]);
    MsgpackWriter event;
    event.Map(order.size() + 2);
    event.Text("locality");
    event.Array(1);
    event.Map(0);
    for (const size_t i : order) {
      event.Text(kNames[i]);
      event.Raw(fields[i]);
    }
    event.Uint(5);  // a key that is no text
    event.Nil();

    const uint64_t wrapping = random.Below(5);
    MsgpackWriter batch;
    if (wrapping == 0) {  // no outer array
      batch.Array(1);
    } else if (wrapping == 1) {  // map, rank behind the events
      batch.Map(3);
      batch.Text("events");
      batch.Array(1);
    } else if (wrapping < 4) {
      batch.Array(3);
      batch.Float(9);
      batch.Array(1);
    }
    wrapping == 3 ? batch.Binary(event.bytes()) : batch.Raw(event.bytes());
    if (wrapping == 1) {
      batch.Text("ts");
      batch.Float(9);
      batch.Text("data_parallel_rank");
    }
    if (wrapping >= 1 && wrapping < 4) batch.Uint(300);

    KvEventReader reader(KvDialect::kVllm);
    ASSERT_TRUE(reader.Begin(batch.bytes())) << wrapping;
    const bool has_head = wrapping >= 1 && wrapping < 4;
    EXPECT_EQ(reader.rank(), has_head ? std::optional<uint32_t>(300) : std::nullopt);
    EXPECT_EQ(reader.timestamp(), has_head ? 9 : 0);
    ASSERT_EQ(reader.Next(), KvEventType::kStored) << wrapping;
    sample.Expect(reader.event());
    EXPECT_EQ(reader.Next(), KvEventType::kEnd);
    EXPECT_EQ(reader.malformed(), 0u);
  }
}

TEST(KvEvents, TrailingFieldsMayBeMissing) {
  const Sample sample;
  std::vector<std::string> fields;
  ArrayFields(sample, &fields);
  for (size_t count = 0; count <= fields.size(); ++count) {
    MsgpackWriter batch;
    batch.Array(2);
    batch.Uint(1);
    batch.Array(1);
    batch.Array(count);
    for (size_t i = 0; i < count; ++i) batch.Raw(fields[i]);
    KvEventReader reader(KvDialect::kVllm);
    ASSERT_TRUE(reader.Begin(batch.bytes()));
    EXPECT_EQ(reader.Next(), count >= 5 ? KvEventType::kStored : KvEventType::kEnd) << count;
    EXPECT_EQ(reader.malformed(), count >= 5 ? 0u : 1u);
    if (count == fields.size()) sample.Expect(reader.event());
  }
}

// SGLang: positions end with extra_keys, what follows is its own; the salt may come in metadata.
TEST(KvEvents, Sglang) {
  const Sample sample;
  std::vector<std::string> fields;
  ArrayFields(sample, &fields);
  MsgpackWriter batch;
  batch.Array(3);
  batch.Float(1);
  batch.Array(3);
  batch.Array(11);
  for (size_t i = 0; i < 9; ++i) batch.Raw(fields[i]);
  batch.Text("something");
  batch.Text("else");
  batch.Array(4);
  batch.Text("BlockRemoved");
  batch.Array(2);
  batch.Int(-2);
  batch.Uint(5);
  batch.Text("GPU");
  batch.Text("more");
  batch.Map(4);
  batch.Text("metadata");
  batch.Map(2);
  batch.Text("other");
  batch.Array(0);
  batch.Text("cache_salt");
  batch.Text("salt");
  batch.Text("block_hashes");
  batch.Array(1);
  batch.Uint(1);
  batch.Text("token_ids");
  batch.Nil();
  batch.Text("type");
  batch.Text("BlockStored");
  batch.Uint(1);
  KvEventReader reader(KvDialect::kSglang);
  ASSERT_TRUE(reader.Begin(batch.bytes()));
  EXPECT_EQ(reader.rank(), 1u);
  ASSERT_EQ(reader.Next(), KvEventType::kStored);
  EXPECT_EQ(reader.event().lora_name, "adapter");
  EXPECT_EQ(reader.event().group, std::nullopt);
  ASSERT_EQ(reader.Next(), KvEventType::kRemoved);
  EXPECT_THAT(reader.event().hashes, ElementsAre(~uint64_t{1}, 5));
  ASSERT_EQ(reader.Next(), KvEventType::kStored);
  EXPECT_EQ(reader.event().cache_salt, "salt");
  EXPECT_THAT(reader.event().tokens, IsEmpty());
}

// Mooncake's events (RFC 1527) as JSON text and as msgpack of the same.
TEST(KvEvents, Mooncake) {
  const Json stored = {{"event_id", 42},
                       {"timestamp", 1739145600000},
                       {"event_type", "stored"},
                       {"model_name", "llama-3.1-8b"},
                       {"block_size", 2},
                       {"additional_salt", nullptr},
                       {"lora_name", nullptr},
                       {"tenant_id", "default"},
                       {"backend_id", "worker-0"},
                       {"medium", "cpu"},
                       {"dp_rank", 1},
                       {"seq_hashes", {1234567890, 18446744073709551615u}},
                       {"base_block_idx", 5},
                       {"parent_hash", 9999999999},
                       {"token_ids", {1, 2, 3, 4}}};
  const Json removed = {{"event_type", "removed"}, {"seq_hashes", {7}}, {"medium", "disk"}};
  const Json cleared = {{"event_type", "cleared"}};
  const Json events = {stored, removed, cleared};
  std::vector<std::string> payloads;
  for (const Json& batch :
       {events, Json{1.5, events, 2}, Json{{"ts", 1.5}, {"events", events}}}) {
    payloads.push_back(batch.dump());
    const std::vector<uint8_t> msgpack = Json::to_msgpack(batch);
    payloads.emplace_back(msgpack.begin(), msgpack.end());
  }
  for (const std::string& payload : payloads) {
    KvEventReader reader(KvDialect::kMooncake);
    ASSERT_TRUE(reader.Begin(payload));
    ASSERT_EQ(reader.Next(), KvEventType::kStored);
    const KvEvent& e = reader.event();
    EXPECT_THAT(e.hashes, ElementsAre(1234567890, ~uint64_t{0}));
    EXPECT_EQ(e.parent, 9999999999u);
    EXPECT_THAT(e.tokens, ElementsAre(1, 2, 3, 4));
    EXPECT_EQ(e.block_size, 2u);
    EXPECT_EQ(e.model, "llama-3.1-8b");
    EXPECT_EQ(e.tenant, "default");
    EXPECT_EQ(e.backend, "worker-0");
    EXPECT_EQ(e.medium, "cpu");
    EXPECT_EQ(e.base_block, 5u);
    EXPECT_EQ(e.event_id, 42u);
    ASSERT_EQ(reader.Next(), KvEventType::kRemoved);
    EXPECT_THAT(reader.event().hashes, ElementsAre(7));
    EXPECT_EQ(reader.Next(), KvEventType::kCleared);
    EXPECT_EQ(reader.Next(), KvEventType::kEnd);
    EXPECT_EQ(reader.malformed(), 0u);
  }
  for (const std::string& lone : {stored.dump(), [&] {
         const std::vector<uint8_t> msgpack = Json::to_msgpack(stored);
         return std::string(msgpack.begin(), msgpack.end());
       }()}) {
    KvEventReader reader(KvDialect::kMooncake);
    ASSERT_TRUE(reader.Begin(lone));
    EXPECT_EQ(reader.Next(), KvEventType::kStored);
    EXPECT_EQ(reader.event().event_id, 42u);
    EXPECT_EQ(reader.Next(), KvEventType::kEnd);
  }
}

// Removals of one block each, as engines send them, come as one event.
TEST(KvEvents, NeighbouringRemovalsAreMerged) {
  base::Random random(5);
  for (int round = 0; round < 300; ++round) {
    const KvEventForm form = random.Below(2) == 0 ? KvEventForm::kMap : KvEventForm::kArray;
    KvEventWriter writer(form);
    std::vector<EngineKey> expected, seen;
    std::vector<std::string> digests;
    const uint64_t kind = random.Below(4);
    for (uint64_t i = 0; i < 40; ++i) {
      const EngineKey key = random.Next() >> (kind == 1 ? random.Below(60) : 0) | 1;
      std::string digest(kind == 2 ? 24 : kind == 3 ? 0 : 24 * random.Below(2), 'd');
      if (!digest.empty()) AppendKvSequence(key, &digest);
      const KvWireHash hash{.value = key, .bytes = digest};
      expected.push_back(key);
      writer.Removed({&hash, 1}, random.Below(9) == 0 ? "CPU" : "GPU",
                     random.Below(9) == 0 ? std::nullopt : std::optional<uint32_t>(1));
      if (random.Below(9) == 0) {
        writer.Cleared();
        expected.push_back(0);
      }
    }
    const std::string payload = writer.Finish(1, 0);
    KvEventReader reader(KvDialect::kVllm);
    ASSERT_TRUE(reader.Begin(payload));
    size_t events = 0;
    for (KvEventType type; (type = reader.Next()) != KvEventType::kEnd; ++events) {
      if (type == KvEventType::kCleared) seen.push_back(0);
      for (const EngineKey hash : reader.event().hashes) seen.push_back(hash);
    }
    EXPECT_EQ(seen, expected);
    EXPECT_EQ(reader.malformed(), 0u);
    if (kind > 1) EXPECT_LT(events, 35u);
  }
}

// --- what is wrong -------------------------------------------------------------------------------

std::string BatchOf(const std::vector<std::string>& events) {
  MsgpackWriter batch;
  batch.Array(3);
  batch.Float(1);
  batch.Array(events.size());
  for (const std::string& event : events) batch.Raw(event);
  batch.Nil();
  return batch.Take();
}

std::string Msgpack(const Json& json) {
  const std::vector<uint8_t> bytes = Json::to_msgpack(json);
  return {bytes.begin(), bytes.end()};
}

// One malformed event is stepped over and counted; its neighbours are read.
TEST(KvEvents, MalformedEventIsSkippedAlone) {
  const std::string good = Msgpack({"BlockRemoved", {7}, "GPU"});
  const Json bad[] = {
      nullptr,
      5,
      "BlockStored",
      Json::array(),
      {"NoSuchEvent", {1}},
      {5, {1}},
      {"BlockRemoved"},
      {"BlockRemoved", 5},
      {"BlockRemoved", {"text"}},
      {"BlockRemoved", {nullptr}},
      {"BlockRemoved", {1.5}},
      {"BlockRemoved", {1}, 5},
      {"BlockStored", {1}, nullptr, {1, -2}, 2},
      {"BlockStored", {1}, nullptr, {{1, 2}}, 2},
      {"BlockStored", {1}, nullptr, {4294967296}, 2},
      {"BlockStored", {1}, "parent", {1}, 2},
      {"BlockStored", {1}, nullptr, {1}, -2},
      {"BlockStored", {1}, nullptr, {1}, 1, nullptr, nullptr, nullptr, {5}},
      {{"type", "BlockStored"}, {"token_ids", {1}}},
      {{"type", "Nothing"}, {"block_hashes", {1}}},
      {{"type", 5}, {"block_hashes", {1}}},
      {{"block_hashes", {1}}},
      Json::binary({1, 2, 3}),
      Json::binary({}),
  };
  for (const Json& event : bad) {
    const std::string payload = BatchOf({good, Msgpack(event), good});
    KvEventReader reader(KvDialect::kVllm);
    ASSERT_TRUE(reader.Begin(payload)) << event;
    EXPECT_EQ(reader.Next(), KvEventType::kRemoved) << event;
    EXPECT_EQ(reader.Next(), KvEventType::kRemoved) << event;
    EXPECT_THAT(reader.event().hashes, ElementsAre(7));
    EXPECT_EQ(reader.Next(), KvEventType::kEnd) << event;
    EXPECT_EQ(reader.malformed(), 1u) << event;
  }
}

TEST(KvEvents, ExtrasAreLimited) {
  for (const size_t count : {TokenChain::kExtrasPerBlockMax, TokenChain::kExtrasPerBlockMax + 1}) {
    const Json extras = std::vector<std::string>(count, "x");
    const std::string one = BatchOf({Msgpack({"BlockStored", {1}, nullptr, {1}, 1, nullptr, "GPU",
                                              nullptr, Json::array({extras})})});
    KvEventReader reader(KvDialect::kVllm);
    ASSERT_TRUE(reader.Begin(one));
    EXPECT_EQ(reader.Next() == KvEventType::kStored, count == TokenChain::kExtrasPerBlockMax);
  }
  const Json blocks = std::vector<Json>(KvEventReader::kExtrasMax / 256 + 1,
                                        std::vector<std::string>(256, "x"));
  const std::string many = BatchOf(
      {Msgpack({"BlockStored", {1}, nullptr, {1}, 1, nullptr, "GPU", nullptr, blocks})});
  KvEventReader reader(KvDialect::kVllm);
  ASSERT_TRUE(reader.Begin(many));
  EXPECT_EQ(reader.Next(), KvEventType::kEnd);
  EXPECT_EQ(reader.malformed(), 1u);
}

TEST(KvEvents, BrokenBytesEndTheBatch) {
  const std::string good = Msgpack({"BlockRemoved", {7}, "GPU"});
  std::string payload = BatchOf({good, good, good, good});
  payload.resize(payload.size() - good.size() - 3);
  KvEventReader reader(KvDialect::kVllm);
  ASSERT_TRUE(reader.Begin(payload));
  EXPECT_EQ(reader.Next(), KvEventType::kRemoved);
  EXPECT_EQ(reader.Next(), KvEventType::kRemoved);
  EXPECT_EQ(reader.Next(), KvEventType::kEnd);
  EXPECT_EQ(reader.malformed(), 2u);
  EXPECT_EQ(reader.Next(), KvEventType::kEnd);
}

TEST(KvEvents, NotABatch) {
  for (const std::string& payload :
       {std::string(), std::string("\xc0"), Msgpack("text"), Msgpack({"text", {1}}),
        Msgpack({1, 5, nullptr}), Msgpack(Json{{"a", 1}}), std::string("{\"a\":"),
        std::string("{\"a\":1}"), std::string("[1, 2]"),
        std::string(70, '[') + std::string(70, ']'),
        std::string(KvEventReader::kPayloadBytesMax + 1, '\x90')}) {
    KvEventReader reader(KvDialect::kVllm);
    EXPECT_FALSE(reader.Begin(payload)) << payload.substr(0, 80);
    EXPECT_EQ(reader.malformed(), 1u);
    EXPECT_EQ(reader.Next(), KvEventType::kEnd);
  }
  KvEventReader reader(KvDialect::kVllm);
  for (const std::string& empty : {Msgpack(Json::array()), Msgpack({1.5}), Msgpack({1.5, nullptr}),
                                   Msgpack({1.5, Json::array(), 3})}) {
    EXPECT_TRUE(reader.Begin(empty));
    EXPECT_EQ(reader.Next(), KvEventType::kEnd);
    EXPECT_EQ(reader.malformed(), 0u);
  }
}

// The rank stands behind the events and in forms whose last byte could be a small number.
TEST(KvEvents, RankOfEveryForm) {
  const std::string good = Msgpack({"BlockRemoved", {7}, "GPU"});
  const auto rank_of = [&](std::string_view rank, int fields = 3) {
    MsgpackWriter batch;
    batch.Array(static_cast<size_t>(fields));
    batch.Float(1);
    batch.Array(1);
    batch.Raw(good);
    batch.Raw(rank);
    if (fields == 4) batch.Uint(9);
    KvEventReader reader(KvDialect::kVllm);
    EXPECT_TRUE(reader.Begin(batch.bytes()));
    EXPECT_EQ(reader.Next(), KvEventType::kRemoved);
    return reader.rank();
  };
  using namespace std::string_view_literals;
  EXPECT_EQ(rank_of("\x00"sv), 0u);
  EXPECT_EQ(rank_of("\x7f"sv), 127u);
  EXPECT_EQ(rank_of("\xc0"sv), std::nullopt);
  EXPECT_EQ(rank_of("\xcc\x80"sv), 128u);
  EXPECT_EQ(rank_of("\xcc\xc0"sv), 192u);
  EXPECT_EQ(rank_of("\xcc\x05"sv), 5u);
  EXPECT_EQ(rank_of("\xd0\x05"sv), 5u);
  EXPECT_EQ(rank_of("\xff"sv), std::nullopt);
  EXPECT_EQ(rank_of("\xcd\x01\x05"sv), 261u);
  EXPECT_EQ(rank_of("\xd1\x01\x05"sv), 261u);
  EXPECT_EQ(rank_of("\xce\x00\x01\x00\x05"sv), 65541u);
  EXPECT_EQ(rank_of("\xcf\x00\x00\x00\x00\x00\x01\x00\x05"sv), 65541u);
  EXPECT_EQ(rank_of("\x05"sv, 4), 5u);
}

TEST(KvEvents, HashesOfEveryForm) {
  using namespace std::string_view_literals;
  const auto hash_of = [](std::string_view hash) {
    MsgpackWriter batch;
    batch.Array(2);
    batch.Float(1);
    batch.Array(1);
    batch.Array(2);
    batch.Text("BlockRemoved");
    batch.Array(1);
    batch.Raw(hash);
    KvEventReader reader(KvDialect::kVllm);
    EXPECT_TRUE(reader.Begin(batch.bytes()));
    return reader.Next() == KvEventType::kRemoved ? reader.event().hashes[0] : 0;
  };
  EXPECT_EQ(hash_of("\x05"sv), 5u);
  EXPECT_EQ(hash_of("\x00"sv), 1u);
  EXPECT_EQ(hash_of("\xff"sv), ~uint64_t{0});
  EXPECT_EQ(hash_of("\xd3\x80\0\0\0\0\0\0\1"sv), 0x8000000000000001u);
  EXPECT_EQ(hash_of("\xcf\x01\x02\x03\x04\x05\x06\x07\x08"sv), 0x0102030405060708u);
  EXPECT_EQ(hash_of("\xc4\x03\x01\x02\x03"sv), 0x010203u);
  EXPECT_EQ(hash_of("\xc4\x08\x01\x02\x03\x04\x05\x06\x07\x08"sv), 0x0102030405060708u);
  EXPECT_EQ(hash_of("\xc4\x09\x11\x01\x02\x03\x04\x05\x06\x07\x08"sv), 0x0102030405060708u);
  EXPECT_EQ(hash_of("\xc4\x00"sv), 0u);
}

// --- topics and sequences ------------------------------------------------------------------------

TEST(KvEvents, Topics) {
  const struct {
    std::string_view topic, pod, model;
  } cases[] = {
      {"kv@10.0.0.1:8000@llama", "10.0.0.1:8000", "llama"},
      {"kv@pod@org/model@rev", "pod", "org/model@rev"},
      {"kv@[::1]:8000@m", "[::1]:8000", "m"},
      {"kv@pod", "kv@pod", ""},
      {"", "", ""},
      {"kv@@", "", ""},
  };
  for (const auto& c : cases) {
    const KvTopic topic = ParseKvTopic(c.topic);
    EXPECT_EQ(topic.pod, c.pod);
    EXPECT_EQ(topic.model, c.model);
  }
}

TEST(KvEvents, Sequences) {
  std::string frame;
  AppendKvSequence(0x0102030405060708u, &frame);
  EXPECT_EQ(frame, "\x01\x02\x03\x04\x05\x06\x07\x08");
  EXPECT_EQ(ParseKvSequence(frame)->number, 0x0102030405060708u);
  EXPECT_EQ(ParseKvSequence(frame)->incarnation, "");
  const std::string long_frame = frame + "0123456789abcdef";
  const auto longer = ParseKvSequence(long_frame);
  EXPECT_EQ(longer->number, 0x0102030405060708u);
  EXPECT_EQ(longer->incarnation, "0123456789abcdef");
  for (const size_t bytes : {0, 7, 9, 16, 25}) {
    EXPECT_EQ(ParseKvSequence(std::string(bytes, 'x')), std::nullopt);
  }
  EXPECT_TRUE(ParseKvSequence(std::string(8, '\xff'))->is_end());
}

TEST(KvEvents, NamesOfKindsAndDialects) {
  for (size_t i = 1; i < kKvCacheKinds; ++i) {
    const auto kind = static_cast<KvCacheKind>(i);
    EXPECT_EQ(ParseKvCacheKind(KvCacheKindName(kind)), kind);
  }
  EXPECT_EQ(ParseKvCacheKind(""), KvCacheKind::kNone);
  EXPECT_EQ(ParseKvCacheKind("new_kind"), KvCacheKind::kUnknown);
  EXPECT_EQ(ParseKvDialect("sglang"), KvDialect::kSglang);
  EXPECT_EQ(ParseKvDialect("vLLM"), std::nullopt);
}

}  // namespace
}  // namespace llmd::prefix
