#include "plugins/saturation/concurrency_detector.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using ::testing::DoubleEq;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::At;
using testing::Scene;

class ConcurrencyDetectorTest : public ::testing::Test {
 protected:
  void Make(std::string_view yaml) { detector_ = scene_.Make(ConcurrencyDetectorType(), yaml); }
  // Books what a request of that many prompt tokens books, the director's own part included.
  void Send(plugin::EndpointNumber n, uint64_t tokens) {
    const plugin::TokenizedPrompt prompt{.token_count = tokens, .media_tokens = {}};
    scene_.NewRequest().attributes.Set(scene_.context().SlotOf<plugin::TokenizedPrompt>(),
                                       &prompt);
    plugin::BookingList bookings;
    ASSERT_TRUE(scene_.Route(*detector_, n, &bookings).ok());
    for (const plugin::Booking& b : bookings.items()) {
      EXPECT_TRUE(b.until_first_token);
      scene_.view().Book(b.counter, b.endpoint, b.amount);
    }
    scene_.view().Book(fleet::kRequestsInFlight, n, 1);
  }
  double Saturation() {
    scene_.Refresh();
    return dynamic_cast<plugin::SaturationDetector&>(*detector_)
        .Measure(scene_.view(), scene_.Candidates(), At())
        .value;
  }
  std::vector<plugin::EndpointNumber> Kept() {
    scene_.Refresh();
    scene_.NewRequest();
    return scene_.Filter(*detector_);
  }

  Scene scene_{2};
  std::unique_ptr<plugin::Plugin> detector_;
};

TEST_F(ConcurrencyDetectorTest, CountsRequestsByDefault) {
  Make("{maxConcurrency: 2}");
  EXPECT_THAT(Saturation(), DoubleEq(0));
  Send(0, 0);
  Send(0, 0);
  Send(1, 0);
  EXPECT_THAT(Saturation(), DoubleEq(0.75));
  EXPECT_THAT(Kept(), ElementsAre(1));
  Send(1, 0);
  EXPECT_THAT(Saturation(), DoubleEq(1));
  EXPECT_THAT(Kept(), IsEmpty());
}

TEST_F(ConcurrencyDetectorTest, CountsTokensWhenAsked) {
  Make("{concurrencyMode: tokens, maxTokenConcurrency: 1000, maxConcurrency: 1}");
  Send(0, 500);
  Send(1, 250);
  EXPECT_THAT(Saturation(), DoubleEq(0.375));
  EXPECT_THAT(Kept(), ElementsAre(0, 1)) << "requests do not count";
  Send(0, 500);
  EXPECT_THAT(Kept(), ElementsAre(1));
}

TEST_F(ConcurrencyDetectorTest, HybridTakesTheFullerRatioOfEachEndpoint) {
  Make("{concurrencyMode: hybrid, maxTokenConcurrency: 1000, maxConcurrency: 4}");
  Send(0, 900);  // .9 of the tokens
  Send(1, 10);   // .25 of the requests
  EXPECT_THAT(Saturation(), DoubleEq((0.9 + 0.25) / 2));
  EXPECT_THAT(Kept(), ElementsAre(0, 1));
  Send(0, 100);
  EXPECT_THAT(Kept(), ElementsAre(1));
}

TEST_F(ConcurrencyDetectorTest, HeadroomIsForTheFilterOnly) {
  Make("{maxConcurrency: 2, headroom: 0.6}");
  Send(0, 0);
  Send(0, 0);
  EXPECT_THAT(Saturation(), DoubleEq(0.5));
  EXPECT_THAT(Kept(), ElementsAre(0, 1)) << "two are below 3.2, cut to 3";
  Send(0, 0);
  EXPECT_THAT(Kept(), ElementsAre(1));
}

TEST_F(ConcurrencyDetectorTest, AnEmptyPoolIsFullAndAnEmptiedListMeansSaturated) {
  Make("");
  EXPECT_THAT(dynamic_cast<plugin::SaturationDetector&>(*detector_)
                  .Measure(scene_.view(), {}, At())
                  .value,
              DoubleEq(1));
  EXPECT_EQ(dynamic_cast<plugin::Filter&>(*detector_).empty_means(),
            plugin::EmptyMeans::kSaturated);
}

TEST_F(ConcurrencyDetectorTest, RefusesWhatIsOutOfBounds) {
  for (const char* yaml : {"{maxConcurrency: 0}", "{maxTokenConcurrency: -1}", "{headroom: -0.1}",
                           "{concurrencyMode: bytes}"}) {
    Make(yaml);
    EXPECT_EQ(detector_, nullptr) << yaml;
  }
}

}  // namespace
}  // namespace llmd::plugins
