#include "plugins/scorer/running_requests_size_scorer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using ::testing::ElementsAre;
using testing::Scene;

TEST(RunningRequestsSizeScorer, ScoresByDistanceToTheFullestBatch) {
  Scene scene(3);
  auto scorer = scene.Make(RunningRequestsSizeScorerType());
  scene.Report(0, {.waiting = 9, .running = 8});
  scene.Report(1, {.waiting = 0, .running = 4});
  scene.Report(2, {.waiting = 3, .running = 6});
  EXPECT_THAT(scene.Score(*scorer), ElementsAre(0, 1, 0.5));
}

TEST(RunningRequestsSizeScorer, EqualBatchesAllScoreOne) {
  Scene scene(2);
  auto scorer = scene.Make(RunningRequestsSizeScorerType());
  scene.Report(0, {.running = 3});
  scene.Report(1, {.running = 3});
  EXPECT_THAT(scene.Score(*scorer), ElementsAre(1, 1));
}

}  // namespace
}  // namespace llmd::plugins
