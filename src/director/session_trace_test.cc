// What a sampled request leaves behind, and what the engine is told.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/strings.h"
#include "director/director_testing.h"
#include "telemetry/trace.h"
#include "wire/protobuf.h"

namespace llmd::director {
namespace {

using std::chrono::milliseconds;
using telemetry::TraceContext;
using telemetry::Tracer;
using telemetry::TraceSampler;
using testing::Bed;
using testing::Bugs;
using testing::Decide;
using testing::kChat;
using testing::kChatPath;
using testing::Post;
using testing::TestKnobs;
using ::testing::ElementsAre;
using wire::ProtoField;
using wire::ProtoReader;

constexpr std::string_view kSampledParent =
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
constexpr std::string_view kUnsampledParent =
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

struct Span {
  std::string trace, id, parent, state, name, error;
  uint64_t kind = 0, start = 0, end = 0;
  bool failed = false;
  std::map<std::string, std::string> attributes;
};

std::string ValueText(std::string_view any) {
  std::string text;
  ProtoReader in(any);
  for (ProtoField f; in.Next(&f);) {
    if (f.number == 1) text = std::string(f.bytes);
    if (f.number == 3) text = std::to_string(f.value);
    if (f.number == 4) text = std::to_string(f.number64());
    if (f.number != 5) continue;
    ProtoReader list(f.bytes);
    for (ProtoField v; list.Next(&v);) text += ValueText(v.bytes) + ";";
  }
  return text;
}

Span ReadSpan(std::string_view bytes) {
  Span span;
  ProtoReader in(bytes);
  for (ProtoField f; in.Next(&f);) {
    switch (f.number) {
      case 1: span.trace = f.bytes; break;
      case 2: span.id = f.bytes; break;
      case 3: span.state = f.bytes; break;
      case 4: span.parent = f.bytes; break;
      case 5: span.name = f.bytes; break;
      case 6: span.kind = f.value; break;
      case 7: span.start = f.value; break;
      case 8: span.end = f.value; break;
      case 9: {
        ProtoReader pair(f.bytes);
        ProtoField key, value;
        pair.Next(&key);
        pair.Next(&value);
        span.attributes[std::string(key.bytes)] = ValueText(value.bytes);
        break;
      }
      case 15: {
        span.failed = true;
        ProtoReader status(f.bytes);
        for (ProtoField s; status.Next(&s);) {
          if (s.number == 2) span.error = s.bytes;
        }
        break;
      }
      default: ADD_FAILURE() << "field " << f.number;
    }
  }
  EXPECT_EQ(in.error(), wire::ProtoError::kNone);
  return span;
}

// Every span that waits, by name.
std::map<std::string, Span> TakeSpans(Tracer& tracer) {
  std::map<std::string, Span> spans;
  size_t count = 0;
  const Tracer::Batch batch = tracer.Take(1000);
  for (const std::string& bytes : batch.spans) {
    ProtoReader in(bytes);
    for (ProtoField f; in.Next(&f); ++count) {
      Span span = ReadSpan(f.bytes);
      EXPECT_TRUE(spans.emplace(span.name, span).second) << span.name << " twice";
    }
  }
  EXPECT_EQ(count, batch.count);
  return spans;
}

std::string Bytes(uint64_t value) {
  std::string bytes;
  for (int i = 56; i >= 0; i -= 8) bytes += static_cast<char>(value >> i);
  return bytes;
}

std::optional<std::string> HeaderOf(const Decision& decision, std::string_view name) {
  for (const plugin::Header& h : decision.forward.set_headers) {
    if (base::EqualsIgnoreCase(h.name, name)) return std::string(h.value);
  }
  return std::nullopt;
}

// Every reading is a microsecond later.
base::TimePoint Tick() {
  static base::TimePoint now{std::chrono::hours(5)};
  return now += std::chrono::microseconds(1);
}
constexpr int64_t kWall = 1'700'000'000'000'000'000;
int64_t WallClock() { return kWall; }

struct TracedBed {
  explicit TracedBed(double ratio, size_t endpoints = 3)
      : tracer({.sampler = TraceSampler::Ratio(ratio, true)}),
        bed(endpoints, {.clock = Tick, .wall_clock_ns = WallClock, .tracer = &tracer}) {}
  Tracer tracer;
  Bed bed;
};

// The tour: the tree of a sampled chat, and the context that its engine gets.
TEST(SessionTrace, ASampledChatIsATree) {
  TracedBed t(0);
  const plugin::Header headers[] = {{"TraceParent", kSampledParent}, {"tracestate", "a=1,b=2"}};
  Session session(t.bed.director(), 7, t.bed.now);
  const Decision decision = Decide(session, t.bed, kChat, Post(kChatPath, headers));
  ASSERT_EQ(decision.kind, Decision::Kind::kForward);
  const auto context =
      telemetry::ParseTraceparent(HeaderOf(decision, "traceparent").value_or(""));
  ASSERT_TRUE(context);
  EXPECT_EQ(HeaderOf(decision, "tracestate"), std::nullopt) << "the client's own passes";
  session.OnResponseHead({.status = 200}, t.bed.now + milliseconds(10));
  session.OnResponseBody(R"({"usage":{"prompt_tokens":9,"completion_tokens":5}})",
                         t.bed.now + milliseconds(20));
  session.OnDone(50, t.bed.now + milliseconds(30));

  auto spans = TakeSpans(t.tracer);
  const Span& root = spans["gateway.request"];
  EXPECT_EQ(root.trace, Bytes(0x0af7651916cd43dd) + Bytes(0x8448eb211c80319c));
  EXPECT_EQ(root.parent, Bytes(0xb7ad6b7169203331));
  EXPECT_EQ(root.id, Bytes(context->span_id)) << "the engine is a child of our span";
  EXPECT_EQ(context->trace_low, 0x8448eb211c80319cu);
  EXPECT_TRUE(context->sampled());
  EXPECT_EQ(root.state, "a=1,b=2");
  EXPECT_EQ(root.kind, 2u);
  EXPECT_EQ(root.start, uint64_t{kWall});
  EXPECT_EQ(root.end, uint64_t{kWall + 30'000'000});
  EXPECT_FALSE(root.failed);

  const std::pair<std::string_view, std::string_view> kTree[] = {
      {"gateway.request_orchestration", "gateway.request"},
      {"run_scheduler_profile", "gateway.request_orchestration"},
      {"filter_endpoints", "run_scheduler_profile"},
      {"llm_d.epp.scoring", "run_scheduler_profile"},
      {"llm_d.epp.scorer.queue-scorer", "llm_d.epp.scoring"},
      {"llm_d.epp.scorer.prefix-cache-scorer", "llm_d.epp.scoring"},
      {"pick_endpoints", "run_scheduler_profile"},
  };
  for (const auto& [name, parent] : kTree) {
    ASSERT_TRUE(spans.contains(std::string(name))) << name;
    const Span& span = spans[std::string(name)];
    const Span& above = spans[std::string(parent)];
    EXPECT_EQ(span.parent, above.id) << name;
    EXPECT_EQ(span.trace, root.trace) << name;
    EXPECT_LE(above.start, span.start) << name;
    EXPECT_LE(span.end, above.end) << name;
    EXPECT_LE(span.start, span.end) << name;
  }
  EXPECT_EQ(spans.size(), std::size(kTree) + 1);
  EXPECT_LE(spans["filter_endpoints"].end, spans["llm_d.epp.scoring"].start);
  EXPECT_LT(spans["llm_d.epp.scorer.queue-scorer"].start,
            spans["llm_d.epp.scorer.queue-scorer"].end);
  EXPECT_LE(spans["llm_d.epp.scoring"].end, spans["pick_endpoints"].start);
}

TEST(SessionTrace, TheAttributesAreUpstreams) {
  TracedBed t(1);
  Session session(t.bed.director(), 7, t.bed.now);
  const Decision decision = Decide(session, t.bed);
  ASSERT_EQ(decision.kind, Decision::Kind::kForward);
  session.OnResponseHead({.status = 200}, t.bed.now);
  session.OnResponseBody(R"({"usage":{"prompt_tokens":9,"completion_tokens":5}})", t.bed.now);
  session.OnDone(50, t.bed.now);
  auto spans = TakeSpans(t.tracer);
  EXPECT_EQ(spans["gateway.request"].parent, "") << "nobody called: a trace of our own";
  using Attributes = std::map<std::string, std::string>;
  const std::string id(session.context().request_id);
  EXPECT_EQ(spans["gateway.request"].attributes,
            (Attributes{{"gen_ai.request.model", "llama"},
                        {"gen_ai.request.id", id},
                        {"http.response.status_code", "200"},
                        {"gen_ai.usage.input_tokens", "9"},
                        {"gen_ai.usage.output_tokens", "5"}}));
  EXPECT_EQ(spans["gateway.request_orchestration"].attributes,
            (Attributes{{"target_model", "llama"}, {"request_prio", "0"}}));
  EXPECT_EQ(spans["run_scheduler_profile"].attributes,
            (Attributes{{"llm_d.epp.scheduling.profile.name", "default"}}));
  EXPECT_EQ(spans["filter_endpoints"].attributes,
            (Attributes{{"llm_d.epp.filter.candidate_endpoints", "3"},
                        {"llm_d.epp.filter.filtered_endpoints", "3"},
                        {"gen_ai.request.model", "llama"},
                        {"gen_ai.request.id", id}}));
  EXPECT_EQ(spans["llm_d.epp.scoring"].attributes,
            (Attributes{{"llm_d.epp.scorer.count", "2"},
                        {"llm_d.epp.scoring.candidate_endpoints", "3"},
                        {"gen_ai.request.model", "llama"},
                        {"gen_ai.request.id", id}}));
  // The prompt's tokens say which one of three endpoints holds all of it.
  EXPECT_EQ(spans["llm_d.epp.scorer.prefix-cache-scorer"].attributes,
            (Attributes{{"llm_d.epp.scorer.type", "prefix-cache-scorer"},
                        {"llm_d.epp.scorer.name", "prefix-cache-scorer"},
                        {"llm_d.epp.scorer.weight", "3.000000"},
                        {"llm_d.epp.scorer.candidate_endpoints", "3"},
                        {"llm_d.epp.scorer.score.max", "1.000000"},
                        {"llm_d.epp.scorer.score.avg", "0.333333"},
                        {"llm_d.epp.scorer.endpoints_scored", "3"}}));
  Attributes& pick = spans["pick_endpoints"].attributes;
  EXPECT_EQ(pick["llm_d.epp.picker.candidate_endpoints"], "3");
  EXPECT_EQ(pick["llm_d.epp.picker.top_scores"], "5.000000;2.000000;2.000000;");
  const std::string best = "default/e" + std::to_string(decision.forward.endpoints[0].endpoint);
  EXPECT_TRUE(pick["llm_d.epp.picker.top_endpoints"].starts_with(best + ";"))
      << pick["llm_d.epp.picker.top_endpoints"];
}

TEST(SessionTrace, WhatTheEngineGetsAndWhetherSpansAreMade) {
  enum class Engine { kNothing, kSampledChild, kUnsampledChild, kNewSampled, kNewUnsampled };
  const struct {
    double ratio;
    bool parent_based;
    std::vector<plugin::Header> headers;
    Engine engine;
  } cases[] = {
      {1, true, {}, Engine::kNewSampled},
      {0, true, {}, Engine::kNewUnsampled},
      {0, true, {{"traceparent", kSampledParent}}, Engine::kSampledChild},
      {1, true, {{"traceparent", kUnsampledParent}}, Engine::kNothing},
      {1, false, {{"traceparent", kUnsampledParent}}, Engine::kSampledChild},
      {0, false, {{"traceparent", kSampledParent}}, Engine::kUnsampledChild},
      {1, true, {{"traceparent", "nonsense"}}, Engine::kNewSampled},
      {1, true, {{"traceparent", ""}}, Engine::kNewSampled},
      {0, true, {{"traceparent", kSampledParent}, {"traceparent", kSampledParent}},
       Engine::kNewUnsampled},
      {0, true, {{"tracestate", "a=1"}, {"baggage", "k=v"}}, Engine::kNewUnsampled},
  };
  for (size_t i = 0; i < std::size(cases); ++i) {
    const auto& c = cases[i];
    Tracer tracer({.sampler = TraceSampler::Ratio(c.ratio, c.parent_based)});
    Bed bed(2, {.tracer = &tracer});
    Session session(bed.director(), i, bed.now);
    const Decision decision = Decide(session, bed, kChat, Post(kChatPath, c.headers));
    ASSERT_EQ(decision.kind, Decision::Kind::kForward) << i;
    const auto header = HeaderOf(decision, "traceparent");
    EXPECT_EQ(header.has_value(), c.engine != Engine::kNothing) << i;
    const bool child = c.engine == Engine::kSampledChild || c.engine == Engine::kUnsampledChild;
    const bool sampled = c.engine == Engine::kSampledChild || c.engine == Engine::kNewSampled;
    if (header) {
      const auto context = telemetry::ParseTraceparent(*header);
      ASSERT_TRUE(context) << *header;
      EXPECT_EQ(context->sampled(), sampled) << i;
      EXPECT_EQ(context->trace_high == 0x0af7651916cd43dd, child) << i;
      EXPECT_NE(context->span_id, 0xb7ad6b7169203331u) << i;
    }
    for (const auto name : {"tracestate", "baggage"}) EXPECT_FALSE(HeaderOf(decision, name)) << i;
    session.OnAborted(Termination::kClientDisconnect, 0, bed.now);
    EXPECT_EQ(TakeSpans(tracer).contains("gateway.request"), sampled) << i;
  }
}

TEST(SessionTrace, WithoutATracerNothingIsTouched) {
  Bed bed(2);
  const plugin::Header headers[] = {{"traceparent", kSampledParent}};
  Session session(bed.director(), 1, bed.now);
  const Decision decision = Decide(session, bed, kChat, Post(kChatPath, headers));
  EXPECT_TRUE(decision.forward.set_headers.empty());
  session.OnAborted(Termination::kClientDisconnect, 0, bed.now);
}

TEST(SessionTrace, TracingChangesNoPick) {
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    std::vector<fleet::EndpointNumber> picks;
    for (const double ratio : {-1.0, 0.0, 1.0}) {
      Tracer tracer({.sampler = TraceSampler::Ratio(ratio, true)});
      Bed bed(8, {.tracer = ratio < 0 ? nullptr : &tracer});
      Session session(bed.director(), seed, bed.now);
      picks.push_back(Decide(session, bed).forward.endpoints[1].endpoint);
      session.OnAborted(Termination::kClientDisconnect, 0, bed.now);
    }
    EXPECT_THAT(picks, ElementsAre(picks[0], picks[0], picks[0])) << seed;
  }
}

TEST(SessionTrace, ARetryKeepsTheContext) {
  TracedBed t(1);
  Session session(t.bed.director(), 7, t.bed.now);
  const auto first = HeaderOf(Decide(session, t.bed), "traceparent");
  const Decision second =
      session.OnUpstreamFailed(UpstreamFailure::kConnect, 0, true, t.bed.now);
  ASSERT_EQ(second.kind, Decision::Kind::kForward);
  EXPECT_EQ(HeaderOf(second, "traceparent"), first);
  session.OnResponseHead({.status = 200}, t.bed.now);
  session.OnDone(0, t.bed.now);
  EXPECT_EQ(TakeSpans(t.tracer).size(), 8u);
}

TEST(SessionTrace, HowRequestsEnd) {
  const struct {
    std::string_view what;
    std::string_view error;           // of gateway.request; "": it went well
    std::string_view decision_error;  // of the orchestration
    size_t spans;
  } cases[] = {
      {"bad body", "*", "*", 2},
      {"refused", "refused", "refused", 8},
      {"no endpoints", "failed to find endpoint candidates for serving the request",
       "failed to find endpoint candidates for serving the request", 2},
      {"engine error", "the model server answered 503", "", 8},
      {"client gone", "", "", 8},
      {"client gone before the body", "", "", 1},
      {"evicted", "evicted", "", 8},
      {"died", "aborted", "", 8},
      {"out of retries", "the model server did not answer in time", "", 8},
  };
  for (const auto& c : cases) {
    TracedBed t(1, c.what == "no endpoints" ? 0 : 3);
    const base::TimePoint now = t.bed.now;
    TestKnobs().refuse = c.what == "refused" ? 14 : 0;
    Session session(t.bed.director(), 7, now);
    if (c.what == "client gone before the body") {
      session.OnHead(Post(), now);
      session.OnAborted(Termination::kClientDisconnect, 0, now);
    } else {
      const Decision decision = Decide(session, t.bed, c.what == "bad body" ? "{" : kChat);
      if (decision.kind == Decision::Kind::kReply) {
        session.OnDone(0, now);
      } else if (c.what == "engine error") {
        session.OnResponseHead({.status = 503}, now);
        session.OnDone(0, now);
      } else if (c.what == "client gone") {
        session.OnAborted(Termination::kClientDisconnect, 0, now);
      } else if (c.what == "evicted") {
        session.OnAborted(Termination::kEvicted, 0, now);
      } else if (c.what == "died") {
        session.OnResponseHead({.status = 200}, now);
        session.OnAborted(Termination::kError, 0, now);
      } else {
        session.OnUpstreamFailed(UpstreamFailure::kTimeout, 0, true, now);
        session.OnDone(0, now);
      }
    }
    TestKnobs().refuse = 0;
    auto spans = TakeSpans(t.tracer);
    EXPECT_EQ(spans.size(), c.spans) << c.what;
    const Span& root = spans["gateway.request"];
    EXPECT_EQ(root.failed, !c.error.empty()) << c.what << ": " << root.error;
    if (c.error != "*") {
      EXPECT_EQ(root.error, c.error) << c.what;
    }
    if (c.spans == 1) continue;
    const Span& decision = spans["gateway.request_orchestration"];
    EXPECT_EQ(decision.failed, !c.decision_error.empty()) << c.what << ": " << decision.error;
    if (c.decision_error != "*") {
      EXPECT_EQ(decision.error, c.decision_error) << c.what;
    }
  }
}

// A full queue costs spans, never a request.
TEST(SessionTrace, AFullQueueDropsAndCounts) {
  Tracer tracer({.sampler = TraceSampler::Ratio(1, true), .queue_spans_max = 20});
  Bed bed(2, {.tracer = &tracer});
  for (uint64_t i = 0; i < 5; ++i) {
    Session session(bed.director(), i, bed.now);
    ASSERT_EQ(Decide(session, bed).kind, Decision::Kind::kForward);
    session.OnAborted(Termination::kClientDisconnect, 0, bed.now);
  }
  EXPECT_EQ(tracer.Take(1000).count, 16u);
  EXPECT_EQ(tracer.stats().dropped, 24u);
}

}  // namespace
}  // namespace llmd::director
