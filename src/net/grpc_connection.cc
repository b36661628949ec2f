#include "net/grpc_connection.h"

#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/strings.h"
#include "net/tls.h"
#include "runtime/socket.h"

namespace llmd::net {
namespace {

constexpr size_t kReadBytes = 64 << 10;
// Framed but not yet written; more is framed as the socket takes it. One gather write of 64 parts
// holds at most this much.
constexpr size_t kOutBytesMax = 256 << 10;
constexpr size_t kFrameHeadBytes = 9;
// What a status line for a log needs.
constexpr size_t kGrpcMessageBytesMax = 4 << 10;

std::string_view View(const uint8_t* bytes, size_t size) {
  return {reinterpret_cast<const char*>(bytes), size};
}

nghttp2_nv Field(std::string_view name, std::string_view value) {
  const auto bytes = [](std::string_view text) {
    return reinterpret_cast<uint8_t*>(const_cast<char*>(text.data()));
  };
  return {.name = bytes(name),
          .value = bytes(value),
          .namelen = name.size(),
          .valuelen = value.size(),
          .flags = NGHTTP2_NV_FLAG_NONE};
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c = static_cast<char>(c | 0x20);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// grpc-message is percent-encoded; what is not stays as it is.
std::string PercentDecoded(std::string_view text) {
  std::string out;
  text = text.substr(0, kGrpcMessageBytesMax);
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size()) {
      const int high = HexDigit(text[i + 1]);
      const int low = HexDigit(text[i + 2]);
      if (high >= 0 && low >= 0) {
        out += static_cast<char>(high << 4 | low);
        i += 2;
        continue;
      }
    }
    out += text[i];
  }
  return out;
}

}  // namespace

// The faces that nghttp2 calls.
struct GrpcConnection::Callbacks {
  static GrpcConnection& Self(void* user_data) { return *static_cast<GrpcConnection*>(user_data); }
  static ClientCall* CallOf(nghttp2_session* session, int32_t stream_id) {
    return static_cast<ClientCall*>(nghttp2_session_get_stream_user_data(session, stream_id));
  }

  static ssize_t ReadSource(nghttp2_session*, int32_t, uint8_t*, size_t length, uint32_t* flags,
                            nghttp2_data_source* source, void* user_data) {
    auto& call = *static_cast<ClientCall*>(source->ptr);
    std::vector<base::Slice>& frame = Self(user_data).frame_;
    if (call.queued_bytes == 0 && !(call.send_closed && call.handler)) {
      call.deferred = true;
      return NGHTTP2_ERR_DEFERRED;
    }
    frame.clear();
    const size_t taken = call.Take(length, &frame);
    if (taken > 0) *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (call.queued_bytes == 0 && call.send_closed) *flags |= NGHTTP2_DATA_FLAG_EOF;
    return static_cast<ssize_t>(taken);
  }

  static int SendData(nghttp2_session*, nghttp2_frame*, const uint8_t* frame_head, size_t length,
                      nghttp2_data_source* source, void* user_data) {
    GrpcConnection& self = Self(user_data);
    if (self.out_.bytes() >= kOutBytesMax) return NGHTTP2_ERR_WOULDBLOCK;
    self.out_.AppendCopy(View(frame_head, kFrameHeadBytes));
    for (base::Slice& piece : self.frame_) self.out_.Append(std::move(piece));
    self.frame_.clear();
    self.queued_total_ += kFrameHeadBytes + length;
    auto& call = *static_cast<ClientCall*>(source->ptr);
    if (!call.handler) return 0;
    if (call.queued_bytes == 0) {
      call.sent_mark = self.queued_total_;
      call.await_sent = true;
      self.await_sent_.emplace_back(&call, self.queued_total_);
    }
    if (call.above_high && call.queued_bytes <= GrpcClientCall::kPendingLowBytes) {
      call.above_high = false;
      call.handler->OnWritable();
    }
    return 0;
  }

  static int OnHeader(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name,
                      size_t name_size, const uint8_t* value, size_t value_size, uint8_t, void*) {
    ClientCall* call = CallOf(session, frame->hd.stream_id);
    if (!call) return 0;
    const std::string_view text = View(value, value_size);
    const std::string_view field = View(name, name_size);
    if (field == ":status") {
      call->http_status = static_cast<int>(base::ParseInt(text).value_or(0));
    } else if (field == "grpc-status") {
      const auto code = base::ParseInt(text);
      const bool good = code && *code >= 0 && *code < 1000;
      call->grpc_status = good ? static_cast<int>(*code) : 2;  // UNKNOWN
    } else if (field == "grpc-message") {
      call->grpc_message = PercentDecoded(text);
    }
    return 0;
  }

  static int OnData(nghttp2_session* session, uint8_t, int32_t stream_id, const uint8_t* bytes,
                    size_t size, void* user_data) {
    ClientCall* call = CallOf(session, stream_id);
    if (!call || !call->handler || !call->refusal.ok()) return 0;
    if (call->http_status != 200) return 0;  // an error page of something in between
    if (!call->Receive(Self(user_data).in_.Share(View(bytes, size)))) {
      Self(user_data).QueueReset(call, NGHTTP2_CANCEL);
    }
    return 0;
  }

  static int OnFrame(nghttp2_session* session, const nghttp2_frame* frame, void* user_data) {
    GrpcConnection& self = Self(user_data);
    if (frame->hd.type == NGHTTP2_SETTINGS) self.timer_.Disarm();
    if (frame->hd.type == NGHTTP2_GOAWAY) self.draining_ = true;
    const bool ends = (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) &&
                      (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    if (!ends) return 0;
    // The server has said all; what we have not said yet it does not want to hear.
    ClientCall* call = CallOf(session, frame->hd.stream_id);
    if (call && nghttp2_session_get_stream_local_close(session, frame->hd.stream_id) == 0) {
      self.QueueReset(call, NGHTTP2_NO_ERROR);
    }
    return 0;
  }

  static int OnClose(nghttp2_session* session, int32_t stream_id, uint32_t error_code,
                     void* user_data) {
    ClientCall* call = CallOf(session, stream_id);
    if (call) Self(user_data).Finish(call, call->EndOf(error_code));
    return 0;
  }

  static nghttp2_session_callbacks* New() {
    nghttp2_session_callbacks* callbacks = nullptr;
    LLMD_CHECK(nghttp2_session_callbacks_new(&callbacks) == 0, "out of memory");
    nghttp2_session_callbacks_set_send_data_callback(callbacks, SendData);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, OnHeader);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, OnData);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, OnFrame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, OnClose);
    return callbacks;
  }
};

GrpcConnection::GrpcConnection(GrpcChannel::Impl& channel)
    : channel_(channel),
      timer_(channel.loop, [this] { OnTimer(); }),
      out_(channel.loop.buffers()),
      in_(channel.loop.buffers()) {
  OpenSession();
}

GrpcConnection::~GrpcConnection() { nghttp2_session_del(session_); }

runtime::EventLoop& GrpcConnection::loop() const { return channel_.loop; }

void GrpcConnection::OpenSession() {
  if (!channel_.callbacks) channel_.callbacks = Callbacks::New();
  LLMD_CHECK(nghttp2_session_client_new(&session_, channel_.callbacks, this) == 0, "out of memory");
  const GrpcChannelOptions& options = channel_.options;
  const nghttp2_settings_entry settings[] = {
      {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, options.stream_window_bytes},
  };
  nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, std::size(settings));
  nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0,
                                        static_cast<int32_t>(options.connection_window_bytes));
}

void GrpcConnection::Connect() {
  ++channel_.stats.connects;
  timer_.ArmAfter(channel_.options.connect_timeout);
  const TargetSpec& target = channel_.target;
  auto fd = runtime::ConnectTcp(target.address);
  base::Status failed;
  if (!fd) {
    failed = fd.error();
  } else {
    auto stream = target.tls ? target.tls->NewStream(loop(), *fd, *this, target.tls_name)
                             : runtime::NewTcpStream(loop(), *fd, *this);
    if (stream) {
      stream_ = *std::move(stream);
      return;
    }
    failed = stream.error();
  }
  pending_error_ = base::Unavailable(std::string(failed.message()));
  loop().AtTurnEnd(*this);
}

bool GrpcConnection::usable() const {
  return phase_ != Phase::kClosed && !draining_ && pending_error_.ok() &&
         nghttp2_session_check_request_allowed(session_) != 0;
}

void GrpcConnection::Submit(ClientCall* call, std::string_view path,
                            std::span<const GrpcHeader> headers) {
  call->next = calls_;
  call->previous = nullptr;
  if (calls_) calls_->previous = call;
  calls_ = call;
  loop().AtTurnEnd(*this);
  if (channel_.active > channel_.options.calls_max) {
    call->refusal = base::ResourceExhausted("too many calls under way");
    refused_.push_back(call);
    return;
  }
  nghttp2_nv fields[GrpcChannel::kHeadersMax + 6] = {
      Field(":method", "POST"),
      Field(":scheme", channel_.target.tls ? "https" : "http"),
      Field(":path", path),
      Field(":authority", channel_.options.authority),
      Field("content-type", "application/grpc"),
      Field("te", "trailers"),
  };
  size_t count = 6;
  for (const GrpcHeader& header : headers) fields[count++] = Field(header.name, header.value);
  nghttp2_data_provider body{.source = {.ptr = call}, .read_callback = Callbacks::ReadSource};
  const int32_t stream_id = nghttp2_submit_request(session_, nullptr, fields, count, &body, call);
  if (stream_id > 0) {
    call->stream_id = stream_id;
    return;
  }
  call->refusal = base::Internal(nghttp2_strerror(stream_id));
  refused_.push_back(call);
}

void GrpcConnection::Resume(ClientCall* call) {
  if (std::exchange(call->deferred, false)) nghttp2_session_resume_data(session_, call->stream_id);
  loop().AtTurnEnd(*this);
}

void GrpcConnection::QueueReset(ClientCall* call, uint32_t http2_error_code) {
  if (call->stream_id > 0) {
    nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, call->stream_id, http2_error_code);
  }
  loop().AtTurnEnd(*this);
}

void GrpcConnection::OnIo(runtime::IoEvents events) {
  if (phase_ == Phase::kClosed) return;
  if (phase_ == Phase::kConnecting) {
    if (!events.writable() && !events.failed()) return;
    if (const int error = runtime::SocketError(stream_->fd()); error != 0) {
      Fail(base::Unavailable(std::string(
          base::ErrnoStatus(error, "connect to " + channel_.target.address.ToString()).message())));
      return;
    }
    phase_ = Phase::kOpen;
  }
  can_write_ = true;
  loop().AtTurnEnd(*this);
  Read();
}

void GrpcConnection::OnTimer() {
  Fail(base::Unavailable("no HTTP/2 settings from " + channel_.target.address.ToString() +
                         " within the connect timeout"));
}

void GrpcConnection::Read() {
  while (phase_ == Phase::kOpen) {
    const std::span<char> room = in_.Room(kReadBytes);
    const runtime::IoResult result = stream_->Read(room);
    in_.Filled(result.bytes);
    channel_.stats.bytes_read += result.bytes;
    if (result.bytes > 0) {
      const std::string_view bytes = in_.unread();
      const ssize_t taken = nghttp2_session_mem_recv(
          session_, reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
      in_.Consume(bytes.size());
      if (taken < 0) {
        Fail(
            base::Unavailable(base::Concat("HTTP/2: ", nghttp2_strerror(static_cast<int>(taken)))));
        return;
      }
    }
    if (result.status == runtime::IoStatus::kDrained) return;
    if (result.status != runtime::IoStatus::kOk) {
      Fail(base::Unavailable(result.status == runtime::IoStatus::kEnd
                                 ? "the server closed the connection"
                                 : "connection lost: " + stream_->error_text()));
      return;
    }
  }
}

void GrpcConnection::OnTurnEnd() {
  for (ClientCall* call : std::exchange(refused_, {})) Finish(call, call->EndOf(0));
  if (!pending_error_.ok()) Fail(std::exchange(pending_error_, {}));
  if (phase_ == Phase::kOpen) Pump();
  if (phase_ == Phase::kClosed) channel_.Remove(this);  // ends `this`
}

void GrpcConnection::Pump() {
  bool more = true;
  while (more && phase_ == Phase::kOpen) {
    while (out_.bytes() < kOutBytesMax) {
      const uint8_t* bytes = nullptr;
      const ssize_t size = nghttp2_session_mem_send(session_, &bytes);
      if (size < 0) {
        Fail(base::Unavailable(base::Concat("HTTP/2: ", nghttp2_strerror(static_cast<int>(size)))));
        return;
      }
      if (size == 0) break;
      out_.AppendCopy(View(bytes, static_cast<size_t>(size)));
      queued_total_ += static_cast<uint64_t>(size);
    }
    more = out_.bytes() >= kOutBytesMax;
    Flush();
    if (phase_ == Phase::kOpen && !out_.empty()) more = false;
    TellSent();
  }
  if (phase_ == Phase::kOpen && nghttp2_session_want_read(session_) == 0 &&
      nghttp2_session_want_write(session_) == 0) {
    Fail(base::Unavailable("the server sent the connection away"));
  }
}

void GrpcConnection::Flush() {
  if (out_.empty() || (out_.blocked() && !can_write_)) return;
  can_write_ = false;
  const runtime::IoResult result = out_.Flush(*stream_);
  channel_.stats.bytes_written += result.bytes;
  if (result.status == runtime::IoStatus::kError) {
    Fail(base::Unavailable("connection lost: " + stream_->error_text()));
  }
}

void GrpcConnection::TellSent() {
  const uint64_t flushed = queued_total_ - out_.bytes();
  while (phase_ == Phase::kOpen && !await_sent_.empty() && await_sent_.front().mark <= flushed) {
    const AwaitSent front = await_sent_.front();
    await_sent_.pop_front();
    // A call that ended, or that has sent more since, has another entry or none.
    if (!front.call || front.call->sent_mark != front.mark) continue;
    front.call->await_sent = false;
    if (front.call->handler && front.call->queued_bytes == 0) front.call->handler->OnSent();
  }
}

void GrpcConnection::Fail(base::Status status) {
  if (phase_ == Phase::kClosed) return;
  phase_ = Phase::kClosed;
  timer_.Disarm();
  stream_.reset();
  out_.Clear();
  await_sent_.clear();
  refused_.clear();
  loop().AtTurnEnd(*this);
  if (calls_) ++channel_.stats.connection_failures;
  while (calls_) Finish(calls_, {.status = status});
}

void GrpcConnection::Finish(ClientCall* call, const GrpcClientEnd& end) {
  (call->previous ? call->previous->next : calls_) = call->next;
  if (call->next) call->next->previous = call->previous;
  call->next = call->previous = nullptr;
  if (call->await_sent) {
    for (AwaitSent& each : await_sent_) {
      if (each.call == call) each.call = nullptr;
    }
  }
  GrpcClientHandler* handler = std::exchange(call->handler, nullptr);
  channel_.Recycle(call);
  if (!handler) return;
  --channel_.active;
  handler->OnEnd(end);
}

}  // namespace llmd::net
