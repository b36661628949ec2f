// The HTTP/1.1 server side of one worker: listens, reads requests, hands each to a service as an
// exchange, and writes what the service answers.
//
// Bytes are not copied: request bodies come as Slices of the blocks that recv filled, right after
// each recv, and response Slices leave through one writev per turn (at once when the response is
// complete).
//
// Thread safety: everything here belongs to one loop's thread.
// Lifetime: the service and the loop outlive the server. OnRequest answers with a handler; from
// then on exactly one of OnFinished and OnClientGone ends the exchange, and when that call returns
// both the ServerExchange and our pointer to the handler are dead (the handler may delete itself
// inside). Neither is ever called from inside a call of the handler into the exchange: the earliest
// time is the end of the turn. Requests of one connection are strictly sequential; the next
// pipelined one is looked at when the exchange before it has ended.
// Errors that never reach the service (bad heads, limits, timeouts) are answered and counted here.
// Limits: HttpServerOptions. Counters: HttpServerStats.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/buffer.h"
#include "base/status.h"
#include "base/time.h"
#include "net/placement.h"
#include "runtime/loop.h"
#include "runtime/socket.h"
#include "wire/http1.h"

namespace llmd::net {

class HttpServer;
class ServerConnection;
class ServerExchange;
class TlsServerContext;

enum class GoneReason : uint8_t {
  kClosed,        // the client closed or reset the connection
  kBodyTimeout,   // no body bytes for body_timeout (the client was answered 408 when possible)
  kWriteTimeout,  // the client took nothing for write_timeout
  kBadBody,       // broken chunked framing
  kBodyTooLarge,  // over body_bytes_max; answered 413 when no response had begun
  kAborted,       // Abort() or the server stops
};
std::string_view GoneReasonName(GoneReason reason);

// What an exchange reports to the code that answers it. See "Lifetime" above.
class ExchangeHandler {
 public:
  virtual ~ExchangeHandler() = default;
  // The next part of the body, transfer coding removed. Keep the Slice as long as needed.
  virtual void OnBody(base::Slice piece) {}
  // The body is complete; called once for every request that has a handler, also without a body,
  // and not after OnFinished or OnClientGone.
  virtual void OnBodyEnd() {}
  // pending_bytes() fell to kPendingLowBytes after it had reached kPendingHighBytes.
  virtual void OnWritable() {}
  // The whole response was handed to the kernel.
  virtual void OnFinished() {}
  virtual void OnClientGone(GoneReason reason) {}
};

class HttpService {
 public:
  virtual ~HttpService() = default;
  // A head arrived. Either answers at once with Respond and returns nullptr (a body is then
  // discarded; nobody is called again), or returns the handler of this exchange. The handler may
  // answer inside this call already.
  virtual ExchangeHandler* OnRequest(ServerExchange& exchange) = 0;
  // A connection was answered or closed because of bad input or a timeout before a request was
  // there.
  virtual void OnBadRequest(int status, std::string_view reason) {}
};

enum class ResponseFraming : uint8_t {
  kNone,        // no body bytes and no Content-Length: for 204 and 304 only
  kLength,      // exactly content_length bytes follow (replies to HEAD: are dropped)
  kChunked,     // the exchange adds the chunk framing (HTTP/1.0 clients: until close)
  kRawChunked,  // the caller sends bytes that are chunk-framed already; needs accepts_chunked()
  kUntilClose,
};

// One request and its response. Lives in the server; see "Lifetime" above.
class ServerExchange {
 public:
  static constexpr size_t kPendingHighBytes = 1 << 20;
  static constexpr size_t kPendingLowBytes = 512 << 10;

  ServerExchange(const ServerExchange&) = delete;
  ServerExchange& operator=(const ServerExchange&) = delete;

  // Views stay valid until the exchange is dead.
  const wire::RequestHead& head() const { return head_; }
  runtime::EventLoop& loop() const;
  const runtime::SocketAddress& peer() const;
  bool is_tls() const;
  bool accepts_chunked() const { return head_.version_minor >= 1; }
  // When the first byte of the request was read.
  base::TimePoint started_at() const { return started_at_; }
  uint64_t connection_id() const;

  // Request body: stops and restarts the flow of OnBody (a paused body has no timeout). Pauses do
  // not count: one Resume undoes any number.
  void PauseBody();
  void ResumeBody();
  bool body_ended() const { return body_ended_; }
  uint64_t body_bytes() const { return body_bytes_; }  // delivered so far

  // Response, in this order: SendHead, SendBody..., Finish. Calls after the client is gone do
  // nothing. Body bytes that arrive after Finish are dropped. A request body that is not over when
  // the head is sent costs the connection, unless a short rest with a known length can be skipped.
  //
  // `lines` is the status line and the field lines, each with CRLF, without Content-Length,
  // Connection and other hop-by-hop fields; those and the empty line are added here, Date is not.
  // Copied.
  void SendHead(std::string_view lines, ResponseFraming framing, uint64_t content_length = 0);
  // The same from parts; adds Date and Server as the options say.
  void SendHead(int status, std::span<const wire::HttpField> fields, ResponseFraming framing,
                uint64_t content_length = 0);
  void SendBody(base::Slice bytes);
  void SendBody(std::string_view bytes);  // copied
  // The response is complete. With kLength all bytes must have been sent (else the connection
  // closes).
  void Finish();
  // A whole response in one call. `extra_lines` are field lines with CRLF.
  void Respond(int status, std::string_view content_type, std::string_view body,
               std::string_view extra_lines = "");
  // Closes the connection at once; OnClientGone(kAborted) follows at the end of the turn. After the
  // response has begun this is how the client learns that it is broken.
  void Abort();
  // This connection is not used again after this response (adds "Connection: close" if before the
  // head).
  void CloseAfter() { close_after_ = true; }

  bool head_sent() const { return head_sent_; }
  bool finished() const { return finish_called_; }
  uint64_t response_bytes() const { return response_bytes_; }  // queued so far, head included
  // Response bytes that the kernel has not taken yet.
  size_t pending_bytes() const;

 private:
  friend class ServerConnection;
  friend class HttpServer;
  ServerExchange() = default;
  void SendOwnHead(int status, std::span<const wire::HttpField> fields,
                   std::string_view extra_lines, ResponseFraming framing, uint64_t content_length);
  bool TakeBody(size_t bytes);
  void BodyQueued();

  ServerConnection* connection_ = nullptr;
  ExchangeHandler* handler_ = nullptr;  // nullptr: nobody listens (any more)
  base::TimePoint started_at_{};
  base::Slice head_hold_;  // keeps the bytes of head_ alive
  uint64_t body_bytes_ = 0;
  uint64_t body_left_ = 0;  // of a body with a length
  uint64_t response_bytes_ = 0;
  uint64_t response_body_left_ = 0;  // with ResponseFraming::kLength
  wire::ChunkedDecoder decoder_;
  ResponseFraming framing_ = ResponseFraming::kNone;
  bool body_ended_ = false;
  bool body_paused_ = false;
  bool continue_due_ = false;  // the client waits for 100 Continue
  bool head_sent_ = false;
  bool finish_called_ = false;
  bool suppress_body_ = false;  // reply to HEAD
  bool close_after_ = false;
  bool above_high_ = false;
  wire::RequestHead head_;  // last: the large one
};

struct HttpServerOptions {
  wire::HttpLimits limits;
  uint64_t body_bytes_max = 32u << 20;                      // over it 413
  base::Duration head_timeout = std::chrono::seconds(10);   // first byte to end of head
  base::Duration body_timeout = std::chrono::seconds(60);   // between body reads
  base::Duration write_timeout = std::chrono::seconds(60);  // between writes that moved something
  base::Duration idle_timeout = std::chrono::seconds(75);
  base::Duration linger_timeout = std::chrono::seconds(2);  // reading on after an early refusal
  size_t connections_max = 16384;            // per worker; beyond: closed and counted
  uint64_t requests_per_connection_max = 0;  // 0: no limit
  // A client that shuts down its sending side while a response is due counts as gone.
  bool half_close_is_gone = true;
  bool add_date = true;
  std::string server_name;  // Server field of responses made here; "" leaves it out
  // Content type and body of errors answered here; the default is JSON in the OpenAI error shape.
  std::function<std::string(int status, std::string_view code, std::string_view message)>
      error_body;
  std::shared_ptr<TlsServerContext> tls;  // nullptr: plain
};

// Running totals of one worker, written on its thread. Read them there, or accept torn sums.
struct HttpServerStats {
  uint64_t accepted = 0;
  uint64_t refused_full = 0;
  uint64_t requests = 0;
  uint64_t head_timeouts = 0;
  uint64_t body_timeouts = 0;
  uint64_t write_timeouts = 0;
  uint64_t idle_closed = 0;
  uint64_t client_gone = 0;
  uint64_t bodies_too_large = 0;
  uint64_t tls_failures = 0;
  uint64_t bytes_read = 0;
  uint64_t bytes_written = 0;
  std::array<uint64_t, 32> bad_heads{};  // by wire::HttpError
};

class HttpServer {
 public:
  // `service` and `loop` outlive the server.
  HttpServer(runtime::EventLoop& loop, HttpService& service, HttpServerOptions options = {});
  // Aborts what is left.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // Listens with SO_REUSEPORT, so that each worker's server can listen on the same address. Returns
  // the port (of interest when 0 was asked for). May be called for several addresses.
  base::Result<uint16_t> Listen(const runtime::SocketAddress& address);
  void StopListening();
  // Makes `servers`, this one among them, which answer alike on loops of their own, share what they
  // accept as net/placement.h says. Before Listen; they are destroyed after their loops stopped.
  void ShareWith(const std::vector<HttpServer*>& servers, const PlacementPolicy& policy = {});
  // Takes a connected socket, as if it had been accepted.
  void Adopt(int fd, const runtime::SocketAddress& peer);
  // Stops listening, closes idle connections, ends the others after their present exchange; what is
  // left after `limit` is aborted. `done` runs on the loop when no connection is left.
  void Drain(base::Duration limit, std::move_only_function<void()> done);

  size_t connection_count() const;  // thread-safe; with those on their way from another server
  size_t active_exchange_count() const;
  const HttpServerStats& stats() const;
  const HttpServerOptions& options() const;

 private:
  friend class ServerConnection;
  friend class ServerExchange;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace llmd::net
