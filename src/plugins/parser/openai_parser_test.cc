#include "plugins/parser/openai_parser.h"

#include <gtest/gtest.h>

#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

TEST(OpenAiParser, ClaimsThePathsOfTheProtocol) {
  testing::Scene scene(1);
  auto made = scene.Make(OpenAiParserType());
  const auto claims = dynamic_cast<plugin::Parser&>(*made).claims();
  ASSERT_EQ(claims.size(), protocol::OpenAiApis().size());
  std::map<std::string_view, protocol::Api> by_suffix;
  for (const auto& claim : claims) by_suffix[claim.suffix] = claim.api;
  EXPECT_EQ(by_suffix.at(protocol::InfoOf(protocol::Api::kChatCompletions).path_suffix),
            protocol::Api::kChatCompletions);
  EXPECT_EQ(by_suffix.at(protocol::InfoOf(protocol::Api::kEmbeddings).path_suffix),
            protocol::Api::kEmbeddings);
  EXPECT_FALSE(by_suffix.contains("")) << "an empty suffix would claim everything";
}

}  // namespace
}  // namespace llmd::plugins
