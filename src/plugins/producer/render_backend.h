// RenderBackend: token ids from a vLLM render server (`vllm serve`, or `vllm launch render` without
// a GPU), over HTTP.
//
// The body goes there as it came, with the model replaced: chat completions, completions, Anthropic
// messages and Responses to their /render paths (the last two since vLLM 0.32; a server that does
// not know one is not asked for it again).
//
// Circuit breaker: after kFailuresMax failures in a row (no answer in time, no connection, status
// 5xx) nobody waits for it any more; it is tried with a small prompt, at first and then every
// kProbePause, until it answers. So a dead or saturated renderer costs a few requests their time,
// not every one.
//
// Thread safety: TokenBackend's.
#pragma once

#include <atomic>
#include <string>

#include "plugins/producer/token_backend.h"

namespace llmd::plugins {

struct RenderOptions {
  std::string url = "http://localhost:8000";
  base::Duration timeout = std::chrono::seconds(5);
  base::Duration mm_timeout = std::chrono::seconds(30);  // of prompts with images and the like
  std::string model;
};

class RenderBackend final : public TokenBackend {
 public:
  static constexpr uint32_t kFailuresMax = 3;
  static constexpr base::Duration kProbePause = std::chrono::seconds(2);

  // InvalidArgument for a URL that is not http(s)://host:port[/path].
  static base::Result<std::unique_ptr<RenderBackend>> Create(const RenderOptions& options);

  std::shared_ptr<plugin::OutsideTask> Ask(const plugin::RequestContext& request) override;
  base::Result<std::vector<TokenPrompt>> Read(plugin::OutsideTask& task,
                                              base::TimePoint now) override;
  base::Duration wait_max() const override;
  std::string Describe() const override;
  std::shared_ptr<plugin::OutsideTask> NextErrand(base::TimePoint now) override;
  void OnErrandEnd(plugin::OutsideTask& task, base::TimePoint now) override;

 private:
  explicit RenderBackend(const RenderOptions& options) : options_(options) {}
  void Count(bool ok);

  RenderOptions options_;
  std::string server_, prefix_;  // of the paths
  bool tls_ = false;
  std::atomic<uint32_t> failures_{0};  // in a row
  std::atomic<uint32_t> unknown_{0};   // bit per path that the server does not have
  bool warmed_up_ = false;             // control thread's, like the next
  base::TimePoint probe_at_{};
};

// The prompts of a render server's reply: one object, or an array of them.
base::Result<std::vector<TokenPrompt>> ReadRenderReply(std::string_view reply);

}  // namespace llmd::plugins
