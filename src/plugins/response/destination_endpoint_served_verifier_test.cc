#include "plugins/response/destination_endpoint_served_verifier.h"

#include <gtest/gtest.h>

#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

TEST(DestinationEndpointServedVerifier, SaysWhoServedOrThatNobodySaid) {
  testing::Scene scene(1);
  auto made = scene.Make(DestinationEndpointServedVerifierType());
  const std::pair<std::optional<std::string_view>, std::string_view> cases[] = {
      {"10.0.0.1:8000", "10.0.0.1:8000"},
      {"", "fail: missing destination endpoint served metadata"},
      {std::nullopt, "fail: missing envoy lb metadata"}};
  for (const auto& [served, value] : cases) {
    plugin::HeaderEdits edits;
    dynamic_cast<plugin::ResponseProcessor&>(*made).OnResponseHead(
        scene.NewRequest(), {.status = 200, .served_endpoint = served}, &edits);
    ASSERT_EQ(edits.headers().size(), 1u);
    EXPECT_EQ(edits.headers()[0].name, "x-conformance-test-served-endpoint");
    EXPECT_EQ(edits.headers()[0].value, value);
  }
}

}  // namespace
}  // namespace llmd::plugins
