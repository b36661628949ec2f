// The face of an Http2Connection towards nghttp2: what it reports, what it is told to send.
#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/strings.h"
#include "net/grpc_text.h"
#include "net/http2_connection.h"

namespace llmd::net {
namespace {

uint8_t* Bytes(std::string_view text) {
  return reinterpret_cast<uint8_t*>(const_cast<char*>(text.data()));
}
// nghttp2 copies neither name nor value: both must outlive the frame.
nghttp2_nv StaticField(std::string_view name, std::string_view value) {
  return {Bytes(name), Bytes(value), name.size(), value.size(),
          NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};
}
nghttp2_nv Field(std::string_view name, std::string_view value, uint8_t flags = 0) {
  return {Bytes(name), Bytes(value), name.size(), value.size(),
          static_cast<uint8_t>(NGHTTP2_NV_FLAG_NO_COPY_NAME | flags)};
}
constexpr std::string_view kCodes[] = {"0", "1",  "2",  "3",  "4",  "5",  "6",  "7", "8",
                                       "9", "10", "11", "12", "13", "14", "15", "16"};
std::string_view CodeText(base::StatusCode code) { return kCodes[static_cast<size_t>(code)]; }

}  // namespace

// --- nghttp2's callbacks -------------------------------------------------------------------------

struct Http2Connection::Callbacks {
  static Http2Connection& Self(void* user) { return *static_cast<Http2Connection*>(user); }

  // How much of the answer goes into the next DATA frame; SendAnswer takes it.
  static ssize_t ReadAnswer(nghttp2_session*, int32_t, uint8_t*, size_t length, uint32_t* flags,
                            nghttp2_data_source* source, void* user) {
    auto& call = *static_cast<GrpcCall*>(source->ptr);
    const size_t size = std::min(length, call.unsent_bytes_);
    if (size == 0 && !call.finish_called_) {
      call.deferred_ = true;
      return NGHTTP2_ERR_DEFERRED;
    }
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (size == call.unsent_bytes_ && call.finish_called_) {
      *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
      Self(user).SubmitTrailers(call, false);
    }
    return static_cast<ssize_t>(size);
  }

  static int SendAnswer(nghttp2_session*, nghttp2_frame*, const uint8_t* header, size_t length,
                        nghttp2_data_source* source, void* user) {
    Http2Connection& self = Self(user);
    auto& call = *static_cast<GrpcCall*>(source->ptr);
    constexpr size_t kFrameHeaderBytes = 9;
    self.out_.AppendCopy({reinterpret_cast<const char*>(header), kFrameHeaderBytes});
    call.MoveUnsent(length, self.out_);
    self.window_updates_.Earn(GrpcServerOptions::kWindowUpdatesPerFrame);
    if (self.out_.bytes() < kOutBytesMax) return 0;
    self.paused_ = true;
    return NGHTTP2_ERR_PAUSE;
  }

  static int OnBeginHeaders(nghttp2_session*, const nghttp2_frame* frame, void* user) {
    Http2Connection& self = Self(user);
    if (frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
      self.OpenCall(frame->hd.stream_id);
    } else {
      self.headers_since_ = self.now();
    }
    return 0;
  }

  static int OnHeader(nghttp2_session*, const nghttp2_frame*, const uint8_t* name, size_t name_size,
                      const uint8_t* value, size_t value_size, uint8_t, void* user) {
    Http2Connection& self = Self(user);
    if (!self.header_call_) return 0;
    self.header_call_->AddField({reinterpret_cast<const char*>(name), name_size},
                                {reinterpret_cast<const char*>(value), value_size},
                                self.server_.options.header_list_bytes_max);
    return 0;
  }

  static int OnData(nghttp2_session*, uint8_t, int32_t stream_id, const uint8_t* data, size_t size,
                    void* user) {
    Self(user).ReceiveData(stream_id, reinterpret_cast<const char*>(data), size);
    return 0;
  }

  static int OnFrame(nghttp2_session* session, const nghttp2_frame* frame, void* user) {
    Http2Connection& self = Self(user);
    const bool is_ack = frame->hd.flags & NGHTTP2_FLAG_ACK;
    switch (frame->hd.type) {
      case NGHTTP2_HEADERS:
        self.RequestComplete();
        break;
      case NGHTTP2_DATA:
        if (frame->hd.length == 0 && !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) {
          self.TakeControlToken();
        }
        break;
      case NGHTTP2_SETTINGS:
        self.greeted_ = true;
        if (!is_ack) self.TakeControlToken();
        return 0;
      case NGHTTP2_PING:
        self.ReceivePing(frame->ping.opaque_data, is_ack);
        return 0;
      case NGHTTP2_WINDOW_UPDATE:
        if (!self.window_updates_.Take(self.now())) {
          self.Refuse(self.server_.stats.window_update_floods);
        }
        return 0;
      default:
        return 0;
    }
    if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) {
      auto* call = static_cast<GrpcCall*>(
          nghttp2_session_get_stream_user_data(session, frame->hd.stream_id));
      if (call) call->HalfClose();
    }
    return 0;
  }

  static int OnInvalidFrame(nghttp2_session*, const nghttp2_frame*, int, void* user) {
    Http2Connection& self = Self(user);
    ++self.server_.stats.bad_frames;
    // Some of these make us reset a stream, which costs as much as a reset by the client.
    self.TakeControlToken();
    return 0;
  }

  static int OnFrameSent(nghttp2_session* session, const nghttp2_frame* frame, void* user) {
    Http2Connection& self = Self(user);
    if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.error_code != NGHTTP2_NO_ERROR &&
        !self.refused_) {
      ++self.server_.stats.protocol_errors;
    }
    if (frame->hd.type != NGHTTP2_HEADERS || !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) return 0;
    auto* call =
        static_cast<GrpcCall*>(nghttp2_session_get_stream_user_data(session, frame->hd.stream_id));
    if (!call) return 0;
    call->trailers_sent_ = true;
    // The answer is complete: the client need not send the rest of its request.
    if (!call->half_closed_) {
      nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_NO_ERROR);
    }
    return 0;
  }

  static int OnStreamClose(nghttp2_session* session, int32_t stream_id, uint32_t error_code,
                           void* user) {
    auto* call = static_cast<GrpcCall*>(nghttp2_session_get_stream_user_data(session, stream_id));
    if (call) Self(user).StreamClosed(*call, error_code);
    return 0;
  }
};

nghttp2_session_callbacks* Http2Connection::NewCallbacks() {
  nghttp2_session_callbacks* callbacks = nullptr;
  LLMD_CHECK(nghttp2_session_callbacks_new(&callbacks) == 0, "out of memory");
  nghttp2_session_callbacks_set_send_data_callback(callbacks, Callbacks::SendAnswer);
  nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, Callbacks::OnBeginHeaders);
  nghttp2_session_callbacks_set_on_header_callback(callbacks, Callbacks::OnHeader);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, Callbacks::OnData);
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, Callbacks::OnFrame);
  nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks,
                                                               Callbacks::OnInvalidFrame);
  nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, Callbacks::OnFrameSent);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, Callbacks::OnStreamClose);
  return callbacks;
}

nghttp2_option* Http2Connection::NewSessionOptions() {
  nghttp2_option* options = nullptr;
  LLMD_CHECK(nghttp2_option_new(&options) == 0, "out of memory");
  nghttp2_option_set_no_auto_window_update(options, 1);
  nghttp2_option_set_no_closed_streams(options, 1);
  // Envoy ends every ext_proc stream with RST_STREAM, which this limit takes for an attack; ours
  // (reset_rate) counts only streams that were not answered.
  nghttp2_option_set_stream_reset_rate_limit(options, 1ull << 40, 1ull << 30);
  return options;
}

// --- what nghttp2 reports ------------------------------------------------------------------------

void Http2Connection::OpenCall(int32_t stream_id) {
  headers_since_ = now();
  if (OverUnsent()) {
    ++server_.stats.streams_refused;
    nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, stream_id, NGHTTP2_REFUSED_STREAM);
    return;
  }
  GrpcCall* call = server_.NewCall();
  call->connection_ = this;
  call->stream_id_ = stream_id;
  call->started_at_ = now();
  call->next_ = calls_;
  if (calls_) calls_->previous_ = call;
  calls_ = call;
  ++call_count_;
  header_call_ = call;
  nghttp2_session_set_stream_user_data(session_, stream_id, call);
}

void Http2Connection::RequestComplete() {
  headers_since_ = base::TimePoint::max();
  GrpcCall* call = std::exchange(header_call_, nullptr);
  if (!call) return;
  call->path_ = call->Metadata(":path");
  if (call->too_many_fields_) {
    ++server_.stats.header_lists_too_large;
    call->Finish(base::StatusCode::kResourceExhausted, "the header list is too large");
    return;
  }
  if (call->Metadata(":method") != "POST") {
    AnswerBadRequest(*call, "405");
    return;
  }
  if (!IsGrpcContentType(call->Metadata("content-type"))) {
    AnswerBadRequest(*call, "415");
    return;
  }
  GrpcService* service = server_.Find(call->path_);
  if (!service) {
    ++server_.stats.unknown_methods;
    call->Finish(base::StatusCode::kUnimplemented,
                 base::Concat("unknown method ", call->path_.substr(0, 200)));
    return;
  }
  call->accepts_gzip_ = call->Metadata("grpc-encoding") == "gzip";
  if (const std::string_view text = call->Metadata("grpc-timeout"); !text.empty()) {
    const auto timeout = ParseGrpcTimeout(text);
    if (!timeout) {
      ++server_.stats.bad_requests;
      call->Finish(base::StatusCode::kInternal, "malformed grpc-timeout");
      return;
    }
    call->deadline_ = now() + *timeout;
    call->deadline_timer_.ArmAt(call->deadline_);
  }
  ++server_.stats.calls;
  ++server_.active_count;
  call->counted_ = true;
  call->handler_ = service->OnCall(*call);
  if (call->handler_ || call->finish_called_ || call->reset_called_) return;
  LLMD_BUG("a service neither answered a call nor gave a handler");
  call->Finish(base::StatusCode::kInternal, "not handled");
}

// Not gRPC: answered in terms of HTTP.
void Http2Connection::AnswerBadRequest(GrpcCall& call, std::string_view http_status) {
  ++server_.stats.bad_requests;
  call.finish_called_ = call.response_begun_ = true;
  const nghttp2_nv fields[] = {StaticField(":status", http_status),
                               StaticField("content-type", "application/grpc")};
  nghttp2_submit_response(session_, call.stream_id_, fields, std::size(fields), nullptr);
  QueueTurn();
}

void Http2Connection::ReceiveData(int32_t stream_id, const char* data, size_t size) {
  auto* call = static_cast<GrpcCall*>(nghttp2_session_get_stream_user_data(session_, stream_id));
  if (OverUnsent()) {
    owed_window_ += size;
    windows_held_ = true;
  } else {
    nghttp2_session_consume_connection(session_, size);
  }
  if (!call) {
    nghttp2_session_consume_stream(session_, stream_id, size);
    return;
  }
  call->owed_window_ += size;
  if (call->Listening()) call->Deliver(base::Slice(in_, data, size));
  GiveWindow(*call);
}

void Http2Connection::ReceivePing(const uint8_t* opaque, bool is_ack) {
  if (!is_ack) {
    TakeControlToken();
  } else if (std::memcmp(opaque, kDrainPing, 8) == 0) {
    FixLastStream();
  }
}

void Http2Connection::TakeControlToken() {
  if (!control_frames_.Take(now())) Refuse(server_.stats.control_floods);
}

void Http2Connection::TakeResetToken() {
  ++server_.stats.early_resets;
  if (!resets_.Take(now())) Refuse(server_.stats.reset_floods);
}

void Http2Connection::StreamClosed(GrpcCall& call, uint32_t error_code) {
  if (&call == header_call_) header_call_ = nullptr;
  const bool ours = call.trailers_sent_ || call.reset_called_ || call.ended_;
  if (!ours && error_code != NGHTTP2_NO_ERROR && call.sent_bytes_ == 0) TakeResetToken();
  GrpcEnd why = GrpcEnd::kClientReset;
  if (call.trailers_sent_) {
    why = GrpcEnd::kFinished;
  } else if (call.reset_called_) {
    why = GrpcEnd::kReset;
  }
  CloseCall(call, why);
}

void Http2Connection::CloseCall(GrpcCall& call, GrpcEnd why) {
  (call.previous_ ? call.previous_->next_ : calls_) = call.next_;
  if (call.next_) call.next_->previous_ = call.previous_;
  if (--call_count_ == 0) last_call_ = now();
  call.DropUnsent();
  call.End(why);
  if (call.counted_) --server_.active_count;
  server_.Recycle(&call);
}

// --- what calls want -----------------------------------------------------------------------------

void Http2Connection::SubmitResponse(GrpcCall& call) {
  call.response_begun_ = true;
  const nghttp2_nv fields[] = {StaticField(":status", "200"),
                               StaticField("content-type", "application/grpc")};
  nghttp2_data_provider provider{.source = {.ptr = &call}, .read_callback = Callbacks::ReadAnswer};
  nghttp2_submit_response(session_, call.stream_id_, fields, std::size(fields), &provider);
}

// With `alone` as the only HEADERS of the answer.
void Http2Connection::SubmitTrailers(GrpcCall& call, bool alone) {
  nghttp2_nv fields[4];
  size_t count = 0;
  if (alone) {
    fields[count++] = StaticField(":status", "200");
    fields[count++] = StaticField("content-type", "application/grpc");
  }
  fields[count++] = StaticField("grpc-status", CodeText(call.status_));
  if (!call.status_message_.empty()) {
    fields[count++] = Field("grpc-message", call.status_message_, NGHTTP2_NV_FLAG_NO_INDEX);
  }
  if (alone) {
    call.response_begun_ = true;
    nghttp2_submit_response(session_, call.stream_id_, fields, count, nullptr);
  } else {
    nghttp2_submit_trailer(session_, call.stream_id_, fields, count);
  }
}

void Http2Connection::SubmitCancel(GrpcCall& call) {
  call.reset_called_ = true;
  call.DropUnsent();
  nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, call.stream_id_, NGHTTP2_CANCEL);
  QueueTurn();
}

void Http2Connection::ResumeData(GrpcCall& call) {
  if (!call.response_begun_) {
    SubmitResponse(call);
  } else if (call.deferred_) {
    call.deferred_ = false;
    nghttp2_session_resume_data(session_, call.stream_id_);
  }
  QueueTurn();
}

void Http2Connection::GiveWindow(GrpcCall& call) {
  if (call.owed_window_ == 0) return;
  if (!call.ended_) {
    if (call.reading_paused_ || call.above_high_) return;
    if (OverUnsent()) {
      windows_held_ = true;
      return;
    }
  }
  nghttp2_session_consume_stream(session_, call.stream_id_, std::exchange(call.owed_window_, 0));
}

}  // namespace llmd::net
