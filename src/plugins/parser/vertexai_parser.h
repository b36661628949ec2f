// vertexai-parser: gRPC bodies of Vertex AI's PredictionService: ChatCompletions, RawPredict and
// StreamRawPredict, which carry a JSON document of the OpenAI API (chat/completions, else
// responses). No model is rewritten. Compressed messages are refused.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType VertexAiParserType();

}  // namespace llmd::plugins
