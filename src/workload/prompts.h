// Prompts: texts of exact sizes, each of which can be made again from the seed and its index alone.
//
// Text is plain English words of three letters and a space, nothing that JSON escapes. Four bytes
// are thus one word, one token by the four-bytes-per-token estimate, one token of the simulated
// server and nearly always one of a real tokenizer.
// A text is a short unique start (so that no two texts share a KV block by accident) and windows
// into one corpus: a prompt of any size costs a few views, not a copy.
//
// Two kinds of source. Independent prompts: every index another prompt, its size drawn from a
// LengthSpec. Shared-prefix groups, with the meaning of inference-perf's `shared_prefix`:
// group_count system prompts, prompts_per_group questions for each, shuffled once; request i uses
// prompt i modulo their number, word for word the same again in every round.
//
// Thread safety: const after construction, so workers may share one source. Texts view the source's
// corpus, which lives as long as the source.
// Limits: kPromptCountMax prompts in groups.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "base/status.h"
#include "workload/length.h"

namespace llmd::workload {

inline constexpr uint64_t kBytesPerToken = 4;
// 24 bytes each in memory: a million prompts are 24 MB.
inline constexpr uint64_t kPromptCountMax = 1u << 20;

// One text, not written out: `bytes` long, determined by `seed`.
struct TextSpec {
  uint64_t seed = 0;
  uint64_t bytes = 0;
};

struct Prompt {
  TextSpec system;  // shared by a group; empty for independent prompts
  TextSpec user;
  uint64_t output_tokens = 0;
};

// Runs of words that texts are cut from.
class Corpus {
 public:
  static constexpr size_t kBytes = 1 << 20;
  // 16 words of 256: two texts begin alike once in 2^128.
  static constexpr size_t kUniqueBytes = 64;

  Corpus();
  // Appends the unique start of `text` to `unique` and returns its size in bytes.
  static size_t AppendUnique(const TextSpec& text, std::string* unique);
  // Appends views of what follows the unique start.
  void AppendWindows(const TextSpec& text, std::vector<std::string_view>* windows) const;

 private:
  std::string words_;
};

struct SharedPrefixSpec {
  uint64_t group_count = 10;
  uint64_t prompts_per_group = 10;
  LengthSpec system_tokens = LengthSpec::Fixed(100);
  LengthSpec question_tokens = LengthSpec::Fixed(50);
};

struct PromptSpec {
  // Independent prompts: `length` in tokens, or in bytes.
  LengthSpec length = LengthSpec::Fixed(256);
  bool length_in_bytes = false;
  bool shared_prefix = false;  // then `groups` holds and `length` does not
  SharedPrefixSpec groups;
  LengthSpec output_tokens = LengthSpec::Fixed(16);
  uint64_t seed = 1;
};

class PromptSource {
 public:
  // kInvalidArgument for groups without prompts or beyond kPromptCountMax.
  static base::Result<PromptSource> New(const PromptSpec& spec);

  // The prompt of request `index`. Independent prompts of the warm-up are others than those of the
  // measured part; grouped ones are the same, as the warm-up is meant to fill caches.
  Prompt At(uint64_t index, bool warm_up) const;
  const Corpus& corpus() const { return *corpus_; }
  // Distinct prompts: groups * prompts per group; 0 when every one is another.
  uint64_t distinct_count() const { return grouped_.size(); }

 private:
  explicit PromptSource(const PromptSpec& spec);

  PromptSpec spec_;
  std::unique_ptr<const Corpus> corpus_;
  struct Grouped {
    uint64_t group;
    uint64_t user_bytes;
    uint64_t output_tokens;
  };
  std::vector<TextSpec> systems_;
  std::vector<Grouped> grouped_;  // in order of use
};

}  // namespace llmd::workload
