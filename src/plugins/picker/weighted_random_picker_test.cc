#include "plugins/picker/weighted_random_picker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using testing::Scene;

// How often each endpoint is first in `rounds` draws.
std::vector<int> Draw(std::vector<double> scores, int rounds) {
  Scene scene(1);
  auto made = scene.Make(WeightedRandomPickerType());
  std::vector<int> first(scores.size());
  for (int i = 0; i < rounds; ++i) {
    plugin::RequestContext& request = scene.NewRequest();
    std::vector<plugin::ScoredCandidate> scored;
    for (uint32_t n = 0; n < scores.size(); ++n) scored.push_back({n, scores[n]});
    dynamic_cast<plugin::Picker&>(*made).Pick(request, scored, 1);
    ++first[scored[0].endpoint];
  }
  return first;
}

// Expected shares of 20,000 draws, +- 6 standard deviations of at most 71.
TEST(WeightedRandomPicker, DrawsInProportionToTheScores) {
  const auto first = Draw({1, 2, 0, 5}, 20000);
  EXPECT_NEAR(first[0], 2500, 430);
  EXPECT_NEAR(first[1], 5000, 430);
  EXPECT_EQ(first[2], 0);
  EXPECT_NEAR(first[3], 12500, 430);
}

TEST(WeightedRandomPicker, AllZeroIsUniform) {
  for (int count : Draw({0, 0, 0, 0}, 20000)) EXPECT_NEAR(count, 5000, 430);
}

TEST(WeightedRandomPicker, ZeroScoresComeLastAndInOrder) {
  Scene scene(1);
  auto made = scene.Make(WeightedRandomPickerType());
  for (int i = 0; i < 100; ++i) {
    plugin::ScoredCandidate scored[] = {{0, 0}, {1, 1}, {2, 0}, {3, 1}};
    dynamic_cast<plugin::Picker&>(*made).Pick(scene.NewRequest(), scored, 4);
    EXPECT_EQ(scored[0].endpoint + scored[1].endpoint, 4u);
    EXPECT_EQ(scored[2].endpoint, 0u);
    EXPECT_EQ(scored[3].endpoint, 2u);
  }
}

}  // namespace
}  // namespace llmd::plugins
