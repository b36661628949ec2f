// One HTTP/2 connection of a GrpcChannel and the calls that it carries. Private to the grpc_client
// files.
//
// Invariants: 1. Handlers are called from OnIo, OnTurnEnd and OnTimer only. 2. nghttp2 is entered
// only from there, except to queue frames; writes happen in OnTurnEnd, gathered. 3. A connection
// that ended closes its socket at once and leaves the channel in its turn hook.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "net/grpc_client.h"
#include "net/in_buffer.h"
#include "net/out_queue.h"
#include "runtime/stream.h"
#include "wire/grpc_frames.h"

struct nghttp2_session;
struct nghttp2_session_callbacks;

namespace llmd::net {

// A call; kept for reuse by the channel. `handler` is null once the caller knows of its end.
class ClientCall final : public GrpcClientCall {
 public:
  explicit ClientCall(GrpcChannel::Impl& channel) : channel(channel) {}

  void Begin(GrpcConnection* on, GrpcClientHandler& for_handler);
  void Send(std::span<const base::Slice> pieces);
  void CloseSend();
  void Reset(uint32_t http2_error_code);
  // Moves up to `bytes` of what is queued to `frame`.
  size_t Take(size_t bytes, std::vector<base::Slice>* frame);
  void Drop();
  // False when a message came that cannot be taken; `refusal` says why.
  bool Receive(base::Slice data);
  bool TakesMessage();
  GrpcClientEnd EndOf(uint32_t http2_error_code) const;

  GrpcChannel::Impl& channel;
  GrpcConnection* connection = nullptr;
  GrpcClientHandler* handler = nullptr;
  ClientCall* next = nullptr;  // of the connection
  ClientCall* previous = nullptr;
  int32_t stream_id = 0;
  // Sending.
  std::vector<base::Slice> queue;
  size_t queue_first = 0;
  size_t queued_bytes = 0;
  uint64_t sent_mark = 0;  // position in the connection's bytes of the last byte taken
  bool send_closed = false;
  bool deferred = false;  // nghttp2 waits for more to send
  bool above_high = false;
  bool await_sent = false;
  // Receiving.
  wire::GrpcFrames frames;
  int http_status = 0;
  int grpc_status = -1;
  std::string grpc_message;
  base::Status refusal;
};

class GrpcConnection final : public runtime::IoHandler, public runtime::TurnHook {
 public:
  explicit GrpcConnection(GrpcChannel::Impl& channel);
  ~GrpcConnection();

  void Connect();
  // Whether a call may begin here.
  bool usable() const;
  // Queues the request; the call is on this connection from then on.
  void Submit(ClientCall* call, std::string_view path, std::span<const GrpcHeader> headers);
  void Resume(ClientCall* call);
  void QueueReset(ClientCall* call, uint32_t http2_error_code);

  void OnIo(runtime::IoEvents events) override;
  void OnTurnEnd() override;

 private:
  enum class Phase : uint8_t { kConnecting, kOpen, kClosed };
  struct Callbacks;
  // A call of which everything is framed up to `mark` of the connection's bytes.
  struct AwaitSent {
    ClientCall* call;
    uint64_t mark;
  };

  runtime::EventLoop& loop() const;
  void OpenSession();
  void OnTimer();
  void Read();
  void Pump();
  void Flush();
  void TellSent();
  void Fail(base::Status status);
  void Finish(ClientCall* call, const GrpcClientEnd& end);

  GrpcChannel::Impl& channel_;
  std::unique_ptr<runtime::Stream> stream_;
  runtime::Timer timer_;
  OutQueue out_;
  InBuffer in_;
  nghttp2_session* session_ = nullptr;
  std::vector<base::Slice> frame_;    // content of the DATA frame being written
  uint64_t queued_total_ = 0;         // bytes given to out_ so far
  std::deque<AwaitSent> await_sent_;  // in the order of their marks
  ClientCall* calls_ = nullptr;
  std::vector<ClientCall*> refused_;  // told in the turn hook
  base::Status pending_error_;        // told in the turn hook
  Phase phase_ = Phase::kConnecting;
  bool draining_ = false;
  bool can_write_ = true;  // an event came since the socket was full
};

struct GrpcChannel::Impl {
  Impl(runtime::EventLoop& event_loop, TargetSpec target_spec, GrpcChannelOptions opts);
  ~Impl();

  GrpcConnection* NextConnection();
  ClientCall* NewCall();
  void Recycle(ClientCall* call);
  void Remove(GrpcConnection* connection);

  runtime::EventLoop& loop;
  TargetSpec target;
  GrpcChannelOptions options;
  GrpcChannelStats stats;
  std::vector<GrpcConnection*> slots;  // calls take turns; null before the first one
  size_t next_slot = 0;
  std::vector<std::unique_ptr<GrpcConnection>> connections;  // draining ones included
  std::vector<std::unique_ptr<ClientCall>> calls;            // all there are
  std::vector<ClientCall*> idle_calls;
  size_t active = 0;
  nghttp2_session_callbacks* callbacks = nullptr;
};

}  // namespace llmd::net
