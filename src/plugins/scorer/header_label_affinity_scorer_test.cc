#include "plugins/scorer/header_label_affinity_scorer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using ::testing::ElementsAre;
using testing::Scene;

std::vector<double> ScoresWith(std::vector<plugin::Header> headers) {
  Scene scene(0);
  scene.SetMembers({{.name = "a", .address = "10.0.0.1", .port = 1, .labels = {{"zone", "east"}}},
                    {.name = "b", .address = "10.0.0.1", .port = 2, .labels = {{"zone", "west"}}},
                    {.name = "c", .address = "10.0.0.1", .port = 3, .labels = {}}});
  auto scorer =
      scene.Make(HeaderLabelAffinityScorerType(), "{headerName: X-Zone, labelKey: zone}");
  scene.NewRequest().headers = headers;
  return scene.Score(*scorer);
}

TEST(HeaderLabelAffinityScorer, PrefersTheLabelThatTheHeaderNames) {
  EXPECT_THAT(ScoresWith({{"x-zone", "west"}}), ElementsAre(0, 1, 0));
  EXPECT_THAT(ScoresWith({{"x-zone", "north"}}), ElementsAre(0, 0, 0));
  EXPECT_THAT(ScoresWith({{"x-zone", ""}}), ElementsAre(0, 0, 0));
  EXPECT_THAT(ScoresWith({}), ElementsAre(0, 0, 0));
}

TEST(HeaderLabelAffinityScorer, NeedsBothParameters) {
  for (const char* yaml : {"{}", "{headerName: x}", "{labelKey: zone}",
                           "{headerName: '', labelKey: zone}"}) {
    Scene scene(1);
    EXPECT_EQ(scene.Make(HeaderLabelAffinityScorerType(), yaml), nullptr) << yaml;
  }
}

}  // namespace
}  // namespace llmd::plugins
