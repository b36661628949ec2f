// Messages of upstream's tokenizer sidecar: gRPC package `tokenization`, service
// TokenizationService. Requests out of what a client sent, ids out of replies.
//
// What the sidecar's form of a chat has no field for: ids of tool results, names and replayed
// reasoning of messages, which it renders without; audio and video, for which no message is
// written. documents and reasoning_effort travel as arguments of the template, where vLLM would put
// them itself.
//
// Pure. Source of the field numbers: llm-d-kv-cache, api/tokenizerpb/tokenizer.proto.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "plugins/producer/token_backend.h"

namespace llmd::plugins {

inline constexpr std::string_view kSidecarInitialize =
    "/tokenization.TokenizationService/InitializeTokenizer";
inline constexpr std::string_view kSidecarRenderChat =
    "/tokenization.TokenizationService/RenderChatCompletion";
inline constexpr std::string_view kSidecarRenderText =
    "/tokenization.TokenizationService/RenderCompletion";

std::string SidecarInitializeRequest(std::string_view model);
std::string SidecarTextRequest(std::string_view model, std::string_view prompt);
// `chat`: the JSON body of a chat completion. InvalidArgument: it is none; Unimplemented: the
// sidecar has no form for a part of its content.
base::Result<std::string> SidecarChatRequest(std::string_view model, std::string_view chat);

// Errors: Internal for bytes that cannot be read, FailedPrecondition for success = false, with the
// sidecar's words.
base::Status ReadSidecarInitialized(std::string_view reply);
base::Result<TokenPrompt> ReadSidecarText(std::string_view reply);
base::Result<TokenPrompt> ReadSidecarChat(std::string_view reply);

}  // namespace llmd::plugins
