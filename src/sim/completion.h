// Completion: one POST to a simulated server that has a prompt, from its body to the last byte of
// its reply.
//
// Owned by the server, until it asks for its release when the exchange ends. The reply's text is
// known when the engine accepts the request; the engine's events only say how much of it may be
// shown, so a client that reads slowly costs no memory beyond one buffer.
// Thread safety: none; lives on the server's loop.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/buffer.h"
#include "engine/engine.h"
#include "net/http_server.h"
#include "sim/reply.h"
#include "sim/reply_text.h"
#include "sim/request.h"

namespace llmd::sim {

class SimServer;

class Completion final : public net::ExchangeHandler {
 public:
  // One of the n choices of one of the prompts; the engine's tag is its address.
  struct Choice {
    Completion* owner = nullptr;
    uint32_t index = 0;
    uint32_t prompt = 0;
    engine::RequestId id{};
    ReplyText text;
    ReplyPlan plan;
    bool submitted = false;
    bool finished = false;       // the engine is through with it
    bool role_shown = false;
    uint32_t available = 0;      // tokens that the engine gave
    uint32_t shown = 0;          // tokens that were written
    uint64_t shown_bytes = 0;
    uint32_t cached_tokens = 0;
    base::TimePoint submitted_at{};
    base::TimePoint last_token_at{};
  };

  // `render`: only answer what the engine would be given.
  Completion(SimServer& server, net::ServerExchange& exchange, Route route, bool render)
      : server_(server), exchange_(exchange), route_(route), render_(render) {}

  void OnBody(base::Slice piece) override { body_.push_back(std::move(piece)); }
  void OnBodyEnd() override;
  void OnWritable() override { Pump(); }
  void OnFinished() override;
  void OnClientGone(net::GoneReason reason) override;

  // From the server's engine. True if this completion has to be pumped and was not marked yet.
  bool OnToken(Choice* choice, base::TimePoint at);
  bool OnChoiceFinished(Choice* choice, const engine::RequestReport& report);
  // Writes what may be written.
  void Pump();
  size_t slot() const { return slot_; }
  void set_slot(size_t slot) { slot_ = slot; }

 private:
  void AnswerTokenize(const SimRequest& request);
  void AnswerRender(const SimRequest& request);
  bool MakeChoices(const SimRequest& request);
  ReplyPlan PlanReply(const SimRequest& request, const Prompt& prompt, const ReplyText& text) const;
  bool Submit(const SimRequest& request);
  void BeginReply(const SimRequest& request);
  void PumpStream();
  void ShowToken(Choice* choice, std::string* out);
  void Reply();
  void RespondError(const ApiError& error);
  void AbortChoices();
  bool Mark();
  bool AllFinished() const;
  Usage ChoiceUsage(const Choice& choice) const;
  Usage TotalUsage() const;

  SimServer& server_;
  net::ServerExchange& exchange_;
  const Route route_;
  const bool render_;
  size_t slot_ = 0;  // in the server's list
  bool streamed_ = false;
  bool include_usage_ = false;
  bool marked_ = false;
  bool ended_ = false;
  uint32_t n_ = 1;
  std::vector<base::Slice> body_;
  std::vector<Choice> choices_;  // fixed once submitted: the engine holds addresses
  std::vector<uint32_t> prompt_tokens_;                  // by prompt
  std::vector<std::vector<engine::Token>> prompt_ids_;   // by prompt, if the client wants them
  StreamWriter writer_{ReplyHead{}};
};

}  // namespace llmd::sim
