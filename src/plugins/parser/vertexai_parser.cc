#include "plugins/parser/vertexai_parser.h"

#include "plugins/parser/api_parser.h"

namespace llmd::plugins {

plugin::PluginType VertexAiParserType() {
  return ApiParserType(
      "vertexai-parser",
      "Reads the OpenAI requests inside Vertex AI's gRPC PredictionService (ChatCompletions, "
      "RawPredict, StreamRawPredict) and their token usage. For pools with appProtocol "
      "kubernetes.io/h2c; compressed messages are refused; the model is not rewritten.",
      protocol::ApiFamily::kVertexAi, kGrpcApis);
}

}  // namespace llmd::plugins
