// The bytes of vLLM's replies: bodies, stream events, errors, field for field as the captures of
// vLLM 0.32 in conformance/recorded/vllm-0.32 show them.
//
// Pure: everything is appended to the caller's string. No limits of its own.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "engine/block_hash.h"
#include "sim/request.h"

namespace llmd::sim {

inline constexpr std::string_view kVllmVersion = "0.32.0";

struct Usage {
  uint64_t prompt_tokens = 0;
  uint64_t completion_tokens = 0;
  uint64_t cached_tokens = 0;
  uint64_t created_cache_tokens = 0;
};

// What all parts of one reply share.
struct ReplyHead {
  bool chat = true;
  bool token_ids = false;   // return_token_ids
  bool every_usage = false; // continuous_usage_stats
  std::string id;           // "chatcmpl-..."
  int64_t created = 0;      // unix seconds
  std::string model;
  std::string fingerprint;  // "vllm-0.32.0-xxxxxxxx"
};

// How a choice ended; null fields if `reason` is empty.
struct ReplyEnd {
  std::string_view reason;       // "length", "stop"
  std::string_view stop_string;  // "": null
};

struct ReplyChoice {
  uint32_t index = 0;
  std::string text;
  ReplyEnd end;
  std::span<const engine::Token> token_ids;
  std::span<const engine::Token> prompt_token_ids;
};

// A whole reply that is not streamed.
void AppendReply(const ReplyHead& head, std::span<const ReplyChoice> choices, const Usage& usage,
                 std::string* out);

// Writes the events of one stream. The parts that do not change are made once.
class StreamWriter {
 public:
  explicit StreamWriter(ReplyHead head);
  const ReplyHead& head() const { return head_; }

  // Chat only: the event that names the role.
  void AppendRole(uint32_t index, std::span<const engine::Token> prompt_token_ids,
                  const Usage& usage, std::string* out) const;
  struct Delta {
    uint32_t index = 0;
    std::string_view json_text;  // escaped, without quotes
    engine::Token token = 0;
    bool first = false;          // of its choice: completions show the prompt's ids
    std::span<const engine::Token> prompt_token_ids;
    ReplyEnd end;
  };
  void AppendDelta(const Delta& delta, const Usage& usage, std::string* out) const;
  void AppendUsage(const Usage& usage, std::string* out) const;
  static void AppendDone(std::string* out);

 private:
  void AppendEveryUsage(const Usage& usage, std::string* out) const;

  ReplyHead head_;
  std::string begin_;  // `data: {"id":...,"model":"...","choices":[`
};

void AppendError(const ApiError& error, std::string* out);
void AppendTokenList(std::span<const engine::Token> tokens, std::string* out);
void AppendNumber(uint64_t number, std::string* out);

}  // namespace llmd::sim
