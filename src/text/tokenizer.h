// Tokenizer: the text of a prompt to the token ids that the engine will see, as the model's
// tokenizer.json says.
//
// Two libraries stand behind it: `fastokens`, 10 to 80 times as fast, where a self-check while
// loading finds its ids equal to those of Hugging Face `tokenizers` on a fixed corpus, and
// `tokenizers` itself where not. What a text shares with earlier ones is not tokenised again: a
// text is cut at safe borders, each chunk's ids depend on the chunk alone, and a bounded cache
// keeps the ids of chunks seen. A safe border is the end of an added token (a turn marker), or a
// place between two characters where the pre-tokenizer's pattern, one of those known here, always
// splits.
//
// Thread safety: immutable but for the cache, which locks inside; Encode may be called by many
// threads at once. Load takes seconds and much memory bandwidth: call it beside the loops.
// Invariants:
//   1. Encode gives the ids that `tokenizers` gives for the whole text, whatever the cache holds.
//   2. The cache holds at most Options::cache_bytes.
//   3. Nothing here reads files, the clock or the environment.
// Limits: kTokenizerFileBytesMax, kTokenizeBytesMax.
// Source of the format: github.com/huggingface/tokenizers; how the special tokens are put around a
// text: transformers' PreTrainedTokenizerFast.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace llmd::text {

// Twice the largest vocabulary file of today.
inline constexpr size_t kTokenizerFileBytesMax = 64u << 20;
// Of one text; 4 M tokens and more.
inline constexpr size_t kTokenizeBytesMax = 16u << 20;

// The bytes of a model's tokenizer directory. Read during Load only.
struct TokenizerFiles {
  std::string_view tokenizer_json;
  std::string_view tokenizer_config_json;  // may be empty
};

struct TokenizerOptions {
  size_t cache_bytes = 64u << 20;  // 0: no cache
  uint64_t seed = 0;               // of the cache's keys, so that nobody can craft equal ones
  bool fast = true;                // false: `tokenizers` whatever the self-check would say
  bool reuse = true;               // false: texts are not cut, and nothing is reused
};

enum class TokenizerEngine : uint8_t { kFastokens, kTokenizers };

// "fastokens", "tokenizers".
std::string_view TokenizerEngineName(TokenizerEngine engine);

class Tokenizer {
 public:
  struct CacheStats {
    uint64_t hit_bytes = 0;   // of text whose ids were taken from the cache
    uint64_t miss_bytes = 0;  // of text that was tokenised
    uint64_t evicted_chunks = 0;
    size_t chunks = 0;
    size_t bytes = 0;
  };

  // InvalidArgument says what is wrong with a file.
  static base::Result<std::shared_ptr<const Tokenizer>> Load(const TokenizerFiles& files,
                                                             const TokenizerOptions& options = {});
  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // Replaces `ids`. With `add_special_tokens` what the model wants around a bare prompt (a BOS
  // token) is added; the text of a chat template has it already. `cancel`, when given, is looked at
  // between chunks: DeadlineExceeded once it is set. InvalidArgument when `text` is not UTF-8,
  // ResourceExhausted when it is longer than kTokenizeBytesMax. After an error `ids` is empty.
  base::Status Encode(std::string_view text, bool add_special_tokens, std::vector<uint32_t>& ids,
                      const std::atomic<bool>* cancel = nullptr) const;

  TokenizerEngine engine() const { return engine_; }
  // Why the engine is the one it is, for the log: one sentence.
  const std::string& engine_reason() const { return engine_reason_; }
  // One past the largest id.
  uint32_t vocab_size() const { return vocab_size_; }
  // False when no border is safe with this model, so that every text is tokenised whole.
  bool reuses_prefixes() const { return reuses_prefixes_; }
  CacheStats cache_stats() const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
  TokenizerEngine engine_ = TokenizerEngine::kTokenizers;
  std::string engine_reason_;
  uint32_t vocab_size_ = 0;
  bool reuses_prefixes_ = false;
};

}  // namespace llmd::text
