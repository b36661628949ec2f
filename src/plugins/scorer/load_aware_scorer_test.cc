#include "plugins/scorer/load_aware_scorer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using ::testing::ElementsAre;
using testing::Scene;

TEST(LoadAwareScorer, FallsFromHalfAPointToNoneAtTheThreshold) {
  Scene scene(5);
  auto scorer = scene.Make(LoadAwareScorerType());
  const float waiting[] = {0, 32, 64, 128, 500};
  for (uint32_t n = 0; n < 5; ++n) scene.Report(n, {.waiting = waiting[n]});
  EXPECT_THAT(scene.Score(*scorer), ElementsAre(0.5, 0.375, 0.25, 0, 0));
}

TEST(LoadAwareScorer, TheThresholdIsAParameter) {
  Scene scene(2);
  auto scorer = scene.Make(LoadAwareScorerType(), "{Threshold: 8}");  // names ignore case
  scene.Report(1, {.waiting = 2});
  EXPECT_THAT(scene.Score(*scorer), ElementsAre(0.5, 0.375));
}

TEST(LoadAwareScorer, RefusesAThresholdOfZero) {
  Scene scene(1);
  EXPECT_EQ(scene.Make(LoadAwareScorerType(), "{threshold: 0}"), nullptr);
}

}  // namespace
}  // namespace llmd::plugins
