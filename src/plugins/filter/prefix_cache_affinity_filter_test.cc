#include "plugins/filter/prefix_cache_affinity_filter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using ::testing::ElementsAre;
using testing::Scene;

class PrefixCacheAffinityFilterTest : public ::testing::Test {
 protected:
  std::vector<plugin::EndpointNumber> Kept(std::string_view yaml,
                                           const std::vector<uint32_t>& matched,
                                           const std::vector<int64_t>& tokens) {
    if (!filter_) filter_ = scene_.Make(PrefixCacheAffinityFilterType(), yaml);
    match_ = {.matched_blocks = matched, .total_blocks = 10, .block_tokens = 16};
    load_ = {.requests = {}, .tokens = tokens};
    plugin::RequestContext& request = scene_.NewRequest();
    request.attributes.Set(scene_.context().SlotOf<plugin::PrefixCacheMatchInfo>(), &match_);
    request.attributes.Set(scene_.context().SlotOf<plugin::InFlightLoad>(), &load_);
    return scene_.Filter(*filter_);
  }

  Scene scene_{3};
  std::unique_ptr<plugin::Plugin> filter_;
  plugin::PrefixCacheMatchInfo match_;
  plugin::InFlightLoad load_;
};

TEST_F(PrefixCacheAffinityFilterTest, KeepsThoseThatHoldThePrompt) {
  EXPECT_THAT(Kept("", {8, 7, 10}, {0, 0, 0}), ElementsAre(0, 2));
  EXPECT_THAT(Kept("", {7, 7, 7}, {0, 0, 0}), ElementsAre(0, 1, 2)) << "nobody sticks";
  EXPECT_THAT(Kept("", {10, 10, 10}, {9, 9, 9}), ElementsAre(0, 1, 2)) << "everybody sticks";
}

TEST_F(PrefixCacheAffinityFilterTest, ACachedPromptIsNotWorthAnyWait) {
  // 100 tokens/s: 1,000 tokens in flight are ten seconds.
  const char* yaml = "{peakPrefillThroughput: 100, maxTTFTPenaltyMs: 5000}";
  EXPECT_THAT(Kept(yaml, {10, 0, 0}, {400, 0, 300}), ElementsAre(0)) << "four seconds more";
  EXPECT_THAT(Kept(yaml, {10, 0, 0}, {1000, 100, 900}), ElementsAre(0, 1, 2)) << "nine seconds";
  EXPECT_THAT(Kept(yaml, {10, 10, 0}, {1000, 100, 0}), ElementsAre(0, 1)) << "the best one counts";
}

TEST_F(PrefixCacheAffinityFilterTest, WithoutAPenaltyItAlwaysSticks) {
  EXPECT_THAT(Kept("{maxTTFTPenaltyMs: 0}", {10, 0, 0}, {1 << 30, 0, 0}), ElementsAre(0));
}

TEST_F(PrefixCacheAffinityFilterTest, ExploresAsOftenAsItIsTold) {
  int all = 0;
  for (int i = 0; i < 2000; ++i) {
    all += Kept("{explorationProbability: 0.25}", {10, 0, 0}, {0, 0, 0}).size() == 3;
  }
  EXPECT_NEAR(all, 500, 100);
}

TEST_F(PrefixCacheAffinityFilterTest, WithoutMatchesAllStay) {
  auto filter = scene_.Make(PrefixCacheAffinityFilterType());
  scene_.NewRequest();
  EXPECT_THAT(scene_.Filter(*filter), ElementsAre(0, 1, 2));
}

TEST_F(PrefixCacheAffinityFilterTest, RefusesWhatIsOutOfBoundsOrNotBuilt) {
  for (const char* yaml :
       {"{affinityThreshold: 1.1}", "{explorationProbability: 2}", "{maxTTFTPenaltyMs: -1}",
        "{peakPrefillThroughput: 0}", "{ttftSource: guess}", "{ttftSource: latencyPredictor}"}) {
    EXPECT_EQ(scene_.Make(PrefixCacheAffinityFilterType(), yaml), nullptr) << yaml;
  }
}

}  // namespace
}  // namespace llmd::plugins
