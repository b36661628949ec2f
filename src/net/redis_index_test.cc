// The shared KV-block index on a real redis-server: what our commands leave there is compared with
// what upstream's code left (conformance/recorded/redis), and lookups with what upstream found.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <nlohmann/json.hpp>

#include "base/random.h"
#include "base/strings.h"
#include "net/redis_testing.h"
#include "prefix/kv_redis.h"
#include "prefix/kv_redis_mirror.h"
#include "runtime/files.h"

namespace llmd::net {
namespace {

using nlohmann::json;
using prefix::BlockKey;
using prefix::KvRedisEntry;

json ReadRecorded(const std::string& name) {
  const auto text = runtime::ReadFile(
      base::Concat(LLMD_SOURCE_DIR, "/conformance/recorded/redis/", name), 1 << 20);
  EXPECT_TRUE(text) << name;
  return json::parse(*text);
}

std::vector<uint64_t> KeysOf(const json& operation, const char* name) {
  if (!operation.contains(name) || operation[name].is_null()) return {};
  return operation[name].get<std::vector<uint64_t>>();
}

// Commands made elsewhere, as one round.
struct Commands final : wire::RespProgram {
  std::string bytes;
  size_t count = 0;
  std::vector<std::string> replies;

  size_t NextRound(std::string* commands) override {
    commands->append(bytes);
    bytes.clear();
    return std::exchange(count, 0);
  }
  void OnReply(size_t, const wire::RespValue& reply) override {
    EXPECT_NE(reply.type, wire::RespValue::Type::kError) << reply.text;
    replies.push_back(RespText(reply));
  }
};

class RedisIndexTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!RedisServer::Installed()) GTEST_SKIP() << "redis-server is not installed";
    server_ = std::make_unique<RedisServer>();
    client_ = std::make_unique<RedisClient>(loop_, lookups_, FastRedisOptions(server_->url()));
    ASSERT_TRUE(TurnUntil(loop_, [&] { return client_->status().ok(); }));
  }

  void Perform(wire::RespProgram& program) {
    struct Waiter final : RedisWaiter {
      void OnRedisEnd(const base::Status& s) override {
        status = s;
        is_over = true;
      }
      base::Status status;
      bool is_over = false;
    } waiter;
    ASSERT_TRUE(client_->Run(program, waiter, std::chrono::seconds(5)));
    ASSERT_TRUE(TurnUntil(loop_, [&] { return waiter.is_over; }));
    ASSERT_TRUE(waiter.status.ok()) << waiter.status.ToString();
  }
  std::string Ask(std::initializer_list<std::string_view> command) {
    Commands one;
    wire::AppendRespCommand(command, &one.bytes);
    one.count = 1;
    Perform(one);
    return one.replies.empty() ? "" : one.replies[0];
  }

  // One operation of the script; what a lookup or a parent gave.
  json Do(const json& operation) {
    const std::string op = operation["op"];
    const auto engine = KeysOf(operation, "engine");
    const auto blocks = KeysOf(operation, "request");
    if (op == "lookup") return LookUp(blocks, operation["pods"]);
    if (op == "parent") {
      const std::string key = base::Concat("engine:", std::to_string(engine[0]));
      const std::string last = Ask({"ZREVRANGE", key, "0", "0"});
      if (last == "[]") return json::object();
      return {{"key", json::parse(last)[0]}};
    }
    if (op == "clear") {
      prefix::KvRedisClear clear(operation["pod"]);
      Perform(clear);
      EXPECT_EQ(clear.error(), "");
      return {};
    }
    Commands commands;
    for (const json& e : operation["entries"]) {
      const std::string pod = e["PodIdentifier"], tier = e["DeviceTier"];
      KvRedisEntry entry{.pod = pod, .tier = tier, .speculative = e["Speculative"]};
      if (e["HasGroup"]) entry.group = e["GroupIdx"].get<int64_t>();
      if (op == "add") {
        commands.count += prefix::AppendKvRedisStore(entry, engine, blocks, &commands.bytes);
      } else {
        commands.count += AppendKvRedisRemove(entry, engine, &commands.bytes);
        commands.count += AppendKvRedisRemoveBlocks(entry, blocks, &commands.bytes);
      }
    }
    Perform(commands);
    return {};
  }

  json LookUp(const std::vector<uint64_t>& blocks, const std::vector<std::string>& pods) {
    const std::span<const BlockKey> chain = blocks;
    prefix::KvRedisLookup lookup(std::make_shared<prefix::KvRedisPods>(pods), &tiers_,
                                 {&chain, 1});
    Perform(lookup);
    EXPECT_EQ(lookup.error(), "");
    json scores = json::object();
    for (size_t i = 0; i < pods.size(); ++i) {
      if (lookup.blocks()[i] > 0) scores[pods[i]] = lookup.weights()[i];
    }
    return scores.empty() ? json::object() : json{{"scores", scores}};
  }

  runtime::EventLoop loop_;
  runtime::ThreadPool lookups_{1, 16, "lookup"};
  std::unique_ptr<RedisServer> server_;
  std::unique_ptr<RedisClient> client_;
  const prefix::KvTiers tiers_ = prefix::KvTiers::Default();
};

// Every key, field, value, member and score.
TEST_F(RedisIndexTest, LeavesWhatUpstreamLeavesAndFindsWhatItFinds) {
  const json recorded = ReadRecorded("contents.json");
  size_t outcome = 0;
  for (const json& operation : ReadRecorded("script.json")) {
    const json result = Do(operation);
    if (operation["op"] != "lookup" && operation["op"] != "parent") continue;
    ASSERT_LT(outcome, recorded["outcomes"].size());
    const json& expected = recorded["outcomes"][outcome++];
    if (!expected.contains("scores")) {
      EXPECT_EQ(result, expected) << outcome;
      continue;
    }
    ASSERT_EQ(result["scores"].size(), expected["scores"].size()) << outcome << result;
    for (const auto& [pod, score] : expected["scores"].items()) {
      EXPECT_NEAR(result["scores"].value(pod, 0.0), score.get<double>(), 1e-3) << outcome << pod;
    }
  }
  EXPECT_EQ(outcome, recorded["outcomes"].size());

  EXPECT_EQ(Ask({"DBSIZE"}),
            std::to_string(recorded["hashes"].size() + recorded["sets"].size()));
  for (const auto& [key, fields] : recorded["hashes"].items()) {
    EXPECT_EQ(Ask({"HLEN", key}), std::to_string(fields.size())) << key;
    for (const auto& [field, value] : fields.items()) {
      EXPECT_EQ(Ask({"HEXISTS", key, field}), "1") << key << field;
      EXPECT_EQ(Ask({"HGET", key, field}), value.get<std::string>()) << key << field;
    }
  }
  for (const auto& [key, members] : recorded["sets"].items()) {
    EXPECT_EQ(Ask({"ZCARD", key}), std::to_string(members.size())) << key;
    for (const auto& [member, score] : members.items()) {
      EXPECT_EQ(Ask({"ZSCORE", key, member}), std::to_string(score.get<int>())) << key;
    }
  }
}

// More keys than a page of the walk holds, and keys that are none of ours.
TEST_F(RedisIndexTest, ClearsAPodAmongManyKeys) {
  Commands commands;
  std::vector<BlockKey> blocks(5000);
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = i * i + 1;
  commands.count += prefix::AppendKvRedisStore({.pod = "a", .tier = "gpu"}, blocks, blocks,
                                       &commands.bytes);
  commands.count += prefix::AppendKvRedisStore({.pod = "a", .tier = "cpu"}, {},
                                       std::span(blocks).first(10), &commands.bytes);
  commands.count += prefix::AppendKvRedisStore({.pod = "b", .tier = "gpu"}, {},
                                       std::span(blocks).first(3000), &commands.bytes);
  Perform(commands);
  Ask({"SET", "theirs", "1"});
  Ask({"RPUSH", "theirs too", "1"});
  prefix::KvRedisClear clear("a");
  Perform(clear);
  EXPECT_EQ(clear.error(), "");
  EXPECT_EQ(clear.removed(), 5010u);
  EXPECT_EQ(Ask({"DBSIZE"}), std::to_string(3000 + 5000 + 2));
  EXPECT_EQ(Ask({"HLEN", "1"}), "1");
}

// Stores, removals and clears at random through a mirror, against maps to which they are done at
// once.
TEST_F(RedisIndexTest, AMirrorOfManyOperations) {
  struct Twin {
    std::map<std::string, std::set<std::string>> hashes;
    std::set<std::string> engine;  // that lead to the block of the same number
  } twin;
  base::Random random(11);
  prefix::KvRedisMirror mirror;
  for (int i = 0; i < 3000; ++i) {
    const uint64_t pod_number = random.Below(4);
    const std::string pod = base::Concat("pod", std::to_string(pod_number));
    const KvRedisEntry entry{.pod = pod, .tier = random.Below(2) == 0 ? "gpu" : "cpu"};
    const std::string field = KvRedisField(entry);
    // Keys of a pod's own: pods are not ordered among each other.
    const uint64_t key = pod_number * 1000 + random.Below(200);
    const std::string block = std::to_string(key), engine = base::Concat("engine:", block);
    switch (const uint64_t dice = random.Below(200); dice) {
      case 0:
        mirror.Clear(pod);
        for (auto& [name, fields] : twin.hashes) {
          std::erase_if(fields, [&](const std::string& f) { return f.contains(pod); });
        }
        break;
      case 1: {  // let it be written
        Perform(mirror);
        mirror.OnEnd(base::OkStatus());
        break;
      }
      default:
        if (dice % 2 == 0) {
          mirror.Store(entry, {&key, 1}, {&key, 1});
          twin.hashes[block].insert(field);
          twin.engine.insert(engine);
        } else {
          mirror.Remove(entry, {&key, 1});
          if (!twin.engine.contains(engine)) break;
          twin.hashes[block].erase(field);
          if (twin.hashes[block].empty()) twin.engine.erase(engine);
        }
    }
  }
  Perform(mirror);
  EXPECT_FALSE(mirror.pending());
  EXPECT_EQ(mirror.stats().errors, 0u) << mirror.error();
  EXPECT_GT(mirror.stats().cleared, 5u);
  for (uint64_t key = 0; key < 4000; ++key) {
    const std::string block = std::to_string(key);
    const std::set<std::string>& fields = twin.hashes[block];
    EXPECT_EQ(Ask({"HLEN", block}), std::to_string(fields.size())) << key;
    for (const std::string& field : fields) EXPECT_EQ(Ask({"HEXISTS", block, field}), "1") << key;
    // Where an engine key leads does not matter once nobody has the block: what is told between two
    // clears of a pod is not written at all.
    if (fields.empty()) continue;
    const std::string engine = base::Concat("engine:", block);
    EXPECT_EQ(Ask({"ZRANGE", engine, "0", "-1"}),
              twin.engine.contains(engine) ? base::Concat("[", block, "]") : "[]");
  }
}

}  // namespace
}  // namespace llmd::net
