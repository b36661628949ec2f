#include "plugins/parser/sglanghttp_parser.h"

#include "plugins/parser/api_parser.h"

namespace llmd::plugins {

plugin::PluginType SglangHttpParserType() {
  return ApiParserType(
      "sglanghttp-parser",
      "Reads requests and token usage of SGLang's token API, /generate with input_ids; there is no "
      "model in it to rewrite.",
      protocol::ApiFamily::kSglangHttp, kHttpApis);
}

}  // namespace llmd::plugins
