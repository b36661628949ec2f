#include "plugins/scorer/prefix_cache_scorer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using ::testing::DoubleEq;
using ::testing::ElementsAre;
using testing::Scene;

std::vector<double> ScoresFor(std::string_view yaml, std::vector<uint32_t> matched, uint32_t total,
                              size_t endpoints) {
  Scene scene(endpoints);
  auto scorer = scene.Make(PrefixCacheScorerType(), yaml);
  const plugin::PrefixCacheMatchInfo match{
      .matched_blocks = matched, .total_blocks = total, .block_tokens = 64};
  scene.NewRequest().attributes.Set(scene.context().SlotOf<plugin::PrefixCacheMatchInfo>(), &match);
  return scene.Score(*scorer);
}

TEST(PrefixCacheScorer, ScoresTheShareOfThePromptThatIsCached) {
  EXPECT_THAT(ScoresFor("", {0, 2, 8, 6}, 8, 4), ElementsAre(0, 0.25, 1, 0.75));
}

TEST(PrefixCacheScorer, EndpointsBeyondTheArrayHoldNothing) {
  EXPECT_THAT(ScoresFor("", {4}, 4, 2), ElementsAre(1, 0));
}

TEST(PrefixCacheScorer, LengthOfTheMatchCountsByItsWeight) {
  // 32 blocks of 64 tokens are 2048: (2048 / 4096)^2 = 0.25, ratio 0.5.
  EXPECT_THAT(ScoresFor("{matchLengthWeight: 0.4, matchLengthScaleTokens: 4096}", {32, 64}, 64, 2),
              ElementsAre(DoubleEq(0.4 * 0.25 + 0.6 * 0.5), DoubleEq(1)));
  // 256 blocks are twice the scale: the length part is capped at 1.
  EXPECT_THAT(ScoresFor("{matchLengthWeight: 1}", {256}, 1024, 1), ElementsAre(1));
}

TEST(PrefixCacheScorer, NothingKnownScoresZero) {
  EXPECT_THAT(ScoresFor("", {1, 1}, 0, 2), ElementsAre(0, 0)) << "empty prompt";
  Scene scene(2);
  auto scorer = scene.Make(PrefixCacheScorerType());
  EXPECT_THAT(scene.Score(*scorer), ElementsAre(0, 0)) << "no attribute";
}

TEST(PrefixCacheScorer, RefusesWhatIsOutOfBounds) {
  for (const char* yaml : {"{matchLengthWeight: 1.1}", "{matchLengthScaleTokens: 0}"}) {
    Scene scene(1);
    EXPECT_EQ(scene.Make(PrefixCacheScorerType(), yaml), nullptr) << yaml;
  }
}

}  // namespace
}  // namespace llmd::plugins
