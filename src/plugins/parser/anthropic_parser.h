// anthropic-parser: bodies of Anthropic's Messages API. messages/count_tokens is routed unread, and
// its reply is not looked at.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType AnthropicParserType();

}  // namespace llmd::plugins
