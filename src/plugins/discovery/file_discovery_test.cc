#include "plugins/discovery/file_discovery.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using ::testing::HasSubstr;
using testing::Scene;

base::Result<std::vector<fleet::EndpointSpec>> Read(std::string_view yaml) {
  Scene scene(1);
  auto made = scene.Make(FileDiscoveryType(), "{path: endpoints.yaml}");
  return dynamic_cast<plugin::EndpointDiscovery&>(*made).Read(yaml);
}

TEST(FileDiscovery, ReadsEndpoints) {
  const auto specs = Read(R"(
endpoints:
  - name: vllm-0
    address: 10.0.0.1
    port: "8000"
    labels: {llm-d.ai/role: decode, app: vllm}
  - {name: vllm-1, namespace: other, address: "fd00::1", port: 8001}
  - {name: vllm-2, address: vllm-2.svc.cluster.local, port: "80", labels:
      {llmd.ai/draining: "true"}}
)");
  ASSERT_TRUE(specs) << specs.error().ToString();
  ASSERT_EQ(specs->size(), 3u);
  EXPECT_EQ((*specs)[0],
            (fleet::EndpointSpec{.name = "vllm-0",
                                 .name_space = "default",
                                 .address = "10.0.0.1",
                                 .port = 8000,
                                 .labels = {{"app", "vllm"}, {"llm-d.ai/role", "decode"}}}));
  EXPECT_EQ((*specs)[1].name_space, "other");
  EXPECT_EQ((*specs)[1].port, 8001);
  EXPECT_FALSE((*specs)[1].draining);
  EXPECT_TRUE((*specs)[2].draining);
}

TEST(FileDiscovery, AnEmptyFileIsAnEmptyFleet) {
  for (const char* yaml : {"", "endpoints: []", "endpoints:"}) {
    const auto specs = Read(yaml);
    ASSERT_TRUE(specs) << yaml;
    EXPECT_TRUE(specs->empty());
  }
}

TEST(FileDiscovery, JsonIsYaml) {
  EXPECT_TRUE(Read(R"({"endpoints": [{"name": "a", "address": "10.0.0.1", "port": "8000"}]})"));
}

TEST(FileDiscovery, ReportsEveryErrorWithItsPlace) {
  const auto specs = Read(R"(endpoints:
  - {name: a, address: 10.0.0.300, port: "8000"}
  - {name: b, address: 10.0.0.1, port: "0"}
  - {name: c, address: 10.0.0.1, port: http}
  - {address: 10.0.0.1, port: "8000"}
  - {name: a, address: 10.0.0.2, port: "8000", weight: 2}
)");
  ASSERT_FALSE(specs);
  const std::string errors(specs.error().message());
  EXPECT_THAT(errors, HasSubstr("endpoints.yaml:2:24 endpoints[0].address: not an IPv4"));
  EXPECT_THAT(errors, HasSubstr("endpoints[1].port: not a port"));
  EXPECT_THAT(errors, HasSubstr("endpoints[2].port: not a port"));
  EXPECT_THAT(errors, HasSubstr("name"));
  EXPECT_THAT(errors, HasSubstr("weight"));
}

TEST(FileDiscovery, RefusesANameThatIsListedTwice) {
  const auto specs = Read(R"(endpoints:
  - {name: a, address: 10.0.0.1, port: "8000"}
  - {name: a, namespace: other, address: 10.0.0.1, port: "8001"}
  - {name: a, address: 10.0.0.2, port: "8000"}
)");
  ASSERT_FALSE(specs);
  EXPECT_THAT(std::string(specs.error().message()), HasSubstr("default/a is listed twice"));
}

TEST(FileDiscovery, RefusesMoreThanOneMebibyte) {
  EXPECT_FALSE(Read("# " + std::string(1 << 20, 'x') + "\nendpoints: []\n"));
}

TEST(FileDiscovery, WantsAPath) {
  Scene scene(1);
  EXPECT_EQ(scene.Make(FileDiscoveryType(), ""), nullptr);
  EXPECT_THAT(scene.context().errors().ToString(), HasSubstr("path is missing"));
  Scene other(1);
  EXPECT_EQ(other.Make(FileDiscoveryType(), "{watchFile: true}"), nullptr);
}

TEST(FileDiscovery, SaysWhatToWatch) {
  Scene scene(1);
  auto made = scene.Make(FileDiscoveryType(), "{path: /etc/e.yaml, watchFile: true}");
  const plugin::FileSpec& file = dynamic_cast<plugin::EndpointDiscovery&>(*made).file();
  EXPECT_EQ(file.path, "/etc/e.yaml");
  EXPECT_TRUE(file.watch);
}

TEST(FileDiscovery, KnowsAddresses) {
  for (const char* good : {"10.0.0.1", "::1", "fd00::1:2", "localhost", "vllm-0", "a.b.c.",
                           "1a.com", "vllm_sim", "xn--bcher-kva.example"}) {
    EXPECT_TRUE(IsValidAddress(good)) << good;
  }
  for (const char* bad : {"", "10.0.0", "10.0.0.256", "1.2.3.4.5", "[::1]", "fd00::1::2", "a b",
                          "-a", "a-", "a..b", ".", "http://a", "a:80", "a/b"}) {
    EXPECT_FALSE(IsValidAddress(bad)) << bad;
  }
  EXPECT_FALSE(IsValidAddress(std::string(64, 'a')));
  EXPECT_TRUE(IsValidAddress(std::string(63, 'a')));
}

}  // namespace
}  // namespace llmd::plugins
