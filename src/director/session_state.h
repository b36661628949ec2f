// Internal to director/: one session's data. It lies in the session's own arena. See session.h.
#pragma once

#include <array>
#include <memory>
#include <optional>

#include "director/director_core.h"
#include "director/model_restorer.h"
#include "director/session.h"
#include "director/subset.h"
#include "protocol/grpc_reply.h"
#include "protocol/multipart.h"
#include "wire/sse.h"

namespace llmd::director {

enum class Phase : uint8_t { kNew, kBody, kWaiting, kForwarded, kReplied, kRelaying, kEnded };

// What becomes the spans of a sampled request. Numbers are Unix nanoseconds.
struct SpanLog {
  telemetry::TraceContext context;  // of gateway.request; the engine's parent
  uint64_t parent_id = 0;
  std::string_view trace_state;
  base::Random ids{0};
  // A reading of the wall clock and of the stage clock at the same moment.
  int64_t anchor_ns = 0;
  base::TimePoint anchor{};
  bool decided = false;  // or about to be
  bool decision_failed = false;
  int64_t decision_begin_ns = 0, decision_end_ns = 0;
  std::string_view refusal;  // message of a reply of our own
};

struct SessionState {
  SessionState(DirectorCore& c, std::unique_ptr<base::Arena> a) : core(c), arena(std::move(a)) {
    context.arena = arena.get();
    context.fleet = &core.view;
    context.worker = core.options.worker;
  }

  DirectorCore& core;
  std::unique_ptr<base::Arena> arena;
  GenerationHold* hold = nullptr;
  Phase phase = Phase::kNew;

  // The request.
  plugin::RequestContext context;
  protocol::Request request;
  protocol::Api api = protocol::Api::kOpaque;
  bool unclaimed = false;  // a body to a path that no parser takes
  std::optional<protocol::RequestParser> parser;
  std::optional<protocol::MultipartModelScanner> multipart;
  uint64_t body_bytes = 0;
  protocol::ArenaList<std::string_view> body_parts;
  std::string_view rewrite_header;
  std::optional<Subset> subset;
  bool if_available = false;  // "prefer: if-available"

  // Where the decision stands, for requests that wait on the way to it.
  size_t stage = 0;
  size_t producer = 0;                // the next one
  base::TimePoint give_up_at{};  // that one's last chance; TimePoint{}: it was not asked yet

  // The decision.
  fleet::Pin pin;
  std::span<fleet::EndpointNumber> candidates;
  std::span<plugin::ProfileResult> profiles;
  size_t primary = 0;
  std::span<plugin::ScoredCandidate> endpoints;  // what is left: the current one first
  Forward::Splice splice;
  plugin::BookingList bookings;
  size_t headers_before_route = 0;  // what OnRouted plugins set stands behind them
  bool routed = false;              // OnRouted was called: OnResponseEnd is due
  scheduling::Trace trace;
  SpanLog* spans = nullptr;  // of a sampled request

  // Attempts.
  uint32_t retries = 0;        // that cost budget
  bool stale_retried = false;
  bool counted_retrying = false;
  bool running_counted = false;

  // The reply.
  int status = 0;
  bool reply_begun = false;    // by the engine; `status` is the engine's
  bool event_stream = false;
  base::TimePoint first_byte_at{}, last_chunk_at{};
  uint64_t chunks = 0;
  uint64_t events = 0;         // of a stream
  uint64_t sample_offset = 0;  // which chunks of a stream are timed
  base::Duration reply_work{};  // estimated time spent on the reply
  protocol::ReplyFields fields;
  std::optional<protocol::ReplyScanner> reply_scan;
  std::unique_ptr<protocol::GrpcReplyScanner> grpc_scan;
  std::optional<wire::SseParser> sse;
  std::optional<ModelRestorer> restorer;

  plugin::HeaderEdits to_client;
  plugin::MetadataList* end_metadata = nullptr;

  const telemetry::RequestSeries* series = nullptr;
  DecisionRecord record;

  const Generation& generation() const { return *hold->generation; }
  size_t writer() const { return core.options.worker; }
};

// session_decide.cc: the stages from a read body to a decision, from where the request stands on.
// `begin` is a reading of the stage clock.
Decision Decide(SessionState& s, base::TimePoint begin);
// Of a request that waits for a data producer: it will not come back to it.
void AbandonWait(SessionState& s);
Decision Refuse(SessionState& s, const Reply& reply);
Decision Send(SessionState& s);
Reply MakeReply(SessionState& s, int http_status, std::string_view message,
                std::string_view dropped_reason = {}, uint32_t retry_after_seconds = 0);
Reply ReplyTo(SessionState& s, const base::Status& status);
// Asks the PreRequest plugins and books what they want on endpoints[0]; an error leaves nothing
// booked.
base::Status BookRoute(SessionState& s);
// Takes back what is still booked.
void Unbook(SessionState& s);
// Adds `amount` where `booking` is counted.
void Book(SessionState& s, const plugin::Booking& booking, int64_t amount);
const telemetry::RequestSeries& Series(SessionState& s);
// Of a reply of our own, for request_error_total.
telemetry::ErrorCode ErrorCodeOf(int http_status);

// session_reply.cc: from the reply's head to the end.
void BeginReply(SessionState& s, const plugin::ResponseHead& head);
Forward::Splice ReadReply(SessionState& s, std::string_view bytes, bool continues);
void Finish(SessionState& s, Termination why, uint64_t response_bytes);

// session_trace.cc. With a tracer: joins the caller's trace or begins one, decides whether the
// request is sampled, and sets what the engine is to get.
void BeginTrace(SessionState& s);
// Of a sampled request: around every Decide, which began at `begin` on the stage clock.
void TraceDecisionBegin(SessionState& s, base::TimePoint begin);
void TraceDecisionEnd(SessionState& s, base::TimePoint end);
// Of a sampled request at its end: encodes the spans and hands them on.
void EndTrace(SessionState& s, Termination why);

// The attempt towards endpoints[0] failed: enough of these eject it.
void ReportFailure(SessionState& s);
// A retry count that ends is taken off the worker's.
void EndRetrying(SessionState& s);

}  // namespace llmd::director
