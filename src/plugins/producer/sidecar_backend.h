// SidecarBackend: token ids from upstream's tokenizer sidecar (its `udsTokenizerConfig`), over gRPC
// on a Unix socket: chat completions, Anthropic messages as chats (anthropic_chat.h), and
// completions of one text. Bodies are put into the sidecar's form (sidecar_messages.h) beside the
// loop.
//
// First the sidecar is asked to load the model, again every kProbePause until it has; until then,
// and while its breaker is open (token_breaker.h), prompts are estimated. An answer in words (a
// prompt that it cannot render) does not count against it, silence and lost connections do.
//
// Thread safety: TokenBackend's. Limits: timeouts as upstream's client has them; kReplyBytesMax.
#pragma once

#include <atomic>
#include <string>

#include "plugins/producer/token_backend.h"
#include "plugins/producer/token_breaker.h"

namespace llmd::plugins {

struct SidecarOptions {
  std::string server;  // path of the socket, or host:port
  std::string model;   // name, or the directory of the tokenizer as the sidecar sees it
};

class SidecarBackend final : public TokenBackend {
 public:
  static constexpr base::Duration kTextTimeout = std::chrono::seconds(5);
  static constexpr base::Duration kMediaTimeout = std::chrono::seconds(30);
  // The sidecar may have to fetch the model first; it goes on when this is over.
  static constexpr base::Duration kInitializeTimeout = std::chrono::seconds(60);
  static constexpr size_t kReplyBytesMax = 16u << 20;

  explicit SidecarBackend(const SidecarOptions& options) : options_(options) {}

  std::shared_ptr<plugin::OutsideTask> Ask(const plugin::RequestContext& request) override;
  std::shared_ptr<plugin::OutsideTask> Next(plugin::OutsideTask& task) override;
  base::Result<std::vector<TokenPrompt>> Read(plugin::OutsideTask& task,
                                              base::TimePoint now) override;
  base::Duration wait_max() const override;
  std::string Describe() const override;
  std::shared_ptr<plugin::OutsideTask> NextErrand(base::TimePoint now) override;
  void OnErrandEnd(plugin::OutsideTask& task, base::TimePoint now) override;

 private:
  enum class Rpc : uint8_t { kInitialize, kChat, kText };
  class Writing;
  struct Call;

  std::shared_ptr<Call> MakeCall(Rpc rpc, std::string message, base::Duration timeout) const;
  // False when the call says nothing about the server or its answer is an error.
  bool Answered(const plugin::OutsideTask& call);

  const SidecarOptions options_;
  TokenBreaker breaker_;
  std::atomic<bool> initialized_{false};
  bool warmed_up_ = false;  // control thread's, like the rest
  bool told_ = false;
  base::TimePoint try_at_{};
};

}  // namespace llmd::plugins
