// Stream: one ext_proc Process call, that is one HTTP request as the proxy shows it. Carries
// messages between the proxy and director::Session and decides nothing.
//
//   request headers, bodies, trailers   -> the session; nothing is answered before the decision
//   decision                            -> headers reply with the endpoint, the body in chunks;
//                                          or an immediate reply, which ends the call
//   response headers, bodies, trailers  -> answered at once, piece by piece
//
// Thread safety: belongs to one worker; kept for reuse by its Door.
// Invariants: 1. A body byte is never copied: what goes out are slices of what came in. 2. The
// memory budget holds every request body byte from its arrival to the response's head or the end.
// 3. A message out of order ends the call with INVALID_ARGUMENT; what comes after the end of a body
// is ignored. 4. Whatever ends the call, the session learns it exactly once.
// Protocol: envoy/service/ext_proc/v3, body mode FULL_DUPLEX_STREAMED (responses may also be NONE);
// gateway-api-inference-extension, proposal 004.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "base/arena.h"
#include "base/buffer.h"
#include "control/outside.h"
#include "director/session.h"
#include "epp/headers.h"
#include "net/grpc_server.h"
#include "runtime/loop.h"
#include "wire/ext_proc.h"

namespace llmd::epp {

class Door;

class Stream final : public net::GrpcHandler, private control::OutsideWaiter {
 public:
  explicit Stream(Door& door);

  // For a new call, or again after OnEnd.
  void Begin(net::GrpcCall& call);

  void OnMessagePiece(base::Slice piece, bool last) override;
  void OnHalfClose() override;
  void OnEnd(net::GrpcEnd why) override;

 private:
  enum class Phase : uint8_t {
    kHeaders,   // nothing has come yet
    kBody,      // collecting the request's body
    kWaiting,   // the body is whole, the session waits for something
    kRouted,    // the request was answered; what follows of its body is passed on
    kResponse,  // the response's head has come
    kDone,      // the session has ended; what still comes is passed on or ignored
  };

  void OnMessage();
  void OnRequestHeaders(const wire::ExtProcMessage& message);
  void OnRequestBody(const wire::ExtProcMessage& message);
  void OnRequestTrailers();
  void OnResponseHeaders(const wire::ExtProcMessage& message);
  void OnResponseBody(const wire::ExtProcMessage& message);
  void OnResponseTrailers();

  bool ReadSubset();
  void Decide();
  void Act(director::Decision decision);
  void Wake();
  void OnOutsideEnd() override;  // what the session asked for beside the loop
  void Forward(const director::Forward& forward);
  void Refuse(const director::Reply& reply);
  void RefuseOverBudget();
  void SendRoute(const director::Forward& forward);
  void SendHeldBody(bool end_of_stream);
  void PassOn(wire::ExtProcKind kind, bool end_of_stream);
  void SendBody(wire::ExtProcKind kind, std::span<const base::Slice> body, bool end_of_stream,
                std::span<const wire::StructField> metadata = {});
  void Send(base::Slice message);
  std::span<const wire::StructField> EndMetadata();
  void Violation(std::string_view what);
  // Ends the session, if it is not over yet; after EndSession only CloseSession is left to do.
  void EndSession(bool natural, director::Termination why);
  void CloseSession(std::string_view outcome);
  void Answered();  // the call is over, by an answer of ours
  void DropBody();
  void WriteAccessLine(std::string_view outcome);
  base::TimePoint now() const;

  Door& door_;
  net::GrpcCall* call_ = nullptr;
  base::Arena arena_;
  wire::ExtProcReader reader_;
  runtime::Timer wake_;
  std::optional<director::Session> session_;
  Phase phase_ = Phase::kHeaders;
  RequestHeaders request_;
  std::string_view request_id_;
  bool request_id_made_ = false;
  bool decides_early_ = false;
  bool has_body_ = false;        // the request's headers are not its end
  bool body_ended_ = false;      // of the request
  bool trailers_came_ = false;   // of the request
  bool response_shown_ = false;  // a body message of the response has come
  bool restores_model_ = false;
  std::vector<base::Slice> body_;  // held for the decision
  uint64_t body_bytes_ = 0;
  uint64_t budget_bytes_ = 0;
  uint64_t response_bytes_ = 0;
  int status_ = 0;  // of the reply, ours or the server's
  bool event_stream_ = false;
  base::TimePoint began_at_{};
  std::string_view endpoint_;    // "ip:port" of the choice
  std::vector<base::Slice> in_;  // reused: the message at hand
};

}  // namespace llmd::epp
