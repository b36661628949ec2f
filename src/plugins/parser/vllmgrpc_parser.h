// vllmgrpc-parser: gRPC bodies of vLLM's engine service, methods Generate and Embed; the other
// methods are routed unread. There is no model in them, so none is asked for and none is rewritten.
// Compressed messages are refused.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType VllmGrpcParserType();

}  // namespace llmd::plugins
