// vllmhttp-parser: bodies of vLLM's own HTTP API, /inference/v1/generate: token ids in, with what
// images and the like stand for in them.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType VllmHttpParserType();

}  // namespace llmd::plugins
