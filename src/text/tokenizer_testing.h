// A small tokenizer of the Llama 3 kind for tests: bytes, a few merges, turn markers.
#pragma once

#include <string>
#include <vector>

namespace llmd::text {

// The tokenizer.json. `more_tokens` are added tokens besides <|begin|>, <|turn|> and <|end|>;
// `post_processor` is JSON.
std::string SmallTokenizerJson(const std::vector<std::string>& more_tokens = {},
                               const std::string& post_processor = "null");

// Places BOS before a text.
extern const char kBeginPostProcessor[];

// English-like text, `bytes` long: words of a fixed list in an order given by `seed`.
std::string EnglishText(size_t bytes, unsigned seed);

}  // namespace llmd::text
