#include "plugins/profile_handler/single_profile_handler.h"

#include <gtest/gtest.h>

#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using testing::Scene;

TEST(SingleProfileHandler, RunsItsProfileOnceAndNamesIt) {
  Scene scene(1);
  auto made = scene.Make(SingleProfileHandlerType());
  auto& handler = dynamic_cast<plugin::ProfileHandler&>(*made);
  plugin::ProfileResult results[1];
  EXPECT_EQ(handler.Next(scene.request(), results), 0u);
  results[0].ran = true;
  EXPECT_EQ(handler.Next(scene.request(), results), std::nullopt);
  EXPECT_EQ(handler.Primary(scene.request(), results), 0u);
}

TEST(SingleProfileHandler, WantsExactlyOneProfile) {
  Scene scene(1);
  auto made = scene.Make(SingleProfileHandlerType());
  auto& handler = dynamic_cast<plugin::ProfileHandler&>(*made);
  const std::string names[] = {"a", "b"};
  EXPECT_TRUE(handler.CheckProfiles(std::span(names).first(1)).ok());
  EXPECT_FALSE(handler.CheckProfiles({}).ok());
  EXPECT_EQ(handler.CheckProfiles(names).message(),
            "single-profile-handler runs exactly one scheduling profile, the config has 2: a, b");
}

}  // namespace
}  // namespace llmd::plugins
