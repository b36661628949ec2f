#include "plugins/producer/local_backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/strings.h"
#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using plugin::OutsideCall;
using plugin::OutsideJob;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::At;
using testing::Scene;

constexpr std::string_view kTokenizer = R"({"version":"1.0","truncation":null,"padding":null,
"added_tokens":[],"normalizer":null,"pre_tokenizer":{"type":"Whitespace"},"post_processor":null,
"decoder":null,"model":{"type":"WordLevel","unk_token":"[UNK]",
"vocab":{"[UNK]":0,"Hello":1,"world":2,",":3,"!":4,"user":5,":":6}}})";
constexpr std::string_view kConfig =
    R"({"chat_template":"{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"})";

// A backend whose files are those above, or what a test puts in their place.
struct Local {
  Local() : scene(1), backend({.path = "/models/m", .model = "m"}, scene.fleet()) {}

  std::shared_ptr<OutsideJob> Load(base::Result<std::string> tokenizer) {
    auto job = std::dynamic_pointer_cast<OutsideJob>(backend.NextErrand(now));
    EXPECT_NE(job, nullptr);
    if (!job) return nullptr;
    EXPECT_EQ(job->files[0].path, "/models/m/tokenizer.json");
    job->files[0].content = std::move(tokenizer);
    job->files[1].content = std::string(kConfig);
    job->files[2].content = std::unexpected(base::NotFound("no such file"));
    job->End(job->Run());
    backend.OnErrandEnd(*job, now);
    return job;
  }
  // The engine says that the sample's ids are these.
  void Check(std::string_view ids, int status = 200) {
    now += LocalBackend::kCheckPause;
    auto call = std::dynamic_pointer_cast<OutsideCall>(backend.NextErrand(now));
    ASSERT_NE(call, nullptr);
    EXPECT_TRUE(call->engine);
    EXPECT_EQ(call->server, "10.0.0.1:8000");
    EXPECT_THAT(call->body, HasSubstr("{\"model\":\"m\",\"prompt\":\"Hello, world!"));
    call->http_status = status;
    call->reply = base::Concat("{\"count\":2,\"max_model_len\":9,\"tokens\":[", ids, "]}");
    call->End(base::OkStatus());
    backend.OnErrandEnd(*call, now);
  }
  // The ids of a request with this body, of which `prompt` is the text; none: it is not asked for.
  std::vector<TokenPrompt> Ask(protocol::Api api, std::string_view body, std::string_view prompt) {
    plugin::RequestContext& request = scene.NewRequest();
    parts = {body.substr(0, 5), body.substr(5)};
    request.body_parts = parts;
    scene.SetPrompt(prompt);
    scene.body().api = api;
    const auto task = backend.Ask(request);
    if (!task) return {};
    auto& job = static_cast<OutsideJob&>(*task);
    job.End(job.Run());
    auto read = backend.Read(job, now);
    EXPECT_TRUE(read.has_value()) << read.error().ToString();
    return read.value_or(std::vector<TokenPrompt>());
  }

  Scene scene;
  LocalBackend backend;
  base::TimePoint now = At();
  std::vector<std::string_view> parts;
};

constexpr std::string_view kCompletion = R"({"prompt":"Hello\n world"})";
constexpr std::string_view kChat = R"({"messages":[{"role":"user","content":"Hello world"}]})";

TEST(LocalBackend, TokenisesCompletionsAndChatsOnceLoaded) {
  Local x;
  EXPECT_TRUE(x.Ask(protocol::Api::kCompletions, kCompletion, "Hello").empty());
  ASSERT_TRUE(x.Load(std::string(kTokenizer))->status().ok());
  auto prompts = x.Ask(protocol::Api::kCompletions, kCompletion, R"(Hello\n world)");
  ASSERT_EQ(prompts.size(), 1u);
  EXPECT_THAT(prompts[0].ids, ElementsAre(1, 2)) << "escapes are taken out";
  prompts = x.Ask(protocol::Api::kChatCompletions, kChat, "Hello world");
  ASSERT_EQ(prompts.size(), 1u);
  EXPECT_THAT(prompts[0].ids, ElementsAre(5, 6, 1, 2)) << "through the template";
  constexpr std::string_view kMessages =
      R"({"system":"!","messages":[{"role":"user","content":[{"type":"text","text":"Hello"}]}]})";
  prompts = x.Ask(protocol::Api::kMessages, kMessages, "Hello");
  ASSERT_EQ(prompts.size(), 1u);
  EXPECT_THAT(prompts[0].ids, ElementsAre(0, 6, 4, 5, 6, 1)) << "a system message, then the user's";
  EXPECT_TRUE(x.Ask(protocol::Api::kResponses, kChat, "Hello world").empty());
}

TEST(LocalBackend, AnotherModelsTokenizerIsFoundOutAndNotUsed) {
  Local x;
  x.Load(std::string(kTokenizer));
  x.Check("1", 404);  // no answer to the question: used, and asked again
  EXPECT_FALSE(x.Ask(protocol::Api::kCompletions, kCompletion, "Hello").empty());
  x.Check("9906,11,1917,0");
  EXPECT_THAT(x.backend.Describe(), HasSubstr("\"engineCheck\":\"differs\""));
  EXPECT_TRUE(x.Ask(protocol::Api::kCompletions, kCompletion, "Hello").empty());
  EXPECT_EQ(x.backend.NextErrand(x.now + std::chrono::hours(1)), nullptr);
}

TEST(LocalBackend, AMissingDirectoryIsTriedAgain) {
  Local x;
  EXPECT_FALSE(x.Load(std::unexpected(base::NotFound("/models/m")))->status().ok());
  EXPECT_EQ(x.backend.NextErrand(x.now), nullptr);
  x.now += LocalBackend::kRetryPause;
  EXPECT_FALSE(x.Load(std::string("{\"not\": \"a tokenizer\"}"))->status().ok());
  x.now += LocalBackend::kRetryPause;
  EXPECT_TRUE(x.Load(std::string(kTokenizer))->status().ok());
  EXPECT_THAT(x.backend.Describe(), HasSubstr("\"loaded\":true"));
}

}  // namespace
}  // namespace llmd::plugins
