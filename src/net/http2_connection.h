// One accepted HTTP/2 connection of a GrpcServer: nghttp2's session between a Stream and GrpcCalls.
// Private to the grpc_server files.
//
// Invariants: 1. nghttp2 reads (mem_recv) in OnIo and writes (mem_send) in OnTurnEnd only; calls of
// handlers into a GrpcCall set state, submit frames and queue the turn hook, so no callback of
// nghttp2, and no handler, is entered twice. 2. Settle() is the last act of OnIo, OnTurnEnd and
// OnTimer, and the only place that destroys the connection. 3. At most kOutBytesMax bytes and one
// frame lie between nghttp2 and the socket; what waits longer waits in the calls, counted, or in
// nghttp2's queue of acknowledgements, whose length it limits itself.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "net/grpc_server.h"
#include "net/out_queue.h"
#include "net/token_bucket.h"
#include "runtime/stream.h"

struct nghttp2_session;
struct nghttp2_session_callbacks;
struct nghttp2_option;

namespace llmd::net {

// What all connections of one server share.
struct GrpcServer::Impl {
  Impl(runtime::EventLoop& event_loop, GrpcServerOptions opts);
  ~Impl();

  GrpcService* Find(std::string_view path) const;
  GrpcCall* NewCall();
  void Recycle(GrpcCall* call);
  void Add(std::unique_ptr<Http2Connection> connection);
  void Remove(Http2Connection* connection);
  void FinishDrainIfIdle();
  // A Slice over a copy of `parts`, put behind earlier such copies in a shared block.
  base::Slice CopySmall(std::string_view first, std::span<const base::Slice> rest);

  runtime::EventLoop& loop;
  GrpcServerOptions options;
  GrpcServerStats stats;
  std::vector<std::pair<std::string, GrpcService*>> services;
  Http2Connection* connections = nullptr;  // doubly linked through the connections
  size_t connection_count = 0;
  size_t active_count = 0;
  uint64_t last_connection_id = 0;
  std::vector<GrpcCall*> spare_calls;
  base::Slice small_hold;
  base::Block* small = nullptr;
  size_t small_used = 0;
  nghttp2_session_callbacks* callbacks = nullptr;
  nghttp2_option* session_options = nullptr;
  bool draining = false;
  runtime::Timer drain_timer;
  std::move_only_function<void()> drain_done;
};

class Http2Connection final : public runtime::IoHandler, public runtime::TurnHook {
 public:
  // The stream is set with Attach, because it needs the handler.
  Http2Connection(GrpcServer::Impl& server, const runtime::SocketAddress& peer, uint64_t id);
  ~Http2Connection();
  void Attach(std::unique_ptr<runtime::Stream> stream);

  void OnIo(runtime::IoEvents events) override;
  void OnTurnEnd() override;
  // Calls under way are finished, then the connection ends.
  void BeginDrain();
  // Handlers hear kReset.
  void AbortNow();
  void Settle();

 private:
  friend class GrpcCall;
  friend class GrpcServer;
  struct Callbacks;  // nghttp2's

  enum class Phase : uint8_t { kOpen, kLinger, kClosed };

  // Serialized frames between nghttp2 and the socket: enough for one gather write to fill a socket
  // buffer, little enough that acknowledgements do not pile up behind a slow peer.
  static constexpr size_t kOutBytesMax = 256 << 10;
  static constexpr char kDrainPing[] = "draining";  // the 8 opaque bytes of a PING

  static nghttp2_session_callbacks* NewCallbacks();
  static nghttp2_option* NewSessionOptions();

  base::TimePoint now() const { return server_.loop.now(); }
  void QueueTurn() { server_.loop.AtTurnEnd(*this); }
  void ReadSome();
  void LetBlockGo();
  void Receive(const char* data, size_t size);
  void Write();
  void Flush();
  void TellWritable();
  void Break(GrpcEnd why);
  // GOAWAY with ENHANCE_YOUR_CALM; counted once per connection.
  void Refuse(uint64_t& counter);
  void FixLastStream();
  void EndAllCalls(GrpcEnd why);

  // What nghttp2 reports.
  void OpenCall(int32_t stream_id);
  void RequestComplete();
  void AnswerBadRequest(GrpcCall& call, std::string_view http_status);
  void ReceiveData(int32_t stream_id, const char* data, size_t size);
  void ReceivePing(const uint8_t* opaque, bool is_ack);
  void TakeControlToken();
  void TakeResetToken();
  void StreamClosed(GrpcCall& call, uint32_t error_code);
  void CloseCall(GrpcCall& call, GrpcEnd why);

  // What calls want.
  void SubmitResponse(GrpcCall& call);
  void SubmitTrailers(GrpcCall& call, bool alone);
  void SubmitCancel(GrpcCall& call);
  void ResumeData(GrpcCall& call);
  void GiveWindow(GrpcCall& call);
  bool OverUnsent() const { return unsent_bytes_ > server_.options.unsent_bytes_max; }

  base::TimePoint Deadline() const;
  void UpdateTimer();
  void OnTimer();
  void TimedOut();
  void DoDueWork();
  void SweepStalled();

  GrpcServer::Impl& server_;
  Http2Connection* next_ = nullptr;
  Http2Connection* previous_ = nullptr;
  std::unique_ptr<runtime::Stream> stream_;
  nghttp2_session* session_ = nullptr;
  runtime::SocketAddress peer_;
  uint64_t id_;
  runtime::Timer timer_;
  OutQueue out_;
  base::Block* in_ = nullptr;  // where recv goes on
  base::Slice in_hold_;
  size_t in_filled_ = 0;
  size_t read_bytes_ = 0;      // room wanted by the next recv
  GrpcCall* calls_ = nullptr;  // doubly linked through the calls
  size_t call_count_ = 0;
  GrpcCall* header_call_ = nullptr;  // whose HEADERS are arriving
  size_t unsent_bytes_ = 0;          // of all calls
  size_t owed_window_ = 0;           // of the connection, held back while OverUnsent
  TokenBucket resets_;
  TokenBucket control_frames_;
  TokenBucket window_updates_;
  base::TimePoint attached_at_;
  base::TimePoint last_read_;
  base::TimePoint last_write_;  // that moved something
  base::TimePoint last_call_;   // end of the last call
  base::TimePoint pinged_at_ = base::TimePoint::max();
  base::TimePoint headers_since_ = base::TimePoint::max();
  base::TimePoint sweep_at_ = base::TimePoint::max();
  base::TimePoint linger_until_ = base::TimePoint::max();
  base::TimePoint goaway_at_ = base::TimePoint::max();
  Phase phase_ = Phase::kOpen;
  GrpcEnd end_ = GrpcEnd::kConnectionLost;
  bool can_read_ = true;
  bool peer_closed_ = false;
  bool greeted_ = false;  // preface and SETTINGS arrived
  bool refused_ = false;
  bool paused_ = false;        // mem_send stopped for want of room in out_
  bool writable_due_ = false;  // some call may go on sending
  bool windows_held_ = false;  // for OverUnsent
  bool draining_ = false;
  bool broken_ = false;
};

}  // namespace llmd::net
