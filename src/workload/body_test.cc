#include "workload/body.h"

#include <string>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace llmd::workload {
namespace {

std::string Join(const RenderedBody& body) {
  std::string out;
  for (const std::string_view piece : body.pieces()) out += piece;
  EXPECT_EQ(out.size(), body.bytes());
  return out;
}

TEST(BodyTemplate, RendersAChatRequest) {
  const auto source = PromptSource::New({.shared_prefix = true,
                                         .groups = {.system_tokens = LengthSpec::Fixed(500),
                                                    .question_tokens = LengthSpec::Fixed(40)},
                                         .output_tokens = LengthSpec::Fixed(9)});
  ASSERT_TRUE(source);
  const BodyTemplate chat({.api = Api::kChat, .model = "meta/llama \"3\"", .stream = true});
  RenderedBody body;
  chat.Render(source->At(0, false), source->corpus(), &body);
  const auto json = nlohmann::json::parse(Join(body));
  EXPECT_EQ(json["model"], "meta/llama \"3\"");
  EXPECT_EQ(json["stream"], true);
  EXPECT_EQ(json["stream_options"]["include_usage"], true);
  EXPECT_EQ(json["ignore_eos"], true);
  EXPECT_EQ(json["max_tokens"], 9);
  ASSERT_EQ(json["messages"].size(), 2u);
  EXPECT_EQ(json["messages"][0]["role"], "system");
  EXPECT_EQ(json["messages"][0]["content"].get<std::string>().size(), 2000u);
  EXPECT_EQ(json["messages"][1]["role"], "user");
  EXPECT_EQ(json["messages"][1]["content"].get<std::string>().size(), 160u);
}

TEST(BodyTemplate, RendersCompletionsWithThePrefixInFront) {
  const auto source = PromptSource::New({.shared_prefix = true,
                                         .groups = {.group_count = 1,
                                                    .prompts_per_group = 2,
                                                    .system_tokens = LengthSpec::Fixed(30),
                                                    .question_tokens = LengthSpec::Fixed(20)}});
  ASSERT_TRUE(source);
  const BodyTemplate completions({.api = Api::kCompletions,
                                  .model = "m",
                                  .ignore_eos = false,
                                  .extra_members = "\"temperature\":0"});
  RenderedBody body;
  completions.Render(source->At(0, false), source->corpus(), &body);
  const auto first = nlohmann::json::parse(Join(body));
  completions.Render(source->At(1, false), source->corpus(), &body);
  const auto second = nlohmann::json::parse(Join(body));
  const auto prompt = first["prompt"].get<std::string>();
  const auto other = second["prompt"].get<std::string>();
  EXPECT_EQ(prompt.size(), 200u);
  EXPECT_NE(prompt, other);
  EXPECT_EQ(prompt.substr(0, 120), other.substr(0, 120));
  EXPECT_EQ(first["temperature"], 0);
  EXPECT_FALSE(first.contains("ignore_eos"));
  EXPECT_FALSE(first.contains("stream"));
}

TEST(BodyTemplate, OneObjectServesRequestsOfEverySize) {
  const BodyTemplate chat({.model = "m"});
  const Corpus corpus;
  RenderedBody body;
  for (const uint64_t bytes :
       {uint64_t{0}, uint64_t{5}, uint64_t{64}, uint64_t{3000000}, uint64_t{70}}) {
    chat.Render({.user = {.seed = bytes + 1, .bytes = bytes}, .output_tokens = 1}, corpus, &body);
    const auto json = nlohmann::json::parse(Join(body));
    ASSERT_EQ(json["messages"].size(), 1u);
    EXPECT_EQ(json["messages"][0]["content"].get<std::string>().size(), bytes);
  }
}

TEST(BodyTemplate, KnowsThePaths) {
  EXPECT_EQ(ApiPath(Api::kChat), "/v1/chat/completions");
  EXPECT_EQ(ApiPath(Api::kCompletions), "/v1/completions");
}

}  // namespace
}  // namespace llmd::workload
