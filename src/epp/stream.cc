#include "epp/stream.h"

#include <algorithm>
#include <utility>

#include "base/uuid.h"
#include "director/headers.h"
#include "epp/door.h"
#include "epp/errors.h"
#include "protocol/error.h"
#include "telemetry/log.h"
#include "wire/arena_list.h"

namespace llmd::epp {

using director::Decision;
using director::Termination;
using wire::ExtProcHeader;
using wire::ExtProcKind;
using wire::ExtProcMessage;
using wire::StructField;

namespace {

constexpr std::string_view kRequestIdHeader = "x-request-id";

// Appends bytes [begin, end) of `body` to `out`.
void AppendRange(std::span<const base::Slice> body, uint64_t begin, uint64_t end,
                 std::vector<base::Slice>* out) {
  uint64_t at = 0;
  for (const base::Slice& piece : body) {
    const uint64_t from = std::max(begin, at), to = std::min(end, at + piece.size());
    if (from < to) out->push_back(piece.Sub(from - at, to - from));
    at += piece.size();
    if (at >= end) return;
  }
}

}  // namespace

Stream::Stream(Door& door)
    : door_(door), reader_(&arena_), wake_(door.loop(), [this] { Wake(); }) {}

void Stream::Begin(net::GrpcCall& call) {
  call_ = &call;
  arena_.Reset();
  reader_.Reset(&arena_);
  phase_ = Phase::kHeaders;
  request_ = {};
  request_id_ = endpoint_ = {};
  request_id_made_ = decides_early_ = has_body_ = body_ended_ = trailers_came_ = response_shown_ =
      false;
  restores_model_ = event_stream_ = false;
  body_bytes_ = response_bytes_ = 0;
  status_ = 0;
  began_at_ = now();
}

base::TimePoint Stream::now() const { return door_.loop().now(); }

void Stream::OnMessagePiece(base::Slice piece, bool last) {
  if (!call_) return;  // already refused
  if (const base::Status fed = reader_.Feed(std::move(piece), last); !fed.ok()) {
    door_.Count(StreamFault::kMessage);
    EndSession(false, Termination::kError);
    std::exchange(call_, nullptr)->Finish(fed.code(), fed.message());
    return;
  }
  if (!last) return;
  OnMessage();
  reader_.Clear();
}

void Stream::OnMessage() {
  const ExtProcMessage& message = reader_.message();
  if (phase_ == Phase::kHeaders && message.kind != ExtProcKind::kRequestHeaders) {
    return Violation("the first message has no request headers");
  }
  switch (message.kind) {
    case ExtProcKind::kRequestHeaders: return OnRequestHeaders(message);
    case ExtProcKind::kRequestBody: return OnRequestBody(message);
    case ExtProcKind::kRequestTrailers: return OnRequestTrailers();
    case ExtProcKind::kResponseHeaders: return OnResponseHeaders(message);
    case ExtProcKind::kResponseBody: return OnResponseBody(message);
    case ExtProcKind::kResponseTrailers: return OnResponseTrailers();
    case ExtProcKind::kNone: return Violation("a message without a known part of a request");
  }
}

void Stream::Violation(std::string_view what) {
  door_.Count(StreamFault::kOrder);
  EndSession(false, Termination::kError);
  std::exchange(call_, nullptr)->Finish(base::StatusCode::kInvalidArgument, what);
}

// ---- the request -------------------------------------------------------------------------------

void Stream::OnRequestHeaders(const ExtProcMessage& message) {
  if (phase_ != Phase::kHeaders) return Violation("request headers for the second time");
  request_ = ReadRequestHeaders(message.headers, arena_);
  request_id_ = request_.request_id;
  if (request_id_.empty()) {
    char room[base::kUuidBytes];
    request_id_ = arena_.Copy(base::WriteUuid(door_.NextSeed(), door_.NextSeed(), room));
    request_id_made_ = true;
  }
  if (message.end_of_stream) request_.content_length = 0;
  has_body_ = !message.end_of_stream;
  body_ended_ = message.end_of_stream;
  session_.emplace(door_.director(), door_.NextSeed(), now());
  const director::BodyPolicy policy =
      session_->OnHead({.method = request_.method,
                        .path = request_.path,
                        .content_type = request_.content_type,
                        .headers = request_.all,
                        .request_id = request_id_,
                        .peer = request_.forwarded_for,
                        .content_length = request_.content_length},
                       now());
  phase_ = Phase::kBody;
  decides_early_ = policy != director::BodyPolicy::kDecideAtEnd;
  if (body_ended_ || policy == director::BodyPolicy::kNoBody) Decide();
}

void Stream::OnRequestBody(const ExtProcMessage& message) {
  // Some chains of Envoy filters repeat the end of a body.
  if (body_ended_ || phase_ == Phase::kDone || phase_ == Phase::kResponse) return;
  body_ended_ = message.end_of_stream;
  body_bytes_ += message.body_bytes;
  if (phase_ == Phase::kRouted) {
    reader_.TakeBody(&in_);
    for (const base::Slice& piece : in_) session_->OnBody(piece.view(), now());
    return PassOn(ExtProcKind::kRequestBody, message.end_of_stream);
  }
  if (!door_.budget().Take(message.body_bytes)) return RefuseOverBudget();
  budget_bytes_ += message.body_bytes;
  const size_t first = body_.size();
  reader_.TakeBody(&body_);
  bool decide = message.end_of_stream;
  for (size_t i = first; i < body_.size(); ++i) {
    decide |= session_->OnBody(body_[i].view(), now()) && decides_early_;
  }
  if (decide && phase_ == Phase::kBody) Decide();
}

// With trailers the proxy sends no end of the body: they are it.
void Stream::OnRequestTrailers() {
  if (trailers_came_) return Violation("request trailers for the second time");
  trailers_came_ = true;
  if (phase_ == Phase::kBody) {
    body_ended_ = true;
    return Decide();
  }
  body_ended_ = true;
  if (phase_ == Phase::kWaiting) return;  // answered with the decision
  Send(door_.writer().Trailers(ExtProcKind::kRequestTrailers));
}

// False when the call has ended over it.
bool Stream::ReadSubset() {
  if (door_.options().disable_endpoint_subset_filter) return true;
  const auto metadata = reader_.ReadMetadata();
  if (!metadata) {
    Violation(metadata.error().message());
    return false;
  }
  if (metadata->has_subset) session_->SetSubset(metadata->subset);
  return true;
}

void Stream::Decide() {
  if (!ReadSubset()) return;
  Act(session_->OnBodyEnd(now()));
}

void Stream::Act(Decision decision) {
  while (decision.kind == Decision::Kind::kWait) {
    if (!decision.ask || door_.outside().Begin(decision.ask, *this)) {
      phase_ = Phase::kWaiting;
      return wake_.ArmAt(decision.wait_until);
    }
    decision = session_->OnWake(now());
  }
  wake_.Disarm();
  door_.outside().Forget(*this);
  if (decision.kind == Decision::Kind::kForward) return Forward(decision.forward);
  Refuse(decision.reply);
}

void Stream::Wake() {
  if (phase_ == Phase::kWaiting) Act(session_->OnWake(now()));
}

void Stream::OnOutsideEnd() { Wake(); }

void Stream::Forward(const director::Forward& forward) {
  phase_ = Phase::kRouted;
  SendRoute(forward);
  if (forward.splice.begin != forward.splice.end || !forward.splice.bytes.empty()) {
    const std::vector<base::Slice> body = std::exchange(body_, {});
    AppendRange(body, 0, forward.splice.begin, &body_);
    body_.push_back(door_.loop().buffers().Copy(forward.splice.bytes));
    AppendRange(body, forward.splice.end, body_bytes_, &body_);
  }
  SendHeldBody(body_ended_ && !trailers_came_);
  if (trailers_came_) Send(door_.writer().Trailers(ExtProcKind::kRequestTrailers));
}

void Stream::SendRoute(const director::Forward& forward) {
  wire::ArenaList<ExtProcHeader> set(&arena_, 16);
  std::string names;
  for (const plugin::ScoredCandidate& candidate : forward.endpoints) {
    if (!names.empty()) names += ",";
    names += door_.AddressOf(candidate.endpoint, session_->EndpointName(candidate.endpoint));
  }
  const std::string_view endpoints = arena_.Copy(names);
  endpoint_ = endpoints.substr(0, endpoints.find(','));
  set.Push({director::kDestinationHeader, endpoints});
  const uint64_t length =
      body_bytes_ - (forward.splice.end - forward.splice.begin) + forward.splice.bytes.size();
  if (body_ended_ && length > 0) {
    set.Push({"Content-Length", arena_.Copy(std::to_string(length))});
  }
  if (request_id_made_) set.Push({kRequestIdHeader, request_id_});
  for (const plugin::Header& header : forward.set_headers) set.Push({header.name, header.value});

  std::span<const StructField> scores;
  if (door_.options().emit_endpoint_scores) {
    const auto fields = arena_.NewSpan<StructField>(forward.scored.size());
    for (size_t i = 0; i < fields.size(); ++i) {
      const plugin::ScoredCandidate& scored = forward.scored[i];
      fields[i] = StructField::Number(
          arena_.Copy(door_.AddressOf(scored.endpoint, session_->EndpointName(scored.endpoint))),
          scored.score);
    }
    scores = fields;
  }
  Send(door_.writer().Headers(
      ExtProcKind::kRequestHeaders,
      {.set_headers = set.items(),
       .remove_headers = request_.to_remove,
       .clear_route_cache = true,
       .dynamic_metadata = wire::EndpointMetadata(endpoints, scores, &arena_)}));
}

// A request without a body is answered by its headers alone.
void Stream::SendHeldBody(bool end_of_stream) {
  if (!has_body_ || (body_.empty() && !end_of_stream)) return;
  SendBody(ExtProcKind::kRequestBody, body_, end_of_stream);
  body_.clear();
}

void Stream::Refuse(const director::Reply& reply) {
  status_ = reply.http_status;
  Send(door_.writer().Immediate(
      ImmediateReplyOf(reply, door_.options().error_format, arena_)));
  EndSession(true, Termination::kNatural);
  Answered();
}

// The session knows nothing of this reply: to it the request is aborted.
void Stream::RefuseOverBudget() {
  door_.Count(StreamFault::kMemoryBudget);
  status_ = 429;
  Send(door_.writer().Immediate(ImmediateReplyOf(
      {.http_status = 429,
       .message = "the picker's memory budget for request bodies is used up",
       .error_type = protocol::ErrorTypeOf(429),
       .dropped_reason = protocol::kRejectedSaturated,
       .retry_after_seconds = director::kRetryAfterSaturatedSeconds},
      door_.options().error_format, arena_)));
  EndSession(false, Termination::kError);
  Answered();
}

// ---- the response ------------------------------------------------------------------------------

void Stream::OnResponseHeaders(const ExtProcMessage& message) {
  if (phase_ == Phase::kBody || phase_ == Phase::kWaiting) {
    // The proxy answered by itself before the request was whole.
    EndSession(false, Termination::kClientDisconnect);
  }
  if (phase_ == Phase::kDone) {
    return Send(door_.writer().Headers(ExtProcKind::kResponseHeaders, {}));
  }
  if (phase_ != Phase::kRouted) return Violation("response headers for the second time");
  phase_ = Phase::kResponse;
  DropBody();
  const ResponseHeaders read = ReadResponseHeaders(message.headers);
  status_ = read.status;
  event_stream_ = read.event_stream;
  const auto metadata = reader_.ReadMetadata();
  if (!metadata) return Violation(metadata.error().message());

  std::span<plugin::Header> headers;
  if (session_->reads_response_headers()) {
    headers = arena_.NewSpan<plugin::Header>(message.headers.size());
    for (size_t i = 0; i < headers.size(); ++i) {
      headers[i] = {message.headers[i].name, message.headers[i].value};
    }
  }
  const auto edits = session_->OnResponseHead({.status = read.status,
                                               .event_stream = read.event_stream,
                                               .headers = headers,
                                               .served_endpoint = metadata->served_endpoint},
                                              now());
  restores_model_ = session_->restores_model();
  wire::ArenaList<ExtProcHeader> set(&arena_);
  for (const plugin::Header& header : edits) set.Push({header.name, header.value});
  static constexpr std::string_view kContentLength[] = {"content-length"};
  Send(door_.writer().Headers(
      ExtProcKind::kResponseHeaders,
      {.set_headers = set.items(),
       .remove_headers = restores_model_ && read.has_content_length
                             ? std::span<const std::string_view>(kContentLength)
                             : std::span<const std::string_view>()}));
  if (message.end_of_stream) EndSession(true, Termination::kNatural);
}

void Stream::OnResponseBody(const ExtProcMessage& message) {
  reader_.TakeBody(&in_);
  if (phase_ == Phase::kDone) return PassOn(ExtProcKind::kResponseBody, message.end_of_stream);
  if (phase_ != Phase::kResponse) {
    in_.clear();
    return Violation("a response body before its headers");
  }
  response_shown_ = true;
  response_bytes_ += message.body_bytes;
  std::vector<base::Slice> edited;
  bool continues = false;
  for (const base::Slice& piece : in_) {
    const auto splice = session_->OnResponseBody(piece.view(), now(), continues);
    continues = true;
    if (!restores_model_) continue;
    AppendRange({&piece, 1}, 0, splice.begin, &edited);
    if (splice.begin == splice.end && splice.bytes.empty()) {
      AppendRange({&piece, 1}, splice.begin, piece.size(), &edited);
      continue;
    }
    if (!splice.bytes.empty()) edited.push_back(door_.loop().buffers().Copy(splice.bytes));
    AppendRange({&piece, 1}, splice.end, piece.size(), &edited);
  }
  if (restores_model_) in_.swap(edited);
  if (!message.end_of_stream) return PassOn(ExtProcKind::kResponseBody, false);
  if (const std::string_view held = session_->TakeHeldBack(); !held.empty()) {
    in_.push_back(door_.loop().buffers().Copy(held));
  }
  // Only now do the plugins have their last word, which travels with the last chunk.
  session_->OnDone(response_bytes_, now());
  SendBody(ExtProcKind::kResponseBody, in_, true, EndMetadata());
  in_.clear();
  CloseSession("ok");
}

void Stream::OnResponseTrailers() {
  if (phase_ == Phase::kResponse) {
    if (const std::string_view held = session_->TakeHeldBack(); !held.empty()) {
      in_.push_back(door_.loop().buffers().Copy(held));
      PassOn(ExtProcKind::kResponseBody, false);
    }
    EndSession(true, Termination::kNatural);
  }
  Send(door_.writer().Trailers(ExtProcKind::kResponseTrailers));
}

std::span<const StructField> Stream::EndMetadata() {
  const auto numbers = session_->end_metadata();
  if (numbers.empty()) return {};
  // One Struct per namespace; there are one or two numbers.
  wire::ArenaList<StructField> spaces(&arena_);
  for (size_t i = 0; i < numbers.size(); ++i) {
    const std::string_view space = numbers[i].name_space;
    const auto same = [&](const StructField& f) { return f.name == space; };
    if (std::ranges::any_of(spaces.items(), same)) continue;
    wire::ArenaList<StructField> fields(&arena_);
    for (size_t j = i; j < numbers.size(); ++j) {
      if (numbers[j].name_space != space) continue;
      fields.Push(StructField::Number(numbers[j].name, static_cast<double>(numbers[j].value)));
    }
    spaces.Push(StructField::Struct(space, fields.items()));
  }
  return spaces.items();
}

// ---- sending -----------------------------------------------------------------------------------

void Stream::Send(base::Slice message) {
  if (call_) call_->Send(std::move(message));
}

void Stream::PassOn(ExtProcKind kind, bool end_of_stream) {
  SendBody(kind, in_, end_of_stream);
  in_.clear();
}

void Stream::SendBody(ExtProcKind kind, std::span<const base::Slice> body, bool end_of_stream,
                      std::span<const StructField> metadata) {
  if (!call_) return;
  wire::ExtProcChunks chunks(body);
  while (chunks.Next(&door_.scratch_chunk)) {
    const bool last = chunks.done();
    door_.writer().Body(kind, door_.scratch_chunk, end_of_stream && last,
                        last ? metadata : std::span<const StructField>(), &door_.scratch_out);
    call_->Send(door_.scratch_out);
    door_.scratch_out.clear();
  }
  door_.scratch_chunk.clear();
}

// ---- the end -----------------------------------------------------------------------------------

// A proxy that keeps response bodies to itself ends the stream when the response ends.
void Stream::OnHalfClose() {
  EndSession(phase_ == Phase::kResponse && !response_shown_, Termination::kClientDisconnect);
  if (call_) Answered();
}

void Stream::OnEnd(net::GrpcEnd why) {
  EndSession(phase_ == Phase::kResponse && !response_shown_, Termination::kClientDisconnect);
  door_.StreamEnded(now() - began_at_, why);
  call_ = nullptr;
  door_.TakeBack(this);
}

void Stream::Answered() { std::exchange(call_, nullptr)->Finish(base::StatusCode::kOk); }

void Stream::EndSession(bool natural, Termination why) {
  if (!session_) return;
  if (natural) {
    session_->OnDone(response_bytes_, now());
  } else {
    session_->OnAborted(why, response_bytes_, now());
  }
  CloseSession(natural ? "ok" : why == Termination::kError ? "error" : "client_gone");
}

void Stream::CloseSession(std::string_view outcome) {
  if (door_.writes_access_lines()) WriteAccessLine(outcome);
  DropBody();
  wake_.Disarm();
  door_.outside().Forget(*this);
  session_.reset();
  phase_ = Phase::kDone;
}

void Stream::DropBody() {
  body_.clear();
  door_.budget().Give(std::exchange(budget_bytes_, 0));
}

void Stream::WriteAccessLine(std::string_view outcome) {
  const protocol::Usage& usage = session_->usage();
  telemetry::AccessRecord record;
  record.time = {door_.loop().wall_now().unix_ns - (now() - began_at_).count()};
  record.request_id = request_id_;
  record.method = request_.method;
  record.path = request_.path;
  record.status = status_;
  record.model = session_->context().incoming_model;
  record.target_model = session_->context().target_model;
  record.endpoint = endpoint_;
  record.outcome = outcome;
  record.duration = now() - began_at_;
  if (const uint64_t ttft = session_->record().ttft_us; ttft > 0) {
    record.ttft = std::chrono::microseconds(ttft);
  }
  record.bytes_in = body_bytes_;
  record.bytes_out = response_bytes_;
  if (usage.present) {
    record.input_tokens = usage.prompt_tokens;
    record.output_tokens = usage.completion_tokens;
    if (usage.has_cached) record.cached_tokens = usage.cached_tokens;
  }
  record.streamed = event_stream_;
  door_.WriteAccessLine(record);
}

}  // namespace llmd::epp
