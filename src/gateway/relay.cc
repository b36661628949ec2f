#include "gateway/relay.h"

#include <algorithm>

#include "base/strings.h"
#include "base/uuid.h"
#include "gateway/door.h"
#include "gateway/heads.h"
#include "protocol/error.h"
#include "wire/json_splice.h"

namespace llmd::gateway {
namespace {

using director::Decision;
using director::Termination;
using director::UpstreamFailure;
using wire::HttpFieldId;

// Ids longer than this are replaced: they go into headers, logs and records.
constexpr size_t kRequestIdBytesMax = 128;

UpstreamFailure FailureOf(const net::ClientError& error) {
  switch (error.kind) {
    case net::ClientErrorKind::kConnectFailed:
    case net::ClientErrorKind::kConnectTimeout:
    case net::ClientErrorKind::kTlsFailed:
    case net::ClientErrorKind::kTooManyConnections: return UpstreamFailure::kConnect;
    case net::ClientErrorKind::kHeadTimeout:
    case net::ClientErrorKind::kWriteTimeout: return UpstreamFailure::kTimeout;
    default:
      return error.reused_connection ? UpstreamFailure::kStaleConnection : UpstreamFailure::kReset;
  }
}

bool IsRetriableStatus(int status) { return status == 502 || status == 503 || status == 504; }

}  // namespace

void Relay::Begin(net::ServerExchange& exchange, std::optional<size_t> key) {
  client_ = &exchange;
  key_ = key;
  client_ip_ = exchange.peer().IpString();
  const wire::RequestHead& head = exchange.head();
  headers_.clear();
  for (const wire::HttpField& field : head.fields) headers_.push_back({field.name, field.value});
  MakeRequestId();

  const base::TimePoint now = exchange.loop().now();
  session_.emplace(door_.director(), door_.NextSeed(), now);
  director::RequestHead request;
  request.method = head.method_name;
  request.path = head.path;
  request.content_type = head.fields.Get(HttpFieldId::kContentType);
  request.headers = headers_;
  request.request_id = request_id_;
  request.peer = client_ip_;
  if (head.framing == wire::HttpFraming::kLength) request.content_length = head.content_length;
  if (session_->OnHead(request, now) == director::BodyPolicy::kNoBody &&
      head.framing == wire::HttpFraming::kNone) {
    body_complete_ = true;
    Decide();
  }
}

void Relay::MakeRequestId() {
  const std::string_view given = client_->head().fields.Get(HttpFieldId::kXRequestId);
  if (!given.empty() && given.size() <= kRequestIdBytesMax) {
    request_id_.assign(given);
    return;
  }
  char room[base::kUuidBytes];
  request_id_.assign(base::WriteUuid(door_.NextSeed(), door_.NextSeed(), room));
}

void Relay::OnBody(base::Slice piece) {
  body_bytes_ += piece.size();
  if (replied_ || (decided_ && !engine_)) return;  // answered already: the rest is read and dropped
  if (streaming_upload_) {
    engine_->SendBody(std::move(piece));
    if (engine_->request_pending_bytes() >= net::ClientExchange::kPendingHighBytes) {
      client_->PauseBody();
    }
    return;
  }
  if (!door_.budget().Take(piece.size())) {
    door_.CountLimit(Limit::kMemoryBudget);
    outcome_ = "memory_budget";
    SendReply({.http_status = 429,
               .message = "the gateway's memory budget for request bodies is used up",
               .error_type = protocol::ErrorTypeOf(429),
               .dropped_reason = protocol::kRejectedSaturated,
               .retry_after_seconds = 1});
    return;
  }
  budget_bytes_ += piece.size();
  body_.push_back(std::move(piece));
  if (session_->OnBody(body_.back().view(), client_->loop().now()) && !waiting_) Decide();
}

void Relay::OnBodyEnd() {
  body_complete_ = true;
  if (streaming_upload_) {
    if (engine_) engine_->FinishBody();
    return;
  }
  if (!decided_ && !replied_ && !waiting_) Decide();
}

void Relay::Decide() {
  decided_ = true;
  Act(session_->OnBodyEnd(client_->loop().now()));
}

// Ends with a request under way or a reply of our own; endpoints that cannot even be tried count as
// failed connections, so the session's retry limits end the loop.
void Relay::Act(Decision decision) {
  while (decision.kind != Decision::Kind::kReply) {
    const base::TimePoint now = client_->loop().now();
    if (decision.kind == Decision::Kind::kWait) {
      if (Wait(decision)) return;
      decision = session_->OnWake(now);
      continue;
    }
    door_.outside().Forget(*this);
    if (StartUpstream(decision.forward)) return;
    decision = session_->OnUpstreamFailed(UpstreamFailure::kConnect, 0, !streaming_upload_, now);
  }
  if (outcome_.empty()) outcome_ = attempts_ == 0 ? "rejected" : "upstream_error";
  SendReply(decision.reply);
}

bool Relay::Wait(const Decision& decision) {
  if (decision.ask && !door_.outside().Begin(decision.ask, *this)) return false;
  decided_ = false;
  waiting_ = true;
  if (!wake_) wake_ = std::make_unique<runtime::Timer>(client_->loop(), [this] { Wake(); });
  wake_->ArmAt(decision.wait_until);
  return true;
}

void Relay::Wake() {
  wake_->Disarm();
  waiting_ = false;
  decided_ = true;
  Act(session_->OnWake(client_->loop().now()));
}

void Relay::OnOutsideEnd() { Wake(); }

bool Relay::StartUpstream(const director::Forward& forward) {
  ++attempts_;
  endpoint_ = forward.endpoints[0].endpoint;
  net::ClientTarget* target = door_.TargetOf(endpoint_);
  if (!target) return false;

  const wire::RequestHead& head = client_->head();
  const bool edited = forward.splice.begin != forward.splice.end || !forward.splice.bytes.empty();
  const int64_t growth = static_cast<int64_t>(forward.splice.bytes.size()) -
                         static_cast<int64_t>(forward.splice.end - forward.splice.begin);
  EngineHeadSpec spec{.client = head,
                      .request_id = request_id_,
                      .client_ip = client_ip_,
                      .client_is_tls = client_->is_tls(),
                      .drop_authorization = key_.has_value(),
                      .engine_header_name = door_.engine_header().name,
                      .engine_header_value = door_.engine_header().value,
                      .set_headers = forward.set_headers};
  net::StartOptions options{.head_request = head.method == wire::HttpMethod::kHead,
                            .timeouts = door_.engine_timeouts()};
  if (body_complete_) {
    // A request without a body stays one: "content-length: 0" only where the client sent it.
    if (head.framing != wire::HttpFraming::kNone) spec.body = EngineHeadSpec::Body::kLength;
    spec.content_length = static_cast<uint64_t>(static_cast<int64_t>(body_bytes_) + growth);
  } else if (head.framing == wire::HttpFraming::kLength) {
    spec.body = EngineHeadSpec::Body::kLength;
    spec.content_length = static_cast<uint64_t>(static_cast<int64_t>(head.content_length) + growth);
    options.request_body = net::RequestBody::kStreamed;
  } else {
    spec.body = EngineHeadSpec::Body::kChunked;
    options.request_body = net::RequestBody::kStreamedChunked;
  }

  std::span<const base::Slice> body = body_;
  if (edited) {
    const wire::Edit edit{forward.splice.begin, forward.splice.end,
                          base::Slice::Unowned(forward.splice.bytes)};
    edited_.clear();
    wire::SpliceSlices(body_, {&edit, 1}, &edited_);
    body = edited_;
  }
  engine_ = door_.client().Start(target, WriteEngineHead(spec, client_->loop().buffers()), body,
                                 *this, options);
  if (!body_complete_) {
    streaming_upload_ = true;
    DropBody();
  }
  return true;
}

void Relay::SendReply(const director::Reply& reply) {
  replied_ = true;
  if (waiting_) wake_->Disarm();
  door_.outside().Forget(*this);
  status_ = reply.http_status;
  DropBody();
  std::string lines = base::Concat("x-request-id: ", request_id_, "\r\n");
  if (!reply.dropped_reason.empty()) {
    lines.append(protocol::kDroppedReasonHeader).append(": ").append(reply.dropped_reason);
    lines.append("\r\n");
  }
  if (reply.retry_after_seconds > 0) {
    lines.append("retry-after: ").append(std::to_string(reply.retry_after_seconds)).append("\r\n");
  }
  const std::string body = protocol::ErrorBody(reply.http_status, reply.message);
  relayed_bytes_ = body.size();
  client_->Respond(reply.http_status, "application/json", body, lines);
}

void Relay::OnResponseHead(const wire::ResponseHead& head) {
  const base::TimePoint now = client_->loop().now();
  if (IsRetriableStatus(head.status)) {
    const Decision decision = session_->OnUpstreamFailed(UpstreamFailure::kStatus502or503or504,
                                                         head.status, !streaming_upload_, now);
    if (decision.kind == Decision::Kind::kForward) {
      engine_->Cancel();
      engine_ = nullptr;
      Act(decision);
      return;
    }
    // No retry left: the engine's own words say more than ours would.
  }
  event_stream_ = head.fields.Get(HttpFieldId::kContentType).starts_with("text/event-stream");
  plugin::ResponseHead seen{.status = head.status, .event_stream = event_stream_};
  if (session_->reads_response_headers()) {
    reply_headers_.clear();
    for (const wire::HttpField& f : head.fields) reply_headers_.push_back({f.name, f.value});
    seen.headers = reply_headers_;
  }
  const std::span<const plugin::Header> edits = session_->OnResponseHead(seen, now);
  if (!streaming_upload_) DropBody();
  RelayHead(head, edits);
}

void Relay::RelayHead(const wire::ResponseHead& head, std::span<const plugin::Header> edits) {
  reply_begun_ = true;
  status_ = head.status;
  // Events are framed anew, so that an error event can follow whatever the engine sent last; other
  // chunked replies pass with the engine's own framing.
  const bool rewrites = session_->restores_model();
  net::ResponseFraming framing = net::ResponseFraming::kChunked;
  if (head.framing == wire::HttpFraming::kNone) {
    // An empty body says so, and a reply to HEAD says how long the body would have been; only 204
    // and 304 have no length.
    const bool has_length = head.fields.Find(HttpFieldId::kContentLength) != nullptr;
    framing = has_length && head.status != 204 && head.status != 304 ? net::ResponseFraming::kLength
                                                                     : net::ResponseFraming::kNone;
  } else if (head.framing == wire::HttpFraming::kLength && !rewrites) {
    framing = net::ResponseFraming::kLength;
  } else if (head.framing == wire::HttpFraming::kChunked && !rewrites && !event_stream_ &&
             client_->accepts_chunked()) {
    framing = net::ResponseFraming::kRawChunked;
  }
  raw_ = framing == net::ResponseFraming::kRawChunked || framing == net::ResponseFraming::kLength;
  const base::Slice lines = WriteClientHead(head, request_id_, edits, client_->loop().buffers());
  client_->SendHead(lines.view(), framing, head.content_length);
}

void Relay::OnResponseBody(const base::Slice& raw, std::span<const std::string_view> decoded) {
  bool continues = false;  // what one read brought came at one time
  for (const std::string_view piece : decoded) {
    relayed_bytes_ += piece.size();
    RelayPiece(raw, piece, continues);
    continues = true;
  }
  if (raw_) client_->SendBody(raw);
  if (client_->pending_bytes() >= net::ServerExchange::kPendingHighBytes) engine_->Pause();
}

void Relay::RelayPiece(const base::Slice& raw, std::string_view piece, bool continues) {
  const director::Forward::Splice edit =
      session_->OnResponseBody(piece, client_->loop().now(), continues);
  if (raw_) return;
  const auto begin = static_cast<size_t>(piece.data() - raw.data());
  if (edit.begin == edit.end && edit.bytes.empty()) {
    client_->SendBody(raw.Sub(begin, piece.size()));
    return;
  }
  if (edit.begin > 0) client_->SendBody(raw.Sub(begin, edit.begin));
  client_->SendBody(edit.bytes);
  if (edit.end < piece.size())
    client_->SendBody(raw.Sub(begin + edit.end, piece.size() - edit.end));
}

void Relay::OnResponseEnd() {
  engine_ = nullptr;
  outcome_ = "ok";
  if (const std::string_view rest = session_->TakeHeldBack(); !rest.empty())
    client_->SendBody(rest);
  client_->Finish();
}

void Relay::OnResponseError(const net::ClientError& error) {
  engine_ = nullptr;
  if (reply_begun_) {
    EngineDied(error);
    return;
  }
  Act(session_->OnUpstreamFailed(FailureOf(error), 0, !streaming_upload_, client_->loop().now()));
}

void Relay::EngineDied(const net::ClientError& error) {
  LLMD_LOG(kVerbose, "engine died inside its reply", {"request_id", request_id_},
           {"endpoint", session_->EndpointName(endpoint_)},
           {"error", net::ClientErrorName(error.kind)});
  outcome_ = "engine_died";
  if (!event_stream_ || raw_) {
    client_->Abort();
    return;
  }
  client_->SendBody(protocol::ErrorEvent(502, "the model server closed the stream early"));
  client_->CloseAfter();
  client_->Finish();
}

void Relay::OnRequestWritable() { client_->ResumeBody(); }

void Relay::OnWritable() {
  if (engine_) engine_->Resume();
}

// A reply that the session knows nothing of (the memory budget's) is an abort to it.
void Relay::OnFinished() { Release(Termination::kError, decided_ && outcome_ != "engine_died"); }

void Relay::OnClientGone(net::GoneReason reason) {
  if (engine_) {
    engine_->Cancel();
    engine_ = nullptr;
  }
  if (outcome_ != "engine_died") {
    outcome_ = reason == net::GoneReason::kBodyTooLarge ? "body_too_large" : "client_gone";
    Release(Termination::kClientDisconnect, false);
    return;
  }
  Release(Termination::kError, false);
}

void Relay::DropBody() {
  body_.clear();
  door_.budget().Give(std::exchange(budget_bytes_, 0));
}

void Relay::Release(Termination why, bool natural) {
  const base::TimePoint now = client_->loop().now();
  if (natural) {
    session_->OnDone(relayed_bytes_, now);
  } else {
    session_->OnAborted(why, relayed_bytes_, now);
  }
  WriteAccessLine(outcome_);
  DropBody();
  if (waiting_) wake_->Disarm();
  door_.outside().Forget(*this);
  edited_.clear();
  session_.reset();
  client_ = nullptr;
  key_.reset();
  outcome_ = {};
  endpoint_ = fleet::kNoEndpoint;
  body_bytes_ = relayed_bytes_ = 0;
  status_ = 0;
  attempts_ = 0;
  decided_ = waiting_ = body_complete_ = streaming_upload_ = replied_ = reply_begun_ = false;
  event_stream_ = raw_ = false;
  door_.TakeBack(this);
}

void Relay::WriteAccessLine(std::string_view outcome) {
  const plugin::RequestContext& context = session_->context();
  const director::DecisionRecord& decision = session_->record();
  const protocol::Usage& usage = session_->usage();
  const base::TimePoint now = client_->loop().now();
  telemetry::AccessRecord record;
  record.time = {client_->loop().wall_now().unix_ns - (now - client_->started_at()).count()};
  record.request_id = request_id_;
  record.method = client_->head().method_name;
  record.path = client_->head().path;
  record.status = status_;
  record.model = context.incoming_model;
  record.target_model = context.target_model;
  if (endpoint_ != fleet::kNoEndpoint) {
    record.endpoint = session_->EndpointName(endpoint_);
  }
  record.outcome = outcome;
  if (key_) record.key = door_.KeyName(*key_);
  record.duration = now - client_->started_at();
  if (decision.ttft_us > 0) {
    record.ttft = std::chrono::microseconds(decision.ttft_us);
  }
  record.bytes_in = body_bytes_;
  record.bytes_out = relayed_bytes_;
  if (usage.present) {
    record.input_tokens = usage.prompt_tokens;
    record.output_tokens = usage.completion_tokens;
    if (usage.has_cached) record.cached_tokens = usage.cached_tokens;
  }
  record.retries = attempts_ > 1 ? attempts_ - 1 : 0;
  record.streamed = event_stream_;
  door_.Finished(record, key_);
}

}  // namespace llmd::gateway
