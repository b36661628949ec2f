// The spans of a request: upstream's names and attributes (llm-d-router: pkg/epp/handlers,
// pkg/epp/requestcontrol, pkg/epp/scheduling), made at its end out of what the decision noted.
//
//   gateway.request                        from the head to the end; the engine's parent
//     gateway.request_orchestration        the decision, waiting included
//       run_scheduler_profile              one per profile that ran
//         filter_endpoints
//         llm_d.epp.scoring
//           llm_d.epp.scorer.<type>        one per scorer
//         pick_endpoints
#include <algorithm>
#include <array>
#include <string>

#include "base/check.h"
#include "base/strings.h"
#include "director/session_state.h"
#include "wire/otlp.h"

namespace llmd::director {
namespace {

using base::TimePoint;
using telemetry::TraceContext;
using wire::OtlpAttribute;
using wire::OtlpKind;
using wire::OtlpSpan;

constexpr size_t kTopEndpointsMax = 5;

// The W3C headers as the client sent them. Two parents are as good as none.
struct CallerHeaders {
  explicit CallerHeaders(std::span<const plugin::Header> headers) {
    size_t parents = 0;
    for (const plugin::Header& h : headers) {
      if (h.name.size() < 10 || (h.name[0] | 0x20) != 't') continue;
      if (base::EqualsIgnoreCase(h.name, "traceparent")) {
        parent = ++parents == 1 ? h.value : std::string_view();
      } else if (state.empty() && base::EqualsIgnoreCase(h.name, "tracestate")) {
        state = h.value;
      }
    }
  }
  std::string_view parent, state;
};

uint64_t NewId(base::Random& ids) {
  while (true) {
    if (const uint64_t id = ids.Next()) return id;
  }
}

int64_t WallNow(const SessionState& s) {
  if (s.core.options.wall_clock_ns) return s.core.options.wall_clock_ns();
  return (s.context.now - s.context.received_at).count();
}

class AttributeList {
 public:
  template <class T>
  AttributeList& Add(std::string_view key, T value) {
    LLMD_DCHECK(size_ < items_.size(), "a span has few attributes");
    if (size_ < items_.size()) items_[size_++] = {key, value};
    return *this;
  }
  AttributeList& AddCount(std::string_view key, size_t count) {
    return Add(key, static_cast<int64_t>(count));
  }
  AttributeList& AddRequest(const SessionState& s) {
    if (!s.context.target_model.empty()) Add("gen_ai.request.model", s.context.target_model);
    if (!s.context.request_id.empty()) Add("gen_ai.request.id", s.context.request_id);
    return *this;
  }
  std::span<const OtlpAttribute> items() const { return {items_.data(), size_}; }

 private:
  std::array<OtlpAttribute, 8> items_;
  size_t size_ = 0;
};

// Encodes the spans of one request.
class SpanEncoder {
 public:
  explicit SpanEncoder(SessionState& s)
      : s_(s), log_(*s.spans), out_(s.core.span_writer->writer) {}

  void Request(plugin::Termination why);
  void Orchestration(uint64_t parent);
  void HandOn() {
    const base::Slice spans = out_.Take();
    s_.core.options.tracer->Push(std::string(spans.view()), count_);
  }

 private:
  void Profile(const scheduling::ProfileTrace& run, uint64_t parent);
  void Filter(const scheduling::ProfileTrace& run, uint64_t parent);
  void Scoring(const scheduling::ProfileTrace& run, uint64_t parent);
  void Scorer(const scheduling::ScorerTrace& scorer, TimePoint begin, uint64_t parent);
  void Pick(const scheduling::ProfileTrace& run, uint64_t parent);

  int64_t Wall(TimePoint t) const { return log_.anchor_ns + (t - log_.anchor).count(); }
  void Write(OtlpSpan span, const AttributeList& attributes) {
    span.trace_high = log_.context.trace_high;
    span.trace_low = log_.context.trace_low;
    span.trace_state = log_.trace_state;
    span.attributes = attributes.items();
    wire::WriteOtlpSpan(span, &out_);
    ++count_;
  }

  SessionState& s_;
  SpanLog& log_;
  wire::ProtoWriter& out_;
  size_t count_ = 0;
};

// What an operator should see in red: our refusals, the engine's errors, broken replies. A client
// that went away is none.
std::string ErrorOf(const SessionState& s, plugin::Termination why) {
  if (why == plugin::Termination::kEvicted) return "evicted";
  if (s.reply_begun && s.status >= 400) {
    return base::Concat("the model server answered ", std::to_string(s.status));
  }
  if (!s.reply_begun && !s.spans->refusal.empty()) return std::string(s.spans->refusal);
  return why == plugin::Termination::kError ? "aborted" : "";
}

void SpanEncoder::Request(plugin::Termination why) {
  AttributeList attributes;
  attributes.AddRequest(s_);
  if (s_.status != 0) attributes.AddCount("http.response.status_code", size_t(s_.status));
  if (s_.fields.usage.present) {
    attributes.Add("gen_ai.usage.input_tokens", int64_t{s_.fields.usage.prompt_tokens})
        .Add("gen_ai.usage.output_tokens", int64_t{s_.fields.usage.completion_tokens});
  }
  const int64_t begin = s_.record.received_unix_ns;
  const int64_t end = begin + (s_.context.now - s_.context.received_at).count();
  const std::string error = ErrorOf(s_, why);
  // The event's time may be older than the decision that it led to.
  Write({.span_id = log_.context.span_id,
         .parent_id = log_.parent_id,
         .name = "gateway.request",
         .kind = OtlpKind::kServer,
         .start_unix_ns = begin,
         .end_unix_ns = std::max(end, log_.decision_end_ns),
         .failed = !error.empty(),
         .error = error},
        attributes);
}

void SpanEncoder::Orchestration(uint64_t parent) {
  const uint64_t id = NewId(log_.ids);
  for (const scheduling::ProfileTrace& run : s_.trace.runs) Profile(run, id);
  AttributeList attributes;
  attributes.Add("target_model", s_.context.target_model)
      .Add("request_prio", int64_t{s_.context.priority});
  Write({.span_id = id,
         .parent_id = parent,
         .name = "gateway.request_orchestration",
         .kind = OtlpKind::kServer,
         .start_unix_ns = log_.decision_begin_ns,
         .end_unix_ns = log_.decision_end_ns,
         .failed = log_.decision_failed,
         .error = log_.decision_failed ? log_.refusal : ""},
        attributes);
}

void SpanEncoder::Profile(const scheduling::ProfileTrace& run, uint64_t parent) {
  const uint64_t id = NewId(log_.ids);
  Filter(run, id);
  if (run.left > 0) {
    Scoring(run, id);
    Pick(run, id);
  }
  AttributeList attributes;
  attributes.Add("llm_d.epp.scheduling.profile.name", run.profile);
  Write({.span_id = id,
         .parent_id = parent,
         .name = "run_scheduler_profile",
         .start_unix_ns = Wall(run.begin),
         .end_unix_ns = Wall(run.picked)},
        attributes);
}

void SpanEncoder::Filter(const scheduling::ProfileTrace& run, uint64_t parent) {
  AttributeList attributes;
  attributes.AddCount("llm_d.epp.filter.candidate_endpoints", run.candidates)
      .AddCount("llm_d.epp.filter.filtered_endpoints", run.left)
      .AddRequest(s_);
  Write({.span_id = NewId(log_.ids),
         .parent_id = parent,
         .name = "filter_endpoints",
         .start_unix_ns = Wall(run.begin),
         .end_unix_ns = Wall(run.filtered)},
        attributes);
}

void SpanEncoder::Scoring(const scheduling::ProfileTrace& run, uint64_t parent) {
  const uint64_t id = NewId(log_.ids);
  TimePoint begin = run.filtered;
  for (const scheduling::ScorerTrace& scorer : run.scorers) {
    Scorer(scorer, begin, id);
    begin = scorer.end;
  }
  AttributeList attributes;
  attributes.AddCount("llm_d.epp.scorer.count", run.scorers.size())
      .AddCount("llm_d.epp.scoring.candidate_endpoints", run.left)
      .AddRequest(s_);
  Write({.span_id = id,
         .parent_id = parent,
         .name = "llm_d.epp.scoring",
         .start_unix_ns = Wall(run.filtered),
         .end_unix_ns = Wall(run.scored)},
        attributes);
}

void SpanEncoder::Scorer(const scheduling::ScorerTrace& scorer, TimePoint begin, uint64_t parent) {
  const plugin::Plugin& plugin = *s_.generation().plugins()[scorer.plugin].object;
  double best = scorer.scores.empty() ? 0 : scorer.scores[0], sum = 0;
  for (const double score : scorer.scores) {
    best = std::max(best, score);
    sum += score;
  }
  const size_t count = scorer.scores.size();
  AttributeList attributes;
  attributes.Add("llm_d.epp.scorer.type", std::string_view(plugin.type()))
      .Add("llm_d.epp.scorer.name", std::string_view(plugin.name()))
      .Add("llm_d.epp.scorer.weight", scorer.weight)
      .AddCount("llm_d.epp.scorer.candidate_endpoints", count)
      .Add("llm_d.epp.scorer.score.max", best)
      .Add("llm_d.epp.scorer.score.avg", count == 0 ? 0 : sum / static_cast<double>(count))
      .AddCount("llm_d.epp.scorer.endpoints_scored", count);
  const std::string name = base::Concat("llm_d.epp.scorer.", plugin.type());
  Write({.span_id = NewId(log_.ids),
         .parent_id = parent,
         .name = name,
         .start_unix_ns = Wall(begin),
         .end_unix_ns = Wall(scorer.end)},
        attributes);
}

void SpanEncoder::Pick(const scheduling::ProfileTrace& run, uint64_t parent) {
  const auto name_of = [&](const plugin::ScoredCandidate& c) {
    const fleet::EndpointSpec& spec = s_.pin.endpoint(c.endpoint).spec;
    return base::Concat(spec.name_space, "/", spec.name);
  };
  const auto better = [&](const plugin::ScoredCandidate& a, const plugin::ScoredCandidate& b) {
    return a.score != b.score ? a.score > b.score : name_of(a) < name_of(b);
  };
  std::array<plugin::ScoredCandidate, kTopEndpointsMax> top;
  const auto end = std::partial_sort_copy(run.totals.begin(), run.totals.end(), top.begin(),
                                          top.end(), better);
  const auto count = static_cast<size_t>(end - top.begin());
  std::array<std::string, kTopEndpointsMax> text;
  std::array<std::string_view, kTopEndpointsMax> names;
  std::array<double, kTopEndpointsMax> scores;
  for (size_t i = 0; i < count; ++i) {
    text[i] = name_of(top[i]);
    names[i] = text[i];
    scores[i] = top[i].score;
  }
  AttributeList attributes;
  attributes.AddCount("llm_d.epp.picker.candidate_endpoints", run.left)
      .Add("llm_d.epp.picker.top_endpoints",
           std::span<const std::string_view>(names.data(), count))
      .Add("llm_d.epp.picker.top_scores", std::span<const double>(scores.data(), count))
      .AddRequest(s_);
  Write({.span_id = NewId(log_.ids),
         .parent_id = parent,
         .name = "pick_endpoints",
         .start_unix_ns = Wall(run.ordered),
         .end_unix_ns = Wall(run.picked)},
        attributes);
}

}  // namespace

void BeginTrace(SessionState& s) {
  const CallerHeaders headers(s.context.headers);
  const std::optional<TraceContext> caller = telemetry::ParseTraceparent(headers.parent);
  // A stream of its own, so that tracing changes no pick and a sampled request is like all others.
  constexpr uint64_t kStream = 0x7472616365736565;
  base::Random ids(base::Random(s.context.random).Next() ^ kStream);
  TraceContext context = caller.value_or(TraceContext{});
  if (!caller) {
    context.trace_high = NewId(ids);
    context.trace_low = NewId(ids);
  }
  const bool sampled = s.core.options.tracer->sampler().Samples(caller, context.trace_low);
  // Nobody records anything: what the caller sent passes on as it is.
  if (!sampled && caller && !caller->sampled()) return;
  context.span_id = NewId(ids);
  context.flags = static_cast<uint8_t>((context.flags & ~TraceContext::kSampledFlag) |
                                       (sampled ? TraceContext::kSampledFlag : 0));
  // An engine that is told "not sampled" begins no trace of its own, either.
  const auto header = telemetry::FormatTraceparent(context);
  s.context.SetHeader("traceparent", {header.data(), header.size()});
  if (!sampled) return;
  s.spans = s.arena->New<SpanLog>();
  s.spans->context = context;
  s.spans->ids = ids;
  if (!caller) return;
  s.spans->parent_id = caller->span_id;
  s.spans->trace_state = headers.state;
}

void TraceDecisionBegin(SessionState& s, TimePoint begin) {
  SpanLog& log = *s.spans;
  log.anchor_ns = WallNow(s);
  log.anchor = begin;
  if (!log.decided) log.decision_begin_ns = log.anchor_ns;
  log.decided = true;
}

void TraceDecisionEnd(SessionState& s, TimePoint end) {
  SpanLog& log = *s.spans;
  log.decision_end_ns = log.anchor_ns + (end - log.anchor).count();
  log.decision_failed = s.phase == Phase::kReplied;
}

void EndTrace(SessionState& s, Termination why) {
  SpanEncoder spans(s);
  spans.Request(why);
  if (s.spans->decided) spans.Orchestration(s.spans->context.span_id);
  spans.HandOn();
}

}  // namespace llmd::director
