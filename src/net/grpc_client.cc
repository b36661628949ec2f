#include "net/grpc_client.h"

#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "net/grpc_connection.h"

namespace llmd::net {
namespace {

base::StatusCode CodeOfHttpStatus(int status) {
  switch (status) {
    case 400:
      return base::StatusCode::kInternal;
    case 401:
      return base::StatusCode::kUnauthenticated;
    case 403:
      return base::StatusCode::kPermissionDenied;
    case 404:
      return base::StatusCode::kUnimplemented;
    case 429:
    case 502:
    case 503:
    case 504:
      return base::StatusCode::kUnavailable;
    default:
      return base::StatusCode::kUnknown;
  }
}

base::StatusCode CodeOfReset(uint32_t http2_error_code) {
  switch (http2_error_code) {
    case NGHTTP2_REFUSED_STREAM:
      return base::StatusCode::kUnavailable;
    case NGHTTP2_CANCEL:
      return base::StatusCode::kCancelled;
    case NGHTTP2_ENHANCE_YOUR_CALM:
      return base::StatusCode::kResourceExhausted;
    case NGHTTP2_INADEQUATE_SECURITY:
      return base::StatusCode::kPermissionDenied;
    default:
      return base::StatusCode::kInternal;
  }
}

}  // namespace

void ClientCall::Begin(GrpcConnection* on, GrpcClientHandler& for_handler) {
  connection = on;
  handler = &for_handler;
  stream_id = 0;
  send_closed = deferred = above_high = await_sent = false;
  http_status = 0;
  grpc_status = -1;
  grpc_message.clear();
  refusal = {};
}

void ClientCall::Send(std::span<const base::Slice> message) {
  LLMD_CHECK(handler != nullptr && !send_closed, "message on a call that is closed");
  size_t bytes = 0;
  for (const base::Slice& piece : message) bytes += piece.size();
  char head[wire::kGrpcPrefixBytes];
  wire::WriteGrpcPrefix(bytes, head);
  queue.push_back(channel.loop.buffers().Copy({head, sizeof(head)}));
  for (const base::Slice& piece : message) {
    if (!piece.empty()) queue.push_back(piece);
  }
  queued_bytes += bytes + sizeof(head);
  if (queued_bytes >= kPendingHighBytes) above_high = true;
  connection->Resume(this);
}

void ClientCall::CloseSend() {
  if (std::exchange(send_closed, true)) return;
  connection->Resume(this);
}

void ClientCall::Reset(uint32_t http2_error_code) {
  LLMD_CHECK(handler != nullptr, "reset of a call that has ended");
  handler = nullptr;
  queue.clear();
  queue_first = queued_bytes = 0;
  --channel.active;
  connection->QueueReset(this, http2_error_code);
}

size_t ClientCall::Take(size_t bytes, std::vector<base::Slice>* frame) {
  size_t taken = 0;
  while (taken < bytes && queue_first < queue.size()) {
    base::Slice& piece = queue[queue_first];
    const size_t size = std::min(piece.size(), bytes - taken);
    taken += size;
    if (size < piece.size()) {
      frame->push_back(piece.Sub(0, size));
      piece.RemovePrefix(size);
    } else {
      frame->push_back(std::move(piece));
      ++queue_first;
    }
  }
  queued_bytes -= taken;
  if (queue_first == queue.size()) {
    queue.clear();
    queue_first = 0;
  }
  return taken;
}

void ClientCall::Drop() {
  queue.clear();
  queue_first = queued_bytes = 0;
  frames = {};
}

bool ClientCall::TakesMessage() {
  if (frames.compressed()) {
    refusal = base::Unimplemented("the server sent a compressed message");
  } else if (frames.length() > channel.options.message_bytes_max) {
    refusal = base::ResourceExhausted("the server sent a message of " +
                                      std::to_string(frames.length()) + " bytes");
  }
  return refusal.ok();
}

bool ClientCall::Receive(base::Slice data) {
  frames.Feed(data.view());
  while (handler) {
    const wire::GrpcFrames::Event event = frames.Next();
    if (event == wire::GrpcFrames::Event::kMore) return true;
    if (event == wire::GrpcFrames::Event::kMessage) {
      if (!TakesMessage()) return false;
      continue;
    }
    const std::string_view part = frames.part();
    handler->OnMessagePiece(
        data.Sub(static_cast<size_t>(part.data() - data.data()), part.size()), frames.last());
  }
  return true;
}

GrpcClientEnd ClientCall::EndOf(uint32_t http2_error_code) const {
  if (!refusal.ok()) return {.status = refusal};
  if (grpc_status == 0 && frames.inside()) {
    return {.status = base::Internal("the stream ended inside a message")};
  }
  if (grpc_status == 0) return {.from_server = true};
  if (grpc_status > 0) {
    const bool known = grpc_status <= static_cast<int>(base::StatusCode::kUnauthenticated);
    const auto code =
        known ? static_cast<base::StatusCode>(grpc_status) : base::StatusCode::kUnknown;
    return {.status = base::Status(code, grpc_message), .from_server = true};
  }
  if (http_status != 0 && http_status != 200) {
    return {.status = base::Status(CodeOfHttpStatus(http_status),
                                   "HTTP status " + std::to_string(http_status))};
  }
  if (http2_error_code == NGHTTP2_NO_ERROR) {
    return {.status = base::Internal("the stream ended without grpc-status")};
  }
  return {.status = base::Status(
              CodeOfReset(http2_error_code),
              std::string("stream reset: ") + nghttp2_http2_strerror(http2_error_code))};
}

GrpcChannel::Impl::Impl(runtime::EventLoop& event_loop, TargetSpec target_spec,
                        GrpcChannelOptions opts)
    : loop(event_loop), target(std::move(target_spec)), options(std::move(opts)) {
  if (options.authority.empty()) {
    options.authority = target.address.is_unix() ? "localhost" : target.address.ToString();
  }
  slots.resize(std::max<size_t>(options.connections, 1));
}

GrpcConnection* GrpcChannel::Impl::NextConnection() {
  GrpcConnection*& slot = slots[next_slot++ % slots.size()];
  if (!slot || !slot->usable()) {
    connections.push_back(std::make_unique<GrpcConnection>(*this));
    slot = connections.back().get();
    slot->Connect();
  }
  return slot;
}

ClientCall* GrpcChannel::Impl::NewCall() {
  if (idle_calls.empty()) {
    calls.push_back(std::make_unique<ClientCall>(*this));
    idle_calls.push_back(calls.back().get());
  }
  ClientCall* call = idle_calls.back();
  idle_calls.pop_back();
  return call;
}

void GrpcChannel::Impl::Recycle(ClientCall* call) {
  call->Drop();
  call->connection = nullptr;
  idle_calls.push_back(call);
}

void GrpcChannel::Impl::Remove(GrpcConnection* connection) {
  std::ranges::replace(slots, connection, nullptr);
  std::erase_if(connections, [&](const auto& each) { return each.get() == connection; });
}

GrpcChannel::Impl::~Impl() {
  connections.clear();
  nghttp2_session_callbacks_del(callbacks);
}

GrpcChannel::GrpcChannel(runtime::EventLoop& loop, TargetSpec target, GrpcChannelOptions options)
    : impl_(std::make_unique<Impl>(loop, std::move(target), std::move(options))) {}
GrpcChannel::~GrpcChannel() = default;

GrpcClientCall* GrpcChannel::Start(std::string_view path, std::span<const GrpcHeader> headers,
                                   GrpcClientHandler& handler) {
  LLMD_CHECK(headers.size() <= kHeadersMax, "too many headers for a call");
  ++impl_->stats.calls;
  ++impl_->active;
  GrpcConnection* connection = impl_->NextConnection();
  ClientCall* call = impl_->NewCall();
  call->Begin(connection, handler);
  connection->Submit(call, path, headers);
  return call;
}

const GrpcChannelStats& GrpcChannel::stats() const { return impl_->stats; }
size_t GrpcChannel::active_count() const { return impl_->active; }

void GrpcClientCall::Send(std::span<const base::Slice> pieces) {
  static_cast<ClientCall*>(this)->Send(pieces);
}
void GrpcClientCall::CloseSend() { static_cast<ClientCall*>(this)->CloseSend(); }
size_t GrpcClientCall::pending_bytes() const {
  return static_cast<const ClientCall*>(this)->queued_bytes;
}
void GrpcClientCall::Reset(uint32_t http2_error_code) {
  static_cast<ClientCall*>(this)->Reset(http2_error_code);
}

}  // namespace llmd::net
