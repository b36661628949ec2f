// RenderBackend: token ids from a vLLM render server (`vllm serve`, or `vllm launch render` without
// a GPU), over HTTP.
//
// The body goes there as it came, with the model replaced: chat completions, completions, Anthropic
// messages and Responses to their /render paths (the last two since vLLM 0.32; a server that does
// not know one is not asked for it again). To a server that does not know messages they go as chats
// (anthropic_chat.h, beside the loop).
//
// Circuit breaker (token_breaker.h): no answer in time, no connection and status 5xx are failures;
// the server is tried with a small prompt at first and while the breaker is open.
//
// Thread safety: TokenBackend's.
#pragma once

#include <atomic>
#include <string>

#include "plugins/producer/token_backend.h"
#include "plugins/producer/token_breaker.h"

namespace llmd::plugins {

struct RenderOptions {
  std::string url = "http://localhost:8000";
  base::Duration timeout = std::chrono::seconds(5);
  base::Duration mm_timeout = std::chrono::seconds(30);  // of prompts with images and the like
  std::string model;
};

class RenderBackend final : public TokenBackend {
 public:
  // InvalidArgument for a URL that is not http(s)://host:port[/path].
  static base::Result<std::unique_ptr<RenderBackend>> Create(const RenderOptions& options);

  std::shared_ptr<plugin::OutsideTask> Ask(const plugin::RequestContext& request) override;
  std::shared_ptr<plugin::OutsideTask> Next(plugin::OutsideTask& task) override;
  base::Result<std::vector<TokenPrompt>> Read(plugin::OutsideTask& task,
                                              base::TimePoint now) override;
  base::Duration wait_max() const override;
  std::string Describe() const override;
  std::shared_ptr<plugin::OutsideTask> NextErrand(base::TimePoint now) override;
  void OnErrandEnd(plugin::OutsideTask& task, base::TimePoint now) override;

 private:
  explicit RenderBackend(const RenderOptions& options) : options_(options) {}
  std::shared_ptr<plugin::OutsideCall> MakeCall(size_t path, std::string body,
                                                base::Duration timeout) const;
  std::shared_ptr<plugin::OutsideTask> AsChat(std::string messages, base::Duration timeout) const;
  bool unknown(size_t path) const { return unknown_.load(std::memory_order_relaxed) >> path & 1; }

  RenderOptions options_;
  std::string server_, prefix_;  // of the paths
  bool tls_ = false;
  TokenBreaker breaker_;
  std::atomic<uint32_t> unknown_{0};  // bit per path that the server does not have
  bool warmed_up_ = false;             // control thread's, like the next
  base::TimePoint probe_at_{};
};

// The prompts of a render server's reply: one object, or an array of them.
base::Result<std::vector<TokenPrompt>> ReadRenderReply(std::string_view reply);

}  // namespace llmd::plugins
