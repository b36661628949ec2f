// How a request dialect is written down: one Dialect per API, a table of the body fields it reads
// and what each means. Internal to protocol/; the reader of all JSON ones is RequestParser, of the
// gRPC ones GrpcRequestReader. A further dialect is a row in a file of its family and, for a new
// family, a line in DialectOf. Thread-safe: constants.
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
  kExtraKey,             // the same, in SGLang
  kTools,                // any value, taken raw
  kSystem,               // text or an array of parts
  kMessages,             // an array of messages
  kInput,                // text or an array of messages
  kPrompts,              // text, token ids, or an array of either
  kTextPrompt,           // text only
  kTokenIds,             // an array of token ids
  kSamplingParams,       // an object with output bound and choices
  kFeatures,             // an object: what token ids stand for
  // Of a message or item.
  kRole,
  kContent,              // text or an array of parts
  kToolCalls,            // any value, taken raw
  // Of a content part, and of the object that a media field may hold.
  kPartType,
  kPartText,
  kThinking,
  kImage,
  kAudio,
  kVideo,
  kFile,
  kSource,               // an image, or a file in a part of type "document"
  kMediaBytes,
  // Of stream_options.
  kIncludeUsage,
  // Of features: objects by modality; and of a placeholder.
  kHashes,
  kPlaceholders,
  kOffset,
  kLength,
};
static_assert(static_cast<int>(Field::kLength) < 64, "Frame::seen has one bit per field");

enum class Context : uint8_t {
  kBody, kStreamOptions, kSampling, kMessages, kMessage, kContent, kPart, kMedia, kPrompts,
  kTokenIds, kFeatures, kModalities, kHashes, kPlaceholders, kPlaceholder,
  kIgnored,  // an object where text or parts are expected: what tools answer with
};

struct FieldRow {
  std::string_view key;
  Field field;
};

enum class BodyFormat : uint8_t {
  kRaw,         // nothing is read
  kJson,
  kVllmGrpc,    // a vllm.grpc.engine message in a gRPC frame
  kVertexGrpc,  // JSON inside google.api.HttpBody in a gRPC frame
};

struct Dialect {
  ApiInfo info;
  BodyFormat format = BodyFormat::kJson;
  std::span<const FieldRow> body = {};
  // Fields of a content part, of the object that holds a medium, and of sampling parameters.
  std::span<const FieldRow> part = {};
  std::span<const FieldRow> media = {};
  std::span<const FieldRow> sampling = {};
  // What a client reads when the field that carries the content is missing, empty or malformed.
  std::string_view content_error = {};
  // What stands before the reason why the body is no JSON object.
  std::string_view unreadable = {};
  // gRPC: the request message; kVertexGrpc: the dialect of the JSON inside.
  std::string_view message = {};
  Api inner = Api::kOpaque;
};

const Dialect& DialectOf(Api api);
std::span<const Dialect> OpenAiDialects();     // openai.cc
std::span<const Dialect> AnthropicDialects();  // anthropic.cc
std::span<const Dialect> EngineDialects();     // engines.cc: vLLM's and SGLang's own APIs
std::span<const Dialect> GrpcDialects();       // grpc_request.cc

// The field that `key` names in `rows`, or kNone.
inline Field FieldOf(std::span<const FieldRow> rows, std::string_view key) {
  for (const FieldRow& row : rows) {
    // The first byte tells most keys of one length apart, without a call.
    if (row.key.size() == key.size() && row.key[0] == key[0] && row.key == key) return row.field;
  }
  return Field::kNone;
}

std::span<const FieldRow> FieldsIn(const Dialect& dialect, Context context);

}  // namespace llmd::protocol
