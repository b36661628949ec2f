#include "plugins/producer/approx_prefix_cache_producer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/producer/token_producer.h"
#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::Scene;

// `blocks` blocks of 64 tokens that begin with `stem`, then differ by `tail`.
std::string Text(size_t blocks, char stem, size_t common, char tail = ' ') {
  std::string text(blocks * 256, tail);
  for (size_t i = 0; i < common * 256; ++i) text[i] = stem;
  return text;
}

class ApproxPrefix {
 public:
  explicit ApproxPrefix(size_t endpoints, std::string_view yaml = "")
      : scene(endpoints),
        tokens(scene.Make(TokenProducerType())),
        producer(scene.Make(ApproxPrefixCacheProducerType(), yaml)) {
    EXPECT_NE(producer, nullptr) << scene.context().errors().ToString();
  }
  // What a new request with this prompt is told.
  const plugin::PrefixCacheMatchInfo* Ask(std::string_view text, std::string_view model = "m",
                                          std::string_view salt = "") {
    plugin::RequestContext& request = scene.NewRequest();
    request.target_model = model;
    scene.SetPrompt(text);
    scene.body().cache_salt = salt;
    EXPECT_TRUE(scene.Produce(*tokens).ok());
    EXPECT_TRUE(scene.Produce(*producer).ok());
    return request.attributes.Get(scene.context().SlotOf<plugin::PrefixCacheMatchInfo>());
  }
  std::vector<uint32_t> Matched(std::string_view text, std::string_view model = "m",
                                std::string_view salt = "") {
    const auto* match = Ask(text, model, salt);
    return {match->matched_blocks.begin(), match->matched_blocks.end()};
  }
  void Send(std::string_view text, plugin::EndpointNumber n, std::string_view profile = "default") {
    Ask(text);
    plugin::BookingList bookings;
    EXPECT_TRUE(scene.Route(*producer, n, &bookings, profile).ok());
    EXPECT_TRUE(bookings.items().empty());
  }

  Scene scene;
  std::unique_ptr<plugin::Plugin> tokens, producer;
};

TEST(ApproxPrefixCacheProducer, KnowsWhatWasSentWhere) {
  ApproxPrefix x(3);
  const std::string first = Text(4, 'a', 4), second = Text(6, 'a', 3, 'b');
  x.Send(first, 1);
  const auto* match = x.Ask(second);
  EXPECT_EQ(match->total_blocks, 6u);
  EXPECT_EQ(match->block_tokens, 64u);
  EXPECT_THAT(match->matched_blocks, ElementsAre(0, 3, 0));
  x.Send(second, 2);
  EXPECT_THAT(x.Matched(second), ElementsAre(0, 3, 6));
}

TEST(ApproxPrefixCacheProducer, ModelAndSaltKeepPromptsApart) {
  ApproxPrefix x(1);
  const std::string text = Text(4, 'a', 4);
  x.Send(text, 0);
  EXPECT_THAT(x.Matched(text), ElementsAre(4));
  EXPECT_THAT(x.Matched(text, "other"), ElementsAre(0));
  EXPECT_THAT(x.Matched(text, "m", "salt"), ElementsAre(0));
}

TEST(ApproxPrefixCacheProducer, AlsoRecordsThePrefillTarget) {
  ApproxPrefix x(2);
  const std::string text = Text(2, 'a', 2);
  x.Ask(text);
  const plugin::ScoredCandidate decode[] = {{0, 1}}, prefill[] = {{1, 1}}, other[] = {{1, 1}};
  const plugin::ProfileResult profiles[] = {
      {.profile = "encode", .endpoints = other, .ran = true},
      {.profile = "decode", .endpoints = decode, .ran = true},
      {.profile = "prefill", .endpoints = prefill, .ran = true}};
  plugin::BookingList bookings;
  auto& hook = dynamic_cast<plugin::PreRequest&>(*x.producer);
  ASSERT_TRUE(
      hook.OnRouted(x.scene.request(), {.profiles = profiles, .primary = 1}, &bookings).ok());
  EXPECT_THAT(x.Matched(text), ElementsAre(2, 2));
}

TEST(ApproxPrefixCacheProducer, OpaqueRequestsAreLeftAlone) {
  ApproxPrefix x(1);
  plugin::RequestContext& request = x.scene.NewRequest();
  EXPECT_TRUE(x.scene.Produce(*x.tokens).ok());
  EXPECT_TRUE(x.scene.Produce(*x.producer).ok());
  EXPECT_EQ(request.attributes.Get(x.scene.context().SlotOf<plugin::PrefixCacheMatchInfo>()),
            nullptr);
  plugin::BookingList bookings;
  EXPECT_TRUE(x.scene.Route(*x.producer, 0, &bookings).ok());
}

TEST(ApproxPrefixCacheProducer, BlockSizeIsTheEnginesOrTheConfiguredAndNeverTooSmall) {
  const std::string text = Text(16, 'a', 16);  // 1,024 tokens
  EXPECT_EQ(ApproxPrefix(1, "{blockSizeTokens: 256}").Ask(text)->total_blocks, 4u);
  EXPECT_EQ(ApproxPrefix(1, "{blockSize: 128}").Ask(text)->total_blocks, 8u);
  EXPECT_EQ(ApproxPrefix(1, "{blockSizeTokens: 8, autoTune: false}").Ask(text)->total_blocks, 16u);
  ApproxPrefix tuned(2);
  tuned.scene.Report(1, {.block_tokens = 128});
  EXPECT_EQ(tuned.Ask(text)->total_blocks, 8u);
  ApproxPrefix fixed(1, "{autoTune: false}");
  fixed.scene.Report(0, {.block_tokens = 128});
  EXPECT_EQ(fixed.Ask(text)->total_blocks, 16u);
}

TEST(ApproxPrefixCacheProducer, LooksAtSoMuchOfThePromptOnly) {
  const std::string text = Text(16, 'a', 16);
  EXPECT_EQ(ApproxPrefix(1, "{maxPrefixTokensToMatch: 200}").Ask(text)->total_blocks, 3u);
  EXPECT_EQ(ApproxPrefix(1, "{maxPrefixTokensToMatch: 0, maxPrefixBlocksToMatch: 5}")
                .Ask(text)
                ->total_blocks,
            5u);
  EXPECT_EQ(ApproxPrefix(1, "{maxPrefixTokensToMatch: 0, maxPrefixBlocksToMatch: 0}")
                .Ask(text)
                ->total_blocks,
            16u);
  EXPECT_EQ(ApproxPrefix(1, "{maxPrefixTokensToMatch: 10}").Ask(text)->total_blocks, 0u);
}

TEST(ApproxPrefixCacheProducer, RemembersAsMuchAsTheServerHolds) {
  const std::string a = Text(6, 'a', 6), b = Text(4, 'b', 4);
  ApproxPrefix configured(1, "{lruCapacityPerServer: 8}");
  configured.Send(a, 0);
  configured.Send(b, 0);
  EXPECT_THAT(configured.Matched(a), ElementsAre(4)) << "the tail of the older prompt went";
  EXPECT_THAT(configured.Matched(b), ElementsAre(4));

  // 32 blocks of 16 tokens are 8 of ours.
  ApproxPrefix tuned(1);
  tuned.scene.Report(0, {.block_tokens = 16, .block_count = 32});
  tuned.Send(a, 0);
  tuned.Send(b, 0);
  EXPECT_THAT(tuned.Matched(a), ElementsAre(4));
}

TEST(ApproxPrefixCacheProducer, ForgetsEndpointsThatLeft) {
  ApproxPrefix x(2);
  const std::string text = Text(4, 'a', 4);
  x.Send(text, 0);
  x.Send(text, 1);
  x.scene.SetMembers({{.name = "s1", .address = "10.0.0.1", .port = 8001, .labels = {}}});
  EXPECT_THAT(x.Matched(text), ElementsAre(0, 4));
  EXPECT_EQ(dynamic_cast<ApproxPrefixCacheProducer&>(*x.producer).stats().blocks, 4u);
}

TEST(ApproxPrefixCacheProducer, ShowsBlocksPerEndpoint) {
  ApproxPrefix x(2);
  x.Send(Text(4, 'a', 4), 1);
  EXPECT_THAT(
      x.producer->DumpState(),
      HasSubstr(R"({"pods":[{"pod":"default/s1","blocks":4},{"pod":"default/s0","blocks":0}],)"
                R"("totalPods":2,"maxPods":100)"));
}

TEST(ApproxPrefixCacheProducer, RefusesWhatCannotWork) {
  for (const char* yaml : {"{autoTune: false, blockSizeTokens: 0}", "{blockSizeTokens: 10000}",
                           "{maxPrefixTokensToMatch: -1}", "{lruCapacity: 5}"}) {
    Scene scene(1);
    EXPECT_EQ(scene.Make(ApproxPrefixCacheProducerType(), yaml), nullptr) << yaml;
  }
}

TEST(ApproxPrefixCacheProducer, IsTheDefaultProducer) {
  EXPECT_EQ(ApproxPrefixCacheProducerType().default_producer_of,
            plugin::PrefixCacheMatchInfo::kKey);
}

}  // namespace
}  // namespace llmd::plugins
