// Text to pseudo tokens: how a simulated server counts and hashes prompts without a vocabulary.
//
// The split is the one of llm-d-inference-sim's built-in tokenizer (pkg/tokenizer/tokenizer.go): a
// run of ASCII letters, digits and underscores that does not start with an underscore, or one
// punctuation character, each with the white space that follows; its id is FNV-1a-32 of those
// bytes. What upstream's pattern skips (white space at the start apart) is a token here, one per
// UTF-8 character, so that a text in any language has a length.
//
// Pure, thread-safe, one pass, about 1 ns per byte. Any bytes are accepted. Ids are stable.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/block_hash.h"

namespace llmd::engine {

// Length in bytes of the first token of `text`, its trailing white space included; 0 only if `text`
// is empty. White space at the very start belongs to the first token's length but not to its id.
size_t NextTokenBytes(std::string_view text);

Token TokenId(std::string_view piece);

// Appends the ids of `text`.
void Tokenize(std::string_view text, std::vector<Token>* out);
size_t CountTokens(std::string_view text);

}  // namespace llmd::engine
