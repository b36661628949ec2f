// Block hashes and cache changes against what a vLLM 0.32 server computed and published
// (--prefix-caching-hash-algo sha256_cbor, PYTHONHASHSEED=0, blocks of 32 tokens).
#include "engine/wire_hash.h"

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/engine.h"

namespace llmd::engine {
namespace {

using nlohmann::json;

std::vector<json> ReadLines(const std::string& name) {
  std::ifstream file(std::string(LLMD_SOURCE_DIR) + "/conformance/recorded/vllm-0.32/" + name);
  EXPECT_TRUE(file.good()) << name;
  std::vector<json> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(json::parse(line));
  return lines;
}

// All events of a capture, in order.
std::vector<json> Events(const std::string& name) {
  std::vector<json> events;
  for (const json& line : ReadLines(name)) {
    if (line["decoded"].is_null()) continue;  // a replay's end
    for (const json& event : line["decoded"][1]) events.push_back(event);
  }
  return events;
}

std::string SaltOf(const json& event) {
  const json& extra = event["extra_keys"][0];
  return extra.is_null() ? "" : extra[0].get<std::string>();
}

TEST(WireHashTest, TheChainOfVllm) {
  for (const char* name : {"kv_replay.jsonl", "kv_events.jsonl"}) {
    WireHasher hasher(WireHashKind::kSha256Cbor, "0", 0);
    std::map<uint64_t, Digest> known;
    // The second capture begins behind blocks of the first.
    int checked = 0;
    for (const json& event : Events(name)) {
      if (event["type"] != "BlockStored") continue;
      Digest digest = hasher.root();
      if (const json& parent = event["parent_block_hash"]; !parent.is_null()) {
        if (!known.contains(parent.get<uint64_t>())) continue;
        digest = known.at(parent.get<uint64_t>());
      }
      const auto tokens = event["token_ids"].get<std::vector<Token>>();
      std::string salt = SaltOf(event);
      for (size_t i = 0; i < event["block_hashes"].size(); ++i, ++checked) {
        digest = hasher.Chain(digest, std::span(tokens).subspan(i * 32, 32), salt);
        salt.clear();
        ASSERT_EQ(hasher.KeyOf(digest), event["block_hashes"][i].get<uint64_t>());
        known[hasher.KeyOf(digest)] = digest;
      }
    }
    EXPECT_GE(checked, 10) << name;
  }
}

// The engine is given the requests of the capture and has to change its cache in the same steps,
// with the same granularity.
TEST(WireHashTest, TheEngineTellsWhatVllmTold) {
  const std::vector<json> expected = Events("kv_replay.jsonl");
  auto engine = *Engine::Create({.block_tokens = 32,
                                 .kv_blocks = 1000,
                                 .model_tokens_max = 2048,
                                 .cache_changes = true,
                                 .wire_hash = WireHashKind::kSha256Cbor,
                                 .wire_seed = "0"});
  // What the model said is known as far as it filled blocks; what the chats said was from the
  // template, too.
  std::vector<Token> said;
  const auto first = expected[2]["token_ids"].get<std::vector<Token>>();
  const auto second = expected[3]["token_ids"].get<std::vector<Token>>();
  said.insert(said.end(), first.begin() + 4, first.end());
  said.insert(said.end(), second.begin(), second.end());
  auto chat = expected[5]["token_ids"].get<std::vector<Token>>();
  chat.resize(140, 7);

  std::vector<json> told;
  base::TimePoint now{};
  auto run = [&](const std::vector<Token>& prompt, uint32_t output, const std::string& salt) {
    now += std::chrono::seconds(1);
    ASSERT_TRUE(engine->Submit({.prompt = prompt, .output_tokens = output, .output_cycle = said,
                                .cache_salt = salt}, now));
    while (engine->next_step_at() != Engine::kNever) {
      for (const CacheChange& change : engine->Step().cache_changes) {
        json event;
        event["type"] = change.kind == CacheChange::Kind::kCleared ? "AllBlocksCleared"
                                                                   : "BlockStored";
        if (change.kind == CacheChange::Kind::kStored) {
          event["block_hashes"] = change.hashes;
          event["parent_block_hash"] = change.has_parent ? json(change.parent) : json();
          event["token_ids"] = change.tokens;
          event["salt"] = change.salt;
        }
        told.push_back(event);
      }
    }
  };
  const std::vector<json> requests = ReadLines("kv_requests.jsonl");
  for (size_t i = 0; i < 10; ++i) {
    const json& request = requests[i]["request"];
    if (requests[i]["path"] == "/reset_prefix_cache") {
      ASSERT_TRUE(engine->ResetPrefixCache(false));
    } else if (request.contains("messages")) {
      run(chat, 1, "");
    } else {
      json prompts = request["prompt"];
      if (!prompts[0].is_array()) prompts = json::array({prompts});
      for (const json& prompt : prompts) {
        run(prompt.get<std::vector<Token>>(), request["max_tokens"],
            request.value("cache_salt", ""));
      }
    }
  }
  ASSERT_EQ(told.size(), expected.size());
  for (size_t i = 0; i < told.size(); ++i) {
    ASSERT_EQ(told[i]["type"], expected[i]["type"]) << i;
    if (told[i]["type"] != "BlockStored") continue;
    for (const char* field : {"block_hashes", "parent_block_hash", "token_ids"}) {
      EXPECT_EQ(told[i][field], expected[i][field]) << i << " " << field;
    }
    EXPECT_EQ(told[i]["salt"], SaltOf(expected[i])) << i;
  }
}

// Computed with Python: xxhash.xxh3_128_digest over cbor2.dumps(..., canonical=True).
TEST(WireHashTest, XxhashCbor) {
  WireHasher hasher(WireHashKind::kXxhashCbor, "0", 0);
  EXPECT_EQ(hasher.digest_bytes(), 16u);
  const std::vector<Token> block = {1, 23, 24, 255, 256, 65535, 65536, 4294967295};
  const auto hex = [](const Digest& digest) {
    std::string out;
    for (size_t i = 0; i < 16; ++i) {
      const auto byte = static_cast<uint8_t>(digest[i]);
      out += "0123456789abcdef"[byte >> 4];
      out += "0123456789abcdef"[byte & 15];
    }
    return out;
  };
  EXPECT_EQ(hex(hasher.root()), "1ebe36576dcb573f26b99533a20aaeca");
  const Digest plain = hasher.Chain(hasher.root(), block);
  EXPECT_EQ(hex(plain), "fa37c679ed5603ce4dab41c9ac1c1736");
  EXPECT_EQ(hex(hasher.Chain(hasher.root(), block, "tenantA")), "d52caacfa7730099e09aa2f90b922654");
}

TEST(WireHashTest, WithoutASeedTheRootIsRandom) {
  const auto root = [](uint64_t random) {
    return WireHasher(WireHashKind::kSha256Cbor, std::nullopt, random).root();
  };
  EXPECT_EQ(root(1), root(1));
  EXPECT_NE(root(1), root(2));
  EXPECT_EQ(ParseWireHashKind("xxhash_cbor"), WireHashKind::kXxhashCbor);
  EXPECT_EQ(ParseWireHashKind("sha256"), std::nullopt);
}

}  // namespace
}  // namespace llmd::engine
