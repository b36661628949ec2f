#include "plugins/scorer/token_load_scorer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using ::testing::DoubleEq;
using ::testing::ElementsAre;
using testing::Scene;

std::vector<double> ScoresFor(std::string_view yaml, const plugin::InFlightLoad& load) {
  Scene scene(load.tokens.size());
  auto scorer = scene.Make(TokenLoadScorerType(), yaml);
  scene.NewRequest().attributes.Set(scene.context().SlotOf<plugin::InFlightLoad>(), &load);
  return scene.Score(*scorer);
}

TEST(TokenLoadScorer, CountsTokensInFlightAndThoseOfTheRequest) {
  const int64_t tokens[] = {0, 250, 900, 5000};
  EXPECT_THAT(ScoresFor("{queueThresholdTokens: 1000}",
                        {.requests = {}, .tokens = tokens, .prompt_tokens = 100}),
              ElementsAre(DoubleEq(0.9), DoubleEq(0.65), DoubleEq(0), DoubleEq(0)));
}

TEST(TokenLoadScorer, WhatAnEndpointHoldsInCacheCostsItNothing) {
  const int64_t tokens[] = {0, 0};
  const uint32_t matched[] = {4, 0};
  const plugin::PrefixCacheMatchInfo match{
      .matched_blocks = matched, .total_blocks = 5, .block_tokens = 20};
  EXPECT_THAT(
      ScoresFor("{queueThresholdTokens: 1000}",
                {.requests = {}, .tokens = tokens, .prompt_tokens = 100, .match = &match}),
      ElementsAre(DoubleEq(0.98), DoubleEq(0.9)));
}

TEST(TokenLoadScorer, NothingAtAllScoresOne) {
  const int64_t tokens[] = {0};
  EXPECT_THAT(ScoresFor("", {.requests = {}, .tokens = tokens}), ElementsAre(1));
  EXPECT_THAT(ScoresFor("{queueThresholdTokens: -1}", {.requests = {}, .tokens = tokens}),
              ElementsAre(1));
  Scene scene(2);
  auto scorer = scene.Make(TokenLoadScorerType());
  EXPECT_THAT(scene.Score(*scorer), ElementsAre(1, 1)) << "without the attribute";
}

}  // namespace
}  // namespace llmd::plugins
