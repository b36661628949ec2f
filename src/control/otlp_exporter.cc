#include "control/otlp_exporter.h"

#include <algorithm>
#include <optional>

#include "base/random.h"
#include "base/strings.h"
#include "fleet/endpoint.h"
#include "net/grpc_client.h"
#include "net/http_client.h"
#include "net/tls.h"
#include "telemetry/log.h"
#include "wire/http1.h"
#include "wire/otlp.h"

namespace llmd::control {
namespace {

using base::Status;
using base::StatusCode;

constexpr std::string_view kExport =
    "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
constexpr std::string_view kScope = "llm-d-router";  // upstream's name
// Of an answer: a partial success with its message is some hundred bytes.
constexpr size_t kReplyBytesMax = 64 << 10;

bool MayPass(const Status& status) {
  switch (status.code()) {
    case StatusCode::kCancelled:
    case StatusCode::kDeadlineExceeded:
    case StatusCode::kAborted:
    case StatusCode::kOutOfRange:
    case StatusCode::kUnavailable:
    case StatusCode::kDataLoss:
    case StatusCode::kResourceExhausted: return true;
    default: return false;
  }
}

Status StatusOfHttp(int status) {
  if (status >= 200 && status < 300) return base::OkStatus();
  const std::string text = base::Concat("HTTP status ", std::to_string(status));
  const bool may_pass = status == 429 || status == 502 || status == 503 || status == 504;
  return may_pass ? base::Unavailable(text) : base::Internal(text);
}

}  // namespace

class OtlpExporter::Impl final : net::GrpcClientHandler, net::ClientHandler {
 public:
  Impl(runtime::EventLoop& loop, net::Resolver& resolver, telemetry::Tracer& tracer,
       OtlpOptions options, std::shared_ptr<net::TlsClientContext> tls, uint64_t seed)
      : loop_(loop),
        resolver_(resolver),
        tracer_(tracer),
        options_(std::move(options)),
        tls_(std::move(tls)),
        authority_(fleet::JoinHostPort(options_.host, options_.port)),
        random_(seed),
        writer_(&loop.buffers()),
        next_(loop, [this] { Next(); }),
        limit_(loop, [this] {
          Drop();
          Ended(base::DeadlineExceeded("no answer in time"));
        }) {
    for (const auto& [key, value] : options_.resource) {
      resource_.push_back({key, std::string_view(value)});
    }
    next_.ArmAfter(options_.interval);
  }
  ~Impl() override { Drop(); }

  void Flush(std::move_only_function<void()> done) {
    flushed_ = std::move(done);
    if (!busy_) next_.ArmAfter({});  // also out of a pause
  }

 private:
  // The next attempt with the batch at hand, or with a new one.
  void Next();
  void Send(const runtime::SocketAddress& address);
  void SendGrpc(std::vector<base::Slice> message, const runtime::SocketAddress& address);
  void SendHttp(std::vector<base::Slice> message, size_t bytes,
                const runtime::SocketAddress& address);
  // The attempt under way is no more; its connection is closed.
  void Drop();
  // How the attempt ended; not followed by anything on this turn's stack.
  void Ended(const Status& status);
  void Finish(const Status& status);

  // net::GrpcClientHandler
  void OnMessagePiece(base::Slice piece, bool last) override { Keep(piece.view()); }
  void OnEnd(const net::GrpcClientEnd& end) override {
    call_ = nullptr;
    Ended(end.status);
  }
  // net::ClientHandler
  void OnResponseHead(const wire::ResponseHead& head) override { http_status_ = head.status; }
  void OnResponseBody(const base::Slice& raw,
                      std::span<const std::string_view> decoded) override {
    for (const std::string_view piece : decoded) Keep(piece);
  }
  void OnResponseEnd() override {
    exchange_ = nullptr;
    Ended(StatusOfHttp(http_status_));
  }
  void OnResponseError(const net::ClientError& error) override {
    exchange_ = nullptr;
    Ended(base::Unavailable(std::string(net::ClientErrorName(error.kind))));
  }

  void Keep(std::string_view piece) {
    reply_.append(piece.substr(0, kReplyBytesMax - std::min(kReplyBytesMax, reply_.size())));
  }

  runtime::EventLoop& loop_;
  net::Resolver& resolver_;
  telemetry::Tracer& tracer_;
  const OtlpOptions options_;
  const std::shared_ptr<net::TlsClientContext> tls_;
  const std::string authority_;
  std::vector<wire::OtlpAttribute> resource_;  // views of options_
  base::Random random_;
  wire::ProtoWriter writer_;
  runtime::Timer next_, limit_;
  std::move_only_function<void()> flushed_;

  telemetry::Tracer::Batch batch_;
  bool busy_ = false;         // an attempt is under way
  uint64_t attempt_ = 0;      // its number: an address that comes too late is for an older one
  base::TimePoint first_at_{};  // of the batch's first attempt
  base::Duration pause_{};      // after the last failure of this batch; zero: none yet
  bool failing_ = false;        // said so in the log

  std::unique_ptr<net::GrpcChannel> channel_;
  std::unique_ptr<net::HttpClient> http_;
  net::ClientTarget* http_target_ = nullptr;
  net::GrpcClientCall* call_ = nullptr;
  net::ClientExchange* exchange_ = nullptr;
  bool stale_ = false;  // the connection failed: the name is looked up again
  std::string reply_;
  int http_status_ = 0;
};

void OtlpExporter::Impl::Next() {
  if (batch_.empty()) {
    batch_ = tracer_.Take(options_.batch_spans_max);
    pause_ = {};
    first_at_ = loop_.now();
  }
  if (batch_.empty()) {
    next_.ArmAfter(options_.interval);
    if (flushed_) std::exchange(flushed_, nullptr)();
    return;
  }
  busy_ = true;
  reply_.clear();
  http_status_ = 0;
  limit_.ArmAfter(options_.timeout);
  if (std::exchange(stale_, false)) {
    channel_.reset();
    http_.reset();
  }
  if (channel_ || http_) return Send({});
  resolver_.Resolve(options_.host, options_.port,
                    [this, attempt = ++attempt_](base::Result<net::Addresses> addresses) {
                      if (!busy_ || attempt != attempt_) return;
                      if (!addresses || addresses->empty()) {
                        return Ended(base::Unavailable("the name has no address"));
                      }
                      Send(addresses->front());
                    });
}

void OtlpExporter::Impl::Send(const runtime::SocketAddress& address) {
  size_t bytes = 0;
  for (const std::string& spans : batch_.spans) bytes += spans.size();
  const wire::OtlpSource source{.resource = resource_, .scope = kScope, .scope_version = {}};
  std::vector<base::Slice> message{wire::OtlpTraceRequestHead(source, bytes, &writer_)};
  bytes += message.front().size();
  // Copies: an attempt that is given up may leave bytes with the socket.
  for (const std::string& spans : batch_.spans) message.push_back(loop_.buffers().Copy(spans));
  if (options_.protocol == OtlpOptions::Protocol::kGrpc) {
    SendGrpc(std::move(message), address);
  } else {
    SendHttp(std::move(message), bytes, address);
  }
}

void OtlpExporter::Impl::SendGrpc(std::vector<base::Slice> message,
                                  const runtime::SocketAddress& address) {
  if (!channel_) {
    channel_ = std::make_unique<net::GrpcChannel>(
        loop_, net::TargetSpec{.address = address, .tls_name = options_.host, .tls = tls_},
        net::GrpcChannelOptions{.authority = authority_,
                                .message_bytes_max = kReplyBytesMax,
                                .connect_timeout = options_.timeout});
  }
  std::vector<net::GrpcHeader> headers;
  for (const auto& [name, value] : options_.headers) headers.push_back({name, value});
  call_ = channel_->Start(kExport, headers, *this);
  call_->Send(message);
  call_->CloseSend();
}

void OtlpExporter::Impl::SendHttp(std::vector<base::Slice> message, size_t bytes,
                                  const runtime::SocketAddress& address) {
  if (!http_) {
    http_ = std::make_unique<net::HttpClient>(loop_);
    http_target_ =
        http_->AddTarget({.address = address, .tls_name = options_.host, .tls = tls_});
  }
  std::string head = base::Concat(
      "POST ", options_.path, " HTTP/1.1\r\nhost: ", authority_,
      "\r\ncontent-type: application/x-protobuf\r\ncontent-length: ", std::to_string(bytes),
      "\r\n");
  for (const auto& [name, value] : options_.headers) {
    head.append(name).append(": ").append(value).append("\r\n");
  }
  head.append("\r\n");
  exchange_ = http_->Start(http_target_, loop_.buffers().Copy(head), message, *this,
                           {.timeouts = {.connect = options_.timeout,
                                         .write = options_.timeout,
                                         .head = options_.timeout,
                                         .body_idle = options_.timeout}});
}

void OtlpExporter::Impl::Drop() {
  if (call_) std::exchange(call_, nullptr)->Reset();
  if (exchange_) std::exchange(exchange_, nullptr)->Cancel();
}

void OtlpExporter::Impl::Ended(const Status& status) {
  busy_ = false;
  limit_.Disarm();
  const bool gave_up = flushed_ || loop_.now() - first_at_ >= kGiveUp;
  stale_ = !status.ok();
  if (status.ok() || !MayPass(status) || gave_up) {
    Finish(status);
    if (!status.ok() && flushed_) std::exchange(flushed_, nullptr)();
    // A full batch has others behind it; a fresh timer, so that no call is made inside another.
    return next_.ArmAfter(status.ok() ? base::Duration{} : options_.interval);
  }
  if (!std::exchange(failing_, true)) {
    LLMD_LOG(kWarn, "traces cannot be exported for now", {"collector", authority_},
             {"error", status});
  }
  pause_ = pause_ == base::Duration{} ? kFirstPause : std::min(pause_ * 2, kLongestPause);
  next_.ArmAfter(base::FromSeconds(base::ToSeconds(pause_) * (0.5 + random_.Uniform() / 2)));
}

void OtlpExporter::Impl::Finish(const Status& status) {
  const size_t count = std::exchange(batch_, {}).count;
  if (!status.ok()) {
    tracer_.CountFailed(count);
    failing_ = true;
    LLMD_LOG(kWarn, "traces were lost", {"collector", authority_}, {"spans", count},
             {"error", status});
    return;
  }
  const auto reply = wire::ReadOtlpTraceReply(reply_);
  const uint64_t rejected = reply ? reply->rejected_spans : 0;
  tracer_.CountExported(count, rejected);
  if (rejected > 0) {
    LLMD_LOG(kWarn, "the collector refused spans", {"collector", authority_},
             {"spans", rejected}, {"why", reply->message});
  }
  if (std::exchange(failing_, false)) {
    LLMD_LOG(kInfo, "traces are exported again", {"collector", authority_});
  }
}

base::Result<std::unique_ptr<OtlpExporter>> OtlpExporter::Create(runtime::EventLoop& loop,
                                                                 net::Resolver& resolver,
                                                                 telemetry::Tracer& tracer,
                                                                 OtlpOptions options,
                                                                 uint64_t seed) {
  std::shared_ptr<net::TlsClientContext> tls;
  if (options.tls) {
    const bool grpc = options.protocol == OtlpOptions::Protocol::kGrpc;
    LLMD_ASSIGN_OR_RETURN(tls, net::TlsClientContext::Create(
                                   {.ca_file = options.ca_file,
                                    .certificate_file = options.certificate_file,
                                    .key_file = options.key_file,
                                    .alpn = grpc ? "h2" : "http/1.1"}));
  }
  return std::unique_ptr<OtlpExporter>(new OtlpExporter(std::make_unique<Impl>(
      loop, resolver, tracer, std::move(options), std::move(tls), seed)));
}

OtlpExporter::OtlpExporter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
OtlpExporter::~OtlpExporter() = default;
void OtlpExporter::Flush(std::move_only_function<void()> done) { impl_->Flush(std::move(done)); }

}  // namespace llmd::control
