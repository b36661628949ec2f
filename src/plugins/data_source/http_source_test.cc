#include "plugins/data_source/http_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/data_source/dcgm_data_source.h"
#include "plugins/data_source/models_data_source.h"
#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using ::testing::HasSubstr;
using testing::Scene;

TEST(HttpSource, EachTypeHasItsDefaults) {
  const struct {
    plugin::PluginType type;
    std::string path;
    uint16_t port;
  } cases[] = {{ModelsDataSourceType(), "/v1/models", 0}, {DcgmDataSourceType(), "/metrics", 9400}};
  for (const auto& c : cases) {
    Scene scene(1);
    auto made = scene.Make(c.type);
    const plugin::FetchSpec& fetch = dynamic_cast<plugin::DataSource&>(*made).fetch();
    EXPECT_EQ(fetch.path, c.path);
    EXPECT_EQ(fetch.port, c.port);
    EXPECT_EQ(fetch.scheme, "http");
    EXPECT_FALSE(fetch.verify_server);
  }
}

TEST(HttpSource, DcgmTakesAPortAndNoNodeAddressYet) {
  Scene scene(1);
  auto made = scene.Make(DcgmDataSourceType(), "{port: 9, path: /x, interval: 1s}");
  const plugin::FetchSpec& fetch = dynamic_cast<plugin::DataSource&>(*made).fetch();
  EXPECT_EQ(fetch.port, 9);
  EXPECT_EQ(fetch.path, "/x");
  EXPECT_EQ(fetch.interval, std::chrono::seconds(1));
  EXPECT_EQ(scene.Make(DcgmDataSourceType(), "{useNodeAddress: true}"), nullptr);
  EXPECT_THAT(scene.context().errors().ToString(), HasSubstr("not built yet"));
}

TEST(HttpSource, FieldsOfOtherTypesAreUnknown) {
  Scene scene(1);
  EXPECT_EQ(scene.Make(ModelsDataSourceType(), "{port: 1}"), nullptr);
  EXPECT_EQ(scene.Make(DcgmDataSourceType(), "{caCertPath: a}"), nullptr);
  EXPECT_EQ(scene.Make(ModelsDataSourceType(), "{path: models}"), nullptr);
}

}  // namespace
}  // namespace llmd::plugins
