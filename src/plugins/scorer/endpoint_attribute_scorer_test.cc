#include "plugins/scorer/endpoint_attribute_scorer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/extractor/core_metrics_extractor.h"
#include "plugins/extractor/dcgm_extractor.h"
#include "plugins/filter/endpoint_attribute_filter.h"
#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using ::testing::DoubleEq;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::Scene;

// Four endpoints whose pages say temp 20, 40, 80 and nothing.
class EndpointAttributeTest : public ::testing::Test {
 protected:
  EndpointAttributeTest() {
    extractor_ = scene_.Make(CoreMetricsExtractorType(),
                             "{engineConfigs: [{name: vllm, customMetrics: "
                             "[{attributeKey: heat, metricSpec: 'temp{at=core}'}]}]}");
    for (plugin::EndpointNumber n = 0; n < 3; ++n) {
      plugin::EndpointReport report;
      const std::string page = "temp{at=\"core\"} " + std::to_string(20 << n) + "\n";
      EXPECT_TRUE(dynamic_cast<plugin::Extractor&>(*extractor_).Extract({}, page, &report));
      EXPECT_FALSE(report.found_load);
      for (size_t i = 0; i < report.value_count; ++i) {
        scene_.fleet().ReportAttribute(n, report.values[i].attribute, report.values[i].value);
      }
    }
    scene_.Refresh();
  }
  std::vector<double> Scores(std::string_view yaml) {
    auto scorer = scene_.Make(EndpointAttributeScorerType(), yaml);
    scene_.Refresh();
    return scene_.Score(*scorer);
  }
  std::vector<plugin::EndpointNumber> Kept(std::string_view yaml) {
    auto filter = scene_.Make(EndpointAttributeFilterType(), yaml);
    scene_.Refresh();
    scene_.NewRequest();
    return scene_.Filter(*filter);
  }

  Scene scene_{4};
  std::unique_ptr<plugin::Plugin> extractor_;
};

TEST_F(EndpointAttributeTest, ScoresWithinTheRangeOfTheCandidatesOrAFixedOne) {
  EXPECT_THAT(Scores("{attributeKey: heat, algorithm: {type: linear_lower_is_better}}"),
              ElementsAre(1, 1 - 20.0 / 60, 0, 0));
  EXPECT_THAT(Scores("{attributeKey: heat, algorithm: {type: linear_higher_is_better, "
                     "normalization: {adaptiveRange: {}}}}"),
              ElementsAre(0, 20.0 / 60, 1, 0));
  EXPECT_THAT(Scores("{attributeKey: heat, algorithm: {type: linear_lower_is_better, "
                     "normalization: {fixedRange: {min: 0, max: 50}}}}"),
              ElementsAre(DoubleEq(0.6), DoubleEq(0.2), 0, 0));
}

TEST_F(EndpointAttributeTest, FindsANumberByItsProducerOrByNone) {
  EXPECT_THAT(Scores("{attributeKey: heat, producer: '', "
                     "algorithm: {type: linear_higher_is_better}}"),
              ElementsAre(0, 20.0 / 60, 1, 0));
  EXPECT_THAT(Scores("{attributeKey: heat, producer: dcgm-extractor, "
                     "algorithm: {type: linear_higher_is_better}}"),
              ElementsAre(0, 0, 0, 0));
}

TEST_F(EndpointAttributeTest, EqualNumbersScoreOne) {
  Scene scene(2);
  auto dcgm = scene.Make(DcgmExtractorType());
  const auto attribute = scene.context().ConsumesEndpointAttribute("GPUUtilization", "");
  scene.fleet().ReportAttribute(0, *attribute, 0.5f);
  auto scorer = scene.Make(EndpointAttributeScorerType(),
                           "{attributeKey: GPUUtilization, producer: '', "
                           "algorithm: {type: linear_lower_is_better}}");
  scene.Refresh();
  EXPECT_THAT(scene.Score(*scorer), ElementsAre(1, 0));
}

TEST_F(EndpointAttributeTest, FiltersByComparison) {
  const auto filter = [](std::string_view op, std::string_view rest = "") {
    return "{attribute: heat, algorithm: {type: threshold, threshold: {operator: " +
           std::string(op) + ", value: 40}}" + std::string(rest) + "}";
  };
  EXPECT_THAT(Kept(filter("LessThan")), ElementsAre(0, 3));
  EXPECT_THAT(Kept(filter("LessThanOrEqual")), ElementsAre(0, 1, 3));
  EXPECT_THAT(Kept(filter("GreaterThan")), ElementsAre(2, 3));
  EXPECT_THAT(Kept(filter("GreaterThanOrEqual")), ElementsAre(1, 2, 3));
  EXPECT_THAT(Kept(filter("Equal")), ElementsAre(1, 3));
  EXPECT_THAT(Kept(filter("NotEqual")), ElementsAre(0, 2, 3));
  EXPECT_THAT(Kept(filter("LessThan", ", onMissing: Fail")), ElementsAre(0));
}

TEST_F(EndpointAttributeTest, NobodyLeftIsNobodyUnlessToldOtherwise) {
  const std::string none =
      "{attribute: heat, onMissing: Fail, algorithm: {type: threshold, threshold: "
      "{operator: LessThan, value: 1}}";
  EXPECT_THAT(Kept(none + "}"), ElementsAre());
  EXPECT_THAT(Kept(none + ", fallbackOnEmpty: true}"), ElementsAre(0, 1, 2, 3));
}

TEST_F(EndpointAttributeTest, RefusesWhatCannotBeMeant) {
  for (const char* yaml :
       {"{}", "{attributeKey: '', algorithm: {type: linear_lower_is_better}}",
        "{attributeKey: a, algorithm: {type: other}}",
        "{attributeKey: a/b, algorithm: {type: linear_lower_is_better}}",
        "{attributeKey: a, algorithm: {type: linear_lower_is_better, normalization: "
        "{fixedRange: {min: 1, max: 1}}}}",
        "{attributeKey: a, algorithm: {type: linear_lower_is_better, normalization: "
        "{fixedRange: {max: 1}, adaptiveRange: {}}}}"}) {
    EXPECT_EQ(scene_.Make(EndpointAttributeScorerType(), yaml), nullptr) << yaml;
  }
  for (const char* yaml :
       {"{}", "{attribute: a}", "{attribute: a, algorithm: {type: threshold}}",
        "{attribute: a, algorithm: {type: threshold, threshold: {operator: Near, value: 1}}}",
        "{attribute: a, onMissing: Maybe, algorithm: {type: threshold, threshold: "
        "{operator: Equal, value: 1}}}"}) {
    EXPECT_EQ(scene_.Make(EndpointAttributeFilterType(), yaml), nullptr) << yaml;
  }
}

}  // namespace
}  // namespace llmd::plugins
