// How a request dialect is written down: one Dialect per API, a table of the body fields it reads
// and what each means. Internal to protocol/; the reader of all of them is RequestParser. A further
// dialect is a file with its tables and a line in DialectOf. Thread-safe: constants.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "protocol/request.h"

namespace llmd::protocol {

enum class Field : uint8_t {
  kNone,  // not read
  // Of the body.
  kModel,
  kStream,
  kStreamOptions,
  kOutputBound,
  kOutputBoundFallback,  // counts when kOutputBound is absent
  kChoices,
  kCacheSalt,
  kTools,                // any value, taken raw
  kInstructions,         // text
  kMessages,             // an array of messages
  kInput,                // text or an array of messages
  kPrompts,              // text, token ids, or an array of either
  kTextPrompt,           // text only
  // Of a message or item.
  kRole,
  kContent,              // text or an array of parts
  kToolCalls,            // any value, taken raw
  // Of a content part, and of the object that a media field may hold.
  kPartText,
  kImage,
  kAudio,
  kVideo,
  kFile,
  kMediaBytes,
  // Of stream_options.
  kIncludeUsage,
};
static_assert(static_cast<int>(Field::kIncludeUsage) < 32, "Frame::seen has one bit per field");

enum class Context : uint8_t {
  kBody, kStreamOptions, kMessages, kMessage, kContent, kPart, kMedia, kPrompts,
};

struct FieldRow {
  std::string_view key;
  Field field;
};

struct Dialect {
  ApiInfo info;
  std::span<const FieldRow> body;
  // What a client reads when the field that carries the content is missing, empty or malformed.
  std::string_view content_error;
};

const Dialect& DialectOf(Api api);
std::span<const Dialect> OpenAiDialects();

// The field that `key` names in `rows`, or kNone.
inline Field FieldOf(std::span<const FieldRow> rows, std::string_view key) {
  for (const FieldRow& row : rows) {
    // The first byte tells most keys of one length apart, without a call.
    if (row.key.size() == key.size() && row.key[0] == key[0] && row.key == key) return row.field;
  }
  return Field::kNone;
}

// The fields of the objects inside a body; they are the same in all dialects so far.
std::span<const FieldRow> FieldsIn(Context context);

}  // namespace llmd::protocol
