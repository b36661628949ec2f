#include "index/query.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "wire/protobuf.h"

namespace llmd::index {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(Query, ReadsTokensPromptsAndKeys) {
  auto query = ParseQuery(R"({"model": "m", "token_ids": [1, 2, 4294967295],
                              "cache_salt": "s", "instances": ["a:1"], "other": {}})", false);
  ASSERT_TRUE(query) << query.error().ToString();
  EXPECT_EQ(query->form, Query::Form::kTokens);
  EXPECT_EQ(query->model, "m");
  EXPECT_EQ(query->cache_salt, "s");
  EXPECT_THAT(query->tokens, ElementsAre(1, 2, 4294967295));
  EXPECT_THAT(query->instances, ElementsAre("a:1"));

  query = ParseQuery(R"({"model": "m", "lora_name": "l", "prompt": "hi"})", false);
  ASSERT_TRUE(query) << query.error().ToString();
  EXPECT_EQ(query->form, Query::Form::kPrompt);
  EXPECT_EQ(query->model, "l") << "an adapter's blocks are its own";
  EXPECT_EQ(query->prompt, "hi");

  query = ParseQuery(R"({"block_keys": [18446744073709551615]})", true);
  ASSERT_TRUE(query) << query.error().ToString();
  EXPECT_THAT(query->keys, ElementsAre(~uint64_t{0}));
}

TEST(Query, SaysWhatIsWrong) {
  const struct {
    const char* body;
    bool by_hash;
    const char* message;
  } cases[] = {
      {"", false, "not a JSON object"},
      {"[1]", false, "not a JSON object"},
      {R"({"token_ids": [1]})", false, "\"model\" must be"},
      {R"({"model": 1, "token_ids": [1]})", false, "\"model\" must be a string"},
      {R"({"model": "m"})", false, "either \"token_ids\" or \"prompt\""},
      {R"({"model": "m", "token_ids": [1], "prompt": "x"})", false, "either"},
      {R"({"model": "m", "token_ids": "x"})", false, "a list of numbers"},
      {R"({"model": "m", "token_ids": [-1]})", false, "from 0 to 4294967295"},
      {R"({"model": "m", "token_ids": [1.5]})", false, "from 0 to 4294967295"},
      {R"({"model": "m", "token_ids": [4294967296]})", false, "from 0 to 4294967295"},
      {R"({"model": "m", "token_ids": [], "instances": "a"})", false, "\"instances\""},
      {R"({"model": "m"})", true, "\"block_keys\" must be there"},
      {R"({"block_keys": [[]]})", true, "\"block_keys\""},
  };
  for (const auto& c : cases) {
    const auto query = ParseQuery(c.body, c.by_hash);
    ASSERT_FALSE(query) << c.body;
    EXPECT_EQ(query.error().code(), base::StatusCode::kInvalidArgument);
    EXPECT_THAT(query.error().message(), HasSubstr(c.message)) << c.body;
  }
}

std::vector<plugin::PrefixHolding> Holdings() {
  return {{.address = "b:1", .rank = 0, .blocks = 1, .score = 1, .confidence = 1},
          {.address = "a:1", .rank = 1, .blocks = 4, .score = 3.2f, .confidence = .5f},
          {.address = "a:1", .rank = 0, .blocks = 3, .score = 3, .confidence = 1},
          {.address = "c:1", .rank = 0}};
}

TEST(Query, AServerIsItsBestRank) {
  const auto instances = InstancesOf(Holdings(), {});
  ASSERT_EQ(instances.size(), 3u);
  EXPECT_EQ(instances[0].address, "a:1");
  EXPECT_EQ(instances[0].blocks, 4u);
  EXPECT_EQ(instances[0].confidence, .5f);
  EXPECT_THAT(instances[0].ranks, ElementsAre(testing::Pair(0, 3), testing::Pair(1, 4)));
  EXPECT_EQ(InstancesOf(Holdings(), {.instances = {"b:1", "d:1"}}).size(), 1u);
}

TEST(Query, AnswersInJson) {
  EXPECT_EQ(AnswerJson(InstancesOf(Holdings(), {.instances = {"b:1"}}), 5, 16),
            R"({"block_size":16,"blocks":5,"instances":{"b:1":{"blocks":1,"confidence":1.0,)"
            R"("longest_matched":16,"ranks":{"0":16},"score":1.0}}})");
}

// Messages as protoc's encoder writes them.
TEST(Query, SpeaksUpstreamsMessages) {
  const auto query = ParsePodScoresRequest("\x0a\x02hi\x12\x01m\x1a\x03" "a:1\x1a\x03" "c:1");
  ASSERT_TRUE(query) << query.error().ToString();
  EXPECT_EQ(query->prompt, "hi");
  EXPECT_EQ(query->model, "m");
  EXPECT_THAT(query->instances, ElementsAre("a:1", "c:1"));
  EXPECT_FALSE(ParsePodScoresRequest("\x0a\x02hi")) << "no model";
  EXPECT_FALSE(ParsePodScoresRequest("\x0a\x05hi")) << "cut";

  base::BufferPool pool;
  const base::Slice reply = PodScoresResponse(InstancesOf(Holdings(), *query), &pool);
  std::vector<std::pair<std::string, double>> scores;
  wire::ProtoReader in(reply.view());
  for (wire::ProtoField f; in.Next(&f);) {
    ASSERT_EQ(f.number, 1u);
    auto& [pod, score] = scores.emplace_back();
    wire::ProtoReader inner(f.bytes);
    for (wire::ProtoField g; inner.Next(&g);) {
      if (g.number == 1) pod = g.bytes;
      if (g.number == 2) score = g.number64();
    }
  }
  ASSERT_EQ(scores.size(), 1u) << "c holds nothing";
  EXPECT_EQ(scores[0].first, "a:1");
  EXPECT_FLOAT_EQ(static_cast<float>(scores[0].second), 3.2f);
}

}  // namespace
}  // namespace llmd::index
