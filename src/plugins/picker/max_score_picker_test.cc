#include "plugins/picker/max_score_picker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using testing::Scene;

std::vector<uint32_t> Pick(std::vector<double> scores, size_t wanted) {
  Scene scene(1);
  auto made = scene.Make(MaxScorePickerType());
  std::vector<plugin::ScoredCandidate> scored;
  for (uint32_t n = 0; n < scores.size(); ++n) scored.push_back({n, scores[n]});
  dynamic_cast<plugin::Picker&>(*made).Pick(scene.request(), scored, wanted);
  std::vector<uint32_t> picked;
  for (size_t i = 0; i < wanted; ++i) picked.push_back(scored[i].endpoint);
  return picked;
}

TEST(MaxScorePicker, PicksTheBestFirst) {
  EXPECT_THAT(Pick({0.2, 0.9, 0.5, 0.7}, 3), ::testing::ElementsAre(1, 3, 2));
  EXPECT_THAT(Pick({0.4}, 1), ::testing::ElementsAre(0));
}

TEST(MaxScorePicker, OfEqualScoresTheFirstWins) {
  EXPECT_THAT(Pick({1, 2, 2, 1, 2}, 5), ::testing::ElementsAre(1, 2, 4, 0, 3));
}

TEST(MaxScorePicker, AgreesWithAStableSort) {
  base::Random random(1);
  for (int round = 0; round < 300; ++round) {
    std::vector<double> scores(1 + random.Below(30));
    for (double& score : scores) score = static_cast<double>(random.Below(6));
    std::vector<uint32_t> expected(scores.size());
    for (uint32_t n = 0; n < expected.size(); ++n) expected[n] = n;
    std::sort(expected.begin(), expected.end(), [&](uint32_t a, uint32_t b) {
      return scores[a] != scores[b] ? scores[a] > scores[b] : a < b;
    });
    expected.resize(1 + random.Below(scores.size()));
    ASSERT_EQ(Pick(scores, expected.size()), expected);
  }
}

TEST(MaxScorePicker, NumberOfEndpointsIsAParameter) {
  Scene scene(1);
  auto count = [&](const char* yaml) {
    return dynamic_cast<plugin::Picker&>(*scene.Make(MaxScorePickerType(), yaml)).endpoint_count();
  };
  EXPECT_EQ(count(""), 1u);
  EXPECT_EQ(count("{maxNumOfEndpoints: 3}"), 3u);
  EXPECT_EQ(scene.Make(MaxScorePickerType(), "{maxNumOfEndpoints: 0}"), nullptr);
}

}  // namespace
}  // namespace llmd::plugins
