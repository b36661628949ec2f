#include "zone_scorer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/testing.h"

namespace mine {
namespace {

using ::testing::ElementsAre;

TEST(ZoneScorer, PrefersTheZoneThatTheHeaderNames) {
  llmd::plugins::testing::Scene scene(0);
  scene.SetMembers(
      {{.name = "a", .address = "10.0.0.1", .port = 8000, .labels = {{"zone", "east"}}},
       {.name = "b", .address = "10.0.0.2", .port = 8000, .labels = {{"zone", "west"}}}});
  auto scorer = scene.Make(ZoneScorerType());
  const llmd::plugin::Header headers[] = {{"X-Zone", "west"}};
  scene.NewRequest().headers = headers;
  EXPECT_THAT(scene.Score(*scorer), ElementsAre(0, 1));
  scene.NewRequest();
  EXPECT_THAT(scene.Score(*scorer), ElementsAre(1, 1)) << "without the header";
}

}  // namespace
}  // namespace mine
