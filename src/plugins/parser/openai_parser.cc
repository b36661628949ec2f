#include "plugins/parser/openai_parser.h"

#include "plugins/parser/api_parser.h"

namespace llmd::plugins {

plugin::PluginType OpenAiParserType() {
  return ApiParserType(
      "openai-parser",
      "Reads requests and token usage of the OpenAI API: chat/completions, completions (both also "
      "with /render), embeddings, responses, conversations and images/generations.",
      protocol::ApiFamily::kOpenAi, kHttpApis);
}

}  // namespace llmd::plugins
