// LocalBackend: token ids from the model's own tokenizer in this process (text/tokenizer.h,
// text/chat_template.h), out of a directory with tokenizer.json, tokenizer_config.json and, where
// the template is not in it, chat_template.jinja.
//
// The directory is read and the tokenizer made beside the loops, in seconds; until then, and if it
// fails, prompts are estimated. A file that is not there is tried again every kRetryPause. Then one
// engine is asked at /tokenize for the ids of a small text: other ids mean a directory that does
// not belong to the engines' model; that is reported, and prompts are estimated, since with such
// ids nothing would ever match. No answer (engines without the page) leaves the tokenizer in use,
// and the question open.
//
// Tokenised are chat completions and Anthropic messages (through the chat template), completions
// and SGLang's and vLLM's generate with text. A chat with images and the like is estimated: how
// many tokens an image is, the engine alone knows.
//
// Thread safety: TokenBackend's.
#pragma once

#include <atomic>
#include <string>

#include "base/snapshot.h"
#include "fleet/fleet.h"
#include "plugins/producer/token_backend.h"

namespace llmd::text {
class ChatTemplate;
class Tokenizer;
}

namespace llmd::plugins {

struct LocalOptions {
  std::string path;
  size_t cache_bytes = 64u << 20;
  std::string model;  // as the engine calls it, for /tokenize; "": it has one
  base::Duration timeout = std::chrono::milliseconds(400);
  uint64_t seed = 0;
};

class LocalBackend final : public TokenBackend {
 public:
  static constexpr base::Duration kRetryPause = std::chrono::seconds(60);
  static constexpr base::Duration kCheckPause = std::chrono::seconds(5);
  static constexpr int kChecksMax = 24;  // without an answer

  LocalBackend(const LocalOptions& options, fleet::Fleet& fleet)
      : options_(options), fleet_(fleet) {}

  std::shared_ptr<plugin::OutsideTask> Ask(const plugin::RequestContext& request) override;
  base::Result<std::vector<TokenPrompt>> Read(plugin::OutsideTask& task,
                                              base::TimePoint now) override;
  base::Duration wait_max() const override { return options_.timeout; }
  std::string Describe() const override;
  std::shared_ptr<plugin::OutsideTask> NextErrand(base::TimePoint now) override;
  void OnErrandEnd(plugin::OutsideTask& task, base::TimePoint now) override;

  // What was made of the directory.
  struct Model;

 private:
  class Tokenizing;
  class Loading;
  class Checking;

  std::shared_ptr<plugin::OutsideTask> NextCheck(base::TimePoint now);
  void OnLoaded(Loading& job, base::TimePoint now);
  void OnChecked(const Checking& call);

  enum class Check : uint8_t { kOpen, kAgrees, kDiffers, kGivenUp };

  const LocalOptions options_;
  fleet::Fleet& fleet_;
  base::Snapshot<Model> model_;  // nullptr: not loaded yet
  std::atomic<Check> check_{Check::kOpen};
  int checks_ = 0;               // control thread's, like the next
  size_t next_endpoint_ = 0;
  base::TimePoint try_at_{};
};

}  // namespace llmd::plugins
