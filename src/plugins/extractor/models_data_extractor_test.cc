#include "plugins/extractor/models_data_extractor.h"

#include <gtest/gtest.h>

#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using testing::Scene;

TEST(ModelsDataExtractor, ShowsWhatEveryEndpointServes) {
  Scene scene(1);
  auto made = scene.Make(ModelsDataExtractorType());
  const auto& extractor = dynamic_cast<plugin::Extractor&>(*made);
  const fleet::EndpointSpec a{.name = "a", .address = "10.0.0.1", .labels = {}};
  const fleet::EndpointSpec b{.name = "b", .address = "10.0.0.2", .labels = {}};
  plugin::EndpointReport report;
  EXPECT_TRUE(extractor.Extract(
      a, R"({"object":"list","data":[{"object":"model","id":"m\"1","x":{"id":"no"}},{"id":"l"}]})",
      &report));
  EXPECT_TRUE(extractor.Extract(b, R"({"data":[]})", &report));
  EXPECT_EQ(made->DumpState(), R"({"default/a":["m\"1","l"],"default/b":[]})");
  EXPECT_TRUE(extractor.Extract(a, R"({"data":[{"id":"m2"}]})", &report));
  EXPECT_EQ(made->DumpState(), R"({"default/a":["m2"],"default/b":[]})");
  EXPECT_FALSE(report.found_load);
}

TEST(ModelsDataExtractor, SkipsWhatIsNoListOfModels) {
  Scene scene(1);
  auto made = scene.Make(ModelsDataExtractorType());
  const auto& extractor = dynamic_cast<plugin::Extractor&>(*made);
  for (const char* page : {"", "{", "[]", "{}", "<html>", R"({"data":[{"id":)"}) {
    plugin::EndpointReport report;
    EXPECT_FALSE(extractor.Extract({}, page, &report)) << page;
  }
  EXPECT_EQ(made->DumpState(), "{}");
}

}  // namespace
}  // namespace llmd::plugins
