// One connection of an HttpClient and the exchange that it carries, if any. Private to the
// http_client files.
//
// Invariants: 1. The handler is called from OnIo, OnTurnEnd and OnTimer only. 2. After every call
// of the handler exchange_number_ tells whether the same exchange goes on. 3. The socket is closed
// at once when the connection is given up; the object is deleted by its turn hook, never inside a
// call of its own.
#pragma once

#include <memory>
#include <string>

#include "net/http_client.h"
#include "net/in_buffer.h"
#include "net/out_queue.h"
#include "runtime/stream.h"

namespace llmd::net {

class ClientConnection;

class ClientTarget {
 public:
  explicit ClientTarget(TargetSpec target_spec) : spec(std::move(target_spec)) {}

  TargetSpec spec;
  ClientConnection* idle = nullptr;  // stack: the one used last is used first
  size_t idle_count = 0;
  size_t connection_count = 0;
  bool removed = false;
  ClientTarget* next = nullptr;
  ClientTarget* previous = nullptr;
};

struct HttpClient::Impl {
  Impl(runtime::EventLoop& event_loop, HttpClientOptions opts)
      : loop(event_loop), options(std::move(opts)) {}

  void ReleaseTarget(ClientTarget* target);

  runtime::EventLoop& loop;
  HttpClientOptions options;
  HttpClientStats stats;
  ClientTarget* targets = nullptr;
  ClientConnection* connections = nullptr;
  wire::ResponseHead head;  // of the reply being parsed; valid inside OnResponseHead only
};

class ClientConnection final : public ClientExchange,
                               public runtime::IoHandler,
                               public runtime::TurnHook {
 public:
  ClientConnection(HttpClient::Impl& client, ClientTarget* target);
  ~ClientConnection();

  // Connects; a failure is told at the end of the turn.
  void Connect();
  // Begins an exchange on a connection that is idle or connecting.
  void Begin(ClientHandler& handler, base::Slice head, std::span<const base::Slice> body,
             const StartOptions& options);
  void OnIo(runtime::IoEvents events) override;
  void OnTurnEnd() override;
  void OnTimer();
  void CloseIdle();
  void FailAtTurnEnd(ClientErrorKind kind, int errno_value, std::string detail);

 private:
  friend class ClientExchange;
  friend class HttpClient;

  enum class Phase : uint8_t { kConnecting, kIdle, kHead, kBody, kClosed };

  runtime::EventLoop& loop() const { return client_.loop; }
  bool active() const { return handler_ != nullptr; }
  void SendPart(const base::Slice& bytes);
  void FinishConnect();
  void Flush();
  void ReadWhileWanted();
  size_t ReadSize() const;
  void Process();
  void ProcessHead();
  void ProcessBody();
  void ProcessChunked();
  // True when the same exchange goes on.
  bool Deliver(std::string_view raw, std::span<const std::string_view> decoded);
  void ReplyEnded();
  void ReadEnded(bool cleanly);
  void EndReply();
  void Fail(ClientErrorKind kind, int errno_value = 0, std::string detail = {});
  void GoIdle();
  void Unlink();
  void Close();
  bool request_done() const { return out_.empty() && request_finished_; }
  base::TimePoint Deadline() const;
  void UpdateTimer();

  HttpClient::Impl& client_;
  ClientTarget* target_;
  ClientConnection* next_ = nullptr;  // all connections of the client
  ClientConnection* previous_ = nullptr;
  ClientConnection* next_idle_ = nullptr;
  ClientConnection* previous_idle_ = nullptr;
  std::unique_ptr<runtime::Stream> stream_;
  runtime::Timer timer_;
  OutQueue out_;
  InBuffer in_;
  wire::HeadParser parser_;
  wire::ChunkedDecoder decoder_;

  ClientHandler* handler_ = nullptr;
  StartOptions options_;
  uint64_t exchange_number_ = 0;
  uint64_t sent_bytes_ = 0;
  uint64_t response_bytes_ = 0;
  uint64_t body_left_ = 0;
  size_t read_bytes_ = 0;  // present read size without a known length
  base::TimePoint last_read_;
  base::TimePoint last_write_;
  base::TimePoint idle_since_;
  std::unique_ptr<ClientError> pending_error_;
  Phase phase_ = Phase::kConnecting;
  wire::HttpFraming framing_ = wire::HttpFraming::kNone;
  bool reply_keeps_alive_ = false;
  bool reply_complete_ = false;  // told as soon as the exchange is not paused
  bool request_finished_ = false;
  bool write_failed_ = false;
  bool paused_ = false;
  bool above_high_ = false;
  bool can_read_ = false;
  bool peer_closed_ = false;
  bool reused_ = false;
};

}  // namespace llmd::net
