#include "director/session.h"

#include <algorithm>
#include <new>

#include "base/check.h"
#include "base/strings.h"
#include "director/director.h"
#include "director/headers.h"
#include "director/session_state.h"
#include "protocol/error.h"

namespace llmd::director {
namespace {

using protocol::Api;

Decision OutOfOrder(SessionState& s) {
  LLMD_BUG("a session event out of order");
  return {.kind = Decision::Kind::kReply,
          .reply = MakeReply(s, 500, "the request was handled out of order")};
}

bool HasBody(const RequestHead& head) {
  if (head.content_length) return *head.content_length > 0;
  for (const plugin::Header& h : head.headers) {
    if (base::EqualsIgnoreCase(h.name, "transfer-encoding")) return true;
  }
  return head.method == "POST" || head.method == "PUT" || head.method == "PATCH";
}

// The first value of a control header; its deprecated name counts where the other is not there.
struct ControlValue {
  std::string_view value, alias_value;

  bool Take(const ControlHeader& header, const plugin::Header& h) {
    if (base::EqualsIgnoreCase(h.name, header.name)) {
      if (value.empty()) value = h.value;
      return true;
    }
    if (!base::EqualsIgnoreCase(h.name, header.alias)) return false;
    if (alias_value.empty()) alias_value = h.value;
    return true;
  }
  std::string_view Get() const { return value.empty() ? alias_value : value; }
};

// "Prefer: a; p=1, IF-AVAILABLE" holds the preference (RFC 7240).
bool HasIfAvailable(std::string_view preferences) {
  while (true) {
    const size_t comma = preferences.find(',');
    const std::string_view preference = preferences.substr(0, comma);
    const std::string_view token = preference.substr(0, preference.find(';'));
    if (base::EqualsIgnoreCase(base::Trim(token), "if-available")) return true;
    if (comma == std::string_view::npos) return false;
    preferences.remove_prefix(comma + 1);
  }
}

// No control header has a shorter name: most headers of a request need no further look.
constexpr size_t kControlNameBytesMin = kModelRewriteHeader.name.size();
static_assert(std::min({kFairnessIdHeader.name.size(), kFairnessIdHeader.alias.size(),
                        kObjectiveHeader.name.size(), kObjectiveHeader.alias.size(),
                        kModelRewriteHeader.alias.size()}) >= kControlNameBytesMin);

void ReadControlHeaders(SessionState& s) {
  ControlValue fairness, objective, rewrite;
  for (const plugin::Header& h : s.context.headers) {
    if (h.name.size() >= kControlNameBytesMin) {
      (void)(fairness.Take(kFairnessIdHeader, h) || objective.Take(kObjectiveHeader, h) ||
             rewrite.Take(kModelRewriteHeader, h));
    } else if (h.name.size() == 6 && base::EqualsIgnoreCase(h.name, "prefer")) {
      s.if_available = s.if_available || HasIfAvailable(h.value);
    }
  }
  s.context.fairness_id = fairness.Get();
  s.context.objective = objective.Get();
  s.rewrite_header = rewrite.Get();
}

// A rewrite that is for every model is for a missing one, too.
bool NeedsModel(const SessionState& s) {
  const Objects* objects = s.core.CurrentObjects();
  return s.rewrite_header.empty() && !(objects && objects->has_generic_rule());
}

void CopyCut(std::string_view text, char* out, size_t bytes) {
  const size_t n = std::min(text.size(), bytes - 1);
  std::copy_n(text.data(), n, out);
  out[n] = 0;
}

}  // namespace

Session::Session(Director& director, uint64_t seed, base::TimePoint now) {
  DirectorCore& core = *director.core_;
  std::unique_ptr<base::Arena> arena = core.TakeArena();
  void* place = arena->Allocate(sizeof(SessionState), alignof(SessionState));
  state_ = new (place) SessionState(core, std::move(arena));
  state_->context.random = base::Random(seed);
  state_->context.received_at = state_->context.now = now;
}

Session::~Session() {
  SessionState& s = *state_;
  if (s.phase != Phase::kNew && s.phase != Phase::kEnded) {
    LLMD_BUG("a session was dropped before its end");
    Finish(s, Termination::kError, 0);
  }
  DirectorCore& core = s.core;
  if (s.hold) DirectorCore::Release(s.hold);
  std::unique_ptr<base::Arena> arena = std::move(s.arena);
  s.~SessionState();
  core.GiveBack(std::move(arena));
}

namespace {

Decision DecideTimed(SessionState& s) {
  const base::TimePoint begin = s.core.Clock();
  if (s.spans) TraceDecisionBegin(s, begin);
  const Decision decision = Decide(s, begin);
  const base::TimePoint end = s.core.Clock();
  if (s.spans) TraceDecisionEnd(s, end);
  const base::Duration took = end - begin;
  const int64_t so_far = s.record.decision_ns + took.count();
  s.record.decision_ns = static_cast<uint32_t>(std::min<int64_t>(so_far, UINT32_MAX));
  CopyCut(s.context.incoming_model, s.record.model, kRecordModelBytes);
  if (decision.kind == Decision::Kind::kForward) {
    s.core.request_processing.Observe(
        s.writer(), base::ToSeconds(s.context.now - s.context.received_at + took));
  }
  return decision;
}

}  // namespace

BodyPolicy Session::OnHead(const RequestHead& head, base::TimePoint now) {
  SessionState& s = *state_;
  if (s.phase != Phase::kNew) {
    LLMD_BUG("a second request head");
    return BodyPolicy::kNoBody;
  }
  s.phase = Phase::kBody;
  s.hold = s.core.Hold();
  ++s.core.active;
  plugin::RequestContext& c = s.context;
  c.now = now;
  c.request_id = head.request_id;
  c.method = head.method;
  c.path = head.path;
  c.headers = head.headers;
  c.body = &s.request;
  c.attributes = plugin::Attributes(s.arena->NewSpan<const void*>(s.generation().slot_count()));
  ReadControlHeaders(s);
  if (s.core.options.tracer) BeginTrace(s);
  CopyCut(head.request_id, s.record.request_id, kRecordIdBytes);
  s.record.generation = s.generation().number();
  if (s.core.options.wall_clock_ns) s.record.received_unix_ns = s.core.options.wall_clock_ns();
  c.received_unix_ns = s.record.received_unix_ns;

  const bool has_body = HasBody(head);
  s.api = s.generation().ApiFor(head.path);
  // Who asks an inference path without a body to send gets what the engine says to that.
  if (!has_body) s.api = Api::kOpaque;
  s.unclaimed = has_body && s.api == Api::kOpaque && !s.generation().has_fallback_parser();
  if (s.api != Api::kOpaque) {
    s.parser.emplace(s.api, *s.arena, &s.request,
                     protocol::RequestOptions{.model_required = NeedsModel(s)});
    return BodyPolicy::kDecideAtEnd;
  }
  if (!has_body) return BodyPolicy::kNoBody;
  if (const auto boundary = protocol::MultipartBoundary(head.content_type)) {
    s.multipart.emplace(*boundary);
  }
  return BodyPolicy::kDecideEarly;
}

bool Session::OnBody(std::string_view bytes, base::TimePoint now) {
  SessionState& s = *state_;
  s.context.now = now;
  if (s.phase == Phase::kNew || s.phase == Phase::kEnded) {
    LLMD_BUG("a body without a request head");
    return true;
  }
  const uint64_t before = s.body_bytes;
  s.body_bytes += bytes.size();
  if (s.phase != Phase::kBody) return true;
  if (s.parser) {
    s.body_parts.Push(*s.arena, bytes);
    s.context.body_parts = s.body_parts.items();
    s.parser->Feed(bytes);
    return false;
  }
  if (!s.multipart) return true;
  const uint64_t room = kMultipartScanBytesMax - std::min(before, kMultipartScanBytesMax);
  const auto state = s.multipart->Feed(bytes.substr(0, std::min<uint64_t>(bytes.size(), room)));
  return state != protocol::MultipartModelScanner::State::kMore ||
         s.body_bytes >= kMultipartScanBytesMax;
}

void Session::SetSubset(std::span<const std::string_view> entries) {
  SessionState& s = *state_;
  if (s.phase != Phase::kNew && s.phase != Phase::kBody) {
    LLMD_BUG("a subset of the endpoints after the decision");
    return;
  }
  s.subset.emplace(*s.arena, entries);
}

Decision Session::OnBodyEnd(base::TimePoint now) {
  SessionState& s = *state_;
  s.context.now = now;
  if (s.phase != Phase::kBody) return OutOfOrder(s);
  return DecideTimed(s);
}

Decision Session::OnWake(base::TimePoint now) {
  SessionState& s = *state_;
  s.context.now = now;
  if (s.phase != Phase::kWaiting) return OutOfOrder(s);
  s.context.wait_until = {};
  return DecideTimed(s);
}

std::span<const plugin::Header> Session::OnResponseHead(const plugin::ResponseHead& head,
                                                        base::TimePoint now) {
  SessionState& s = *state_;
  s.context.now = now;
  // After a refused retry the door may relay the engine's own 502, 503 or 504.
  const bool engine_said_it = s.phase == Phase::kReplied && !s.endpoints.empty();
  if (s.phase != Phase::kForwarded && !engine_said_it) {
    LLMD_BUG("a reply's head out of order");
    return {};
  }
  // A proxy that does the sending tells of a failure by its reply only.
  if (!engine_said_it && head.status >= 502 && head.status <= 504) ReportFailure(s);
  s.phase = Phase::kRelaying;
  BeginReply(s, head);
  return s.to_client.headers();
}

Forward::Splice Session::OnResponseBody(std::string_view bytes, base::TimePoint now,
                                        bool continues) {
  SessionState& s = *state_;
  s.context.now = now;
  if (s.phase != Phase::kRelaying) {
    LLMD_BUG("a reply's body out of order");
    return {};
  }
  return ReadReply(s, bytes, continues);
}

bool Session::restores_model() const { return state_->restorer.has_value(); }

std::string_view Session::TakeHeldBack() {
  return state_->restorer ? state_->restorer->TakeHeldBack() : std::string_view();
}

void Session::OnDone(uint64_t response_bytes, base::TimePoint now) {
  SessionState& s = *state_;
  s.context.now = now;
  const bool unseen = s.phase == Phase::kForwarded && skip_response();
  if (s.phase != Phase::kReplied && s.phase != Phase::kRelaying && !unseen) {
    LLMD_BUG("the end of a request that has no reply");
    if (s.phase == Phase::kNew || s.phase == Phase::kEnded) return;
  }
  Finish(s, Termination::kNatural, response_bytes);
}

void Session::OnAborted(Termination why, uint64_t response_bytes, base::TimePoint now) {
  SessionState& s = *state_;
  s.context.now = now;
  if (s.phase == Phase::kNew || s.phase == Phase::kEnded) {
    LLMD_BUG("the abort of a request that is not there");
    return;
  }
  Finish(s, why, response_bytes);
}

bool Session::streaming() const { return state_->event_stream && !state_->grpc_scan; }
const plugin::RequestContext& Session::context() const { return state_->context; }
const DecisionRecord& Session::record() const { return state_->record; }
const protocol::Usage& Session::usage() const { return state_->fields.usage; }
bool Session::reads_response_headers() const {
  return !state_->generation().response_processors().empty();
}
bool Session::skip_response() const { return state_->request.skip_response; }
std::span<const plugin::MetadataNumber> Session::end_metadata() const {
  if (!state_->end_metadata) return {};
  return state_->end_metadata->items();
}

std::string_view Session::EndpointName(fleet::EndpointNumber endpoint) const {
  return state_->pin ? std::string_view(state_->pin.endpoint(endpoint).host_port) : "";
}

// ---- retries
// -------------------------------------------------------------------------------------

void ReportFailure(SessionState& s) {
  const fleet::EndpointNumber n = s.endpoints[0].endpoint;
  if (!s.core.fleet.health(n).ReportFailure(s.context.now)) return;
  s.core.metrics.Counter(telemetry::MetricId::kEjectionsTotal, {s.pin.endpoint(n).spec.name})
      .Add(s.writer());
}

namespace {

struct FailureText {
  int http_status;
  std::string_view message;
};
FailureText TextOf(UpstreamFailure failure, int status) {
  switch (failure) {
    case UpstreamFailure::kConnect: return {503, "the model server cannot be reached"};
    case UpstreamFailure::kStaleConnection:
    case UpstreamFailure::kReset: return {502, "the model server closed the connection"};
    case UpstreamFailure::kTimeout: return {504, "the model server did not answer in time"};
    case UpstreamFailure::kStatus502or503or504: return {status, "the model server is unavailable"};
  }
  return {500, ""};
}

// Makes the next endpoint that is not ejected (else simply the next) endpoints[0].
void MoveToNext(SessionState& s) {
  s.endpoints = s.endpoints.subspan(1);
  for (size_t i = 0; i < s.endpoints.size(); ++i) {
    const fleet::Health& health = s.core.fleet.health(s.endpoints[i].endpoint);
    if (health.state(s.context.now) == fleet::Health::State::kEjected) continue;
    std::rotate(s.endpoints.begin(), s.endpoints.begin() + static_cast<std::ptrdiff_t>(i),
                s.endpoints.begin() + static_cast<std::ptrdiff_t>(i) + 1);
    return;
  }
}

// Why there is no further attempt, or nothing when there may be one.
std::optional<RetryDenied> RetryDenial(const SessionState& s, UpstreamFailure failure,
                                       bool body_kept) {
  // The engine may be at work still: a second try would double the load of a slow fleet.
  if (failure == UpstreamFailure::kTimeout) return RetryDenied::kNotRetriable;
  if (!body_kept) return RetryDenied::kBody;
  if (s.retries >= kRetriesMax) return RetryDenied::kAttempts;
  if (s.endpoints.size() < 2) return RetryDenied::kNoEndpoint;
  if (!s.counted_retrying && !s.core.RetryAllowed()) return RetryDenied::kBudget;
  return std::nullopt;
}

}  // namespace

Decision Session::OnUpstreamFailed(UpstreamFailure failure, int status, bool body_kept,
                                   base::TimePoint now) {
  SessionState& s = *state_;
  s.context.now = now;
  if (s.phase != Phase::kForwarded) return OutOfOrder(s);
  const auto count = [&](const auto& counters, auto reason) {
    counters[static_cast<size_t>(reason)].Add(s.writer());
  };
  // An idle connection that the server had closed says nothing about the server: the same one
  // again.
  if (failure == UpstreamFailure::kStaleConnection && body_kept && !s.stale_retried) {
    s.stale_retried = true;
    count(s.core.retries, failure);
    return Send(s);
  }
  ReportFailure(s);
  if (const auto denied = RetryDenial(s, failure, body_kept)) {
    count(s.core.retries_denied, *denied);
    const FailureText text = TextOf(failure, status);
    // With a status there is a reply to relay, and the engine is busy until it is read.
    if (failure != UpstreamFailure::kStatus502or503or504) {
      Unbook(s);
      s.endpoints = {};
    }
    return Refuse(s, MakeReply(s, text.http_status, text.message));
  }
  count(s.core.retries, failure);
  Unbook(s);
  ++s.retries;
  if (!s.counted_retrying) {
    s.counted_retrying = true;
    ++s.core.retrying;
  }
  MoveToNext(s);
  if (const base::Status booked = BookRoute(s); !booked.ok()) return Refuse(s, ReplyTo(s, booked));
  return Send(s);
}

void EndRetrying(SessionState& s) {
  if (!s.counted_retrying) return;
  s.counted_retrying = false;
  --s.core.retrying;
}

}  // namespace llmd::director
