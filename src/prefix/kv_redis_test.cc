// The shared index' layout: commands byte for byte, and lookups against a twin of maps. What a real
// server makes of it is in net/redis_index_test.cc.
#include "prefix/kv_redis.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <charconv>
#include <map>
#include <numeric>
#include <set>

#include "base/random.h"
#include "prefix/kv_redis_mirror.h"

namespace llmd::prefix {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using wire::RespValue;

using Command = std::vector<std::string>;

uint64_t Number(std::string_view text) {
  uint64_t number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

// What the bytes say, by an independent reading of RESP.
std::vector<Command> CommandsOf(std::string_view bytes) {
  const auto take_length = [&](char kind) {
    EXPECT_EQ(bytes.front(), kind);
    const size_t end = bytes.find("\r\n");
    const auto length = static_cast<size_t>(Number(bytes.substr(1, end - 1)));
    bytes.remove_prefix(end + 2);
    return length;
  };
  std::vector<Command> commands;
  while (!bytes.empty()) {
    commands.emplace_back(take_length('*'));
    for (std::string& argument : commands.back()) {
      const size_t length = take_length('$');
      argument = bytes.substr(0, length);
      EXPECT_EQ(bytes.substr(length, 2), "\r\n");
      bytes.remove_prefix(length + 2);
    }
  }
  return commands;
}

constexpr KvRedisEntry kGpu{.pod = "10.0.0.7:8000", .tier = "gpu"};
constexpr char kGpuField[] =
    R"({"PodIdentifier":"10.0.0.7:8000","DeviceTier":"gpu",)"
    R"("Speculative":false,"HasGroup":false,"GroupIdx":0})";

TEST(KvRedis, Tutorial) {
  // A pod stored two blocks...
  std::string commands;
  const EngineKey engine[] = {71, 72};
  const BlockKey blocks[] = {1, 18446744073709551615u};
  EXPECT_EQ(AppendKvRedisStore(kGpu, engine, blocks, &commands), 4u);
  EXPECT_THAT(CommandsOf(commands),
              ElementsAre(Command{"ZADD", "engine:71", "0", "1"},
                          Command{"ZADD", "engine:72", "0", "18446744073709551615"},
                          Command{"HSET", "1", kGpuField, ""},
                          Command{"HSET", "18446744073709551615", kGpuField, ""}));
  // ... and somebody asks who has them.
  const std::string names[] = {"10.0.0.9:8000", "10.0.0.7:8000"};
  const KvTiers tiers = KvTiers::Default();
  const std::span<const BlockKey> chain = blocks;
  KvRedisLookup lookup(std::make_shared<KvRedisPods>(names), &tiers, {&chain, 1});
  commands.clear();
  EXPECT_EQ(lookup.NextRound(&commands), 2u);
  EXPECT_THAT(CommandsOf(commands), ElementsAre(Command{"HKEYS", "1"},
                                                Command{"HKEYS", "18446744073709551615"}));
  const RespValue field{.type = RespValue::Type::kText, .text = kGpuField};
  const RespValue reply{.type = RespValue::Type::kArray, .items = {&field, 1}};
  lookup.OnReply(0, reply);
  lookup.OnReply(1, reply);
  EXPECT_EQ(lookup.NextRound(&commands), 0u);
  EXPECT_THAT(lookup.blocks(), ElementsAre(0, 2));
  EXPECT_THAT(lookup.weights(), ElementsAre(0, 2));
}

TEST(KvRedis, EngineBlocksOfOtherSizes) {
  const EngineKey engine[] = {1, 2, 3, 4};
  const BlockKey blocks[] = {10, 20, 30, 40};
  std::string commands;
  AppendKvRedisStore(kGpu, engine, std::span(blocks).first(2), &commands);
  EXPECT_THAT(CommandsOf(commands),
              ElementsAre(Command{"ZADD", "engine:1", "0", "10"},
                          Command{"ZADD", "engine:2", "0", "10"},
                          Command{"ZADD", "engine:3", "0", "20"},
                          Command{"ZADD", "engine:4", "0", "20"},
                          Command{"HSET", "10", kGpuField, ""},
                          Command{"HSET", "20", kGpuField, ""}));
  commands.clear();
  AppendKvRedisStore(kGpu, std::span(engine).first(2), blocks, &commands);
  EXPECT_THAT(CommandsOf(commands),
              ElementsAre(Command{"ZADD", "engine:1", "0", "10"},
                          Command{"ZADD", "engine:1", "1", "20"},
                          Command{"ZADD", "engine:2", "0", "30"},
                          Command{"ZADD", "engine:2", "1", "40"},
                          Command{"HSET", "10", kGpuField, ""},
                          Command{"HSET", "20", kGpuField, ""},
                          Command{"HSET", "30", kGpuField, ""},
                          Command{"HSET", "40", kGpuField, ""}));
  commands.clear();
  EXPECT_EQ(AppendKvRedisStore(kGpu, engine, {}, &commands), 0u);
  EXPECT_THAT(commands, IsEmpty());
}

TEST(KvRedis, SpeculativeEntriesComeAndGo) {
  const KvRedisEntry entry{.pod = "p", .tier = "", .speculative = true};
  const std::string field =
      R"({"PodIdentifier":"p","DeviceTier":"","Speculative":true,"HasGroup":false,"GroupIdx":0})";
  const BlockKey blocks[] = {10, 20};
  std::string commands;
  EXPECT_EQ(AppendKvRedisStore(entry, {}, blocks, &commands), 2u);
  EXPECT_EQ(AppendKvRedisRemoveBlocks(entry, blocks, &commands), 2u);
  EXPECT_THAT(CommandsOf(commands),
              ElementsAre(Command{"HSET", "10", field, ""}, Command{"HSET", "20", field, ""},
                          Command{"HDEL", "10", field}, Command{"HDEL", "20", field}));
}

TEST(KvRedis, RemovalsGoInScriptsOfBoundedSize) {
  std::vector<EngineKey> keys(600);
  for (size_t i = 0; i < keys.size(); ++i) keys[i] = i;
  std::string bytes;
  EXPECT_EQ(AppendKvRedisRemove(kGpu, keys, &bytes), 3u);
  const auto commands = CommandsOf(bytes);
  ASSERT_EQ(commands.size(), 3u);
  EXPECT_EQ(commands[0][0], "EVAL");
  EXPECT_EQ(commands[0][2], "256");
  EXPECT_EQ(commands[0][3], "engine:0");
  EXPECT_EQ(commands[0].size(), 3u + 256 + 1);
  EXPECT_EQ(commands[2][2], "88");
  EXPECT_EQ(commands[2].back(), kGpuField);
  EXPECT_EQ(AppendKvRedisRemove(kGpu, {}, &bytes), 0u);
}

// --- fields
// ---------------------------------------------------------------------------------------

TEST(KvRedisField, WhatIsWrittenIsRead) {
  for (const KvRedisEntry& entry : {
           kGpu,
           KvRedisEntry{.pod = "[fd00::3]:8000", .tier = "cpu", .group = 2},
           KvRedisEntry{.pod = "", .tier = "", .speculative = true, .group = 0},
           KvRedisEntry{.pod = "a\"b\\c<d>&e\u2028\u00e9\a\n", .tier = "x\ty"},
           KvRedisEntry{.pod = "p", .tier = "g", .group = -3},
       }) {
    KvRedisFieldReader reader;
    const std::string field = KvRedisField(entry);
    const KvRedisEntry* read = reader.Read(field);
    ASSERT_NE(read, nullptr) << field;
    EXPECT_EQ(*read, entry) << field;
  }
  EXPECT_EQ(KvRedisField({.pod = "a\"<\u2028\xff\x01", .tier = "gpu", .group = 7}),
            R"({"PodIdentifier":"a\"\u003c\u2028\ufffd\u0001","DeviceTier":"gpu",)"
            R"("Speculative":false,"HasGroup":true,"GroupIdx":7})");
}

TEST(KvRedisField, OtherWritersAndOtherThings) {
  KvRedisFieldReader reader;
  const KvRedisEntry* read =
      reader.Read(R"( { "DeviceTier":"cpu", "PodIdentifier":"p", "New":1 } )");
  ASSERT_NE(read, nullptr);
  EXPECT_EQ(*read, (KvRedisEntry{.pod = "p", .tier = "cpu"}));
  for (
      const std::string_view field :
      {R"()", R"(10.0.0.1@gpu)", R"([])", R"({"PodIdentifier":1})", R"({"PodIdentifier":"p")",
       R"({"PodIdentifier":"p","DeviceTier":"","Speculative":true,"HasGroup":true,"GroupIdx":0}x)",
       R"({"PodIdentifier":"p","DeviceTier":"gpu","Speculative":7})", "\xff\x00"}) {
    EXPECT_EQ(reader.Read(field), nullptr) << field;
  }
}

// --- lookups against a twin
// -----------------------------------------------------------------------

// Holds what a server would hold and answers HKEYS.
struct Twin {
  std::map<BlockKey, std::set<std::string>> hashes;

  // Runs the program; how many commands it asked and in how many rounds.
  std::pair<size_t, size_t> Run(KvRedisLookup* lookup) const {
    size_t asked = 0, rounds = 0;
    for (;;) {
      std::string bytes;
      const size_t count = lookup->NextRound(&bytes);
      const auto commands = CommandsOf(bytes);
      EXPECT_EQ(commands.size(), count);
      if (count == 0) return {asked, rounds};
      asked += count;
      ++rounds;
      for (size_t i = 0; i < count; ++i) {
        std::vector<RespValue> fields;
        const auto it = hashes.find(Number(commands[i][1]));
        if (it != hashes.end()) {
          for (const std::string& field : it->second) {
            fields.push_back({.type = RespValue::Type::kText, .text = field});
          }
        }
        lookup->OnReply(i, {.type = RespValue::Type::kArray, .items = fields});
      }
    }
  }
  // Blocks from the start on that the pod has, and their worth.
  std::pair<uint32_t, float> Held(std::span<const BlockKey> chain, const std::string& pod,
                                  const KvTiers& tiers) const {
    uint32_t blocks = 0;
    float sum = 0;
    for (const BlockKey key : chain) {
      float best = -1;
      const auto it = hashes.find(key);
      if (it == hashes.end()) break;
      for (const std::string& field : it->second) {
        KvRedisFieldReader reader;
        const KvRedisEntry* entry = reader.Read(field);
        if (!entry || entry->pod != pod) continue;
        best = std::max(best, tiers.weights()[tiers.Number(entry->tier)]);
      }
      if (best < 0) break;
      ++blocks;
      sum += best;
    }
    return {blocks, sum};
  }
};

TEST(KvRedisLookup, AgreesWithATwin) {
  base::Random random(7);
  const KvTierWeight weights[] = {{"gpu", 1}, {"cpu", 0.5}, {"disk", 0.25}};
  const KvTiers tiers = *KvTiers::Create(weights);
  const std::string_view tier_names[] = {"gpu", "cpu", "disk", ""};
  for (int round = 0; round < 200; ++round) {
    std::vector<std::string> names;
    for (size_t i = random.Below(6) + 1; i > 0; --i) names.push_back("pod" + std::to_string(i));
    std::vector<std::vector<BlockKey>> chains(random.Below(3) + 1);
    Twin twin;
    for (size_t c = 0; c < chains.size(); ++c) {
      const size_t length = random.Below(2) == 0 ? random.Below(5) : random.Below(900);
      for (size_t i = 0; i < length; ++i) chains[c].push_back(c * 1000 + i + 1);
      // Pods that nobody asks about have blocks too.
      for (size_t pod = 1; pod < 9; ++pod) {
        const size_t held = random.Below(length + 1);
        for (size_t i = 0; i < held; ++i) {
          if (random.Below(300) == 0) continue;  // a hole
          for (size_t n = random.Below(2) + 1; n > 0; --n) {
            twin.hashes[chains[c][i]].insert(KvRedisField(
                {.pod = "pod" + std::to_string(pod), .tier = tier_names[random.Below(4)]}));
          }
          if (random.Below(20) == 0) twin.hashes[chains[c][i]].insert("nonsense");
        }
      }
    }
    const std::vector<std::span<const BlockKey>> spans(chains.begin(), chains.end());
    KvRedisLookup lookup(std::make_shared<KvRedisPods>(names), &tiers, spans);
    twin.Run(&lookup);
    EXPECT_EQ(lookup.error(), "");
    uint64_t best = 0;
    std::vector<uint32_t> most(chains.size());
    for (size_t pod = 0; pod < names.size(); ++pod) {
      uint32_t blocks = 0;
      float sum = 0;
      for (size_t c = 0; c < chains.size(); ++c) {
        const auto [held, worth] = twin.Held(chains[c], names[pod], tiers);
        blocks += held;
        sum += worth;
        most[c] = std::max(most[c], held);
      }
      ASSERT_EQ(lookup.blocks()[pod], blocks) << round;
      ASSERT_FLOAT_EQ(lookup.weights()[pod], sum) << round;
    }
    for (const uint32_t m : most) best += m;
    EXPECT_EQ(lookup.best(), best);
  }
}

TEST(KvRedisLookup, StopsAskingWhenNobodyIsLeft) {
  std::vector<BlockKey> chain(6250);  // 100,000 tokens
  for (size_t i = 0; i < chain.size(); ++i) chain[i] = i + 1;
  const std::span<const BlockKey> span = chain;
  const KvTiers tiers = KvTiers::Default();
  const std::string names[] = {"p"};
  const auto pods = std::make_shared<KvRedisPods>(names);
  const std::string field = KvRedisField({.pod = "p", .tier = "gpu"});
  Twin twin;
  const auto run = [&] {
    KvRedisLookup lookup(pods, &tiers, {&span, 1});
    return twin.Run(&lookup);
  };
  EXPECT_EQ(run(), (std::pair<size_t, size_t>(128, 1)));
  for (size_t i = 0; i < 128; ++i) twin.hashes[chain[i]].insert(field);
  EXPECT_EQ(run(), (std::pair<size_t, size_t>(128 + 256, 2)));
  for (const BlockKey key : chain) twin.hashes[key].insert(field);
  EXPECT_EQ(run(), (std::pair<size_t, size_t>(6250, 6)));
}

TEST(KvRedisLookup, TellsOfARefusal) {
  const BlockKey keys[] = {1, 2};
  const std::span<const BlockKey> chain = keys;
  const KvTiers tiers = KvTiers::Default();
  KvRedisLookup lookup(std::make_shared<KvRedisPods>(std::span<const std::string>()), &tiers,
                       {&chain, 1});
  std::string bytes;
  ASSERT_EQ(lookup.NextRound(&bytes), 2u);
  lookup.OnReply(0, {.type = RespValue::Type::kError, .text = "LOADING"});
  lookup.OnReply(1, {.type = RespValue::Type::kError, .text = "OTHER"});
  EXPECT_EQ(lookup.NextRound(&bytes), 0u);
  EXPECT_EQ(lookup.error(), "LOADING");
}

// --- clearing
// -------------------------------------------------------------------------------------

// Pages of keys, a key of another kind, fields of others: by hand, reply by reply.
TEST(KvRedisClear, WalksOverAllKeys) {
  KvRedisClear clear("p");
  const auto ask = [&] {
    std::string bytes;
    const size_t count = clear.NextRound(&bytes);
    auto commands = CommandsOf(bytes);
    EXPECT_EQ(commands.size(), count);
    return commands;
  };
  const auto text = [](std::string_view t) {
    return RespValue{.type = RespValue::Type::kText, .text = t};
  };
  const std::string mine = KvRedisField({.pod = "p", .tier = "gpu"});
  const std::string mine_cpu = KvRedisField({.pod = "p", .tier = "cpu", .group = 1});
  const std::string other = KvRedisField({.pod = "q", .tier = "gpu"});

  EXPECT_THAT(ask(), ElementsAre(Command{"SCAN", "0", "COUNT", "1024"}));
  const RespValue keys[] = {text("1"), text("engine:5"), text("2"), text("theirs")};
  const RespValue page[] = {text("17"), {.type = RespValue::Type::kArray, .items = keys}};
  clear.OnReply(0, {.type = RespValue::Type::kArray, .items = page});
  EXPECT_THAT(ask(), ElementsAre(Command{"HKEYS", "1"}, Command{"HKEYS", "2"},
                                 Command{"HKEYS", "theirs"}));
  const RespValue first[] = {text(other)}, second[] = {text(mine), text(other), text(mine_cpu)};
  clear.OnReply(0, {.type = RespValue::Type::kArray, .items = first});
  clear.OnReply(1, {.type = RespValue::Type::kArray, .items = second});
  clear.OnReply(2, {.type = RespValue::Type::kError, .text = "WRONGTYPE"});
  EXPECT_THAT(ask(), ElementsAre(Command{"HDEL", "2", mine, mine_cpu}));
  clear.OnReply(0, {.type = RespValue::Type::kInteger, .integer = 2});

  EXPECT_THAT(ask(), ElementsAre(Command{"SCAN", "17", "COUNT", "1024"}));
  const RespValue last[] = {text("0"), {.type = RespValue::Type::kArray}};
  clear.OnReply(0, {.type = RespValue::Type::kArray, .items = last});
  EXPECT_THAT(ask(), IsEmpty());
  EXPECT_EQ(clear.removed(), 2u);
  EXPECT_EQ(clear.error(), "");
}

TEST(KvRedisClear, EndsWithARefusal) {
  KvRedisClear clear("p");
  std::string bytes;
  ASSERT_EQ(clear.NextRound(&bytes), 1u);
  clear.OnReply(0, {.type = RespValue::Type::kError, .text = "NOPERM"});
  EXPECT_EQ(clear.NextRound(&bytes), 0u);
  EXPECT_EQ(clear.error(), "NOPERM");
}

// --- the mirror ---

class KvRedisMirrorTest : public testing::Test {
 protected:
  using Names = std::vector<std::string>;

  // The next round's commands, by their first two words.
  static Names Round(KvRedisMirror& mirror) {
    std::string bytes;
    mirror.NextRound(&bytes);
    Names names;
    for (const Command& c : CommandsOf(bytes)) names.push_back(c[0] + " " + c[1]);
    return names;
  }
  static RespValue Keys(std::span<RespValue, 2> room, std::string_view cursor,
                        std::span<const RespValue> keys) {
    room[0] = {.type = RespValue::Type::kText, .text = cursor};
    room[1] = {.type = RespValue::Type::kArray, .items = keys};
    return {.type = RespValue::Type::kArray, .items = room};
  }
  static void Store(KvRedisMirror& mirror, std::string_view pod, BlockKey block) {
    mirror.Store({.pod = pod, .tier = "gpu"}, {}, {&block, 1});
  }

  const RespValue one_{.type = RespValue::Type::kInteger, .integer = 1};
  RespValue room_[2];
};

TEST_F(KvRedisMirrorTest, WhatIsToldOfAPodThatIsClearedWaits) {
  KvRedisMirror mirror;
  EXPECT_FALSE(mirror.pending());
  Store(mirror, "a", 1);
  mirror.Clear("a");
  Store(mirror, "a", 2);
  Store(mirror, "b", 3);
  EXPECT_TRUE(mirror.pending());
  EXPECT_THAT(Round(mirror), ElementsAre("HSET 1", "HSET 3", "SCAN 0"));
  Store(mirror, "b", 4);
  mirror.OnReply(0, one_);
  mirror.OnReply(1, one_);
  const RespValue key{.type = RespValue::Type::kText, .text = "1"};
  mirror.OnReply(2, Keys(room_, "0", {&key, 1}));
  EXPECT_THAT(Round(mirror), ElementsAre("HSET 4", "HKEYS 1"));
  mirror.OnReply(0, one_);
  const std::string field = KvRedisField({.pod = "a", .tier = "gpu"});
  const RespValue text{.type = RespValue::Type::kText, .text = field};
  mirror.OnReply(1, {.type = RespValue::Type::kArray, .items = {&text, 1}});
  EXPECT_THAT(Round(mirror), ElementsAre("HDEL 1"));
  mirror.OnReply(0, one_);
  EXPECT_THAT(Round(mirror), ElementsAre("HSET 2"));
  mirror.OnReply(0, one_);
  EXPECT_THAT(Round(mirror), IsEmpty());
  mirror.OnEnd(base::OkStatus());
  EXPECT_FALSE(mirror.pending());
  EXPECT_EQ(mirror.stats().cleared, 1u);
  EXPECT_EQ(mirror.stats().commands, 7u);
  EXPECT_EQ(mirror.stats().pending_bytes, 0u);
}

TEST_F(KvRedisMirrorTest, AWalkBeginsAfterWhatWasToldBefore) {
  KvRedisMirror mirror({.pending_bytes = 1 << 20, .round_bytes = 1});
  // More than a chunk, so that it takes rounds.
  for (BlockKey block = 0; block < 1000; ++block) Store(mirror, "a", block);
  mirror.Clear("a");
  size_t stores = 0;
  for (;;) {
    const Names round = Round(mirror);
    const bool walks = round.back() == "SCAN 0";
    stores += round.size() - (walks ? 1 : 0);
    for (size_t i = 0; i < round.size() - (walks ? 1 : 0); ++i) mirror.OnReply(i, one_);
    if (walks) break;
  }
  EXPECT_EQ(stores, 1000u);
}

TEST_F(KvRedisMirrorTest, ARunIsBoundedAndAWalkGoesOnInTheNext) {
  KvRedisMirror mirror;
  mirror.Clear("a");
  Store(mirror, "a", 1);
  for (size_t round = 0; round < KvRedisMirror::kRunRounds; ++round) {
    ASSERT_THAT(Round(mirror), ElementsAre(round == 0 ? "SCAN 0" : "SCAN 7"));
    mirror.OnReply(0, Keys(room_, "7", {}));
  }
  EXPECT_THAT(Round(mirror), IsEmpty());
  mirror.OnEnd(base::OkStatus());
  EXPECT_TRUE(mirror.pending());
  EXPECT_THAT(Round(mirror), ElementsAre("SCAN 7"));
  mirror.OnReply(0, Keys(room_, "0", {}));
  EXPECT_THAT(Round(mirror), ElementsAre("HSET 1"));
}

TEST_F(KvRedisMirrorTest, ClearedAgainMeanwhile) {
  KvRedisMirror mirror;
  mirror.Clear("a");
  Store(mirror, "a", 1);
  EXPECT_THAT(Round(mirror), ElementsAre("SCAN 0"));
  mirror.Clear("a");
  Store(mirror, "a", 2);
  mirror.OnReply(0, Keys(room_, "0", {}));
  EXPECT_THAT(Round(mirror), ElementsAre("SCAN 0")) << "what came between is gone";
  mirror.OnReply(0, Keys(room_, "0", {}));
  EXPECT_THAT(Round(mirror), ElementsAre("HSET 2"));
}

TEST_F(KvRedisMirrorTest, WhatWasUnderWayIsSentAgainAndWalksBeginAnew) {
  KvRedisMirror mirror;
  for (const BlockKey block : {1, 2, 3}) Store(mirror, "a", block);
  mirror.Clear("b");
  Store(mirror, "b", 9);
  EXPECT_THAT(Round(mirror), ElementsAre("HSET 1", "HSET 2", "HSET 3", "SCAN 0"));
  mirror.OnReply(0, one_);
  mirror.OnReply(1, {.type = RespValue::Type::kError, .text = "OOM"});
  Store(mirror, "a", 4);
  mirror.OnEnd(base::Unavailable("gone"));
  EXPECT_EQ(mirror.stats().sent_again, 3u);
  EXPECT_EQ(mirror.stats().errors, 1u);
  EXPECT_EQ(mirror.error(), "OOM");
  EXPECT_TRUE(mirror.pending());
  EXPECT_THAT(Round(mirror), ElementsAre("HSET 1", "HSET 2", "HSET 3", "HSET 4", "SCAN 0"));
  for (size_t i = 0; i < 4; ++i) mirror.OnReply(i, one_);
  mirror.OnReply(4, Keys(room_, "0", {}));
  EXPECT_THAT(Round(mirror), ElementsAre("HSET 9"));
  mirror.OnReply(0, one_);
  EXPECT_THAT(Round(mirror), IsEmpty());
  mirror.OnEnd(base::OkStatus());
  EXPECT_FALSE(mirror.pending());
  EXPECT_EQ(mirror.stats().pending_bytes, 0u);
}

TEST_F(KvRedisMirrorTest, FindsOutWhetherTheServerIsAnother) {
  KvRedisMirror mirror;
  const auto connect = [&](std::string_view info) {
    mirror.OnConnected();
    EXPECT_TRUE(mirror.pending());
    EXPECT_THAT(Round(mirror), ElementsAre("INFO server"));
    mirror.OnReply(0, {.type = RespValue::Type::kText, .text = info});
    EXPECT_THAT(Round(mirror), IsEmpty());
    mirror.OnEnd(base::OkStatus());
    return mirror.TakeServerChanged();
  };
  EXPECT_TRUE(connect("# Server\r\nrun_id:abc\r\ntcp_port:1\r\n"));
  EXPECT_FALSE(mirror.TakeServerChanged());
  EXPECT_FALSE(connect("run_id:abc\r\n")) << "only the connection broke";
  EXPECT_TRUE(connect("run_id:abd\r\n"));
  EXPECT_TRUE(connect("it does not say")) << "every connection may be to another";
  EXPECT_TRUE(connect("it does not say"));

  mirror.OnConnected();
  EXPECT_THAT(Round(mirror), ElementsAre("INFO server"));
  mirror.OnEnd(base::Unavailable("gone"));
  EXPECT_THAT(Round(mirror), ElementsAre("INFO server")) << "asked again";
}

TEST_F(KvRedisMirrorTest, WhatIsToldAgainDoesNotCountForTheLimit) {
  KvRedisMirror mirror({.pending_bytes = 1000, .round_bytes = 1 << 20});
  std::vector<BlockKey> blocks(100);
  std::iota(blocks.begin(), blocks.end(), 1);
  mirror.StoreAgain({.pod = "a", .tier = "gpu"}, {}, blocks);
  Store(mirror, "a", 7);
  EXPECT_EQ(mirror.stats().told_again, 100u);
  EXPECT_LT(mirror.stats().pending_bytes, 200u);
  EXPECT_EQ(Round(mirror).size(), 101u);
  mirror.OnEnd(base::Unavailable("gone"));
  EXPECT_LT(mirror.stats().pending_bytes, 200u);
  EXPECT_FALSE(mirror.TakeDropped());
}

TEST_F(KvRedisMirrorTest, OverTheLimitWhatWaitsIsDropped) {
  KvRedisMirror mirror({.pending_bytes = 1000, .round_bytes = 1000});
  mirror.Clear("a");
  for (BlockKey block = 0; block < 20; ++block) {
    Store(mirror, "a", block);
    Store(mirror, "b", block);
    EXPECT_LE(mirror.stats().pending_bytes, 1000u);
  }
  EXPECT_GT(mirror.stats().dropped, 20u);
  EXPECT_TRUE(mirror.TakeDropped());
  EXPECT_FALSE(mirror.TakeDropped());
  EXPECT_EQ(Round(mirror).back(), "SCAN 0");
}

}  // namespace
}  // namespace llmd::prefix
