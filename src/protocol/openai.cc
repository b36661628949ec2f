// The OpenAI APIs: which fields of a body are read, what content each API requires. The texts are
// those of upstream's openai-parser, which clients may match on.
#include "protocol/dialect.h"

namespace llmd::protocol {
namespace {

constexpr FieldRow kChatFields[] = {
    {"model", Field::kModel},
    {"messages", Field::kMessages},
    {"tools", Field::kTools},
    {"stream", Field::kStream},
    {"stream_options", Field::kStreamOptions},
    {"max_completion_tokens", Field::kOutputBound},
    {"max_tokens", Field::kOutputBoundFallback},
    {"n", Field::kChoices},
    {"cache_salt", Field::kCacheSalt},
};
constexpr FieldRow kCompletionsFields[] = {
    {"model", Field::kModel},
    {"prompt", Field::kPrompts},
    {"stream", Field::kStream},
    {"stream_options", Field::kStreamOptions},
    {"max_tokens", Field::kOutputBound},
    {"n", Field::kChoices},
    {"cache_salt", Field::kCacheSalt},
};
constexpr FieldRow kEmbeddingsFields[] = {
    {"model", Field::kModel},
    {"input", Field::kPrompts},
    {"cache_salt", Field::kCacheSalt},
};
constexpr FieldRow kResponsesFields[] = {
    {"model", Field::kModel},
    {"input", Field::kInput},
    {"instructions", Field::kInstructions},
    {"tools", Field::kTools},
    {"stream", Field::kStream},
    {"max_output_tokens", Field::kOutputBound},
    {"cache_salt", Field::kCacheSalt},
};
constexpr FieldRow kConversationsFields[] = {
    {"model", Field::kModel},
    {"items", Field::kMessages},
    {"cache_salt", Field::kCacheSalt},
};
constexpr FieldRow kImagesFields[] = {
    {"model", Field::kModel},
    {"prompt", Field::kTextPrompt},
    {"stream", Field::kStream},
    {"n", Field::kChoices},
};

constexpr std::string_view kChatError =
    "invalid chat completions request: must have valid messages field";
constexpr std::string_view kCompletionsError =
    "invalid completions request: must have prompt field";

constexpr Dialect kDialects[] = {
    {{Api::kChatCompletions, "chat/completions", "chat/completions", true},
     kChatFields,
     kChatError},
    {{Api::kChatCompletionsRender, "chat/completions/render", "chat/completions/render", false},
     kChatFields,
     kChatError},
    {{Api::kCompletions, "completions", "completions", true},
     kCompletionsFields,
     kCompletionsError},
    {{Api::kCompletionsRender, "completions/render", "completions/render", false},
     kCompletionsFields,
     kCompletionsError},
    {{Api::kEmbeddings, "embeddings", "embeddings", false},
     kEmbeddingsFields,
     "invalid embeddings request: must have input field"},
    {{Api::kResponses, "responses", "responses", true},
     kResponsesFields,
     "invalid responses request: must have input field"},
    {{Api::kConversations, "conversations", "conversations", false},
     kConversationsFields,
     "invalid conversations request: must have items field"},
    {{Api::kImagesGenerations, "images/generations", "images/generations", true},
     kImagesFields,
     "invalid images generations request: must have prompt field"},
};

}  // namespace

std::span<const Dialect> OpenAiDialects() { return kDialects; }

}  // namespace llmd::protocol
