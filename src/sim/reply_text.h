// What a simulated model says: pieces of text, one per token, known in advance.
//
// Canned replies walk around one fixed text, from a start that depends on the prompt; echoes give
// the prompt back. Tokenising the reply gives the tokens that the engine put into its KV, so the
// next turn of a conversation finds them in the cache.
//
// Thread-compatible; canned pieces are views of static storage, echoed ones of the object itself.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/block_hash.h"

namespace llmd::sim {

struct ReplyPiece {
  std::string_view text;
  std::string_view json;  // escaped for a JSON string, without quotes; empty if not prepared
};

class ReplyText {
 public:
  ReplyText() = default;
  static ReplyText Canned(uint64_t start);
  // Tokens of `text`; without any, one empty piece.
  static ReplyText Echo(std::string text);
  ReplyText(ReplyText&&) = default;
  ReplyText& operator=(ReplyText&&) = default;

  // Number of tokens there are; a canned text has no end.
  size_t size() const;
  ReplyPiece piece(size_t index) const;
  // For RequestSpec: the cycle lives as long as this object, wherever it is moved.
  std::span<const engine::Token> cycle() const;
  uint64_t cycle_offset() const { return start_; }
  // The first `count` pieces, joined.
  std::string Join(size_t count) const;

 private:
  uint64_t start_ = 0;
  bool canned_ = true;
  std::string text_;
  std::vector<uint32_t> ends_;  // of the echoed pieces in text_
  std::vector<engine::Token> tokens_;
};

// Where a reply ends.
struct ReplyPlan {
  uint32_t tokens = 1;
  bool stopped = false;          // by a stop string, or by itself
  std::string stop;              // the stop string that was met, or ""
  uint64_t text_bytes_max = UINT64_MAX;  // text from here on is not shown
};

// The first place, token by token, where one of `stops` is complete within `plan->tokens` tokens;
// if there is one, the reply ends with that token and its text before that string.
void ApplyStops(const ReplyText& text, std::span<const std::string> stops, ReplyPlan* plan);

}  // namespace llmd::sim
