// Anthropic's Messages API, as vLLM and others serve it.
//
// Of a tool_use block, id, name and input are part of the prompt; of a tool_result its text and
// media; of thinking its text. A "document" is a file, whatever its source holds; the type stands
// before the source in the body, as every client writes it (else it counts as an image).
#include "protocol/dialect.h"

namespace llmd::protocol {
namespace {

constexpr FieldRow kMessagesFields[] = {
    {"model", Field::kModel},
    {"messages", Field::kMessages},
    {"system", Field::kSystem},
    {"tools", Field::kTools},
    {"stream", Field::kStream},
    {"max_tokens", Field::kOutputBound},
    {"cache_salt", Field::kCacheSalt},
};
constexpr FieldRow kPartFields[] = {
    {"type", Field::kPartType},     {"text", Field::kPartText},   {"thinking", Field::kThinking},
    {"source", Field::kSource},     {"content", Field::kContent}, {"id", Field::kToolCalls},
    {"name", Field::kToolCalls},    {"input", Field::kToolCalls},
};
constexpr FieldRow kMediaFields[] = {
    {"data", Field::kMediaBytes},
    {"url", Field::kMediaBytes},
    {"file_id", Field::kMediaBytes},
    {"content", Field::kContent},
};

constexpr Dialect kDialects[] = {
    {.info = {Api::kMessages, ApiFamily::kAnthropic, "messages", "messages"},
     .body = kMessagesFields,
     .part = kPartFields,
     .media = kMediaFields,
     .content_error = "invalid messages request: must have at least one message",
     .unreadable = "error unmarshaling request body"},
    // Only counts tokens, on any server.
    {.info = {Api::kMessagesCountTokens, ApiFamily::kAnthropic, "messages/count_tokens",
              "messages/count_tokens", ReplyFormat::kNone, false},
     .format = BodyFormat::kRaw},
};

}  // namespace

std::span<const Dialect> AnthropicDialects() { return kDialects; }

}  // namespace llmd::protocol
