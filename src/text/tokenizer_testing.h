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

// Text like English, `bytes` long and given by `seed`: some common words, 4,800 others made of
// stems and affixes, names of 4,096 kinds, numbers, sentences and paragraphs.
std::string EnglishText(size_t bytes, unsigned seed);

}  // namespace llmd::text
