// passthrough-parser: the fallback for every path that no other parser claims. Bodies are opaque:
// no model, no rewrite, no prompt, no usage.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType PassthroughParserType();

}  // namespace llmd::plugins
