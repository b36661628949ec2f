// gRPC calls of one worker: a channel of a few HTTP/2 connections to one target, and calls on them.
//
// Thread safety: everything here belongs to one loop's thread.
// Lifetime: loop and channel outlive calls and handlers. OnEnd is the last call of a handler,
// after which the GrpcClientCall is dead; after Reset there is no call at all and the
// GrpcClientCall is dead at once. Start, Send, CloseSend and Reset never call a handler before they
// returned. A handler may start, use and reset any call inside its calls. Invariants: 1. Messages
// arrive in order; OnEnd with an OK status follows whole ones only. 2. Calls take the connections
// in turn; a connection that failed or was told to go away is replaced when its turn comes, and
// calls that it still carries go on as far as the server lets them. 3. Nothing is retried here.
// Limits: GrpcChannelOptions; what Send queues is bounded by the caller, who watches
// pending_bytes() and OnWritable. Compressed messages are refused.
// Formats: gRPC over HTTP/2 (github.com/grpc/grpc: doc/PROTOCOL-HTTP2.md), RFC 9113.
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
#include "net/http_client.h"
#include "runtime/loop.h"

namespace llmd::net {

class ClientCall;
class GrpcConnection;

struct GrpcClientEnd {
  base::Status status;
  bool from_server = false;  // the status came as grpc-status, it was not concluded here
};

class GrpcClientHandler {
 public:
  virtual ~GrpcClientHandler() = default;
  // The next bytes of the present message, `last` with its final piece. A message of no bytes is
  // one empty piece. Keep the Slice as long as needed: it holds on to a block of received bytes.
  virtual void OnMessagePiece(base::Slice piece, bool last) = 0;
  // Everything sent so far was handed to the kernel.
  virtual void OnSent() {}
  // pending_bytes() fell to the low mark after reaching the high one.
  virtual void OnWritable() {}
  virtual void OnEnd(const GrpcClientEnd& end) = 0;
};

// HTTP/2 error codes that a caller may want to end a call with (RFC 9113, section 7).
inline constexpr uint32_t kHttp2InternalError = 2;
inline constexpr uint32_t kHttp2Cancel = 8;

class GrpcClientCall {
 public:
  static constexpr size_t kPendingHighBytes = 1 << 20;
  static constexpr size_t kPendingLowBytes = 512 << 10;

  GrpcClientCall(const GrpcClientCall&) = delete;
  GrpcClientCall& operator=(const GrpcClientCall&) = delete;

  // Sends one message; its bytes are the pieces in order. Pieces are held as long as needed; bytes
  // without an owner must live as long as the channel, because a reset does not take back what is
  // on its way.
  void Send(std::span<const base::Slice> pieces);
  void Send(const base::Slice& message) { Send({&message, 1}); }
  // No message follows.
  void CloseSend();
  // Bytes of Send that no frame holds yet: the server's windows or the socket hold them back.
  size_t pending_bytes() const;
  // Ends the call with RST_STREAM.
  void Reset(uint32_t http2_error_code = kHttp2Cancel);

 protected:
  GrpcClientCall() = default;
  ~GrpcClientCall() = default;
};

struct GrpcHeader {
  std::string_view name;  // lower case
  std::string_view value;
};

struct GrpcChannelOptions {
  std::string authority;  // "": the target's address, "localhost" for a Unix socket
  size_t connections = 1;
  // Calls under way; beyond it they end at once with RESOURCE_EXHAUSTED. A call costs 1-2 KiB.
  size_t calls_max = 65536;
  size_t message_bytes_max = 4 << 20;  // of received ones; gRPC's usual limit
  // What a server may send before it is read: it is read at once, so these bound what one turn
  // brings.
  uint32_t stream_window_bytes = 1 << 20;
  uint32_t connection_window_bytes = 4 << 20;
  base::Duration connect_timeout = std::chrono::seconds(5);
};

struct GrpcChannelStats {
  uint64_t calls = 0;
  uint64_t connects = 0;
  uint64_t connection_failures = 0;  // to connect, or of one that carried calls
  uint64_t bytes_read = 0;
  uint64_t bytes_written = 0;
};

class GrpcChannel {
 public:
  static constexpr size_t kHeadersMax = 32;  // of one call

  GrpcChannel(runtime::EventLoop& loop, TargetSpec target, GrpcChannelOptions options = {});
  // Calls left are dropped without a word to their handlers.
  ~GrpcChannel();
  GrpcChannel(const GrpcChannel&) = delete;
  GrpcChannel& operator=(const GrpcChannel&) = delete;

  // Begins a call of `path` ("/package.Service/Method") over the next connection, which is made
  // first if need be. At most kHeadersMax headers. `handler` must live until OnEnd or Reset.
  GrpcClientCall* Start(std::string_view path, std::span<const GrpcHeader> headers,
                        GrpcClientHandler& handler);

  const GrpcChannelStats& stats() const;
  size_t active_count() const;  // calls not yet ended or reset

 private:
  friend class ClientCall;
  friend class GrpcConnection;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace llmd::net
