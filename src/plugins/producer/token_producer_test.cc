#include "plugins/producer/token_producer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/producer/render_backend.h"
#include "plugins/producer/token_estimate.h"
#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using protocol::Piece;
using protocol::PieceKind;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::Scene;

struct Counted {
  uint64_t tokens = 0;
  std::vector<uint32_t> media;
};

Counted Count(std::string_view yaml, std::vector<Piece> pieces,
              std::vector<plugin::Header> headers = {}) {
  Scene scene(1);
  auto made = scene.Make(TokenProducerType(), yaml);
  EXPECT_NE(made, nullptr) << scene.context().errors().ToString();
  plugin::RequestContext& request = scene.NewRequest();
  scene.body().pieces = pieces;
  for (const Piece& piece : pieces) scene.body().media_count += IsMedia(piece.kind);
  request.headers = headers;
  EXPECT_TRUE(scene.Produce(*made).ok());
  const auto* prompt = request.attributes.Get(scene.context().SlotOf<plugin::TokenizedPrompt>());
  if (!prompt) return {};
  EXPECT_TRUE(prompt->estimated);
  return {prompt->token_count, {prompt->media_tokens.begin(), prompt->media_tokens.end()}};
}

TEST(TokenProducer, EstimatesFourBytesPerToken) {
  EXPECT_EQ(Count("", {{.bytes = "user", .kind = PieceKind::kRole}, {.bytes = "hello"}}).tokens,
            3u);
  EXPECT_EQ(Count("{estimate: {}}", {{.bytes = "12345678"}}).tokens, 2u);
}

TEST(TokenProducer, OpaqueBodiesHaveNoPrompt) {
  Scene scene(1);
  auto made = scene.Make(TokenProducerType());
  plugin::RequestContext& request = scene.NewRequest();
  EXPECT_TRUE(scene.Produce(*made).ok());
  EXPECT_EQ(request.attributes.Get(scene.context().SlotOf<plugin::TokenizedPrompt>()), nullptr);
}

TEST(TokenProducer, ImagesCountByPixelsOrAsConfigured) {
  const std::vector<Piece> url = {{.bytes = "https://x/y.png", .kind = PieceKind::kImage}};
  EXPECT_THAT(Count("", url).media, ElementsAre(640 * 360 / 1024));
  EXPECT_THAT(Count("{estimate: {image: {defaultResolution: {width: 1024, height: 768}, dynamic: "
                    "{factor: 784}}}}",
                    url)
                  .media,
              ElementsAre(1024 * 768 / 784));
  EXPECT_THAT(Count("{estimate: {image: {mode: static, static: {staticToken: 77}}}}", url).media,
              ElementsAre(77));
  EXPECT_THAT(Count("{estimate: {image: {mode: static}}}", url).media, ElementsAre(1));
  EXPECT_THAT(Count("{estimate: {image: {defaultResolution: {width: 3, height: 3}}}}", url).media,
              ElementsAre(1))
      << "never less than one";
  // 256 x 512 in the header of a PNG.
  const std::vector<Piece> png = {
      {.bytes = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAQAAAAIACAYAAAA=",
       .kind = PieceKind::kImage}};
  EXPECT_THAT(Count("", png).media, ElementsAre(256 * 512 / 1024));
}

TEST(TokenProducer, VideosCountByFrames) {
  const std::vector<Piece> video = {{.bytes = "https://x/y.mp4", .kind = PieceKind::kVideo}};
  EXPECT_THAT(Count("", video).media, ElementsAre(10 * 2 * 225)) << "10 s at 2 fps, 640x360";
  EXPECT_THAT(
      Count("{estimate: {video: {frames: {sampled: {temporalPatchSize: 2}}}}}", video).media,
      ElementsAre(10 * 225));
  EXPECT_THAT(Count("{estimate: {video: {frames: {mode: strided, strided: {frameStride: 7}, "
                    "maxFrames: 32}, tokensPerFrame: {mode: static, static: {numTokensPerFrame: "
                    "256}}}}}",
                    video)
                  .media,
              ElementsAre(32 * 256))
      << "240 / 7 = 34 frames, at most 32";
  EXPECT_THAT(
      Count("{estimate: {video: {frames: {minFrames: 50}, maxVideoTokens: 10000}}}", video).media,
      ElementsAre(10000));
  EXPECT_THAT(Count("", video,
                    {{"X-LLM-D-Video-Duration-Seconds", "3.5"},
                     {"x-llm-d-video-resolution", "320x180"},
                     {"x-llm-d-video-fps", "60"}})
                  .media,
              ElementsAre(7 * 56))
      << "sampling ignores the source's frame rate";
  EXPECT_THAT(Count("{estimate: {video: {frames: {mode: strided, strided: {frameStride: 30}}}}}",
                    video, {{"x-llm-d-video-fps", "60"}})
                  .media,
              ElementsAre(20 * 225));
  EXPECT_THAT(Count("", video,
                    {{"x-llm-d-video-duration-seconds", "-1"},
                     {"x-llm-d-video-resolution", "wide"},
                     {"x-llm-d-video-fps", "nan"}})
                  .media,
              ElementsAre(20 * 225))
      << "bad headers count as absent";
  EXPECT_THAT(Count("", video, {{"x-llm-d-video-duration-seconds", "1e30"}}).media,
              ElementsAre(kMediaTokensMax));
}

TEST(TokenProducer, AudioCountsByItsTextAndFilesAsOne) {
  const auto counted = Count("", {{.bytes = "hear"},
                                  {.bytes = "QUJDREVGR0g=x", .kind = PieceKind::kAudio},
                                  {.bytes = "cGRm", .kind = PieceKind::kFile}});
  EXPECT_THAT(counted.media, ElementsAre(4, 1));
  EXPECT_EQ(counted.tokens, 1u + 4u + 1u);
}

TEST(TokenProducer, OneBackEndAtMost) {
  for (const char* yaml :
       {"{estimate: {image: {mode: other}}}",
        "{estimate: {}, modelName: m}", "{vllm: {url: http://x}}", "{modelName: m, vllm: {url: x}}",
        "{modelName: m, vllm: {url: http://}}", "{vllm: {}, local: {path: /x}, modelName: m}",
        "{local: {}}"}) {
    Scene scene(1);
    EXPECT_EQ(scene.Make(TokenProducerType(), yaml), nullptr) << yaml;
    EXPECT_FALSE(scene.context().errors().ok()) << yaml;
  }
  for (const char* yaml : {"{modelName: m}", "{modelName: m, vllm: {url: http://h:8000/p/}}",
                           "{local: {path: /x}, modelName: m}", "{local: {path: /x}}"}) {
    Scene scene(1);
    EXPECT_NE(scene.Make(TokenProducerType(), yaml), nullptr)
        << yaml << scene.context().errors().ToString();
  }
}

const plugin::TokenizedPrompt* Tokens(Scene& scene) {
  return scene.request().attributes.Get(scene.context().SlotOf<plugin::TokenizedPrompt>());
}

TEST(TokenProducer, TakesIdsThatTheClientGave) {
  Scene scene(1);
  auto made = scene.Make(TokenProducerType());
  plugin::RequestContext& request = scene.NewRequest();
  const std::vector<Piece> pieces = {
      {.bytes = "1, 22,333", .token_count = 3, .kind = PieceKind::kTokenIds},
      {.bytes = "4", .prompt = 1, .token_count = 1, .kind = PieceKind::kTokenIds}};
  scene.body().pieces = pieces;
  scene.body().token_count = 4;
  scene.body().prompt_count = 2;
  ASSERT_TRUE(scene.Produce(*made).ok());
  ASSERT_EQ(Tokens(scene)->prompts.size(), 2u);
  EXPECT_THAT(Tokens(scene)->prompts[0].ids, ElementsAre(1, 22, 333));
  EXPECT_THAT(Tokens(scene)->prompts[1].ids, ElementsAre(4));
  EXPECT_FALSE(Tokens(scene)->estimated);
  EXPECT_EQ(request.wait_until, base::TimePoint());

  const std::vector<Piece> mixed = {pieces[0], {.bytes = "text", .prompt = 1}};
  scene.NewRequest();
  scene.body().pieces = mixed;
  scene.body().token_count = 3;
  scene.body().prompt_count = 2;
  ASSERT_TRUE(scene.Produce(*made).ok());
  EXPECT_TRUE(Tokens(scene)->prompts.empty());
  EXPECT_TRUE(Tokens(scene)->estimated);
}

TEST(RenderReply, OfOnePromptOfSeveralAndWithImages) {
  const auto one = ReadRenderReply(
      R"({"request_id":"c","token_ids":[128000,2675,13],"features":null,"params":{"x":1}})");
  ASSERT_TRUE(one.has_value()) << one.error().ToString();
  ASSERT_EQ(one->size(), 1u);
  EXPECT_THAT(one->front().ids, ElementsAre(128000, 2675, 13));

  const auto several = ReadRenderReply(
      R"([{"token_ids":[9906,11],"features":null},{"token_ids":[],"x":[1,{"token_ids":[5]}]}])");
  ASSERT_TRUE(several.has_value());
  ASSERT_EQ(several->size(), 2u);
  EXPECT_THAT(several->at(0).ids, ElementsAre(9906, 11));
  EXPECT_TRUE(several->at(1).ids.empty());

  const auto media = ReadRenderReply(
      R"({"features":{"kwargs_data":{"image":["x"]},"mm_placeholders":{"audio":[{"offset":2,)"
      R"("length":1}],"image":[{"length":4,"offset":9},{"offset":3,"length":2}]},)"
      R"("mm_hashes":{"image":["aa","bb"],"audio":["cc"]}},"token_ids":[1]})");
  ASSERT_TRUE(media.has_value());
  const auto& features = media->front().features;
  ASSERT_EQ(features.size(), 3u);
  EXPECT_EQ(features[0].hash, "cc");
  EXPECT_EQ(features[0].modality, PieceKind::kAudio);
  EXPECT_EQ(features[1].hash, "bb");
  EXPECT_EQ(features[1].offset, 3u);
  EXPECT_EQ(features[2].hash, "aa");
  EXPECT_EQ(features[2].length, 4u);

  for (const char* bad : {"", "{", "[1]", "null", "{\"token_ids\":[-1]}", "{} {}"}) {
    EXPECT_FALSE(ReadRenderReply(bad).has_value()) << bad;
  }
}

// A completions request with a prompt of text against a render server.
struct RenderScene : Scene {
  RenderScene() : Scene(1) {
    made = Make(TokenProducerType(), "{modelName: real/model, vllm: {url: http://h:1/sub}}");
    EXPECT_NE(made, nullptr) << context().errors().ToString();
  }
  // Asks for the ids of a new request; what it has done elsewhere, or nullptr.
  std::shared_ptr<plugin::OutsideCall> Ask() {
    NewRequest();
    parts = {R"({"model":"alias","pro)", R"(mpt":"Hello"})"};
    pieces = {{.bytes = parts[1].substr(6, 5)}};
    body().api = protocol::Api::kCompletions;
    body().pieces = pieces;
    body().prompt_count = 1;
    body().model = "alias";
    body().model_begin = 9;
    body().model_end = 16;
    body().body_bytes = parts[0].size() + parts[1].size();
    request().body_parts = parts;
    EXPECT_TRUE(Produce(*made).ok());
    return std::static_pointer_cast<plugin::OutsideCall>(request().asked);
  }
  // The server answers, or does not.
  base::Status Answer(int status, std::string reply) {
    auto& call = static_cast<plugin::OutsideCall&>(*request().asked);
    call.http_status = status;
    call.reply = std::move(reply);
    call.End(status == 0 ? base::DeadlineExceeded("slow") : base::OkStatus());
    request().wait_until = {};
    return Produce(*made);
  }

  std::unique_ptr<plugin::Plugin> made;
  std::vector<std::string_view> parts;
  std::vector<Piece> pieces;
};

TEST(RenderBackend, SendsTheBodyWithTheModelReplaced) {
  RenderScene scene;
  const auto call = scene.Ask();
  ASSERT_NE(call, nullptr);
  EXPECT_EQ(call->server, "h:1");
  EXPECT_EQ(call->path, "/sub/v1/completions/render");
  EXPECT_EQ(call->body, R"({"model":"real/model","prompt":"Hello"})");
  EXPECT_EQ(call->timeout, std::chrono::seconds(5));
  EXPECT_GT(scene.request().wait_until, scene.request().now);
  EXPECT_TRUE(Tokens(scene)->estimated) << "until the answer comes";
  ASSERT_TRUE(scene.Answer(200, R"([{"token_ids":[9906,11]}])").ok());
  EXPECT_EQ(scene.request().wait_until, base::TimePoint());
  EXPECT_EQ(scene.request().asked, nullptr);
  EXPECT_THAT(Tokens(scene)->prompts[0].ids, ElementsAre(9906, 11));
  EXPECT_EQ(Tokens(scene)->token_count, 2u);
}

TEST(RenderBackend, NobodyWaitsForADeadServer) {
  RenderScene scene;
  auto& errands = dynamic_cast<plugin::ErrandRunner&>(*scene.made);
  for (uint32_t i = 0; i < TokenBreaker::kFailuresMax; ++i) {
    ASSERT_NE(scene.Ask(), nullptr);
    EXPECT_FALSE(scene.Answer(i == 0 ? 503 : 0, "").ok());
    EXPECT_TRUE(Tokens(scene)->estimated);
  }
  EXPECT_EQ(scene.Ask(), nullptr);
  EXPECT_THAT(scene.made->DumpState(), HasSubstr("\"answers\":false"));

  base::TimePoint now = testing::At();
  const auto probe = std::static_pointer_cast<plugin::OutsideCall>(errands.NextErrand(now));
  ASSERT_NE(probe, nullptr);
  EXPECT_EQ(probe->body, R"({"model":"real/model","prompt":"Hello"})");
  EXPECT_EQ(errands.NextErrand(now), nullptr) << "not at once again";
  probe->http_status = 200;
  probe->reply = R"([{"token_ids":[1]}])";
  probe->End(base::OkStatus());
  errands.OnErrandEnd(*probe, now);
  EXPECT_NE(scene.Ask(), nullptr);
  EXPECT_EQ(errands.NextErrand(now + std::chrono::hours(1)), nullptr);
}

// A server before vLLM 0.32 does not know /v1/messages/render.
TEST(RenderBackend, MessagesGoAsAChatToAServerThatDoesNotKnowThem) {
  RenderScene scene;
  const auto ask = [&] {
    scene.NewRequest();
    scene.parts = {R"({"model":"claude","messages":[{"role":"user",)", R"("content":"Hi"}]})"};
    scene.pieces = {{.bytes = "Hi"}};
    scene.body().api = protocol::Api::kMessages;
    scene.body().pieces = scene.pieces;
    scene.body().prompt_count = 1;
    scene.body().model = "claude";
    scene.body().model_begin = 9;
    scene.body().model_end = 17;
    scene.body().body_bytes = scene.parts[0].size() + scene.parts[1].size();
    scene.request().body_parts = scene.parts;
    EXPECT_TRUE(scene.Produce(*scene.made).ok());
    return scene.request().asked;
  };
  // Runs the job that turns the body into a chat; the call that follows it.
  const auto convert = [&]() -> std::shared_ptr<plugin::OutsideCall> {
    const auto job = std::dynamic_pointer_cast<plugin::OutsideJob>(scene.request().asked);
    if (!job) return nullptr;
    job->End(job->Run());
    EXPECT_TRUE(scene.Produce(*scene.made).ok());
    return std::dynamic_pointer_cast<plugin::OutsideCall>(scene.request().asked);
  };
  auto call = std::static_pointer_cast<plugin::OutsideCall>(ask());
  ASSERT_NE(call, nullptr);
  EXPECT_EQ(call->path, "/sub/v1/messages/render");
  ASSERT_TRUE(scene.Answer(404, "{}").ok()) << "the same request goes on";
  for (int i = 0; i < 2; ++i) {
    call = convert();
    ASSERT_NE(call, nullptr);
    EXPECT_EQ(call->path, "/sub/v1/chat/completions/render");
    EXPECT_EQ(call->body,
              R"({"model":"real/model","messages":[{"role":"user","content":"Hi"}]})");
    ASSERT_TRUE(scene.Answer(200, R"({"token_ids":[7,8]})").ok());
    EXPECT_THAT(Tokens(scene)->prompts[0].ids, ElementsAre(7, 8));
    ASSERT_NE(ask(), nullptr) << "and the next is converted at once";
  }
}

TEST(RenderBackend, APathThatTheServerDoesNotHaveIsNotAskedAgain) {
  RenderScene scene;
  ASSERT_NE(scene.Ask(), nullptr);
  EXPECT_FALSE(scene.Answer(404, "{}").ok());
  EXPECT_EQ(scene.Ask(), nullptr);
}

}  // namespace
}  // namespace llmd::plugins
