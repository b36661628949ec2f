#include "plugins/scorer/active_request_scorer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using ::testing::DoubleEq;
using ::testing::ElementsAre;
using testing::Scene;

std::vector<double> ScoresFor(std::string_view yaml, std::vector<int64_t> counts) {
  Scene scene(counts.size());
  auto scorer = scene.Make(ActiveRequestScorerType(), yaml);
  const plugin::InFlightLoad load{.requests = counts, .tokens = {}};
  scene.NewRequest().attributes.Set(scene.context().SlotOf<plugin::InFlightLoad>(), &load);
  return scene.Score(*scorer);
}

TEST(ActiveRequestScorer, ScoresByDistanceToTheBusiest) {
  EXPECT_THAT(ScoresFor("", {0, 1, 4, 2}), ElementsAre(1, 0.75, 0, 0.5));
}

TEST(ActiveRequestScorer, IdleEndpointsScoreOneAndBusyOnesAtMostTheirMaximum) {
  EXPECT_THAT(ScoresFor("{idleThreshold: 2, maxBusyScore: 0.5}", {0, 2, 3, 5}),
              ElementsAre(1, 1, DoubleEq(0.2), 0));
}

TEST(ActiveRequestScorer, AllIdleAllScoreOne) {
  EXPECT_THAT(ScoresFor("", {0, 0}), ElementsAre(1, 1));
  EXPECT_THAT(ScoresFor("{idleThreshold: 5}", {3, 5}), ElementsAre(1, 1));
}

TEST(ActiveRequestScorer, WithoutTheAttributeAllAreIdle) {
  Scene scene(2);
  auto scorer = scene.Make(ActiveRequestScorerType());
  EXPECT_THAT(scene.Score(*scorer), ElementsAre(1, 1));
}

TEST(ActiveRequestScorer, ReadsTheProducerThatItNames) {
  Scene scene(2);
  auto scorer =
      scene.Make(ActiveRequestScorerType(), "{inFlightLoadProducerName: mine, requestTimeout: 2m}");
  const int64_t counts[] = {4, 1};
  const plugin::InFlightLoad load{.requests = counts, .tokens = {}};
  scene.NewRequest().attributes.Set(scene.context().SlotOf<plugin::InFlightLoad>("mine"), &load);
  EXPECT_THAT(scene.Score(*scorer), ElementsAre(0, 0.75));
}

TEST(ActiveRequestScorer, RefusesWhatIsOutOfBounds) {
  for (const char* yaml : {"{idleThreshold: -1}", "{maxBusyScore: 1.5}", "{maxBusyScore: -0.1}"}) {
    Scene scene(1);
    EXPECT_EQ(scene.Make(ActiveRequestScorerType(), yaml), nullptr) << yaml;
  }
}

}  // namespace
}  // namespace llmd::plugins
