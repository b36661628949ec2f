#include "plugins/filter/by_label_filter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::Scene;

std::vector<plugin::EndpointNumber> Kept(std::string_view yaml) {
  Scene scene(0);
  scene.SetMembers({{.name = "a", .address = "10.0.0.1", .port = 1, .labels = {{"tier", "gold"}}},
                    {.name = "b", .address = "10.0.0.1", .port = 2, .labels = {{"tier", "iron"}}},
                    {.name = "c", .address = "10.0.0.1", .port = 3, .labels = {}}});
  auto filter = scene.Make(ByLabelType(), yaml);
  return scene.Filter(*filter);
}

TEST(ByLabel, KeepsListedValuesAndUnlabelledOnesWhenAllowed) {
  EXPECT_THAT(Kept("{label: tier, validValues: [gold]}"), ElementsAre(0));
  EXPECT_THAT(Kept("{label: tier, validValues: [gold, iron]}"), ElementsAre(0, 1));
  EXPECT_THAT(Kept("{label: tier, validValues: [gold], allowsNoLabel: true}"), ElementsAre(0, 2));
  EXPECT_THAT(Kept("{label: tier, allowsNoLabel: true}"), ElementsAre(2));
  EXPECT_THAT(Kept("{label: other, validValues: [gold]}"), IsEmpty());
}

TEST(ByLabel, RefusesParametersThatKeepNobody) {
  for (const char* yaml :
       {"{}", "{label: ''}", "{label: tier}", "{label: tier, validValues: []}"}) {
    Scene scene(1);
    EXPECT_EQ(scene.Make(ByLabelType(), yaml), nullptr) << yaml;
  }
}

}  // namespace
}  // namespace llmd::plugins
