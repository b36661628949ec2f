// Token usage and the model name's place, out of replies: plain JSON bodies and the data payloads
// of server-sent events.
//
// Reading is lenient where requests are strict: a reply that cannot be read has no usage, and
// nothing else happens. The fields are those of
//   OpenAI     usage {prompt_tokens or input_tokens, completion_tokens or output_tokens,
//              *_tokens_details.cached_tokens, total_tokens}, at the top level or, in events of the
//              Responses API, under "response"
//   Anthropic  usage {input_tokens, output_tokens, cache_read_input_tokens}, at the top level or,
//              in message_start, under "message"; the numbers of several events are put together
//   SGLang     meta_info {prompt_tokens, completion_tokens, cached_tokens}
// A zero changes nothing, so that an event which only repeats the shape of usage takes nothing
// back. Where no total is told, it is the sum. gRPC replies: grpc_reply.h.
//
// Thread safety: none, one ReplyScanner per reply; the free functions are pure. No heap.
#pragma once

#include <cstdint>
#include <string_view>

#include "protocol/request.h"
#include "wire/json_scan.h"

namespace llmd::protocol {

struct Usage {
  bool present = false;  // the reply had a usage object
  bool has_cached = false;
  bool has_total = false;  // total_tokens was told; else it is the sum
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  int64_t total_tokens = 0;
  int64_t cached_tokens = 0;  // prompt tokens found in the engine's prefix cache
};

struct ReplyFields {
  Usage usage;
  // Bytes of the model's string literal, quotes included, counted from the start of the body or
  // payload; begin == end when there is none.
  uint64_t model_begin = 0;
  uint64_t model_end = 0;
};

// False when `payload` certainly holds no usage object ("usage":null included): a few ns, asked of
// every event of every stream.
bool MayHoldUsage(std::string_view payload, ReplyFormat format = ReplyFormat::kOpenAi);
// The end marker of OpenAI streams.
inline bool IsDone(std::string_view payload) { return payload == "[DONE]"; }

// Reads one whole payload. Fields keep their values where the payload says nothing.
void ScanPayload(std::string_view payload, ReplyFields* fields);
// Only the model's place: stops as soon as it is found. False when there is none.
bool FindModel(std::string_view payload, uint64_t* begin, uint64_t* end);

// The same for a body that arrives in chunks.
class ReplyScanner {
 public:
  void Feed(std::string_view chunk);
  // Valid at any time; complete after the last Feed.
  const ReplyFields& fields() const { return fields_; }
  // Nothing more will be found: the body ended, was broken, or is no object.
  bool done() const { return done_; }
  // The model's place is known, or is known not to come.
  bool model_settled() const { return done_ || fields_.model_end != fields_.model_begin; }

 private:
  friend void ScanPayload(std::string_view payload, ReplyFields* fields);
  friend bool FindModel(std::string_view payload, uint64_t* begin, uint64_t* end);
  enum class Field : uint8_t {
    kNone, kResponse, kUsage, kMetaInfo, kDetails, kModel, kPrompt, kCompletion, kTotal, kCached,
  };
  enum class Context : uint8_t { kBody, kResponse, kUsage, kMetaInfo, kDetails };
  static constexpr size_t kContextsMax = 4;  // the longest way down is through all of them

  void Run(bool only_model);
  static Field FieldOf(Context context, std::string_view key);
  bool OnObject();
  void OnNumber();

  wire::JsonScanner scan_;
  ReplyFields fields_;
  Context contexts_[kContextsMax] = {};
  uint8_t context_count_ = 0;
  Field field_ = Field::kNone;
  bool done_ = false;
};

}  // namespace llmd::protocol
