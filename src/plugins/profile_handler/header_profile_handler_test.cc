#include "plugins/profile_handler/header_profile_handler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using testing::Scene;

// The name of the profile that runs, "" when none does.
std::string Runs(std::string_view yaml, std::vector<std::string> profiles,
                 std::vector<plugin::Header> headers) {
  Scene scene(1);
  auto made = scene.Make(HeaderProfileHandlerType(), yaml);
  const auto& handler = dynamic_cast<plugin::ProfileHandler&>(*made);
  plugin::RequestContext& request = scene.NewRequest();
  request.headers = headers;
  std::vector<plugin::ProfileResult> results;
  for (const std::string& name : profiles) results.push_back({.profile = name});
  const auto next = handler.Next(request, results);
  if (!next) {
    const auto primary = handler.Primary(request, results);
    EXPECT_EQ(primary.error().code(), base::StatusCode::kResourceExhausted);
    return "";
  }
  results[*next].ran = true;
  EXPECT_EQ(handler.Next(request, results), std::nullopt) << "a profile ran already";
  EXPECT_EQ(*handler.Primary(request, results), *next);
  return profiles[*next];
}

TEST(HeaderProfileHandler, RunsTheProfileThatTheHeaderNames) {
  EXPECT_EQ(Runs("", {"prefill", "decode"}, {{"epp-profile", "prefill"}}), "prefill");
  EXPECT_EQ(Runs("", {"prefill", "decode"}, {{"EPP-Profile", " decode "}}), "decode");
  EXPECT_EQ(Runs("{headerName: x-p}", {"a", "b"}, {{"x-p", "b"}}), "b");
}

TEST(HeaderProfileHandler, WithoutTheHeaderTheDefaultRuns) {
  EXPECT_EQ(Runs("", {"prefill", "decode"}, {}), "decode");
  EXPECT_EQ(Runs("", {"prefill", "decode"}, {{"epp-profile", " "}}), "decode");
  EXPECT_EQ(Runs("{defaultProfile: prefill}", {"prefill", "decode"}, {}), "prefill");
}

TEST(HeaderProfileHandler, TheOnlyProfileAlwaysRuns) {
  EXPECT_EQ(Runs("", {"default"}, {{"epp-profile", "other"}}), "default");
}

TEST(HeaderProfileHandler, ANameThatIsNoProfileChoosesNothing) {
  EXPECT_EQ(Runs("", {"prefill", "decode"}, {{"epp-profile", "encode"}}), "");
  EXPECT_EQ(Runs("", {"a", "b"}, {}), "");
}

}  // namespace
}  // namespace llmd::plugins
