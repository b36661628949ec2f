// BodyTemplate: chat and completions request bodies, rendered as a few pieces for one gather write.
//
// Everything but the prompt's text and max_tokens is fixed for a run and rendered once. The text is
// views of the corpus, so a body of 512 KB costs under a microsecond.
// Thread safety: a template is const after construction and may be shared; a RenderedBody belongs
// to one request at a time and is reused for the next.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "workload/prompts.h"

namespace llmd::workload {

enum class Api : uint8_t { kChat, kCompletions };

// "/v1/chat/completions" or "/v1/completions".
std::string_view ApiPath(Api api);

struct BodyOptions {
  Api api = Api::kChat;
  std::string model;
  bool stream = false;
  bool include_usage = true;  // asks for a usage chunk at the end of a stream
  bool ignore_eos = true;     // exactly max_tokens tokens, where the engine knows the field
  // Members to add, as JSON without the braces: "\"temperature\":0".
  std::string extra_members;
};

class RenderedBody {
 public:
  // Valid until the next Render into this object, and as long as the prompt source lives.
  const std::vector<std::string_view>& pieces() const { return pieces_; }
  uint64_t bytes() const { return bytes_; }
  // Whether `piece` is this object's own; if not it is the corpus's and outlives it.
  bool InFrame(std::string_view piece) const {
    return piece.data() >= frame_.data() && piece.data() < frame_.data() + frame_.size();
  }

 private:
  friend class BodyTemplate;
  std::string frame_;  // all bytes that are not corpus, in order
  std::vector<std::string_view> pieces_;
  uint64_t bytes_ = 0;
};

class BodyTemplate {
 public:
  explicit BodyTemplate(const BodyOptions& options);
  void Render(const Prompt& prompt, const Corpus& corpus, RenderedBody* out) const;

 private:
  std::string open_;       // up to the first text
  std::string open_user_;  // the same for a chat without a system prompt
  std::string between_;    // from the system prompt to the question
  std::string close_;      // from the last text to the number of max_tokens
  std::string end_;        // what follows that number
};

}  // namespace llmd::workload
