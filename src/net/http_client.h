// The HTTP/1.1 client side of one worker: keep-alive pools per target and exchanges over them.
//
// Thread safety: everything here belongs to one loop's thread.
// Lifetime: loop and client outlive exchanges and handlers are told how each ends: exactly one of
// OnResponseEnd and OnResponseError is the last call, after which the ClientExchange is dead; after
// Cancel there is no call at all and the exchange is dead at once. Start never calls the handler
// before it returned. A handler may start and cancel exchanges inside its calls.
// Invariants: 1. A connection carries one exchange at a time (no pipelining towards engines). 2.
// Only a connection whose reply and request both ended cleanly is used again. 3. An idle connection
// that the server closes, or that speaks unasked, leaves the pool in the turn in which that is
// seen. Nothing is retried here: ClientError says what the caller needs to decide.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/buffer.h"
#include "base/status.h"
#include "base/time.h"
#include "runtime/loop.h"
#include "runtime/socket.h"
#include "wire/http1.h"

namespace llmd::net {

class ClientConnection;
class ClientExchange;
class ClientTarget;
class TlsClientContext;

enum class ClientErrorKind : uint8_t {
  kConnectFailed,  // refused, unreachable
  kConnectTimeout,
  kTlsFailed,
  kResetBeforeReply,  // closed or reset before any byte of the reply
  kHeadTimeout,
  kBadReply,      // not HTTP/1.x as we accept it
  kBodyCut,       // closed or reset inside the reply
  kBodyTimeout,   // no reply byte for body_idle_timeout
  kWriteTimeout,  // the server took no request byte for write_timeout
  kTooManyConnections,
};
std::string_view ClientErrorName(ClientErrorKind kind);

struct ClientError {
  ClientErrorKind kind;
  bool reused_connection = false;  // a pooled one, which the server may have closed while we wrote
  bool head_received = false;
  bool request_sent = false;  // all request bytes were handed to the kernel
  uint64_t request_bytes_sent = 0;
  uint64_t response_bytes = 0;
  int errno_value = 0;
  std::string detail;
};

class ClientHandler {
 public:
  virtual ~ClientHandler() = default;
  // The final head (1xx are skipped). Views are valid until this call returns.
  virtual void OnResponseHead(const wire::ResponseHead& head) = 0;
  // Body bytes as received in one read. `raw` includes chunk framing and trailers, so that it can
  // be relayed untouched; `decoded` are the parts of `raw` that are body (for a reply without
  // chunks: all of it). `decoded` may be empty.
  virtual void OnResponseBody(const base::Slice& raw,
                              std::span<const std::string_view> decoded) = 0;
  virtual void OnResponseEnd() = 0;
  virtual void OnResponseError(const ClientError& error) = 0;
  // Streamed request bodies: request_pending_bytes() fell to the low mark after reaching the high
  // one.
  virtual void OnRequestWritable() {}
};

struct ClientTimeouts {
  base::Duration connect = std::chrono::seconds(5);
  base::Duration write = std::chrono::seconds(60);
  base::Duration head = std::chrono::minutes(10);       // from the last request byte
  base::Duration body_idle = std::chrono::minutes(10);  // between reads of the reply
};

enum class RequestBody : uint8_t {
  kComplete,         // head and body given to Start are the whole request
  kStreamed,         // more follows with SendBody, the caller's head has Content-Length
  kStreamedChunked,  // the same with "Transfer-Encoding: chunked" in the head; framing is added
                     // here
};

struct StartOptions {
  RequestBody request_body = RequestBody::kComplete;
  bool head_request = false;  // the method is HEAD: the reply has no body
  // Expected size of the reply, head included, when the caller knows: one read may then do. 0:
  // unknown.
  size_t reply_bytes_hint = 0;
  ClientTimeouts timeouts;
};

class ClientExchange {
 public:
  static constexpr size_t kPendingHighBytes = 1 << 20;
  static constexpr size_t kPendingLowBytes = 512 << 10;

  ClientExchange(const ClientExchange&) = delete;
  ClientExchange& operator=(const ClientExchange&) = delete;

  void SendBody(base::Slice bytes);
  void FinishBody();
  size_t request_pending_bytes() const;
  // Stops and restarts the flow of OnResponseBody (and OnResponseEnd); paused time does not count
  // against body_idle. This is how a slow client holds back the engine.
  void Pause();
  void Resume();
  // Closes the connection. No call follows; the exchange is dead.
  void Cancel();
  bool reused_connection() const;
  runtime::EventLoop& loop() const;

 protected:
  ClientExchange() = default;
  ~ClientExchange() = default;
};

struct HttpClientOptions {
  wire::HttpLimits limits;
  size_t idle_per_target_max = 256;
  size_t connections_per_target_max = 16384;
  // Below the 5 s after which uvicorn, vLLM's server, closes an idle connection.
  base::Duration idle_timeout = std::chrono::milliseconds(4000);
};

struct HttpClientStats {
  uint64_t exchanges = 0;
  uint64_t connects = 0;
  uint64_t connect_failures = 0;
  uint64_t reused = 0;
  uint64_t idle_closed_by_server = 0;
  uint64_t cancelled = 0;
  uint64_t bytes_read = 0;
  uint64_t bytes_written = 0;
};

// Where to connect: one pool of connections.
struct TargetSpec {
  runtime::SocketAddress address;
  std::string tls_name;                   // server name to send and to verify, with tls
  std::shared_ptr<TlsClientContext> tls;  // nullptr: plain
};

class HttpClient {
 public:
  explicit HttpClient(runtime::EventLoop& loop, HttpClientOptions options = {});
  // Cancels what is left.
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // A pool for `spec`. The pointer is valid until RemoveTarget.
  ClientTarget* AddTarget(TargetSpec spec);
  // Closes its idle connections; exchanges under way go on undisturbed.
  void RemoveTarget(ClientTarget* target);

  // Sends `head` (with the empty line) and `body` over a pooled or a new connection, in one writev
  // once connected. The Slices are held as long as needed. `handler` must live until its last call
  // or Cancel.
  ClientExchange* Start(ClientTarget* target, base::Slice head, std::span<const base::Slice> body,
                        ClientHandler& handler, const StartOptions& options = {});

  const HttpClientStats& stats() const;
  size_t idle_count(const ClientTarget* target) const;
  size_t active_count(const ClientTarget* target) const;

 private:
  friend class ClientConnection;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace llmd::net
