#include "plugins/scorer/queue_scorer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using ::testing::DoubleEq;
using ::testing::ElementsAre;
using testing::Scene;

// The tour of a plugin test: make the plugin in a scene, report loads, look at the scores.
TEST(QueueScorer, ScoresByDistanceToTheLongestQueue) {
  Scene scene(4);
  auto scorer = scene.Make(QueueScorerType());
  const float waiting[] = {10, 0, 5, 8};
  for (uint32_t n = 0; n < 4; ++n) scene.Report(n, {.waiting = waiting[n]});
  EXPECT_THAT(scene.Score(*scorer), ElementsAre(0, 1, 0.5, DoubleEq(0.2)));
}

TEST(QueueScorer, EqualQueuesAllScoreOne) {
  Scene scene(3);
  auto scorer = scene.Make(QueueScorerType());
  EXPECT_THAT(scene.Score(*scorer), ElementsAre(1, 1, 1)) << "nothing reported";
  for (uint32_t n = 0; n < 3; ++n) scene.Report(n, {.waiting = 7});
  EXPECT_THAT(scene.Score(*scorer), ElementsAre(1, 1, 1));
}

TEST(QueueScorer, SeesWhatWasSentSinceTheScrape) {
  Scene scene(2);
  auto scorer = scene.Make(QueueScorerType());
  scene.Report(0, {.waiting = 2});
  scene.Report(1, {.waiting = 3});
  scene.view().Book(fleet::kRequestsInFlight, 0, 2);
  EXPECT_THAT(scene.Score(*scorer), ElementsAre(0, 1));
}

// Whatever the queues: the shortest scores 1, the longest 0, and shorter never scores less.
TEST(QueueScorer, IsMonotonousAndUsesTheWholeRange) {
  base::Random random(1);
  Scene scene(6);
  auto scorer = scene.Make(QueueScorerType());
  for (int round = 0; round < 200; ++round) {
    std::vector<float> waiting;
    for (uint32_t n = 0; n < 6; ++n) {
      waiting.push_back(static_cast<float>(random.Below(20)));
      scene.Report(n, {.waiting = waiting.back()});
    }
    waiting[0] == 19 ? waiting[1] = 0 : waiting[1] = 19;
    scene.Report(1, {.waiting = waiting[1]});
    const auto scores = scene.Score(*scorer);
    EXPECT_EQ(*std::max_element(scores.begin(), scores.end()), 1);
    EXPECT_EQ(*std::min_element(scores.begin(), scores.end()), 0);
    for (size_t a = 0; a < 6; ++a) {
      for (size_t b = 0; b < 6; ++b) {
        if (waiting[a] < waiting[b]) {
          EXPECT_GT(scores[a], scores[b]);
        }
      }
    }
  }
}

TEST(QueueScorer, TakesNoParameters) {
  Scene scene(1);
  EXPECT_EQ(scene.Make(QueueScorerType(), "{threshold: 3}"), nullptr);
  EXPECT_THAT(scene.context().errors().ToString(), ::testing::HasSubstr("threshold"));
}

}  // namespace
}  // namespace llmd::plugins
