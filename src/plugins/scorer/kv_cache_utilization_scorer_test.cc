#include "plugins/scorer/kv_cache_utilization_scorer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using ::testing::ElementsAre;
using testing::Scene;

TEST(KvCacheUtilizationScorer, ScoresTheFreeShare) {
  Scene scene(4);
  auto scorer = scene.Make(KvCacheUtilizationScorerType());
  scene.Report(0, {.kv_usage = 0.25f});
  scene.Report(1, {.kv_usage = 1});
  scene.Report(2, {.kv_usage = 0.5f});
  EXPECT_THAT(scene.Score(*scorer), ElementsAre(0.75, 0, 0.5, 1)) << "the last never reported";
}

}  // namespace
}  // namespace llmd::plugins
