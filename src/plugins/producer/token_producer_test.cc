#include "plugins/producer/token_producer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

TEST(TokenProducer, BackEndsThatAreNotBuiltAreRefused) {
  for (const char* yaml : {"{vllm: {url: http://x}}", "{modelName: m}", "{modelName: m, vllm: {}}",
                           "{udsTokenizerConfig: {socketFile: s}}"}) {
    Scene scene(1);
    EXPECT_EQ(scene.Make(TokenProducerType(), yaml), nullptr) << yaml;
    EXPECT_THAT(scene.context().errors().ToString(), HasSubstr("not built yet")) << yaml;
  }
  for (const char* yaml : {"{estimate: {image: {mode: other}}}", "{estimate: {}, modelName: m}"}) {
    Scene scene(1);
    EXPECT_EQ(scene.Make(TokenProducerType(), yaml), nullptr) << yaml;
  }
}

}  // namespace
}  // namespace llmd::plugins
