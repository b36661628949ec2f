#include "plugins/producer/burst_prefix_cache_producer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/producer/burst_assignment.h"
#include "plugins/producer/token_producer.h"
#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using ::testing::ElementsAre;
using testing::At;
using testing::Scene;
using std::chrono::milliseconds;

using Prompts = std::vector<std::vector<prefix::BlockHash>>;

// The names of the replicas that requests were meant for, "-" for none.
std::string Assigned(const Prompts& prompts, const BurstRules& rules = {},
                     std::vector<BurstReplica> replicas = {{"a"}, {"b"}, {"c"}}) {
  std::string text;
  for (const auto& replica : AssignBurst(prompts, replicas, rules)) {
    text += replica ? replicas[*replica].name : "-";
  }
  return text;
}

TEST(AssignBurst, IdenticalPromptsMeet) {
  EXPECT_EQ(Assigned({{1, 2}, {3}, {1, 2}, {4}, {4}, {}}), "a-abb-");
  EXPECT_EQ(Assigned({{1}, {1}}, {}, {}), "--");
}

TEST(AssignBurst, TheLongestPromptIsPlacedFirstAndTiesGoByRunningRequests) {
  EXPECT_EQ(Assigned({{9}, {9}, {1, 2}, {1, 2}}, {}, {{"a", 5}, {"b", 1}, {"c", 3}}), "ccbb");
}

TEST(AssignBurst, WhatExceedsTheLimitGoesOn) {
  EXPECT_EQ(Assigned({{1}, {1}, {1}, {1}, {1}}, {.max_per_replica = 2}), "aabbc");
  EXPECT_EQ(Assigned({{1}, {1}, {1}, {1}}, {.max_per_replica = 1}, {{"a"}, {"b"}}), "abab");
}

TEST(AssignBurst, PromptsWithACommonBeginningMeetUpToTheFairShare) {
  const Prompts prompts = {{1, 2, 3}, {1, 2, 3}, {1, 2, 4}, {7, 8}};
  EXPECT_EQ(Assigned(prompts), "aa--");
  EXPECT_EQ(Assigned(prompts, {.min_colocate_blocks = 2}, {{"a"}, {"b"}}), "aab-")
      << "two of three is a's fair share";
  EXPECT_EQ(Assigned({{1, 2, 3}, {1, 2, 4}, {1, 2, 5}, {1, 2, 6}}, {.min_colocate_blocks = 2},
                     {{"a"}, {"b"}}),
            "aabb");
}

TEST(AssignBurst, ByTokensAPromptCountsOnceForEveryReplica) {
  const Prompts prompts = {{1, 2, 3, 4}, {1, 2, 3, 4}, {5, 6}, {5, 6}, {7, 8}, {7, 8}};
  EXPECT_EQ(Assigned(prompts, {.by_tokens = true}, {{"a"}, {"b"}}), "aabbbb");
}

// Requests through one producer; the scene's arena serves one request at a time, so each has a
// scene of its own and they share the plugin.
class BurstTest : public ::testing::Test {
 protected:
  struct Request {
    base::Arena arena;
    std::vector<const void*> cells;
    protocol::Request body;
    protocol::Piece piece;
    plugin::TokenizedPrompt tokens;
    plugin::RequestContext context;
  };

  void Make(std::string_view yaml) {
    tokens_ = scene_.Make(TokenProducerType());
    producer_ = scene_.Make(BurstPrefixCacheProducerType(), yaml);
  }
  std::unique_ptr<Request> NewRequest(std::string_view prompt, base::Duration at) {
    auto request = std::make_unique<Request>();
    request->cells.resize(scene_.context().slot_count() + 4);
    request->piece.bytes = prompt;
    request->body.pieces = {&request->piece, 1};
    request->body.prompt_count = 1;
    request->body.text_bytes = prompt.size();
    request->tokens.token_count = prompt.size() / 4;
    plugin::RequestContext& c = request->context;
    c.body = &request->body;
    c.arena = &request->arena;
    c.fleet = &scene_.view();
    c.attributes = plugin::Attributes(request->cells);
    c.attributes.Set(scene_.context().SlotOf<plugin::TokenizedPrompt>(), &request->tokens);
    c.now = At(at);
    return request;
  }
  base::Status Produce(Request& request, base::Duration at) {
    request.context.now = At(at);
    request.context.wait_until = {};
    return dynamic_cast<plugin::DataProducer&>(*producer_)
        .Produce(request.context, scene_.Candidates());
  }
  // Whom the request is meant for: blocks matched, by endpoint.
  std::vector<uint32_t> Matched(Request& request) {
    const auto* match = request.context.attributes.Get(
        scene_.context().SlotOf<plugin::PrefixCacheMatchInfo>("burst-prefix-cache-producer"));
    if (!match) return {};
    return {match->matched_blocks.begin(), match->matched_blocks.end()};
  }

  Scene scene_{2};
  std::unique_ptr<plugin::Plugin> tokens_, producer_;
};

TEST_F(BurstTest, RequestsOfAWindowWaitForItsEndAndMeet) {
  Make("{blockSizeTokens: 4, windowDurationMs: 50}");
  auto first = NewRequest("sixteen bytes ..sixteen bytes ..", {});
  auto second = NewRequest("sixteen bytes ..sixteen bytes ..", {});
  auto other = NewRequest("something else", {});
  ASSERT_TRUE(Produce(*first, {}).ok());
  EXPECT_EQ(first->context.wait_until, At(milliseconds(50)));
  ASSERT_TRUE(Produce(*second, milliseconds(40)).ok());
  EXPECT_EQ(second->context.wait_until, At(milliseconds(50))) << "the window's end is what counts";
  ASSERT_TRUE(Produce(*other, milliseconds(45)).ok());
  ASSERT_TRUE(Produce(*second, milliseconds(49)).ok());
  EXPECT_EQ(second->context.wait_until, At(milliseconds(50))) << "woken early: it waits on";
  for (Request* request : {first.get(), second.get(), other.get()}) {
    ASSERT_TRUE(Produce(*request, milliseconds(50)).ok());
    EXPECT_EQ(request->context.wait_until, base::TimePoint{});
  }
  EXPECT_THAT(Matched(*first), ElementsAre(2, 0));
  EXPECT_THAT(Matched(*second), ElementsAre(2, 0));
  EXPECT_THAT(Matched(*other), ElementsAre(0, 0));
}

TEST_F(BurstTest, AFullWindowTakesNoMore) {
  Make("{blockSizeTokens: 4, maxBatchSize: 1}");
  auto first = NewRequest("a prompt", {});
  auto second = NewRequest("a prompt", {});
  ASSERT_TRUE(Produce(*first, {}).ok());
  EXPECT_EQ(Produce(*second, {}).code(), base::StatusCode::kResourceExhausted);
  EXPECT_EQ(second->context.wait_until, base::TimePoint{});
}

TEST_F(BurstTest, WhoGivesUpIsForgotten) {
  Make("{blockSizeTokens: 4}");
  auto first = NewRequest("a prompt", {});
  auto second = NewRequest("a prompt", {});
  ASSERT_TRUE(Produce(*first, {}).ok());
  ASSERT_TRUE(Produce(*second, {}).ok());
  dynamic_cast<plugin::DataProducer&>(*producer_).Abandon(first->context);
  ASSERT_TRUE(Produce(*second, milliseconds(100)).ok());
  EXPECT_FALSE(Matched(*second).empty());
}

TEST_F(BurstTest, RefusesWhatIsOutOfBounds) {
  for (const char* yaml :
       {"{windowDurationMs: 0}", "{windowDurationMs: 10001}", "{maxPerReplica: 0}",
        "{maxPerReplica: -2}", "{blockSizeTokens: 0}", "{maxBatchSize: 0}",
        "{blockSizeTokens: 64, maxPrefixTokensToMatch: 63}", "{balanceBy: bytes}"}) {
    EXPECT_EQ(scene_.Make(BurstPrefixCacheProducerType(), yaml), nullptr) << yaml;
  }
}

}  // namespace
}  // namespace llmd::plugins
