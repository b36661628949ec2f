#include "plugins/data_source/metrics_data_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using std::chrono::milliseconds;
using testing::Scene;

TEST(MetricsDataSource, FetchesMetricsEveryFiftyMillisecondsByDefault) {
  Scene scene(1);
  auto made = scene.Make(MetricsDataSourceType());
  const plugin::FetchSpec& fetch = dynamic_cast<plugin::DataSource&>(*made).fetch();
  EXPECT_EQ(fetch.scheme, "http");
  EXPECT_EQ(fetch.path, "/metrics");
  EXPECT_EQ(fetch.port, 0) << "the endpoint's own";
  EXPECT_FALSE(fetch.verify_server);
  EXPECT_EQ(fetch.interval, milliseconds(50));
}

TEST(MetricsDataSource, EverythingIsAParameter) {
  Scene scene(1);
  auto made = scene.Make(MetricsDataSourceType(), R"(
scheme: https
path: /m
port: 9400
insecureSkipVerify: false
caCertPath: ca.pem
clientCertPath: c.pem
clientKeyPath: k.pem
interval: 1s
)");
  ASSERT_NE(made, nullptr) << scene.context().errors().ToString();
  const plugin::FetchSpec& fetch = dynamic_cast<plugin::DataSource&>(*made).fetch();
  EXPECT_EQ(fetch.scheme, "https");
  EXPECT_EQ(fetch.path, "/m");
  EXPECT_EQ(fetch.port, 9400);
  EXPECT_TRUE(fetch.verify_server);
  EXPECT_EQ(fetch.ca_file, "ca.pem");
  EXPECT_EQ(fetch.client_cert_file, "c.pem");
  EXPECT_EQ(fetch.client_key_file, "k.pem");
  EXPECT_EQ(fetch.interval, milliseconds(1000));
}

TEST(MetricsDataSource, RefusesWhatCannotWork) {
  struct Case {
    const char* yaml;
    const char* says;
  };
  for (const Case& c : {Case{"{scheme: ftp}", "scheme"}, Case{"{path: metrics}", "slash"},
                        Case{"{port: 0}", "port"}, Case{"{port: 70000}", "port"},
                        Case{"{interval: 0s}", "interval"}, Case{"{interval: 50}", "interval"},
                        Case{"{clientCertPath: a}", "belong together"}}) {
    Scene scene(1);
    EXPECT_EQ(scene.Make(MetricsDataSourceType(), c.yaml), nullptr) << c.yaml;
    EXPECT_THAT(scene.context().errors().ToString(), ::testing::HasSubstr(c.says));
  }
}

}  // namespace
}  // namespace llmd::plugins
