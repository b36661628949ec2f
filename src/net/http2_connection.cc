#include "net/http2_connection.h"

#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace llmd::net {
namespace {

constexpr size_t kReadBytes = 64 << 10;
// After a read that filled its room.
constexpr size_t kReadBytesLarge = base::BufferPool::kLargestPooledBytes;
// Below this much room a block is not worth another recv.
constexpr size_t kReadRoomMin = 8 << 10;
// Then other connections have their turn.
constexpr int kReadsPerTurnMax = 4;
// How long clients may take to hear of a drain before the last stream is fixed.
constexpr base::Duration kDrainNotice = std::chrono::seconds(1);

}  // namespace

Http2Connection::Http2Connection(GrpcServer::Impl& server, const runtime::SocketAddress& peer,
                                 uint64_t id)
    : server_(server),
      peer_(peer),
      id_(id),
      timer_(server.loop, [this] { OnTimer(); }),
      out_(server.loop.buffers()),
      read_bytes_(kReadBytes),
      resets_(server.options.reset_rate.burst, server.options.reset_rate.per_second, now()),
      control_frames_(server.options.control_frame_rate.burst,
                      server.options.control_frame_rate.per_second, now()),
      window_updates_(server.options.window_update_rate.burst,
                      server.options.window_update_rate.per_second, now()),
      attached_at_(now()),
      last_read_(attached_at_),
      last_write_(attached_at_),
      last_call_(attached_at_) {}

Http2Connection::~Http2Connection() { nghttp2_session_del(session_); }

void Http2Connection::Attach(std::unique_ptr<runtime::Stream> stream) {
  stream_ = std::move(stream);
  const GrpcServerOptions& options = server_.options;
  LLMD_CHECK(
      nghttp2_session_server_new2(&session_, server_.callbacks, this, server_.session_options) == 0,
      "out of memory");
  const nghttp2_settings_entry settings[] = {
      {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, options.streams_max},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, options.stream_window_bytes},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, options.header_list_bytes_max},
      {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
  };
  nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, std::size(settings));
  nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0,
                                        static_cast<int32_t>(options.connection_window_bytes));
  QueueTurn();
  UpdateTimer();
}

// --- bytes ---------------------------------------------------------------------------------------

void Http2Connection::OnIo(runtime::IoEvents events) {
  if (events.readable()) can_read_ = true;
  if (events.peer_closed()) peer_closed_ = true;
  if (events.failed()) {
    Break(GrpcEnd::kConnectionLost);
  } else {
    if (!out_.empty()) Flush();
    ReadSome();
    QueueTurn();
  }
  Settle();
}

void Http2Connection::OnTurnEnd() {
  if (can_read_) ReadSome();
  if (!broken_ && phase_ == Phase::kOpen) Write();
  LetBlockGo();
  Settle();
}

void Http2Connection::ReadSome() {
  for (int reads = 0; can_read_ && !broken_ && phase_ != Phase::kClosed; ++reads) {
    if (reads == kReadsPerTurnMax) {
      QueueTurn();
      return;
    }
    if (!in_) {
      in_ = server_.loop.buffers().Get(read_bytes_);
      in_hold_ = base::Slice(in_, in_->data(), in_->capacity());
      in_filled_ = 0;
    }
    const std::span<char> room(in_->data() + in_filled_, in_->capacity() - in_filled_);
    const runtime::IoResult result = stream_->Read(room);
    if (result.bytes > 0) {
      last_read_ = now();
      pinged_at_ = base::TimePoint::max();
      server_.stats.bytes_read += result.bytes;
      in_filled_ += result.bytes;
      if (phase_ == Phase::kOpen) Receive(room.data(), result.bytes);
    }
    read_bytes_ = result.bytes == room.size() ? kReadBytesLarge : kReadBytes;
    LetBlockGo();
    // After a FIN a short read is not the end: the FIN is still to be read.
    if (result.status == runtime::IoStatus::kDrained) can_read_ = peer_closed_ && result.bytes > 0;
    if (result.status == runtime::IoStatus::kError && server_.options.tls && !greeted_) {
      ++server_.stats.tls_failures;
    }
    if (result.status == runtime::IoStatus::kError || result.status == runtime::IoStatus::kEnd) {
      can_read_ = false;
      Break(GrpcEnd::kConnectionLost);
    }
  }
}

// Bytes that nobody kept are overwritten by the next recv, while they are still in the cache; a
// block that somebody holds is filled to its end.
void Http2Connection::LetBlockGo() {
  if (!in_) return;
  base::BufferPool& pool = server_.loop.buffers();
  const size_t live = pool.live_bytes();
  in_hold_ = base::Slice();
  if (pool.live_bytes() < live || in_->capacity() - in_filled_ < kReadRoomMin) {
    in_ = nullptr;
  } else {
    in_hold_ = base::Slice(in_, in_->data(), in_->capacity());
  }
}

void Http2Connection::Receive(const char* data, size_t size) {
  const ssize_t n =
      nghttp2_session_mem_recv(session_, reinterpret_cast<const uint8_t*>(data), size);
  if (n >= 0) return;
  if (n == NGHTTP2_ERR_BAD_CLIENT_MAGIC) {
    ++server_.stats.bad_prefaces;
  } else if (n == NGHTTP2_ERR_FLOODED) {
    ++server_.stats.control_floods;
  } else {
    ++server_.stats.protocol_errors;
  }
  Break(GrpcEnd::kConnectionLost);
}

void Http2Connection::Write() {
  if (out_.blocked()) return;
  do {
    paused_ = false;
    while (!paused_) {
      const uint8_t* bytes = nullptr;
      const ssize_t n = nghttp2_session_mem_send(session_, &bytes);
      if (n < 0) {
        Break(GrpcEnd::kConnectionLost);
        return;
      }
      if (n == 0) break;
      out_.AppendCopy({reinterpret_cast<const char*>(bytes), static_cast<size_t>(n)});
      if (out_.bytes() >= kOutBytesMax) paused_ = true;
    }
    Flush();
  } while (paused_ && !broken_ && !out_.blocked());
  if ((writable_due_ || (windows_held_ && !OverUnsent())) && !broken_) TellWritable();
}

void Http2Connection::Flush() {
  if (broken_ || out_.empty()) return;
  const runtime::IoResult result = out_.Flush(*stream_);
  server_.stats.bytes_written += result.bytes;
  if (result.bytes > 0) last_write_ = now();
  if (result.status == runtime::IoStatus::kError) Break(GrpcEnd::kConnectionLost);
}

void Http2Connection::TellWritable() {
  writable_due_ = false;
  for (GrpcCall* call = calls_; call; call = call->next_) {
    if (!call->above_high_ || call->unsent_bytes_ > GrpcCall::kUnsentLowBytes) continue;
    call->above_high_ = false;
    GiveWindow(*call);
    if (call->Listening()) call->handler_->OnWritable();
  }
  if (windows_held_ && !OverUnsent()) {
    windows_held_ = false;
    nghttp2_session_consume_connection(session_, std::exchange(owed_window_, 0));
    for (GrpcCall* call = calls_; call; call = call->next_) GiveWindow(*call);
  }
  QueueTurn();
}

// --- the end of a connection ---------------------------------------------------------------------

// The socket is of no more use. Settle tells the handlers and destroys the connection.
void Http2Connection::Break(GrpcEnd why) {
  if (broken_) return;
  broken_ = true;
  end_ = why;
  out_.Clear();
  QueueTurn();
}

void Http2Connection::Refuse(uint64_t& counter) {
  if (refused_) return;
  refused_ = true;
  ++counter;
  nghttp2_session_terminate_session(session_, NGHTTP2_ENHANCE_YOUR_CALM);
  QueueTurn();
}

void Http2Connection::AbortNow() {
  stream_->ResetOnClose();
  Break(GrpcEnd::kReset);
}

void Http2Connection::BeginDrain() {
  if (draining_) return;
  draining_ = true;
  QueueTurn();
  nghttp2_submit_shutdown_notice(session_);
  nghttp2_submit_ping(session_, NGHTTP2_FLAG_NONE, reinterpret_cast<const uint8_t*>(kDrainPing));
  goaway_at_ = now() + kDrainNotice;
}

// Streams that the client opened before it knew of the drain are served too.
void Http2Connection::FixLastStream() {
  if (goaway_at_ == base::TimePoint::max()) return;
  goaway_at_ = base::TimePoint::max();
  nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE,
                        nghttp2_session_get_last_proc_stream_id(session_), NGHTTP2_NO_ERROR,
                        nullptr, 0);
  QueueTurn();
}

void Http2Connection::EndAllCalls(GrpcEnd why) {
  while (calls_) CloseCall(*calls_, why);
}

void Http2Connection::Settle() {
  if (phase_ == Phase::kOpen && !broken_ && out_.empty() && !nghttp2_session_want_read(session_) &&
      !nghttp2_session_want_write(session_)) {
    EndAllCalls(GrpcEnd::kConnectionLost);
    // Unread bytes would turn the close into a reset and take the GOAWAY with it.
    phase_ = Phase::kLinger;
    linger_until_ = now() + server_.options.linger_timeout;
    stream_->ShutdownWrite();
  }
  if (broken_ || phase_ == Phase::kClosed) {
    EndAllCalls(end_);
    server_.Remove(this);
    return;
  }
  UpdateTimer();
}

// --- time ----------------------------------------------------------------------------------------

base::TimePoint Http2Connection::Deadline() const {
  const GrpcServerOptions& options = server_.options;
  if (phase_ == Phase::kLinger) return linger_until_;
  if (!greeted_) return attached_at_ + options.handshake_timeout;
  base::TimePoint deadline = pinged_at_ != base::TimePoint::max()
                                 ? pinged_at_ + options.keepalive_timeout
                                 : last_read_ + options.keepalive_time;
  if (headers_since_ != base::TimePoint::max()) {
    deadline = std::min(deadline, headers_since_ + options.header_timeout);
  }
  if (out_.blocked()) deadline = std::min(deadline, last_write_ + options.stall_timeout);
  if (call_count_ == 0 && options.idle_timeout > base::Duration::zero()) {
    deadline = std::min(deadline, last_call_ + options.idle_timeout);
  }
  return std::min({deadline, sweep_at_, goaway_at_});
}

void Http2Connection::UpdateTimer() {
  if (unsent_bytes_ == 0) {
    sweep_at_ = base::TimePoint::max();
  } else if (sweep_at_ == base::TimePoint::max()) {
    sweep_at_ = now() + server_.options.stall_timeout / 4;
  }
  timer_.ArmAt(Deadline());
}

void Http2Connection::OnTimer() {
  if (!broken_ && phase_ != Phase::kClosed && Deadline() <= now()) TimedOut();
  Settle();
}

void Http2Connection::TimedOut() {
  const GrpcServerOptions& options = server_.options;
  GrpcServerStats& stats = server_.stats;
  if (phase_ == Phase::kLinger) {
    phase_ = Phase::kClosed;
  } else if (!greeted_) {
    ++stats.handshake_timeouts;
    Break(GrpcEnd::kConnectionLost);
  } else if (headers_since_ != base::TimePoint::max() &&
             headers_since_ + options.header_timeout <= now()) {
    ++stats.header_timeouts;
    Break(GrpcEnd::kConnectionLost);
  } else if (out_.blocked() && last_write_ + options.stall_timeout <= now()) {
    ++stats.stalled_connections;
    stream_->ResetOnClose();
    Break(GrpcEnd::kStalled);
  } else if (pinged_at_ != base::TimePoint::max() &&
             pinged_at_ + options.keepalive_timeout <= now()) {
    ++stats.keepalive_failures;
    Break(GrpcEnd::kConnectionLost);
  } else {
    DoDueWork();
  }
}

void Http2Connection::DoDueWork() {
  const GrpcServerOptions& options = server_.options;
  if (sweep_at_ <= now()) SweepStalled();
  if (goaway_at_ <= now()) FixLastStream();
  if (pinged_at_ == base::TimePoint::max() && last_read_ + options.keepalive_time <= now()) {
    nghttp2_submit_ping(session_, NGHTTP2_FLAG_NONE, nullptr);
    pinged_at_ = now();
  }
  if (call_count_ == 0 && options.idle_timeout > base::Duration::zero() &&
      last_call_ + options.idle_timeout <= now()) {
    ++server_.stats.idle_closed;
    nghttp2_session_terminate_session(session_, NGHTTP2_NO_ERROR);
  }
  QueueTurn();
}

// Answers that a client does not take, be it by a window that it keeps shut or by a connection's.
void Http2Connection::SweepStalled() {
  sweep_at_ = base::TimePoint::max();
  for (GrpcCall* call = calls_; call; call = call->next_) {
    if (call->unsent_bytes_ == 0 || call->last_progress_ + server_.options.stall_timeout > now()) {
      continue;
    }
    ++server_.stats.stalled_calls;
    call->End(GrpcEnd::kStalled);
    SubmitCancel(*call);
  }
}

}  // namespace llmd::net
