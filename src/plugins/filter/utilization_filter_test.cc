#include "plugins/filter/utilization_filter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::Scene;

std::vector<plugin::EndpointNumber> Kept(std::string_view yaml) {
  Scene scene(3);
  scene.Report(0, {.waiting = 0, .running = 9, .kv_usage = 0.2f});
  scene.Report(1, {.waiting = 5, .running = 5, .kv_usage = 0.9f});
  auto filter = scene.Make(UtilizationFilterType(), yaml);
  const int64_t requests[] = {4, 2, 0};
  const plugin::InFlightLoad load{.requests = requests, .tokens = {}};
  scene.NewRequest().attributes.Set(scene.context().SlotOf<plugin::InFlightLoad>(), &load);
  return scene.Filter(*filter);
}

TEST(UtilizationFilter, EveryConditionMustHold) {
  EXPECT_THAT(Kept("{conditions: [{metric: active-requests, maxValue: 2}]}"), ElementsAre(1, 2));
  EXPECT_THAT(Kept("{conditions: [{metric: running-requests, maxValue: 5}]}"), ElementsAre(1, 2));
  EXPECT_THAT(Kept("{conditions: [{metric: waiting-queue, maxValue: 4.5}]}"), ElementsAre(0, 2));
  EXPECT_THAT(Kept("{conditions: [{metric: kv-cache-utilization, maxValue: 0.5}]}"),
              ElementsAre(0, 2));
  EXPECT_THAT(Kept("{conditions: [{metric: running-requests, maxValue: 5}, "
                   "{metric: waiting-queue, maxValue: 0}]}"),
              ElementsAre(2));
}

TEST(UtilizationFilter, NobodyLeftIsNobodyUnlessToldOtherwise) {
  const std::string conditions =
      "conditions: [{metric: running-requests, maxValue: 4}, {metric: active-requests, "
      "maxValue: 0}, {metric: waiting-queue, maxValue: 0}]";
  EXPECT_THAT(Kept("{" + conditions + "}"), ElementsAre(2));
  const std::string none = "conditions: [{metric: active-requests, maxValue: 0}, "
                           "{metric: running-requests, maxValue: 0}]";
  EXPECT_THAT(Kept("{" + none + "}"), ElementsAre(2)) << "an unknown load counts 0";
  Scene scene(1);
  scene.Report(0, {.running = 1});
  auto strict = scene.Make(UtilizationFilterType(),
                           "{conditions: [{metric: running-requests, maxValue: 0}]}");
  EXPECT_THAT(scene.Filter(*strict), IsEmpty());
  EXPECT_EQ(dynamic_cast<plugin::Filter&>(*strict).empty_means(), plugin::EmptyMeans::kSaturated);
  auto lenient = scene.Make(
      UtilizationFilterType(),
      "{fallbackOnEmpty: true, conditions: [{metric: running-requests, maxValue: 0}]}");
  EXPECT_THAT(scene.Filter(*lenient), ElementsAre(0));
}

TEST(UtilizationFilter, RefusesConditionsThatMeanNothing) {
  for (const char* yaml :
       {"{}", "{conditions: []}", "{conditions: [{metric: waiting-queue}]}",
        "{conditions: [{metric: other, maxValue: 1}]}",
        "{conditions: [{metric: waiting-queue, maxValue: -1}]}",
        "{conditions: [{metric: kv-cache-utilization, maxValue: 2}]}"}) {
    Scene scene(1);
    EXPECT_EQ(scene.Make(UtilizationFilterType(), yaml), nullptr) << yaml;
  }
}

}  // namespace
}  // namespace llmd::plugins
