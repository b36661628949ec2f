#include "plugins/producer/sidecar_backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/strings.h"
#include "plugins/producer/sidecar_messages.h"
#include "plugins/producer/token_producer.h"
#include "plugins/testing.h"
#include "wire/protobuf.h"

namespace llmd::plugins {
namespace {

using plugin::OutsideCall;
using plugin::OutsideJob;
using protocol::Api;
using protocol::Piece;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::At;
using testing::Scene;

// A message as text, "1=name 2={...}"; `inside` are the numbers of embedded messages, by the path
// of numbers that leads there.
std::string Shown(std::string_view message, const std::vector<std::string>& inside = {},
                  const std::string& path = "") {
  std::string out;
  wire::ProtoReader in(message);
  for (wire::ProtoField f; in.Next(&f);) {
    const std::string number = std::to_string(f.number);
    out += base::Concat(out.empty() ? "" : " ", number, "=");
    if (f.wire == wire::ProtoWire::kVarint) {
      out += std::to_string(f.value);
    } else if (std::ranges::find(inside, path + number) != inside.end()) {
      out += base::Concat("{", Shown(f.bytes, inside, path + number + "."), "}");
    } else {
      out += f.bytes;
    }
  }
  EXPECT_EQ(in.error(), wire::ProtoError::kNone);
  return out;
}

std::string Bytes(uint32_t number, std::string_view content) {
  return base::Concat(std::string(1, static_cast<char>(number << 3 | 2)),
                      std::string(1, static_cast<char>(content.size())), content);
}

// A producer with a sidecar that has loaded the model.
struct SidecarScene : Scene {
  explicit SidecarScene(std::string_view more = "") : Scene(1) {
    made = Make(TokenProducerType(),
                base::Concat("{modelName: m, udsTokenizerConfig: {socketFile: /run/t.sock", more,
                             "}}"));
    EXPECT_NE(made, nullptr) << context().errors().ToString();
    errands = dynamic_cast<plugin::ErrandRunner*>(made.get());
  }
  std::shared_ptr<OutsideCall> Errand() {
    now += std::chrono::seconds(10);
    return std::static_pointer_cast<OutsideCall>(errands->NextErrand(now));
  }
  void EndErrand(const std::shared_ptr<OutsideCall>& call, std::string reply,
                 base::Status status = {}) {
    call->reply = std::move(reply);
    call->End(std::move(status));
    errands->OnErrandEnd(*call, now);
  }
  void Load() {
    EndErrand(Errand(), "\x08\x01");
    EndErrand(Errand(), "\x12\x01\x07\x20\x01");
  }
  // The call that a request makes, after its job; nullptr: it makes none.
  std::shared_ptr<OutsideCall> Ask(Api api, std::string_view body, uint32_t media = 0) {
    NewRequest();
    parts = {body.substr(0, body.size() / 2), body.substr(body.size() / 2)};
    SetPrompt(body);
    this->body().api = api;
    this->body().media_count = media;
    this->body().body_bytes = body.size();
    request().body_parts = parts;
    EXPECT_TRUE(Produce(*made).ok());
    const auto job = std::dynamic_pointer_cast<OutsideJob>(request().asked);
    if (!job) return nullptr;
    EXPECT_GT(request().wait_until, request().now);
    job->End(job->Run());
    request().wait_until = {};
    outcome = Produce(*made);
    return std::dynamic_pointer_cast<OutsideCall>(request().asked);
  }
  base::Status Answer(std::string reply, base::Status status = {}) {
    auto& call = static_cast<OutsideCall&>(*request().asked);
    call.reply = std::move(reply);
    call.End(std::move(status));
    request().wait_until = {};
    return Produce(*made);
  }
  const plugin::TokenizedPrompt& Tokens() {
    return *request().attributes.Get(context().SlotOf<plugin::TokenizedPrompt>());
  }

  std::unique_ptr<plugin::Plugin> made;
  plugin::ErrandRunner* errands = nullptr;
  base::TimePoint now = At();
  base::Status outcome;
  std::vector<std::string_view> parts;
};

TEST(SidecarBackend, AChatIsRenderedThere) {
  SidecarScene scene;
  scene.Load();
  const auto call = scene.Ask(
      Api::kChatCompletions,
      R"({"model":"alias","messages":[{"role":"user","content":"Hi"}],"temperature":0})");
  ASSERT_NE(call, nullptr);
  EXPECT_EQ(call->protocol, OutsideCall::Protocol::kGrpc);
  EXPECT_EQ(call->server, "/run/t.sock");
  EXPECT_EQ(call->path, "/tokenization.TokenizationService/RenderChatCompletion");
  EXPECT_EQ(Shown(call->body, {"2"}), "1=m 2={1=user 2=Hi}");
  EXPECT_EQ(call->timeout, std::chrono::seconds(5));
  EXPECT_TRUE(scene.Tokens().estimated) << "until the answer comes";
  // token_ids packed, success
  ASSERT_TRUE(scene.Answer(base::Concat(Bytes(2, "\x01\xac\x02"), "\x20\x01")).ok());
  EXPECT_THAT(scene.Tokens().prompts[0].ids, ElementsAre(1, 300));
  EXPECT_FALSE(scene.Tokens().estimated);
  EXPECT_EQ(scene.Tokens().token_count, 2u);
  EXPECT_EQ(scene.request().asked, nullptr);
}

TEST(SidecarBackend, TheFormOfAChat) {
  const std::string_view chat = R"({"messages":[
      {"role":"system","content":null},
      {"role":"user","content":[{"type":"text","text":"What?"},
                                {"type":"image_url","image_url":{"url":"http://x/y"}}]},
      {"role":"assistant","tool_calls":[{"id":"c","function":{"name":"f","arguments":"{}"}}]}],
    "tools":[{"type":"function", "function":{"name":"f","parameters":{"b":1,"a":2}}}],
    "chat_template":"T","add_generation_prompt":false,"continue_final_message":true,
    "chat_template_kwargs":{"enable_thinking":false},"documents":[{"text":"d"}],
    "reasoning_effort":"low"})";
  const auto message = SidecarChatRequest("m", chat);
  ASSERT_TRUE(message.has_value()) << message.error().ToString();
  EXPECT_EQ(Shown(*message, {"2", "2.3", "2.3.3"}),
            R"(1=m 2={1=system} )"
            R"(2={1=user 3={1=text 2=What?} 3={1=image_url 3={1=http://x/y}}} )"
            R"(2={1=assistant 4=[{"id":"c","function":{"name":"f","arguments":"{}"}}]} )"
            R"(3=[{"type":"function","function":{"name":"f","parameters":{"b":1,"a":2}}}] )"
            R"(4=T 5=0 6=1 7={"enable_thinking":false,"documents":[{"text":"d"}],)"
            R"("reasoning_effort":"low"})");

  const auto code = [](std::string_view body) {
    return SidecarChatRequest("m", body).error().code();
  };
  EXPECT_EQ(code("{"), base::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(R"({"messages":["x"]})"), base::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(R"({"messages":[{"role":"user","content":[{"type":"input_audio"}]}]})"),
            base::StatusCode::kUnimplemented);
}

TEST(SidecarBackend, MessagesGoAsAChatAndCompletionsAsTheyAre) {
  SidecarScene scene;
  scene.Load();
  auto call = scene.Ask(Api::kMessages,
                        R"({"system":"S","messages":[{"role":"user","content":"Hi"}]})");
  ASSERT_NE(call, nullptr);
  EXPECT_EQ(Shown(call->body, {"2"}), "1=m 2={1=system 2=S} 2={1=user 2=Hi}");

  call = scene.Ask(Api::kCompletions, R"(a \"word\")");
  ASSERT_NE(call, nullptr);
  EXPECT_EQ(call->path, "/tokenization.TokenizationService/RenderCompletion");
  EXPECT_EQ(Shown(call->body), "1=m 2=a \"word\"");
  ASSERT_TRUE(scene.Answer(base::Concat("\x10\x05", Bytes(2, "\x06"), "\x18\x01")).ok());
  EXPECT_THAT(scene.Tokens().prompts[0].ids, ElementsAre(5, 6)) << "one of them not packed";

  EXPECT_EQ(scene.Ask(Api::kResponses, "{}"), nullptr) << "it has no form for that";
  EXPECT_EQ(scene.Ask(Api::kChatCompletions, "{]"), nullptr);
  EXPECT_EQ(scene.outcome.code(), base::StatusCode::kInvalidArgument);
  EXPECT_TRUE(scene.Tokens().estimated);
}

TEST(SidecarBackend, ImagesComeWithTheirPlacesAndHashes) {
  SidecarScene scene;
  scene.Load();
  const auto call = scene.Ask(Api::kChatCompletions,
                              R"({"messages":[{"role":"user","content":"x"}]})", /*media=*/1);
  ASSERT_NE(call, nullptr);
  EXPECT_EQ(call->timeout, std::chrono::seconds(30));
  const std::string hashes =
      Bytes(1, Bytes(1, "image") + Bytes(2, Bytes(1, "aa") + Bytes(1, "bb")));
  const std::string ranges = Bytes(
      2, Bytes(1, "image") + Bytes(2, Bytes(1, "\x08\x05\x10\x02") + Bytes(1, "\x08\x02\x10\x01")));
  ASSERT_TRUE(
      scene.Answer(base::Concat(Bytes(2, "\x01"), Bytes(3, ranges + hashes), "\x20\x01")).ok());
  const auto media = scene.Tokens().prompts[0].media;
  ASSERT_EQ(media.size(), 2u);
  EXPECT_EQ(media[0].offset, 2u);
  EXPECT_EQ(media[0].length, 1u);
  EXPECT_EQ(media[0].hash, "bb");
  EXPECT_EQ(media[1].hash, "aa");
}

TEST(SidecarBackend, NobodyAsksBeforeTheModelIsLoaded) {
  SidecarScene scene(", modelTokenizerMap: {m: /mnt/m/tokenizer.json, other: /x}");
  const std::string_view chat = R"({"messages":[{"role":"user","content":"x"}]})";
  EXPECT_EQ(scene.Ask(Api::kChatCompletions, chat), nullptr);
  auto call = scene.Errand();
  ASSERT_NE(call, nullptr);
  EXPECT_EQ(call->path, "/tokenization.TokenizationService/InitializeTokenizer");
  EXPECT_EQ(Shown(call->body), "1=/mnt/m 3=1");
  EXPECT_EQ(scene.errands->NextErrand(scene.now), nullptr) << "not at once again";
  scene.EndErrand(call, "", base::Unavailable("no such file"));
  scene.EndErrand(scene.Errand(), "\x12\x02no");
  EXPECT_EQ(scene.Ask(Api::kChatCompletions, chat), nullptr);
  EXPECT_THAT(scene.made->DumpState(), HasSubstr("\"initialized\":false"));
  scene.EndErrand(scene.Errand(), "\x08\x01");
  const auto warmup = scene.errands->NextErrand(scene.now);
  ASSERT_NE(warmup, nullptr) << "without a pause";
  EXPECT_EQ(Shown(static_cast<OutsideCall&>(*warmup).body, {"2"}),
            "1=/mnt/m 2={1=user 2=warmup}");
  EXPECT_NE(scene.Ask(Api::kChatCompletions, chat), nullptr) << "the warm-up is not waited for";
}

TEST(SidecarBackend, SilenceOpensTheBreakerAndWordsDoNot) {
  SidecarScene scene;
  scene.Load();
  const std::string_view chat = R"({"messages":[{"role":"user","content":"x"}]})";
  for (uint32_t i = 0; i < 2 * TokenBreaker::kFailuresMax; ++i) {
    ASSERT_NE(scene.Ask(Api::kChatCompletions, chat), nullptr);
    if (i % 2 == 0) {
      EXPECT_EQ(scene.Answer("", base::Internal("no such template")).code(),
                base::StatusCode::kInternal);
    } else {
      EXPECT_EQ(scene.Answer("\x2a\x02no").code(), base::StatusCode::kFailedPrecondition);
    }
    EXPECT_TRUE(scene.Tokens().estimated);
  }
  for (uint32_t i = 0; i < TokenBreaker::kFailuresMax; ++i) {
    ASSERT_NE(scene.Ask(Api::kChatCompletions, chat), nullptr);
    EXPECT_FALSE(scene.Answer("", i == 0 ? base::Unavailable("gone")
                                         : base::DeadlineExceeded("slow")).ok());
  }
  EXPECT_EQ(scene.Ask(Api::kChatCompletions, chat), nullptr);
  EXPECT_THAT(scene.made->DumpState(), HasSubstr("\"answers\":false"));
  const auto probe = scene.Errand();
  ASSERT_NE(probe, nullptr);
  EXPECT_EQ(probe->path, "/tokenization.TokenizationService/RenderChatCompletion");
  scene.EndErrand(probe, "\x20\x01");
  EXPECT_NE(scene.Ask(Api::kChatCompletions, chat), nullptr);
  EXPECT_EQ(scene.Errand(), nullptr);
}

TEST(SidecarBackend, ABrokenReplyIsAnError) {
  EXPECT_TRUE(ReadSidecarChat("\x20\x01").has_value());
  EXPECT_TRUE(ReadSidecarText("\x18\x01").has_value());
  for (const std::string_view bad : {"\x12", "\x12\x05\x01", "\x12\x01\xff\x20\x01", "\x1a\x01\x0a",
                                     "\x22\x01x", "\x1a\x03\x0a\x01\x0a"}) {
    const auto read = ReadSidecarChat(bad);
    ASSERT_FALSE(read.has_value());
    EXPECT_EQ(read.error().code(), base::StatusCode::kInternal);
  }
  EXPECT_EQ(ReadSidecarInitialized("\x0a").code(), base::StatusCode::kInternal);
}

TEST(SidecarBackend, Parameters) {
  for (const char* yaml :
       {"{udsTokenizerConfig: {}}", "{modelName: m, udsTokenizerConfig: {socketFile: s}}",
        "{modelName: m, udsTokenizerConfig: {socketFile: /x, useTCP: true}}",
        "{modelName: m, udsTokenizerConfig: {socketFile: ':80', useTCP: true}}",
        "{modelName: m, udsTokenizerConfig: {modelTokenizerMap: {n: /x}}}",
        "{modelName: m, udsTokenizerConfig: {}, vllm: {}}",
        "{modelName: m, udsTokenizerConfig: {socket: /x}}"}) {
    Scene scene(1);
    EXPECT_EQ(scene.Make(TokenProducerType(), yaml), nullptr) << yaml;
    EXPECT_FALSE(scene.context().errors().ok()) << yaml;
  }
  const struct {
    const char *yaml, *server, *model;
  } kGood[] = {
      {"{modelName: m, udsTokenizerConfig: {}}", "/tmp/tokenizer/tokenizer-uds.socket", "m"},
      {"{modelName: m, udsTokenizerConfig: {socketFile: 'h:80', useTCP: true}}", "h:80", "m"},
      {"{modelName: m, udsTokenizerConfig: {modelTokenizerMap: {m: /models/m}}}",
       "/tmp/tokenizer/tokenizer-uds.socket", "/models/m"},
  };
  for (const auto& c : kGood) {
    Scene scene(1);
    const auto made = scene.Make(TokenProducerType(), c.yaml);
    ASSERT_NE(made, nullptr) << c.yaml << scene.context().errors().ToString();
    EXPECT_THAT(made->DumpState(), HasSubstr(base::Concat("\"server\":\"", c.server, "\"")));
    EXPECT_THAT(made->DumpState(), HasSubstr(base::Concat("\"model\":\"", c.model, "\"")));
  }
}

}  // namespace
}  // namespace llmd::plugins
