#include "bench/ext_proc_load.h"

#include <algorithm>
#include <charconv>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/arena.h"
#include "base/strings.h"
#include "bench/load_worker.h"
#include "net/grpc_client.h"
#include "runtime/clock.h"
#include "wire/ext_proc_client.h"

namespace llmd::bench {
namespace {

using wire::ExtProcBodyMode;
using wire::ExtProcHeader;
using wire::ExtProcKind;

constexpr std::string_view kPath = "/envoy.service.ext_proc.v3.ExternalProcessor/Process";
// Envoy's per_connection_buffer_limit_bytes as the charts ship it.
constexpr size_t kBodyMessageBytes = 32 << 10;
// As the charts ship it: HTTP/2 windows of the ext_proc cluster.
constexpr uint32_t kStreamWindowBytes = 64 << 10;
constexpr uint32_t kConnectionWindowBytes = 1 << 20;
// A picker may answer a body of any size in one message.
constexpr size_t kReplyBytesMax = 64 << 20;

constexpr std::string_view kJsonReply =
    R"({"id":"chatcmpl-1","object":"chat.completion","model":"m","choices":[{"index":0,"message":)"
    R"({"role":"assistant","content":"ok"},"finish_reason":"stop"}],"usage":{"prompt_tokens":256,)"
    R"("completion_tokens":16,"total_tokens":272}})";
constexpr std::string_view kChunk =
    R"(data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1767225600,"model":"m",)"
    R"("choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}]})"
    "\n\n";
constexpr std::string_view kLastChunk =
    R"(data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1767225600,"model":"m",)"
    R"("choices":[],"usage":{"prompt_tokens":256,"completion_tokens":16,"total_tokens":272}})"
    "\n\ndata: [DONE]\n\n";

// What streams of one loop share: the channel and the messages that are always the same.
class ExtProcLoad final : public LoadClient {
 public:
  ExtProcLoad(runtime::EventLoop& loop, const RunPlan& plan, const workload::PacerOptions& pacing)
      : target(*plan.ext_proc),
        pool(loop.buffers()),
        writer(&loop.buffers()),
        request_id_prefix(base::Concat("llmd-bench-", std::to_string(pacing.seed), "-",
                                       std::to_string(pacing.worker), "-")),
        channel(loop, target.spec, ChannelOptions(target, pacing)) {
    const bool bodies = target.options.response == ExtProcResponse::kBody;
    context.has_protocol_config = true;
    context.response_body_mode =
        bodies ? ExtProcBodyMode::kFullDuplexStreamed : ExtProcBodyMode::kNone;
    const ExtProcHeader response[] = {
        {":status", "200"},
        {"content-type", plan.stream ? "text/event-stream; charset=utf-8" : "application/json"},
        {"date", "Thu, 01 Jan 2026 00:00:00 GMT"},
        {"server", "uvicorn"},
        {"x-envoy-upstream-service-time", "12"}};
    response_headers = writer.Headers(ExtProcKind::kResponseHeaders, response, false);
    request_end = Message(ExtProcKind::kRequestBody, "", true);
    response_end = Message(ExtProcKind::kResponseBody, "", true);
    response_body = Message(ExtProcKind::kResponseBody, kJsonReply, false);
    chunk = Message(ExtProcKind::kResponseBody, kChunk, false);
    last_chunk = Message(ExtProcKind::kResponseBody, kLastChunk, false);
  }

  std::unique_ptr<LoadRequest> NewRequest(LoadWorker& worker) override;

  const ExtProcTarget& target;
  base::BufferPool& pool;
  wire::ExtProcClientWriter writer;
  wire::ExtProcContext context;
  base::Slice request_end, response_headers, response_body, response_end, chunk, last_chunk;
  std::string request_id_prefix;
  uint64_t request_count = 0;
  // Of the stream being started.
  std::vector<ExtProcHeader> headers;
  std::vector<base::Slice> body;
  std::vector<base::Slice> message;
  net::GrpcChannel channel;

 private:
  static net::GrpcChannelOptions ChannelOptions(const ExtProcTarget& target,
                                                const workload::PacerOptions& pacing) {
    net::GrpcChannelOptions options;
    options.authority = target.authority;
    options.connections =
        (target.options.connections + pacing.worker_count - 1) / pacing.worker_count;
    options.message_bytes_max = kReplyBytesMax;
    options.stream_window_bytes = kStreamWindowBytes;
    options.connection_window_bytes = kConnectionWindowBytes;
    return options;
  }
  // A message in one piece, kept for all streams.
  base::Slice Message(ExtProcKind kind, std::string_view content, bool end_of_stream) {
    message.clear();
    const base::Slice piece = base::Slice::Unowned(content);
    writer.Body(kind, {&piece, content.empty() ? 0u : 1u}, end_of_stream, &message);
    std::string bytes;
    for (const base::Slice& part : message) bytes += part.view();
    return pool.Copy(bytes);
  }
};

class ExtProcStream final : public LoadRequest, public net::GrpcClientHandler {
 public:
  ExtProcStream(LoadWorker& worker, ExtProcLoad& client)
      : LoadRequest(worker),
        plan_(worker.plan()),
        client_(client),
        reader_(&arena_),
        chunk_timer_(worker.loop(), [this] { SendChunks(runtime::Now()); }) {}

  void OnMessagePiece(base::Slice piece, bool last) override;
  void OnSent() override;
  void OnEnd(const net::GrpcClientEnd& end) override;

 private:
  // What the picker owes next.
  enum class Phase : uint8_t { kDecision, kRequestBody, kResponseHeaders, kResponseBody };

  uint64_t Begin(const workload::Start& start) override;
  void Abandon() override { EndCall(); }
  const ExtProcOptions& options() const { return client_.target.options; }
  void SendHeaders();
  void SendBody();
  void OnReply(const wire::ExtProcReply& reply);
  void OnDecision(const wire::ExtProcReply& reply);
  void OnRequestBody(const wire::ExtProcReply& reply);
  void OnResponseHeaders();
  void OnResponseBody(const wire::ExtProcReply& reply);
  void SendResponse();
  void SendChunks(base::TimePoint now);
  void EndCall();
  void Done();
  void Refuse(std::string_view kind, std::string_view detail);

  const RunPlan& plan_;
  ExtProcLoad& client_;
  net::GrpcClientCall* call_ = nullptr;
  base::Arena arena_;
  wire::ExtProcReplyReader reader_;
  workload::RenderedBody body_;
  Phase phase_ = Phase::kDecision;
  base::TimePoint written_at_{};  // the last request byte, when OnSent told so
  uint64_t echoed_bytes_ = 0;
  uint32_t chunks_sent_ = 0;
  uint32_t chunks_echoed_ = 0;
  std::vector<base::TimePoint> chunk_sent_at_;
  base::TimePoint next_chunk_at_{};
  runtime::Timer chunk_timer_;
  Success success_;
};

std::unique_ptr<LoadRequest> ExtProcLoad::NewRequest(LoadWorker& worker) {
  return std::make_unique<ExtProcStream>(worker, *this);
}

uint64_t ExtProcStream::Begin(const workload::Start& start) {
  plan_.body.Render(plan_.prompts.At(start.index, start.warm_up), plan_.prompts.corpus(), &body_);
  arena_.Reset();
  reader_.Reset(&arena_);
  phase_ = Phase::kDecision;
  written_at_ = {};
  echoed_bytes_ = 0;
  chunks_sent_ = chunks_echoed_ = 0;
  success_ = Success();
  call_ = client_.channel.Start(kPath, {}, *this);
  SendHeaders();
  SendBody();
  return body_.bytes();
}

void ExtProcStream::SendHeaders() {
  char length[20];
  const auto end = std::to_chars(length, length + sizeof(length), body_.bytes());
  std::string id = client_.request_id_prefix + std::to_string(client_.request_count++);
  std::vector<ExtProcHeader>& headers = client_.headers;
  headers.clear();
  for (const ExtProcTarget::Header& each : client_.target.headers) {
    headers.push_back({each.name, each.value});
  }
  headers.push_back({"content-length", {length, end.ptr}});
  headers.push_back({"x-request-id", id});
  call_->Send(
      client_.writer.Headers(ExtProcKind::kRequestHeaders, headers, false, client_.context));
}

void ExtProcStream::SendBody() {
  std::vector<base::Slice>& body = client_.body;
  body.clear();
  size_t bytes = 0;
  const auto send = [&] {
    client_.message.clear();
    client_.writer.Body(ExtProcKind::kRequestBody, body, false, &client_.message);
    call_->Send(client_.message);
    body.clear();
    bytes = 0;
  };
  for (std::string_view piece : body_.pieces()) {
    // The prompt is the plan's and lives on; the frame around it is this object's, which may be
    // reused while a connection still has to write it.
    const bool own = body_.InFrame(piece);
    while (!piece.empty()) {
      const std::string_view part = piece.substr(0, kBodyMessageBytes - bytes);
      body.push_back(own ? client_.pool.Copy(part) : base::Slice::Unowned(part));
      bytes += part.size();
      piece.remove_prefix(part.size());
      if (bytes == kBodyMessageBytes) send();
    }
  }
  if (bytes > 0) send();
  call_->Send(client_.request_end);
}

void ExtProcStream::OnSent() {
  if (phase_ == Phase::kDecision) written_at_ = runtime::Now();
}

void ExtProcStream::OnMessagePiece(base::Slice piece, bool last) {
  if (const base::Status status = reader_.Feed(std::move(piece), last); !status.ok()) {
    Refuse("bad-reply", status.message());
    return;
  }
  if (!last) return;
  net::GrpcClientCall* const call = call_;
  OnReply(reader_.reply());
  if (call_ == call) reader_.Clear();
}

void ExtProcStream::OnReply(const wire::ExtProcReply& reply) {
  success_.reply_bytes += reply.body_bytes;
  if (reply.immediate) {
    std::vector<base::Slice> body;
    reader_.TakeBody(&body);
    std::string text;
    for (const base::Slice& piece : body) text += piece.view();
    Refuse("immediate " + std::to_string(reply.status), text);
  } else if (reply.kind == ExtProcKind::kRequestHeaders && phase_ == Phase::kDecision) {
    OnDecision(reply);
  } else if (reply.kind == ExtProcKind::kRequestBody && phase_ == Phase::kRequestBody) {
    OnRequestBody(reply);
  } else if (reply.kind == ExtProcKind::kResponseHeaders && phase_ == Phase::kResponseHeaders) {
    OnResponseHeaders();
  } else if (reply.kind == ExtProcKind::kResponseBody && phase_ == Phase::kResponseBody) {
    OnResponseBody(reply);
  } else {
    Refuse("out-of-order", wire::ExtProcKindName(reply.kind));
  }
}

void ExtProcStream::OnDecision(const wire::ExtProcReply& reply) {
  const bool named = std::ranges::any_of(reply.set_headers, [](const ExtProcHeader& header) {
    return header.name == wire::kEndpointKey && !header.value.empty();
  });
  if (!named) {
    Refuse("no-endpoint", "the reply to the headers names none");
    return;
  }
  Measurements* m = measured();
  if (m && written_at_ != base::TimePoint()) {
    m->decision.Record(static_cast<uint64_t>((runtime::Now() - written_at_).count()));
  }
  phase_ = Phase::kRequestBody;
}

void ExtProcStream::OnRequestBody(const wire::ExtProcReply& reply) {
  echoed_bytes_ += reply.body_bytes;
  if (!reply.end_of_stream) return;
  if (echoed_bytes_ != body_.bytes()) {
    Refuse("body-changed", base::Concat(std::to_string(echoed_bytes_), " of ",
                                        std::to_string(body_.bytes()), " bytes came back"));
  } else if (options().response == ExtProcResponse::kNone) {
    Done();
  } else {
    SendResponse();
  }
}

void ExtProcStream::SendResponse() {
  phase_ = Phase::kResponseHeaders;
  echoed_bytes_ = 0;
  call_->Send(client_.response_headers);
  if (options().response == ExtProcResponse::kHeaders) return;
  if (plan_.stream) {
    next_chunk_at_ = runtime::Now();
    SendChunks(next_chunk_at_);
  } else {
    call_->Send(client_.response_body);
    call_->Send(client_.response_end);
  }
}

void ExtProcStream::SendChunks(base::TimePoint now) {
  const uint32_t count = options().response_chunks;
  if (chunk_sent_at_.size() < count) chunk_sent_at_.resize(count);
  while (chunks_sent_ < count && chunks_sent_ - chunks_echoed_ < options().chunk_window &&
         now >= next_chunk_at_) {
    next_chunk_at_ += options().chunk_interval;
    chunk_sent_at_[chunks_sent_++] = now;
    call_->Send(chunks_sent_ < count ? client_.chunk : client_.last_chunk);
    if (chunks_sent_ == count) call_->Send(client_.response_end);
  }
  if (chunks_sent_ < count && now < next_chunk_at_) chunk_timer_.ArmAt(next_chunk_at_);
}

void ExtProcStream::OnResponseHeaders() {
  phase_ = Phase::kResponseBody;
  if (options().response == ExtProcResponse::kHeaders) Done();
}

void ExtProcStream::OnResponseBody(const wire::ExtProcReply& reply) {
  echoed_bytes_ += reply.body_bytes;
  if (plan_.stream && reply.body_bytes > 0 && chunks_echoed_ < chunks_sent_) {
    const base::TimePoint now = runtime::Now();
    ++success_.events;
    if (Measurements* m = measured()) {
      m->chunk_echo.Record(static_cast<uint64_t>((now - chunk_sent_at_[chunks_echoed_]).count()));
    }
    ++chunks_echoed_;
    SendChunks(now);
  }
  if (!reply.end_of_stream) return;
  const uint64_t sent = plan_.stream
                            ? (options().response_chunks - 1) * kChunk.size() + kLastChunk.size()
                            : kJsonReply.size();
  if (echoed_bytes_ != sent) {
    Refuse("response-changed", base::Concat(std::to_string(echoed_bytes_), " of ",
                                            std::to_string(sent), " bytes came back"));
  } else {
    Done();
  }
}

// As Envoy does, whatever came before.
void ExtProcStream::EndCall() {
  chunk_timer_.Disarm();
  std::exchange(call_, nullptr)->Reset(net::kHttp2InternalError);
}

void ExtProcStream::Done() {
  EndCall();
  reader_.Clear();
  Succeed(success_);
}

void ExtProcStream::Refuse(std::string_view kind, std::string_view detail) {
  EndCall();
  const std::string text(detail);  // `detail` may view what Clear lets go
  const std::string name(kind);
  reader_.Clear();
  Fail(name, text);
}

void ExtProcStream::OnEnd(const net::GrpcClientEnd& end) {
  chunk_timer_.Disarm();
  call_ = nullptr;
  reader_.Clear();
  if (end.status.code() == base::StatusCode::kUnavailable && !end.from_server) Unreachable();
  Fail(end.status.ok() ? "ended-early"
                       : base::Concat("grpc ", base::StatusCodeName(end.status.code())),
       end.status.message());
}

}  // namespace

std::unique_ptr<LoadClient> NewExtProcLoad(runtime::EventLoop& loop, const RunPlan& plan,
                                           const workload::PacerOptions& pacing) {
  return std::make_unique<ExtProcLoad>(loop, plan, pacing);
}

}  // namespace llmd::bench
