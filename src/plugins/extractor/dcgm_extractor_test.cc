#include "plugins/extractor/dcgm_extractor.h"

#include <gtest/gtest.h>

#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using testing::Scene;

TEST(DcgmExtractor, TakesTheBusiestGpuOfTheEndpoint) {
  Scene scene(1);
  auto made = scene.Make(DcgmExtractorType());
  const auto& extractor = dynamic_cast<plugin::Extractor&>(*made);
  const fleet::EndpointSpec endpoint{.name = "a", .address = "10.0.0.1", .labels = {}};
  const struct {
    std::string_view page;
    double use;  // negative: nothing is found
  } cases[] = {
      {"DCGM_FI_DEV_GPU_UTIL{gpu=\"0\",pod=\"a\"} 40\nDCGM_FI_DEV_GPU_UTIL{gpu=\"1\",pod=\"a\"} "
       "75\n"
       "DCGM_FI_DEV_GPU_UTIL{gpu=\"2\",pod=\"b\"} 99\n",
       0.75},
      {"DCGM_FI_DEV_GPU_UTIL{gpu=\"0\"} 10\n", 0.1},
      {"DCGM_FI_DEV_GPU_UTIL{pod=\"b\"} 10\n", -1},
      {"DCGM_FI_DEV_FB_USED 10\n", -1},
      {"", -1},
  };
  for (const auto& c : cases) {
    plugin::EndpointReport report;
    EXPECT_EQ(extractor.Extract(endpoint, c.page, &report), c.use >= 0) << c.page;
    EXPECT_FALSE(report.found_load);
    if (c.use < 0) continue;
    ASSERT_EQ(report.value_count, 2u) << "under its own name and under none";
    EXPECT_FLOAT_EQ(report.values[0].value, static_cast<float>(c.use));
  }
}

}  // namespace
}  // namespace llmd::plugins
