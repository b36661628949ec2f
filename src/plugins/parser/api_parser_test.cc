#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "plugins/parser/anthropic_parser.h"
#include "plugins/parser/openai_parser.h"
#include "plugins/parser/sglanghttp_parser.h"
#include "plugins/parser/vertexai_parser.h"
#include "plugins/parser/vllmgrpc_parser.h"
#include "plugins/parser/vllmhttp_parser.h"
#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using protocol::Api;
using ::testing::UnorderedElementsAre;

// The longest claim of any of the parsers that matches.
std::string ApiOf(std::string_view path) {
  testing::Scene scene(1);
  size_t longest = 0;
  std::string found = "none";
  for (const plugin::PluginType& type :
       {OpenAiParserType(), AnthropicParserType(), VllmHttpParserType(), SglangHttpParserType(),
        VllmGrpcParserType(), VertexAiParserType()}) {
    const auto made = scene.Make(type);
    for (const auto& claim : dynamic_cast<plugin::Parser&>(*made).claims()) {
      EXPECT_FALSE(claim.suffix.empty()) << "would claim everything";
      if (!claim.Matches(path) || claim.suffix.size() <= longest) continue;
      longest = claim.suffix.size();
      found = type.type + " " + std::string(protocol::InfoOf(claim.api).name);
    }
  }
  return found;
}

TEST(ApiParsers, ThePathTellsTheApi) {
  const struct {
    std::string_view path, want;
  } cases[] = {
      {"/v1/chat/completions", "openai-parser chat/completions"},
      {"/v1/chat/completions/render", "openai-parser chat/completions/render"},
      {"/v1/completions", "openai-parser completions"},
      {"/v1/completions/render", "openai-parser completions/render"},
      {"/v1/projects/p/embeddings", "openai-parser embeddings"},
      {"/v1/responses", "openai-parser responses"},
      {"/v1/conversations", "openai-parser conversations"},
      {"/v1/images/generations", "openai-parser images/generations"},
      {"/v1/messages", "anthropic-parser messages"},
      {"/v1/messages/count_tokens", "anthropic-parser messages/count_tokens"},
      {"/inference/v1/generate", "vllmhttp-parser inference/v1/generate"},
      {"/generate", "sglanghttp-parser generate"},
      {"generate", "sglanghttp-parser generate"},
      {"/v1/generate", "none"},
      {"/regenerate", "none"},
      {"/vllm.grpc.engine.VllmEngine/Generate",
       "vllmgrpc-parser vllm.grpc.engine.VllmEngine/Generate"},
      {"/vllm.grpc.engine.VllmEngine/Embed", "vllmgrpc-parser vllm.grpc.engine.VllmEngine/Embed"},
      {"/vllm.grpc.engine.VllmEngine/HealthCheck", "vllmgrpc-parser vllm.grpc.engine.VllmEngine"},
      {"/vllm.grpc.engine.VllmEngine/GetModelInfo", "vllmgrpc-parser vllm.grpc.engine.VllmEngine"},
      {"/google.cloud.aiplatform.v1beta1.PredictionService/ChatCompletions",
       "vertexai-parser PredictionService/ChatCompletions"},
      {"/google.cloud.aiplatform.v1.PredictionService/RawPredict",
       "vertexai-parser PredictionService/RawPredict"},
      {"/google.cloud.aiplatform.v1.PredictionService/StreamRawPredict",
       "vertexai-parser PredictionService/StreamRawPredict"},
      {"/v1/models", "none"},
      {"", "none"},
  };
  for (const auto& c : cases) EXPECT_EQ(ApiOf(c.path), c.want) << c.path;
}

TEST(ApiParsers, GrpcApisNeedHttp2) {
  using plugin::AppProtocol;
  testing::Scene scene(1);
  const auto protocols = [&](const plugin::PluginType& type) {
    const auto made = scene.Make(type);
    const auto span = dynamic_cast<plugin::Parser&>(*made).protocols();
    return std::vector<AppProtocol>(span.begin(), span.end());
  };
  for (const auto& type : {OpenAiParserType(), AnthropicParserType(), VllmHttpParserType(),
                           SglangHttpParserType()}) {
    EXPECT_THAT(protocols(type), UnorderedElementsAre(AppProtocol::kHttp, AppProtocol::kH2c));
  }
  for (const auto& type : {VllmGrpcParserType(), VertexAiParserType()}) {
    EXPECT_THAT(protocols(type), UnorderedElementsAre(AppProtocol::kH2c));
  }
  EXPECT_EQ(plugin::AppProtocolName(AppProtocol::kH2c), "kubernetes.io/h2c");
}

}  // namespace
}  // namespace llmd::plugins
