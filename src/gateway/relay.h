// Relay: one proxied request of the gateway, from the client's head to the last byte it is owed.
//
// Three parties meet here: the client's exchange, the engine's exchange, and the director's
// session, which makes every decision. The relay carries bytes and events between them and decides
// nothing.
//
//   client head -> session.OnHead        body -> session.OnBody     -> Decision
//   Forward -> engine exchange           engine head, body, end     -> client, same loop turn
//   engine failed before its reply       -> session.OnUpstreamFailed -> Decision again
//   Wait    -> timer, work beside the loop -> session.OnWake        -> Decision again
//
// Belongs to one worker; the door keeps finished relays for reuse. Lifetime: from Begin to the call
// of OnFinished or OnClientGone, in which it gives itself back. Limits: the body is held while it
// may have to be sent again, within the memory budget; beyond ServerExchange::kPendingHighBytes of
// unsent reply the engine is paused.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/buffer.h"
#include "control/outside.h"
#include "director/session.h"
#include "net/http_client.h"
#include "net/http_server.h"
#include "plugin/request_context.h"
#include "runtime/loop.h"

namespace llmd::gateway {

class Door;

class Relay final : public net::ExchangeHandler,
                    private net::ClientHandler,
                    private control::OutsideWaiter {
 public:
  explicit Relay(Door& door) : door_(door) {}
  ~Relay() override = default;

  // `key`: index of the API key that the client showed.
  void Begin(net::ServerExchange& exchange, std::optional<size_t> key);

 private:
  // Client side.
  void OnBody(base::Slice piece) override;
  void OnBodyEnd() override;
  void OnWritable() override;
  void OnFinished() override;
  void OnClientGone(net::GoneReason reason) override;

  // Engine side.
  void OnResponseHead(const wire::ResponseHead& head) override;
  void OnResponseBody(const base::Slice& raw, std::span<const std::string_view> decoded) override;
  void OnResponseEnd() override;
  void OnResponseError(const net::ClientError& error) override;
  void OnRequestWritable() override;

  // What the session asked for beside the loop.
  void OnOutsideEnd() override;

  void MakeRequestId();
  void Decide();
  void Act(director::Decision decision);
  // False: what the session asked for cannot be had.
  bool Wait(const director::Decision& decision);
  void Wake();
  bool StartUpstream(const director::Forward& forward);
  void SendReply(const director::Reply& reply);
  // `edits`: headers to add or replace.
  void RelayHead(const wire::ResponseHead& head, std::span<const plugin::Header> edits);
  void RelayPiece(const base::Slice& raw, std::string_view piece, bool continues);
  void EngineDied(const net::ClientError& error);
  void DropBody();
  void Release(director::Termination why, bool natural);
  void WriteAccessLine(std::string_view outcome);

  Door& door_;
  net::ServerExchange* client_ = nullptr;
  net::ClientExchange* engine_ = nullptr;
  std::optional<director::Session> session_;
  std::optional<size_t> key_;
  std::vector<plugin::Header> headers_;
  std::vector<plugin::Header> reply_headers_;  // filled where a plugin reads them
  std::unique_ptr<runtime::Timer> wake_;       // made with the first request that has to wait
  std::vector<base::Slice> body_;   // held until no attempt can need it any more
  std::vector<base::Slice> edited_;
  std::string request_id_;
  std::string client_ip_;
  std::string_view outcome_;
  fleet::EndpointNumber endpoint_ = fleet::kNoEndpoint;  // of the present attempt
  uint64_t budget_bytes_ = 0;  // of body_, taken from the budget
  uint64_t body_bytes_ = 0;    // all that the client sent
  uint64_t relayed_bytes_ = 0;
  int status_ = 0;             // sent to the client
  uint32_t attempts_ = 0;
  bool decided_ = false;
  bool waiting_ = false;           // for OnWake; the body is still collected
  bool body_complete_ = false;
  bool streaming_upload_ = false;  // body goes on to the engine as it arrives
  bool replied_ = false;           // an answer of our own
  bool reply_begun_ = false;       // the engine's head was relayed
  bool event_stream_ = false;
  bool raw_ = false;               // body bytes pass as received
};

}  // namespace llmd::gateway
