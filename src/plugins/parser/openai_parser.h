// openai-parser: bodies of the OpenAI API (chat/completions, completions, embeddings, responses,
// conversations, images/generations and vLLM's render paths), told apart by the end of the path.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType OpenAiParserType();

}  // namespace llmd::plugins
