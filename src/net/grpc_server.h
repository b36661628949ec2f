// A gRPC server over HTTP/2: one GrpcServer per worker, and one GrpcListener that accepts for all
// of them.
//
// Message bytes are not copied: they come as Slices of the blocks that recv filled, while nghttp2
// reads them, and leave as the Slices they were sent as, through one gather write per connection
// and turn.
//
// Thread safety: a server, its calls and services belong to one loop's thread; a listener to its
// own.
// Lifetime: services and loops outlive the server. OnCall answers with a handler; from then on
// OnEnd is called exactly once, and when it returns both the GrpcCall and our pointer to the
// handler are dead (the handler may delete itself inside). OnEnd is never called from inside a call
// of the handler into the GrpcCall: the earliest time is the end of the turn.
// Order: OnCall, any number of OnMessagePiece, at most one OnHalfClose, OnEnd. After Finish or
// Reset only OnEnd follows.
// Errors that never reach a service (unknown methods, wrong content types, limits) are answered and
// counted here.
// Limits: GrpcServerOptions. Counters: GrpcServerStats.
// Formats: RFC 9113; github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md.
#pragma once

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
#include "runtime/loop.h"
#include "runtime/socket.h"
#include "runtime/stream.h"
#include "wire/grpc_frames.h"

namespace llmd::net {

class GrpcServer;
class GzipReader;
class Http2Connection;
class OutQueue;
class TlsServerContext;

enum class GrpcEnd : uint8_t {
  kFinished,        // the answer and its trailers are on their way
  kClientReset,     // RST_STREAM from the client, the way Envoy ends every ext_proc stream
  kConnectionLost,  // the connection went, with everything on it
  kDeadline,        // grpc-timeout passed; the client was told DEADLINE_EXCEEDED when possible
  kBadMessage,      // broken framing, an oversize or a compressed message; the client was told
  kStalled,         // the client took nothing for stall_timeout
  kReset,           // Reset(), or the server stops
};
std::string_view GrpcEndName(GrpcEnd end);

// What a call reports to the code that answers it. See "Lifetime" above.
class GrpcHandler {
 public:
  virtual ~GrpcHandler() = default;
  // The next bytes of the present message, `last` with its final piece. A message of no bytes is
  // one empty piece; pieces of others may be empty only when they are the last. Keep the Slice as
  // long as needed: it holds on to a whole block of received bytes (up to 256 KiB).
  virtual void OnMessagePiece(base::Slice piece, bool last) {}
  // No message follows.
  virtual void OnHalfClose() {}
  // unsent_bytes() fell to kUnsentLowBytes after it had reached kUnsentHighBytes.
  virtual void OnWritable() {}
  virtual void OnEnd(GrpcEnd why) {}
};

// One HTTP/2 stream that carries one gRPC call. Lives in the server; see "Lifetime" above.
class GrpcCall {
 public:
  // From here on the client gets no further window for messages of this call until it has taken
  // enough of the answer.
  static constexpr size_t kUnsentHighBytes = 1 << 20;
  static constexpr size_t kUnsentLowBytes = 512 << 10;

  GrpcCall(const GrpcCall&) = delete;
  GrpcCall& operator=(const GrpcCall&) = delete;

  // "/package.Service/Method". Views stay valid until the call is dead.
  std::string_view path() const { return path_; }
  std::string_view authority() const { return Metadata(":authority"); }
  // Value of the first request field with this name (lower case); "" when there is none.
  std::string_view Metadata(std::string_view name) const;
  runtime::EventLoop& loop() const;
  base::BufferPool& buffers() const { return loop().buffers(); }
  const runtime::SocketAddress& peer() const;
  bool is_tls() const;
  uint64_t connection_id() const;
  base::TimePoint started_at() const { return started_at_; }
  // base::TimePoint::max() when the client set none.
  base::TimePoint deadline() const { return deadline_; }

  // Length of the message that OnMessagePiece delivers, known with its first piece; 0 when it came
  // compressed.
  uint32_t message_bytes() const { return message_bytes_; }
  bool half_closed() const { return half_closed_; }
  uint64_t received_bytes() const { return received_bytes_; }  // of messages, delivered so far

  // Stops giving back flow-control window: at most stream_window_bytes still arrive, and are
  // delivered. Pauses do not count: one Resume undoes any number.
  void PauseReading();
  void ResumeReading();

  // Sends one message made of `pieces`, which are moved from. Pieces that lie in blocks of
  // buffers() are kept until written; short ones (< 512 bytes) are copied. Bytes leave at the end
  // of the turn or when the client's windows allow. Calls after the end do nothing.
  void Send(std::span<base::Slice> pieces);
  void Send(base::Slice message) { Send({&message, 1}); }
  void Send(std::string_view message);  // copied
  // The call is over once what was sent has left. `message` (at most kMessageBytesMax bytes of it)
  // is percent-encoded here.
  void Finish(base::StatusCode code, std::string_view message = "");
  // Ends the stream with RST_STREAM(CANCEL), dropping what has not left; OnEnd(kReset) follows.
  void Reset();
  static constexpr size_t kMessageBytesMax = 1024;

  // Bytes that were sent here and wait for the client's windows or for the socket.
  size_t unsent_bytes() const { return unsent_bytes_; }
  uint64_t sent_bytes() const { return sent_bytes_; }  // given to Send so far, frames included
  bool finished() const { return finish_called_; }

 private:
  friend class Http2Connection;
  friend class GrpcServer;
  struct Field {
    uint32_t name_begin, name_size, value_begin, value_size;
  };

  explicit GrpcCall(runtime::EventLoop& loop);
  ~GrpcCall();
  void Clear();
  void AddField(std::string_view name, std::string_view value, uint32_t list_bytes_max);
  std::string_view Text(uint32_t begin, uint32_t size) const {
    return {text_.data() + begin, size};
  }
  bool Listening() const {
    return handler_ != nullptr && !finish_called_ && !reset_called_ && !ended_;
  }
  void Deliver(base::Slice chunk);
  bool BeginMessage();
  void DeliverCompressed(base::Slice piece, bool last);
  void HalfClose();
  void End(GrpcEnd why);
  void Conclude(base::StatusCode code, std::string_view message);
  // Tells the handler `why` and the client `code`. For input and timers, not for calls of handlers.
  void Fail(GrpcEnd why, base::StatusCode code, std::string_view message);
  void DropUnsent();
  void AppendUnsent(base::Slice piece);
  // Moves the next `bytes` of the answer on.
  void MoveUnsent(size_t bytes, OutQueue& out);

  Http2Connection* connection_ = nullptr;
  GrpcHandler* handler_ = nullptr;  // nullptr: nobody listens (any more)
  GrpcCall* next_ = nullptr;        // calls of one connection
  GrpcCall* previous_ = nullptr;
  int32_t stream_id_ = 0;
  bool counted_ = false;  // a service had it
  bool too_many_fields_ = false;
  bool response_begun_ = false;  // HEADERS are queued
  bool deferred_ = false;        // nghttp2 waits to be told of more
  bool half_closed_ = false;
  bool finish_called_ = false;
  bool reset_called_ = false;
  bool trailers_sent_ = false;
  bool ended_ = false;
  bool reading_paused_ = false;
  bool above_high_ = false;
  bool compressed_ = false;    // the present message
  bool accepts_gzip_ = false;  // grpc-encoding of the request is gzip
  wire::GrpcFrames frames_;
  uint32_t message_bytes_ = 0;
  uint32_t header_bytes_ = 0;
  size_t owed_window_ = 0;  // received and not given back
  uint64_t received_bytes_ = 0;
  uint64_t sent_bytes_ = 0;
  size_t unsent_bytes_ = 0;
  std::vector<base::Slice> unsent_;
  size_t unsent_begin_ = 0;  // pieces before it are gone
  base::TimePoint started_at_{};
  base::TimePoint deadline_ = base::TimePoint::max();
  base::TimePoint last_progress_{};
  std::string_view path_;
  std::string text_;  // names and values of fields_
  std::vector<Field> fields_;
  base::StatusCode status_ = base::StatusCode::kOk;
  std::string status_message_;
  std::unique_ptr<GzipReader> gzip_;
  runtime::Timer deadline_timer_;
};

class GrpcService {
 public:
  virtual ~GrpcService() = default;
  // The fields of a request arrived. Returns the handler of this call, or nullptr after Finish or
  // Reset. The handler may answer inside this call already.
  virtual GrpcHandler* OnCall(GrpcCall& call) = 0;
};

struct GrpcServerOptions {
  uint32_t message_bytes_max = ~0u;           // of one received message; over it RESOURCE_EXHAUSTED
  uint32_t header_list_bytes_max = 64 << 10;  // as SETTINGS_MAX_HEADER_LIST_SIZE counts
  // Envoy's circuit breaker for ext_proc, as shipped upstream, lets through 40,000.
  uint32_t streams_max = 40'000;    // per connection, at once
  size_t connections_max = 16'384;  // per worker; beyond: closed and counted
  // A whole prompt of usual size without waiting for a WINDOW_UPDATE; sixteen such at once.
  uint32_t stream_window_bytes = 1 << 20;
  uint32_t connection_window_bytes = 16 << 20;
  // Answers that wait on one connection. Over it new streams are refused (REFUSED_STREAM, which
  // clients may retry) and no more window is given.
  size_t unsent_bytes_max = 64u << 20;

  base::Duration handshake_timeout = std::chrono::seconds(10);  // TLS, preface, SETTINGS
  base::Duration header_timeout = std::chrono::seconds(10);     // first to last byte of HEADERS
  base::Duration stall_timeout = std::chrono::seconds(60);      // answers that nobody takes
  base::Duration idle_timeout{};                                // without calls; 0: never
  // A connection that sent nothing for keepalive_time is sent a PING, and closed when
  // keepalive_timeout passes without a byte: finds peers that vanished without FIN.
  base::Duration keepalive_time = std::chrono::seconds(60);
  base::Duration keepalive_timeout = std::chrono::seconds(20);
  base::Duration linger_timeout = std::chrono::seconds(2);  // reading on after GOAWAY

  // Token buckets per connection; an empty one costs the connection (GOAWAY, ENHANCE_YOUR_CALM).
  struct Rate {
    uint32_t burst;
    uint32_t per_second;
  };
  // Streams that the client ends before their request ended and before any answer, or that end by
  // an error of the client's. A stream costs us about 10 us: 1,000 a second take 1 % of a core,
  // and the burst is a full set of clients hanging up at once.
  Rate reset_rate{10'000, 1'000};
  // PING, SETTINGS, empty DATA and forbidden frames, 1 us each. (PRIORITY is stepped over.)
  Rate control_frame_rate{10'000, 1'000};
  // WINDOW_UPDATE beyond kWindowUpdatesPerFrame for each frame of an answer.
  Rate window_update_rate{10'000, 1'000};
  static constexpr uint32_t kWindowUpdatesPerFrame = 10;

  std::shared_ptr<TlsServerContext> tls;  // nullptr: plain (HTTP/2 with prior knowledge)
};

// Running totals of one worker, written on its thread. Read them there, or accept torn sums.
struct GrpcServerStats {
  uint64_t accepted = 0;
  uint64_t refused_full = 0;
  uint64_t calls = 0;  // handed to a service
  uint64_t finished = 0;
  uint64_t client_resets = 0;  // of calls that a service had, at whatever time
  uint64_t connection_lost_calls = 0;
  uint64_t deadlines_exceeded = 0;
  uint64_t unknown_methods = 0;
  uint64_t bad_requests = 0;  // not POST, not application/grpc
  uint64_t header_lists_too_large = 0;
  uint64_t messages_too_large = 0;
  uint64_t bad_messages = 0;     // framing, compression
  uint64_t streams_refused = 0;  // unsent_bytes_max, draining
  uint64_t early_resets = 0;     // counted against reset_rate
  uint64_t reset_floods = 0;     // connections closed for it
  uint64_t control_floods = 0;
  uint64_t window_update_floods = 0;
  uint64_t bad_frames = 0;       // that HTTP/2 forbids where they came
  uint64_t protocol_errors = 0;  // connections closed for what HTTP/2 forbids
  uint64_t bad_prefaces = 0;
  uint64_t handshake_timeouts = 0;
  uint64_t header_timeouts = 0;
  uint64_t stalled_calls = 0;
  uint64_t stalled_connections = 0;
  uint64_t keepalive_failures = 0;
  uint64_t idle_closed = 0;
  uint64_t tls_failures = 0;
  uint64_t bytes_read = 0;
  uint64_t bytes_written = 0;
};

class GrpcServer {
 public:
  // `loop` outlives the server.
  explicit GrpcServer(runtime::EventLoop& loop, GrpcServerOptions options = {});
  // Aborts what is left.
  ~GrpcServer();
  GrpcServer(const GrpcServer&) = delete;
  GrpcServer& operator=(const GrpcServer&) = delete;

  // Calls whose path is `path` go to `service`, which outlives the server; "/package.Service/" with
  // the final slash takes every method of that service. The first match counts. Before Adopt.
  void AddService(std::string path, GrpcService& service);

  // Takes a connected socket.
  void Adopt(int fd, const runtime::SocketAddress& peer);
  // Takes a stream that a test plays; returns its handler, whom the test tells of events. nullptr
  // when full.
  runtime::IoHandler* AdoptForTest(std::unique_ptr<runtime::Stream> stream);
  // Tells clients to go elsewhere (GOAWAY), ends connections when their calls have ended; what is
  // left after `limit` is aborted. `done` runs on the loop when no connection is left.
  void Drain(base::Duration limit, std::move_only_function<void()> done);

  runtime::EventLoop& loop() const;
  size_t connection_count() const;
  size_t active_call_count() const;
  const GrpcServerStats& stats() const;
  const GrpcServerOptions& options() const;

 private:
  friend class GrpcCall;
  friend class Http2Connection;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Accepts on one loop and deals the connections to servers on their loops, in turn: Envoy opens
// about one connection per worker of its own, and the kernel's spreading of so few (SO_REUSEPORT)
// may well leave a worker without any.
class GrpcListener {
 public:
  // `servers` must not be destroyed while their loops still run tasks and this listener lives.
  GrpcListener(runtime::EventLoop& loop, std::vector<GrpcServer*> servers);
  ~GrpcListener();  // stops
  GrpcListener(const GrpcListener&) = delete;
  GrpcListener& operator=(const GrpcListener&) = delete;

  // Returns the port (of interest when 0 was asked for). May be called for several addresses.
  base::Result<uint16_t> Listen(const runtime::SocketAddress& address);
  void StopListening();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace llmd::net
