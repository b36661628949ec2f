#include "plugins/parser/anthropic_parser.h"

#include "plugins/parser/api_parser.h"

namespace llmd::plugins {

plugin::PluginType AnthropicParserType() {
  return ApiParserType(
      "anthropic-parser",
      "Reads requests and token usage of the Anthropic Messages API; messages/count_tokens is "
      "routed unread.",
      protocol::ApiFamily::kAnthropic, kHttpApis);
}

}  // namespace llmd::plugins
