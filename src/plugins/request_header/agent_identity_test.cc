#include "plugins/request_header/agent_identity.h"

#include <gtest/gtest.h>

#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using testing::Scene;

std::string IdentityOf(std::string_view yaml, std::vector<plugin::Header> headers) {
  Scene scene(1);
  auto made = scene.Make(AgentIdentityType(), yaml);
  plugin::RequestContext& request = scene.NewRequest();
  request.headers = headers;
  EXPECT_TRUE(
      dynamic_cast<plugin::RequestHeaderProcessor&>(*made).OnRequestHeaders(request).ok());
  const auto* identity =
      request.attributes.Get(scene.context().SlotOf<plugin::AgentIdentity>("agent-identity"));
  return identity ? std::string(identity->id) : "";
}

TEST(AgentIdentity, TakesTheFirstHeaderThatIsNotEmpty) {
  EXPECT_EQ(IdentityOf("", {{"session_id", "d"}, {"Session-Id", "c"}}), "c");
  EXPECT_EQ(IdentityOf("", {{"session-id", "c"}, {"x-session-affinity", "b"}}), "b");
  EXPECT_EQ(IdentityOf("", {{"x-session-affinity", "b"}, {"x-claude-code-session-id", "a"}}), "a");
  EXPECT_EQ(IdentityOf("", {{"x-claude-code-session-id", ""}, {"session_id", "d"}}), "d");
  EXPECT_EQ(IdentityOf("", {{"x-other", "z"}}), "");
  EXPECT_EQ(IdentityOf("{additionalSessionHeaders: [X-Other]}",
                       {{"x-other", "z"}, {"x-claude-code-session-id", "a"}}),
            "z");
}

}  // namespace
}  // namespace llmd::plugins
