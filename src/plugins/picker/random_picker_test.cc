#include "plugins/picker/random_picker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using testing::Scene;

// 24,000 draws over the 12 ordered pairs of four: 2,000 each, +- 6 standard deviations of 43.
TEST(RandomPicker, EveryOrderedChoiceIsEquallyLikely) {
  Scene scene(1);
  auto made = scene.Make(RandomPickerType());
  plugin::RequestContext& request = scene.NewRequest();
  std::map<std::pair<uint32_t, uint32_t>, int> seen;
  for (int i = 0; i < 24000; ++i) {
    plugin::ScoredCandidate scored[] = {{0, 9}, {1, 0}, {2, 0}, {3, 0}};
    dynamic_cast<plugin::Picker&>(*made).Pick(request, scored, 2);
    ++seen[{scored[0].endpoint, scored[1].endpoint}];
  }
  ASSERT_EQ(seen.size(), 12u);
  for (const auto& [pair, count] : seen) EXPECT_NEAR(count, 2000, 260);
}

TEST(RandomPicker, OneCandidateIsTheChoice) {
  Scene scene(1);
  auto made = scene.Make(RandomPickerType(), "{maxNumOfEndpoints: 2}");
  plugin::ScoredCandidate scored[] = {{7, 0}};
  dynamic_cast<plugin::Picker&>(*made).Pick(scene.request(), scored, 1);
  EXPECT_EQ(scored[0].endpoint, 7u);
}

}  // namespace
}  // namespace llmd::plugins
