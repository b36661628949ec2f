#include "plugins/saturation/utilization_detector.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using std::chrono::milliseconds;
using testing::At;
using ::testing::ElementsAre;
using testing::Scene;

plugin::SaturationDetector::Saturation Measure(Scene& scene, plugin::Plugin& made,
                                               base::TimePoint now = At()) {
  return dynamic_cast<plugin::SaturationDetector&>(made).Measure(scene.view(), scene.Candidates(),
                                                                 now);
}

TEST(UtilizationDetector, IsTheMeanOfTheFullerOfQueueAndCache) {
  Scene scene(2);
  auto made = scene.Make(UtilizationDetectorType());
  scene.Report(0, {.waiting = 1, .kv_usage = 0.5f});   // max(0.2, 0.625)
  scene.Report(1, {.waiting = 10, .kv_usage = 0.5f});  // max(2, 0.625)
  const auto saturation = Measure(scene, *made);
  EXPECT_DOUBLE_EQ(saturation.value, (0.625 + 2) / 2);
  EXPECT_EQ(saturation.stale_endpoints, 0u);
}

TEST(UtilizationDetector, WhatIsNotKnownCountsAsFull) {
  Scene scene(3);
  auto made = scene.Make(UtilizationDetectorType());
  scene.Report(0, {.waiting = 0}, At());
  scene.Report(1, {.waiting = 0}, At() - milliseconds(201));
  const auto saturation = Measure(scene, *made);
  EXPECT_DOUBLE_EQ(saturation.value, 2.0 / 3) << "one too old, one that never reported";
  EXPECT_EQ(saturation.stale_endpoints, 2u);
  EXPECT_EQ(Measure(scene, *made, At() + milliseconds(200)).stale_endpoints, 2u);
  EXPECT_EQ(Measure(scene, *made, At() + milliseconds(201)).stale_endpoints, 3u);
  EXPECT_EQ(dynamic_cast<plugin::SaturationDetector&>(*made).Measure(scene.view(), {}, At()).value,
            1)
      << "no endpoints at all";
}

TEST(UtilizationDetector, ThresholdsAreParameters) {
  Scene scene(1);
  auto made = scene.Make(UtilizationDetectorType(),
                         "{queueDepthThreshold: 20, kvCacheUtilThreshold: 0.5, "
                         "metricsStalenessThreshold: 1s}");
  scene.Report(0, {.waiting = 10, .kv_usage = 0.125f}, At() - milliseconds(900));
  EXPECT_DOUBLE_EQ(Measure(scene, *made).value, 0.5);
}

TEST(UtilizationDetector, FiltersTheFullAndTheSilent) {
  Scene scene(5);
  auto made = scene.Make(UtilizationDetectorType());
  scene.Report(0, {.waiting = 4, .kv_usage = 0.79f});
  scene.Report(1, {.waiting = 5});
  scene.Report(2, {.kv_usage = 0.81f});
  scene.Report(3, {}, At() - milliseconds(500));
  EXPECT_THAT(scene.Filter(*made), ElementsAre(0));
}

TEST(UtilizationDetector, HeadroomRelaxesTheFilterOnly) {
  Scene scene(2);
  auto made = scene.Make(UtilizationDetectorType(), "{headroom: 0.2}");
  scene.Report(0, {.waiting = 5.5f});
  scene.Report(1, {.waiting = 6});
  EXPECT_THAT(scene.Filter(*made), ElementsAre(0));
  EXPECT_DOUBLE_EQ(Measure(scene, *made).value, (1.1 + 1.2) / 2);
}

TEST(UtilizationDetector, WhenAllAreFullTheFilterKeepsAll) {
  Scene scene(2);
  auto made = scene.Make(UtilizationDetectorType());
  scene.Report(0, {.waiting = 50});
  scene.Report(1, {.waiting = 60});
  EXPECT_THAT(scene.Filter(*made), ElementsAre(0, 1));
}

TEST(UtilizationDetector, RefusesWhatIsOutOfBounds) {
  for (const char* yaml :
       {"{queueDepthThreshold: 0}", "{kvCacheUtilThreshold: 0}", "{kvCacheUtilThreshold: 1.2}",
        "{metricsStalenessThreshold: 0s}", "{headroom: -0.1}"}) {
    Scene scene(1);
    EXPECT_EQ(scene.Make(UtilizationDetectorType(), yaml), nullptr) << yaml;
  }
}

}  // namespace
}  // namespace llmd::plugins
