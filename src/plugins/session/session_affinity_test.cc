#include "plugins/session/session_affinity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/base64.h"
#include "plugins/filter/session_affinity_filter.h"
#include "plugins/request_header/agent_identity.h"
#include "plugins/scorer/session_affinity_scorer.h"
#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using ::testing::ElementsAre;
using testing::At;
using testing::Scene;
using std::chrono::seconds;

// A client that talks through a filter and a scorer of the same parameters.
class SessionAffinityTest : public ::testing::TestWithParam<bool> {
 protected:
  void Make(std::string_view yaml) {
    plugin_ = scene_.Make(GetParam() ? SessionAffinityFilterType() : SessionAffinityScorerType(),
                          yaml);
  }
  void NewRequest(std::vector<plugin::Header> headers) {
    headers_ = std::move(headers);
    plugin::RequestContext& request = scene_.NewRequest();
    request.headers = headers_;
    request.now = At(time_);
  }
  // Whom the request is drawn to, nullopt for nobody in particular.
  std::optional<plugin::EndpointNumber> DrawnTo() {
    if (GetParam()) {
      const auto kept = scene_.Filter(*plugin_);
      return kept.size() == 1 ? std::optional(kept[0]) : std::nullopt;
    }
    const auto scores = scene_.Score(*plugin_);
    const auto best = std::find(scores.begin(), scores.end(), 1.0);
    if (best == scores.end()) return {};
    return static_cast<plugin::EndpointNumber>(best - scores.begin());
  }
  // Routes the request to `n`; `candidates` are those that the filters left.
  void Route(plugin::EndpointNumber n, std::vector<plugin::EndpointNumber> candidates = {0, 1, 2},
             std::string_view profile = "default") {
    std::vector<plugin::ScoredCandidate> scored;
    for (const plugin::EndpointNumber c : candidates) scored.push_back({c, 0});
    const plugin::ScoredCandidate chosen[] = {{n, 1.0}};
    const plugin::ProfileResult profiles[] = {
        {.profile = profile, .endpoints = chosen, .scored = scored, .ran = true}};
    plugin::BookingList bookings;
    EXPECT_TRUE(dynamic_cast<plugin::PreRequest&>(*plugin_)
                    .OnRouted(scene_.request(), {.profiles = profiles}, &bookings)
                    .ok());
  }
  std::vector<plugin::Header> ReplyHeaders() {
    plugin::HeaderEdits edits;
    dynamic_cast<plugin::ResponseProcessor&>(*plugin_)
        .OnResponseHead(scene_.request(), {.status = 200}, &edits);
    return {edits.headers().begin(), edits.headers().end()};
  }

  Scene scene_{3};
  base::Duration time_{};
  std::vector<plugin::Header> headers_;
  std::unique_ptr<plugin::Plugin> plugin_;
};

INSTANTIATE_TEST_SUITE_P(FilterAndScorer, SessionAffinityTest, ::testing::Bool());

TEST_P(SessionAffinityTest, TheReplyNamesTheEndpointAndTheClientSendsItBack) {
  Make("");
  NewRequest({});
  EXPECT_EQ(DrawnTo(), std::nullopt);
  Route(1);
  const auto reply = ReplyHeaders();
  ASSERT_EQ(reply.size(), 1u);
  EXPECT_EQ(reply[0].name, "x-session-token");
  EXPECT_EQ(reply[0].value, base::EncodeBase64("default/s1"));
  const std::string token(reply[0].value);
  NewRequest({{"X-Session-Token", token}});
  EXPECT_EQ(DrawnTo(), 1u);
}

TEST_P(SessionAffinityTest, ATokenThatNamesNobodyIsIgnored) {
  Make("{encodedEndpointHeaderConfig: {header: X-Mine}}");
  for (const std::string& token : {std::string("%%%"), base::EncodeBase64("default/gone"),
                                   base::EncodeBase64("s1"), std::string(4000, 'A')}) {
    NewRequest({{"x-mine", token}});
    EXPECT_EQ(DrawnTo(), std::nullopt) << token;
  }
}

TEST_P(SessionAffinityTest, TheNamedProfilesEndpointIsWritten) {
  Make("{profileName: prefill}");
  NewRequest({});
  Route(2);
  EXPECT_TRUE(ReplyHeaders().empty()) << "no such profile ran";
  NewRequest({});
  Route(2, {2}, "prefill");
  EXPECT_EQ(ReplyHeaders().size(), 1u);
}

TEST_P(SessionAffinityTest, ASessionStaysWhereItBegan) {
  Make("{strategy: session_id}");
  NewRequest({{"x-session-id", "a"}});
  EXPECT_EQ(DrawnTo(), std::nullopt);
  Route(2);
  EXPECT_TRUE(ReplyHeaders().empty());
  NewRequest({{"x-session-id", "a"}});
  EXPECT_EQ(DrawnTo(), 2u);
  Route(0) /* another plugin had its way */;
  NewRequest({{"x-session-id", "a"}});
  EXPECT_EQ(DrawnTo(), 2u) << "the bound endpoint was a candidate: no move";
  Route(0, {0, 1});
  NewRequest({{"x-session-id", "a"}});
  EXPECT_EQ(DrawnTo(), 0u) << "it was none: the session moves";
  NewRequest({{"x-session-id", "b"}});
  EXPECT_EQ(DrawnTo(), std::nullopt);
}

TEST_P(SessionAffinityTest, AnUnusedBindingExpires) {
  Make("{strategy: session_id, sessionIdConfig: {evictionTtlSeconds: 10}}");
  NewRequest({{"x-session-id", "a"}});
  Route(1);
  time_ += seconds(9);
  NewRequest({{"x-session-id", "a"}});
  EXPECT_EQ(DrawnTo(), 1u);
  Route(1);
  time_ += seconds(9);
  NewRequest({{"x-session-id", "a"}});
  EXPECT_EQ(DrawnTo(), 1u) << "each use makes it live longer";
  time_ += seconds(2);
  NewRequest({{"x-session-id", "a"}});
  EXPECT_EQ(DrawnTo(), std::nullopt);
  Route(0);
  EXPECT_EQ(plugin_->DumpState(), "{\"sessions\":1}");
}

TEST_P(SessionAffinityTest, SourcesAreAskedInOrder) {
  const auto agents = scene_.Make(AgentIdentityType());
  Make(
      "{strategy: session_id, sessionIdConfig: {sources: [{attribute: agent-identity}, "
      "{header: X-First}, {attribute: SessionIDDataKey, producer: mine}]}}");
  NewRequest({});
  const plugin::SessionId session{.id = "s"};
  scene_.request().attributes.Set(scene_.context().SlotOf<plugin::SessionId>("mine"), &session);
  Route(0);
  NewRequest({{"x-first", "h"}});
  scene_.request().attributes.Set(scene_.context().SlotOf<plugin::SessionId>("mine"), &session);
  EXPECT_EQ(DrawnTo(), std::nullopt) << "the header comes first";
  Route(1);
  NewRequest({{"x-first", "h"}});
  const plugin::AgentIdentity agent{.id = "s"};
  scene_.request().attributes.Set(scene_.context().SlotOf<plugin::AgentIdentity>(), &agent);
  EXPECT_EQ(DrawnTo(), 0u) << "the attribute comes first, and its value is a session already";
}

TEST_P(SessionAffinityTest, RefusesWhatCannotWork) {
  for (const char* yaml :
       {"{strategy: other}", "{strategy: session_id, sessionIdConfig: {sources: [{}]}}",
        "{strategy: session_id, sessionIdConfig: {sources: [{header: a, attribute: b}]}}",
        "{strategy: session_id, sessionIdConfig: {sources: [{attribute: nobody}]}}",
        "{strategy: session_id, sessionIdConfig: {evictionTtlSeconds: -1}}",
        "{unknown: 1}"}) {
    Make(yaml);
    EXPECT_EQ(plugin_, nullptr) << yaml;
  }
}

}  // namespace
}  // namespace llmd::plugins
