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
    {"instructions", Field::kSystem},
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

constexpr FieldRow kPartFields[] = {
    {"text", Field::kPartText},      {"content", Field::kContent},  {"image_url", Field::kImage},
    {"input_audio", Field::kAudio},  {"audio_url", Field::kAudio},  {"video_url", Field::kVideo},
    {"file", Field::kFile},          {"file_id", Field::kFile},     {"file_data", Field::kFile},
    {"file_url", Field::kFile},
};
constexpr FieldRow kMediaFields[] = {
    {"url", Field::kMediaBytes},
    {"data", Field::kMediaBytes},
    {"file_data", Field::kMediaBytes},
    {"file_id", Field::kMediaBytes},
};

constexpr Dialect Row(Api api, std::string_view name, std::span<const FieldRow> body,
                      std::string_view content_error) {
  return {.info = {api, ApiFamily::kOpenAi, name, name},
          .body = body,
          .part = kPartFields,
          .media = kMediaFields,
          .content_error = content_error,
          .unreadable = "error unmarshaling request bodyMap"};
}

constexpr std::string_view kChatError =
    "invalid chat completions request: must have valid messages field";
constexpr std::string_view kCompletionsError =
    "invalid completions request: must have prompt field";

constexpr Dialect kDialects[] = {
    Row(Api::kChatCompletions, "chat/completions", kChatFields, kChatError),
    Row(Api::kChatCompletionsRender, "chat/completions/render", kChatFields, kChatError),
    Row(Api::kCompletions, "completions", kCompletionsFields, kCompletionsError),
    Row(Api::kCompletionsRender, "completions/render", kCompletionsFields, kCompletionsError),
    Row(Api::kEmbeddings, "embeddings", kEmbeddingsFields,
        "invalid embeddings request: must have input field"),
    Row(Api::kResponses, "responses", kResponsesFields,
        "invalid responses request: must have input field"),
    Row(Api::kConversations, "conversations", kConversationsFields,
        "invalid conversations request: must have items field"),
    Row(Api::kImagesGenerations, "images/generations", kImagesFields,
        "invalid images generations request: must have prompt field"),
};

}  // namespace

std::span<const Dialect> OpenAiDialects() { return kDialects; }

}  // namespace llmd::protocol
