// The prompt as producers see it: values in the order in which an engine would have them, and their
// size in estimated tokens.
//
// Order is that of upstream's estimate: tools first, then a system prompt beside the messages, then
// roles and contents as they stand in the document. Text is four bytes per token over the raw JSON
// bytes (the same text escaped differently counts differently). A media value begins at a whole
// token and stands for as many placeholder tokens as the token producer said; token ids stand for
// themselves, except that those which an engine fills with content count as that content. Tool
// calls of assistant messages are part of the prompt here and not in upstream's estimate.
#pragma once

#include <cstdint>
#include <span>

#include "prefix/block_hash.h"
#include "protocol/request.h"

namespace llmd::plugins {

// One value: a text, a tools array, an image. Its pieces are of one kind; they are several only
// because the body came in several buffers.
struct PromptValue {
  protocol::PieceKind kind;
  uint32_t prompt;
  uint32_t media_index;  // number among the media values, in document order
  std::span<const protocol::Piece> pieces;

  uint64_t bytes() const {
    uint64_t sum = 0;
    for (const protocol::Piece& piece : pieces) sum += piece.bytes.size();
    return sum;
  }
};

template <class Visit>
void ForEachValue(const protocol::Request& request, Visit visit) {
  using protocol::PieceKind;
  const std::span<const protocol::Piece> pieces = request.pieces;
  const auto rank = [](PieceKind kind) {
    return kind == PieceKind::kTools ? 0 : kind == PieceKind::kSystem ? 1 : 2;
  };
  for (const int wanted : {0, 1, 2}) {
    uint32_t media_index = 0;
    for (size_t begin = 0, end; begin < pieces.size(); begin = end) {
      end = begin + 1;
      while (end < pieces.size() && pieces[end].continued) ++end;
      const protocol::Piece& first = pieces[begin];
      if (rank(first.kind) == wanted) {
        visit(
            PromptValue{first.kind, first.prompt, media_index, pieces.subspan(begin, end - begin)});
      }
      if (protocol::IsMedia(first.kind)) ++media_index;
    }
  }
}

// Tokens of the whole request; `media_tokens` as in plugin::TokenizedPrompt.
uint64_t CountTokens(const protocol::Request& request, std::span<const uint32_t> media_tokens);

// The hash chains of the request's prompts, in `arena`.
struct PromptChains {
  std::span<const std::span<const prefix::BlockHash>> prompts;  // those that are not empty
  uint32_t total_blocks = 0;
};
PromptChains HashPrompts(const protocol::Request& request, std::span<const uint32_t> media_tokens,
                         uint64_t seed, size_t block_tokens, size_t blocks_max, base::Arena& arena);

}  // namespace llmd::plugins
