// From a read body to a decision: the life of a request as one list of stages.
#include <algorithm>

#include "base/check.h"
#include "base/hash.h"
#include "base/strings.h"
#include "director/headers.h"
#include "director/session_state.h"
#include "plugin/outside.h"
#include "protocol/error.h"
#include "scheduling/cycle.h"
#include "scheduling/stages.h"
#include "telemetry/log.h"

namespace llmd::director {
namespace {

using fleet::EndpointNumber;
using protocol::Api;
using scheduling::ExtensionPoint;

// Nothing, or the reply that ends the request here.
using StageResult = std::optional<Reply>;

StageResult Parse(SessionState& s) {
  if (s.unclaimed) {
    return MakeReply(s, 400,
                     s.arena->Copy(base::Concat("no parser registered matching path suffix for: ",
                                                s.context.path)));
  }
  if (s.parser) {
    if (const base::Status read = s.parser->Finish(); !read.ok()) return ReplyTo(s, read);
  } else {
    s.request.api = Api::kOpaque;
    s.request.body_bytes = s.body_bytes;
    if (s.multipart && s.multipart->state() == protocol::MultipartModelScanner::State::kFound) {
      s.request.model = s.multipart->model();
      s.request.model_begin = s.multipart->model_begin();
      s.request.model_end = s.multipart->model_end();
    }
  }
  // Needed to the end of the request, when the body is long gone.
  s.context.incoming_model = s.arena->Copy(s.request.model);
  return {};
}

std::string Literal(std::string_view text) {
  std::string literal;
  base::AppendJsonString(&literal, text);
  return literal;
}

// The header names the target, and a rewrite rule has the last word.
void ChooseModel(SessionState& s) {
  plugin::RequestContext& c = s.context;
  if (!s.rewrite_header.empty()) c.target_model = s.rewrite_header;
  const Objects* objects = s.core.CurrentObjects();
  const RewriteRule* rule = objects ? objects->RuleFor(c.incoming_model) : nullptr;
  if (!rule) return;
  c.target_model = s.arena->Copy(rule->Draw(c.random));  // a reload may come before the end
  s.core.CountRewrite(rule->rewrite, c.incoming_model, c.target_model);
}

StageResult Rewrite(SessionState& s) {
  plugin::RequestContext& c = s.context;
  c.target_model = c.incoming_model;
  const bool place =
      s.multipart ? s.request.has_model() : protocol::InfoOf(s.api).takes_model;
  if (!place) return {};
  ChooseModel(s);
  if (c.target_model.empty()) return MakeReply(s, 400, "model not found in request body");
  if (c.target_model == c.incoming_model) return {};
  if (s.multipart) {  // a form field: the name itself, without quotes
    s.splice = {s.request.model_begin, s.request.model_end, c.target_model};
    return {};
  }
  const wire::Edit edit = protocol::ModelEdit(s.request, c.target_model, *s.arena);
  s.splice = {edit.begin, edit.end, edit.bytes.view()};
  if (!c.incoming_model.empty()) {
    s.restorer.emplace(Literal(c.target_model), Literal(c.incoming_model));
  }
  return {};
}

// An objective that nobody wrote down is no error: its requests count like any other.
StageResult Objective(SessionState& s) {
  if (!s.context.objective.empty()) {
    const Objects* objects = s.core.CurrentObjects();
    if (objects) s.context.priority = objects->PriorityOf(s.context.objective).value_or(0);
  }
  s.record.priority = s.context.priority;
  s.record.body_bytes = s.body_bytes;
  return {};
}

StageResult Identify(SessionState& s) {
  plugin::RequestContext& c = s.context;
  const Generation& g = s.generation();
  if (!g.header_processors().empty()) {
    scheduling::Stages stages(&s.trace);
    stages.Skip();
    for (const HeaderStep& step : g.header_processors()) {
      const base::Status read = stages(ExtensionPoint::kRequestHeader, step.plugin,
                                       [&] { return step.processor->OnRequestHeaders(c); });
      if (!read.ok()) return ReplyTo(s, read);
    }
  }
  if (!c.fairness_id.empty()) return {};
  const plugin::AgentIdentity* agent = c.attributes.Get(g.agent_identity_slot());
  c.fairness_id = agent && !agent->id.empty() ? agent->id : kDefaultFairnessId;
  return {};
}

Reply NoCandidates(SessionState& s) {
  return MakeReply(s, 503, "failed to find endpoint candidates for serving the request",
                   protocol::kRejectedNoEndpoints, kRetryAfterNoEndpointsSeconds);
}

template <class Keep>
void KeepCandidates(SessionState& s, Keep keep) {
  plugin::Candidates left{s.candidates};
  left.KeepIf(keep);
  s.candidates = left.numbers;
}

bool MayServe(const fleet::View& view, EndpointNumber n) {
  return std::ranges::binary_search(view.members(), n) && !view.endpoint(n).spec.draining;
}

// Where the proxy leaves only endpoints that are ejected or starting slowly, one of these it is.
void KeepSubset(SessionState& s) {
  const fleet::View& view = s.core.view;
  const auto allowed = [&](EndpointNumber n) { return s.subset->Allows(view.endpoint(n).spec); };
  KeepCandidates(s, allowed);
  if (!s.candidates.empty()) return;
  s.candidates = s.arena->NewSpan<EndpointNumber>(view.members().size());
  std::ranges::copy(view.members(), s.candidates.begin());
  KeepCandidates(s, [&](EndpointNumber n) { return allowed(n) && MayServe(view, n); });
}

StageResult FindCandidates(SessionState& s) {
  fleet::View& view = s.core.view;
  view.Refresh(s.context.now);
  s.pin = fleet::Pin(view);
  s.candidates = view.Routable(s.context.random, *s.arena);
  s.record.fleet_version = s.core.fleet.version();
  s.record.fleet_count = static_cast<uint16_t>(view.members().size());
  if (s.subset) KeepSubset(s);
  if (s.candidates.empty()) return NoCandidates(s);
  return {};
}

StageResult Admit(SessionState& s) {
  if (s.context.priority >= 0) return {};
  scheduling::Stages stages(&s.trace);
  stages.Skip();
  const auto saturation =
      stages(ExtensionPoint::kAdmission, s.generation().saturation_plugin(), [&] {
        return s.generation().saturation().Measure(s.core.view, s.candidates, s.context.now);
      });
  if (saturation.value < 1) return {};
  return MakeReply(s, 429, "system saturated, sheddable request dropped",
                   protocol::kRejectedSaturated, kRetryAfterSaturatedSeconds);
}

// Some time has gone by: who left the fleet meanwhile is no candidate any more.
bool RenewCandidates(SessionState& s) {
  fleet::View& view = s.core.view;
  view.Refresh(s.context.now);
  KeepCandidates(s, [&](EndpointNumber n) { return MayServe(view, n); });
  return !s.candidates.empty();
}

// What was asked for beside the loop is wanted no more, or was taken.
void DropAsked(SessionState& s) {
  if (!s.context.asked) return;
  s.context.asked->Cancel();
  s.context.asked.reset();
}

// True when the request is to wait for the producer that was just asked.
bool Waits(SessionState& s, const ProducerStep& step, const base::Status& produced) {
  plugin::RequestContext& c = s.context;
  if (c.wait_until == base::TimePoint{} && s.give_up_at == base::TimePoint{}) {
    DropAsked(s);
    return false;
  }
  if (s.give_up_at == base::TimePoint{}) s.give_up_at = c.now + step.producer->wait_max();
  const bool asks = c.wait_until > c.now && produced.ok();
  if (asks && c.now < s.give_up_at) {
    c.wait_until = std::min(c.wait_until, s.give_up_at);
    return true;
  }
  if (produced.ok() && c.wait_until != base::TimePoint{}) {  // in vain, or no later than now
    s.hold->OnProducerFailure(step.plugin, true);
    step.producer->Abandon(c);
  }
  c.wait_until = s.give_up_at = {};
  DropAsked(s);
  return false;
}

// A producer that fails leaves its slot missing; its consumers know what to do without it. One that
// cannot answer yet makes the request wait, and is asked again when the request is woken.
StageResult Produce(SessionState& s) {
  if (s.phase == Phase::kWaiting && !RenewCandidates(s)) {
    AbandonWait(s);
    return NoCandidates(s);
  }
  scheduling::Stages stages(&s.trace);
  stages.Skip();
  const std::span<const ProducerStep> producers = s.generation().producers();
  for (; s.producer < producers.size(); ++s.producer) {
    const ProducerStep& step = producers[s.producer];
    const base::Status produced =
        stages(ExtensionPoint::kDataProducer, step.plugin,
               [&] { return step.producer->Produce(s.context, s.candidates); });
    if (Waits(s, step, produced)) return {};
    if (produced.ok()) continue;
    s.hold->OnProducerFailure(step.plugin, false);
    LLMD_LOG(kDebug, "a data producer failed",
             {"producer", s.generation().plugins()[step.plugin].object->name()},
             {"request_id", s.context.request_id}, {"error", produced});
  }
  return {};
}

// ---- what the decision looked like, for the record
// ------------------------------------------------

// Places of the best candidates in trace.scored: the choice and its fallbacks in their order, then
// the others by score.
size_t BestCandidates(const SessionState& s, std::span<uint32_t> best) {
  const std::span<const EndpointNumber> scored = s.trace.scored;
  const auto place_of = [&](EndpointNumber n) {
    return static_cast<uint32_t>(std::lower_bound(scored.begin(), scored.end(), n) -
                                 scored.begin());
  };
  size_t count = 0;
  for (const plugin::ScoredCandidate& c : s.endpoints) {
    if (count == best.size()) return count;
    best[count++] = place_of(c.endpoint);
  }
  if (count == best.size()) return count;
  const std::span<const uint32_t> chosen = best.first(count);
  const std::span<const double> totals = s.trace.totals;
  for (uint32_t i = 0; i < totals.size(); ++i) {
    if (count == best.size() && !(totals[best[count - 1]] < totals[i])) continue;
    if (std::ranges::find(chosen, i) != chosen.end()) continue;
    size_t at = count < best.size() ? count++ : count - 1;
    for (; at > chosen.size() && totals[best[at - 1]] < totals[i]; --at) best[at] = best[at - 1];
    best[at] = i;
  }
  return count;
}

void RecordCandidateAt(const SessionState& s, uint32_t place,
                       const plugin::PrefixCacheMatchInfo* prefix, RecordCandidate* out) {
  const fleet::View& view = s.core.view;
  const EndpointNumber n = s.trace.scored[place];
  out->endpoint = n;
  out->endpoint_generation = static_cast<uint32_t>(s.pin.endpoint(n).generation);
  out->score = static_cast<float>(s.trace.totals[place]);
  for (size_t i = 0; i < s.record.scorer_count; ++i) {
    out->scores[i] = static_cast<float>(s.trace.scorers[i].scores[place]);
  }
  out->waiting = view.waiting()[n];
  out->running = view.running()[n];
  out->kv_usage = view.kv_usage()[n];
  out->in_flight = static_cast<int32_t>(view.counter(fleet::kRequestsInFlight)[n]);
  const base::TimePoint reported = view.reported_at()[n];
  if (reported != base::TimePoint{}) {
    const int64_t age = (s.context.now - reported) / std::chrono::milliseconds(1);
    out->load_age_ms = static_cast<int32_t>(std::clamp<int64_t>(age, 0, INT32_MAX));
  }
  if (prefix && n < prefix->matched_blocks.size()) {
    out->matched_blocks = prefix->matched_blocks[n];
  }
}

// Of the first bytes of the prompt: equal for requests that share a system prompt.
uint64_t PrefixHash(const protocol::Request& request) {
  constexpr size_t kHashedBytes = 256;
  uint64_t hash = 0;
  size_t left = kHashedBytes;
  for (const protocol::Piece& piece : request.pieces) {
    if (left == 0) break;
    if (piece.kind == protocol::PieceKind::kRole) continue;
    const std::string_view bytes = piece.bytes.substr(0, left);
    hash = base::Mix64(hash, base::Hash64(bytes));
    left -= bytes.size();
  }
  return hash;
}

void RecordDecision(SessionState& s) {
  DecisionRecord& r = s.record;
  const auto* prefix = s.context.attributes.Get(s.generation().prefix_slot());
  const auto* tokens = s.context.attributes.Get(s.generation().tokens_slot());
  r.total_blocks = prefix ? prefix->total_blocks : 0;
  r.match_source = static_cast<uint8_t>(prefix ? prefix->source : plugin::MatchSource::kNone);
  const uint64_t estimate = tokens ? tokens->token_count : s.request.text_bytes / 4;
  r.prompt_tokens_estimated = static_cast<uint32_t>(std::min<uint64_t>(estimate, UINT32_MAX));
  r.prefix_hash = PrefixHash(s.request);
  r.candidate_count = static_cast<uint16_t>(s.trace.scored.size());
  r.scorer_count =
      static_cast<uint8_t>(std::min<size_t>(s.trace.scorers.size(), kRecordScorersMax));
  for (size_t i = 0; i < r.scorer_count; ++i) r.scorer_plugins[i] = s.trace.scorers[i].plugin;
  uint32_t best[kRecordCandidatesMax];
  r.shown = static_cast<uint8_t>(BestCandidates(s, best));
  for (size_t i = 0; i < r.shown; ++i) RecordCandidateAt(s, best[i], prefix, &r.candidates[i]);
  if (prefix) {
    uint32_t longest = 0;
    for (const uint32_t blocks : prefix->matched_blocks) longest = std::max(longest, blocks);
    s.hold->OnPrefixLookup(*prefix, longest);
  }
}

StageResult Schedule(SessionState& s) {
  const Generation& g = s.generation();
  const base::TimePoint begin = s.trace.border;
  auto result = scheduling::Schedule(g.handler(), g.profiles(), s.context, s.candidates,
                                     s.core.options.endpoints_wanted, &s.trace);
  if (s.core.options.clock) {
    s.core.scheduler_seconds.Observe(s.writer(), base::ToSeconds(s.trace.border - begin));
  }
  if (!result) {
    s.core.CountAttempt(s.context.target_model, nullptr);
    return ReplyTo(s, result.error());
  }
  s.profiles = s.arena->NewSpan<plugin::ProfileResult>(result->profiles.size());
  std::copy(result->profiles.begin(), result->profiles.end(), s.profiles.begin());
  s.primary = result->primary;
  s.endpoints = s.arena->NewSpan<plugin::ScoredCandidate>(result->endpoints().size());
  std::copy(result->endpoints().begin(), result->endpoints().end(), s.endpoints.begin());
  s.core.CountAttempt(s.context.target_model, &s.pin.endpoint(s.endpoints[0].endpoint));
  RecordDecision(s);
  return {};
}

// A speculative request: only for an endpoint that has worked on this prompt before.
StageResult RequireCachedPrefix(SessionState& s) {
  if (!s.if_available) return {};
  const auto* prefix = s.context.attributes.Get(s.generation().prefix_slot());
  const EndpointNumber chosen = s.endpoints[0].endpoint;
  if (prefix && chosen < prefix->matched_blocks.size() && prefix->matched_blocks[chosen] > 0) {
    return {};
  }
  return MakeReply(s, 412, "no decode worker has the requested KV cache");
}

StageResult Prepare(SessionState& s) {
  s.headers_before_route = s.context.to_engine.size();
  if (const base::Status booked = BookRoute(s); !booked.ok()) return ReplyTo(s, booked);
  return {};
}

constexpr StageResult (*kStages[])(SessionState&) = {
    Parse,           // Now the body is read; the model is known where the API has one.
    Rewrite,         // Now the target model is final and the body's edit is planned.
    Objective,       // Now the priority is final.
    Identify,        // Now the head was read, and the fairness id is final.
    FindCandidates,  // Now the fleet is pinned and `candidates` are those who may get the request.
    Admit,           // Now the pool has room for a request of this priority.
    Produce,         // Now every attribute is there, or missing for good.
    Schedule,        // Now `endpoints` is the choice and its fallbacks, and the record shows why.
    RequireCachedPrefix,  // Now the choice has what the client insists on.
    Prepare,         // Now the endpoint is booked: from here on every end has to take back.
};

Decision Wait(SessionState& s) {
  s.phase = Phase::kWaiting;
  return {.kind = Decision::Kind::kWait,
          .forward = {},
          .reply = {},
          .wait_until = s.context.wait_until,
          .ask = s.context.asked && s.context.asked->Begin() ? s.context.asked : nullptr};
}

}  // namespace

telemetry::ErrorCode ErrorCodeOf(int http_status) {
  switch (http_status) {
    case 400: case 413: return telemetry::ErrorCode::kBadRequest;
    case 401: return telemetry::ErrorCode::kUnauthorized;
    case 403: return telemetry::ErrorCode::kForbidden;
    case 404: return telemetry::ErrorCode::kNotFound;
    case 412: return telemetry::ErrorCode::kPreconditionFailed;
    case 429: return telemetry::ErrorCode::kResourceExhausted;
    case 500: return telemetry::ErrorCode::kInternal;
    case 502: case 503: case 504: return telemetry::ErrorCode::kServiceUnavailable;
    default: return telemetry::ErrorCode::kUnknown;
  }
}

Decision Decide(SessionState& s, base::TimePoint begin) {
  s.trace = {.clock = s.core.options.clock,
             .sink = s.hold,
             .handler_plugin = s.generation().handler_plugin(),
             .border = begin,
             .keep_scores = true,
             .keep_runs = s.spans != nullptr};
  for (; s.stage < std::size(kStages); ++s.stage) {
    if (const StageResult reply = kStages[s.stage](s)) return Refuse(s, *reply);
    if (s.context.wait_until != base::TimePoint{}) return Wait(s);
  }
  const telemetry::RequestSeries& series = Series(s);
  series.total.Add(s.writer());
  series.running.Add(s.writer(), 1);
  s.running_counted = true;
  series.request_bytes.Observe(s.writer(), static_cast<double>(s.body_bytes));
  return Send(s);
}

void AbandonWait(SessionState& s) {
  if (s.give_up_at == base::TimePoint{}) return;
  s.generation().producers()[s.producer].producer->Abandon(s.context);
  s.context.wait_until = s.give_up_at = {};
  DropAsked(s);
}

Decision Send(SessionState& s) {
  s.phase = Phase::kForwarded;
  s.record.attempts = static_cast<uint8_t>(std::min(s.record.attempts + 1, 255));
  s.record.endpoint = s.endpoints[0].endpoint;
  s.record.endpoint_generation =
      static_cast<uint32_t>(s.pin.endpoint(s.endpoints[0].endpoint).generation);
  return {.kind = Decision::Kind::kForward,
          .forward = {.endpoints = s.endpoints,
                      .splice = s.splice,
                      .set_headers = s.context.to_engine.headers(),
                      .scored = s.profiles[s.primary].scored},
          .reply = {},
          .wait_until = {},
          .ask = {}};
}

Decision Refuse(SessionState& s, const Reply& reply) {
  s.phase = Phase::kReplied;
  s.status = reply.http_status;
  if (s.spans) s.spans->refusal = reply.message;
  return {.kind = Decision::Kind::kReply, .forward = {}, .reply = reply};
}

Reply MakeReply(SessionState& s, int http_status, std::string_view message,
                std::string_view dropped_reason, uint32_t retry_after_seconds) {
  return {.http_status = http_status,
          .message = message,
          .error_type = protocol::ErrorTypeOf(http_status),
          .dropped_reason = dropped_reason,
          .retry_after_seconds = retry_after_seconds};
}

Reply ReplyTo(SessionState& s, const base::Status& status) {
  const protocol::ErrorMapping& mapping = protocol::ErrorMappingOf(status.code());
  Reply reply = MakeReply(s, mapping.http_status, s.arena->Copy(status.message()),
                          mapping.dropped_reason);
  if (status.code() == base::StatusCode::kResourceExhausted) {
    reply.dropped_reason = protocol::kRejectedSaturated;
    reply.retry_after_seconds = kRetryAfterSaturatedSeconds;
  } else if (status.code() == base::StatusCode::kUnavailable) {
    reply.dropped_reason = protocol::kRejectedNoEndpoints;
    reply.retry_after_seconds = kRetryAfterNoEndpointsSeconds;
  }
  return reply;
}

const telemetry::RequestSeries& Series(SessionState& s) {
  if (!s.series) {
    s.series = s.core.series.Find({.model = s.context.incoming_model,
                                   .target_model = s.context.target_model,
                                   .fairness_id = s.context.fairness_id.empty()
                                                      ? kDefaultFairnessId  // refused early
                                                      : s.context.fairness_id,
                                   .priority = s.context.priority});
  }
  return *s.series;
}

base::Status BookRoute(SessionState& s) {
  s.bookings.Clear();
  s.bookings.Add({.counter = fleet::kRequestsInFlight,
                  .endpoint = s.endpoints[0].endpoint,
                  .amount = 1});
  s.profiles[s.primary].endpoints = s.endpoints;
  s.context.to_engine.Truncate(s.headers_before_route);
  s.routed = true;
  const plugin::SchedulingResult result{.profiles = s.profiles, .primary = s.primary};
  scheduling::Stages stages(&s.trace);
  stages.Skip();
  base::Status failed;
  size_t failures = 0;
  for (const PreRequestStep& step : s.generation().pre_requests()) {
    base::Status done = stages(ExtensionPoint::kPreRequest, step.plugin, [&] {
      return step.hook->OnRouted(s.context, result, &s.bookings);
    });
    if (done.ok()) continue;
    // One failure keeps its code; several have none in common.
    failed = ++failures == 1 ? std::move(done)
                             : base::Internal(base::Concat(failed.message(), "; ", done.message()));
  }
  if (failures > 0) {
    s.bookings.Clear();
    return failed;
  }
  for (const plugin::Booking& b : s.bookings.items()) Book(s, b, b.amount);
  return base::OkStatus();
}

void Book(SessionState& s, const plugin::Booking& booking, int64_t amount) {
  s.core.view.Book(booking.counter, booking.endpoint, amount);
  if (!booking.tally) return;
  // One writer: no locked instruction.
  booking.tally->store(booking.tally->load(std::memory_order_relaxed) + amount,
                       std::memory_order_relaxed);
}

void Unbook(SessionState& s) {
  for (const plugin::Booking& b : s.bookings.items()) {
    if (b.amount != 0) Book(s, b, -b.amount);
  }
  s.bookings.Clear();
}

}  // namespace llmd::director
