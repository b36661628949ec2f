// The body of an Anthropic messages request as that of a chat completion, for what renders chats
// only: the local chat template, the tokenizer sidecar, vLLM's render server before 0.32.
//
// It becomes what vLLM itself makes of such a request, so that the ids are the engine's:
//   - the texts of the system prompt, joined without anything between them, are the first message;
//     texts that begin with x-anthropic-billing-header, which Claude Code sends with a new hash in
//     each request, are left out;
//   - tool_use blocks are tool calls, their input printed as Python's json.dumps does; tool_result
//     blocks of a user are messages of the role tool, before the user's own, their images a user's
//     message of their own; a thinking block is the message's reasoning;
//   - images are image_url parts, those given as data become data: URLs;
//   - tools are functions; the order of the keys of their schema is kept.
//
// Pure. InvalidArgument: no JSON object, or a field of another type than the API's. Limits: the
// parser's (nesting 1024, whole numbers of 64 bits). Source: upstream's conversion of
// MessagesRequest and vLLM's entrypoints/anthropic/serving.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace llmd::plugins {

// `model`: of the chat; "" leaves the field out.
base::Result<std::string> ChatOfMessages(std::string_view body, std::string_view model);

}  // namespace llmd::plugins
