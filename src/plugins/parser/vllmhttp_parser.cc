#include "plugins/parser/vllmhttp_parser.h"

#include "plugins/parser/api_parser.h"

namespace llmd::plugins {

plugin::PluginType VllmHttpParserType() {
  return ApiParserType(
      "vllmhttp-parser",
      "Reads requests and token usage of vLLM's token API, /inference/v1/generate.",
      protocol::ApiFamily::kVllmHttp, kHttpApis);
}

}  // namespace llmd::plugins
