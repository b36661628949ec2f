// sglanghttp-parser: bodies of SGLang's own HTTP API, /generate (the whole path), with input_ids.
// There is no model in them, so none is asked for and none is rewritten.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType SglangHttpParserType();

}  // namespace llmd::plugins
