// What plugins, proxies and objects have to say in a session: rewrites, subsets, waits, headers.
#include "director/session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/check.h"
#include "base/random.h"
#include "base/strings.h"
#include "director/director_testing.h"
#include "telemetry/metrics.h"

namespace llmd::director {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using telemetry::MetricId;
using testing::Bed;
using testing::Bugs;
using testing::Decide;
using testing::kChat;
using testing::kChatPath;
using testing::Post;
using testing::TestKnobs;

const plugin::Header kRewrite[] = {{"x-llm-d-model-name-rewrite", "llama-8b"},
                                   {"x-llm-d-inference-fairness-id", "tenant"}};

constexpr std::string_view kObjects = R"(
apiVersion: llm-d.ai/v1alpha2
kind: InferenceObjective
metadata: {name: batch}
spec: {priority: -7, poolRef: {name: default}}
---
apiVersion: llm-d.ai/v1alpha2
kind: InferenceObjective
metadata: {name: urgent}
spec: {priority: 1, poolRef: {name: default}}
---
apiVersion: llm-d.ai/v1alpha2
kind: InferenceModelRewrite
metadata: {name: alias}
spec:
  poolRef: {name: default}
  rules:
  - matches: [{model: {value: llama}}]
    targets: [{modelRewrite: llama-70b}]
  - matches: [{model: {value: split}}]
    targets: [{modelRewrite: left, weight: 3}, {modelRewrite: right, weight: 1}]
)";
constexpr std::string_view kGenericRule = R"(
apiVersion: llm-d.ai/v1alpha2
kind: InferenceModelRewrite
metadata: {name: everything}
spec: {poolRef: {name: default}, rules: [{targets: [{modelRewrite: any}]}]}
)";

// A bed with an objects file.
struct ObjectsBed : Bed {
  explicit ObjectsBed(std::string_view text = kObjects)
      : Bed(4, {.objects = &SourceOfThis()}) {
    Publish(text);
  }
  static ObjectsSource& SourceOfThis() {
    static ObjectsSource source;
    return source;
  }
  void Publish(std::string_view text) {
    const auto read = ReadObjects(text, "o.yaml", "default");
    ASSERT_TRUE(read.has_value()) << read.error().message();
    SourceOfThis().Publish(*read);
  }
};

TEST(Session, OnlyNegativePrioritiesAreShedBySaturation) {
  for (const auto& [objective, saturation, shed] :
       std::vector<std::tuple<std::string_view, double, bool>>{{"", 5, false},
                                                               {"unknown", 5, false},
                                                               {"urgent", 1, false},
                                                               {"batch", 0.99, false},
                                                               {"batch", 1, true}}) {
    ObjectsBed bed;
    TestKnobs().saturation = saturation;
    Session session(bed.director(), 1, bed.now);
    const plugin::Header headers[] = {{"X-Gateway-Inference-Objective", objective}};
    const Decision d = Decide(session, bed, kChat, Post(kChatPath, headers));
    const int priority = session.record().priority;
    EXPECT_EQ(priority, objective == "batch" ? -7 : objective == "urgent" ? 1 : 0) << objective;
    EXPECT_EQ(d.kind == Decision::Kind::kReply, shed) << priority << " " << saturation;
    if (shed) {
      EXPECT_EQ(d.reply.http_status, 429);
      EXPECT_EQ(d.reply.message, "system saturated, sheddable request dropped");
      EXPECT_EQ(d.reply.dropped_reason, "rejected-saturated");
    }
    session.OnAborted(Termination::kClientDisconnect, 0, bed.now);
    EXPECT_EQ(bed.InFlight(), 0);
  }
}

// ---- objectives and rewrites
// -----------------------------------------------------------------------

TEST(Rewrites, AreChosenByRuleThenHeaderThenBody) {
  struct Case {
    std::string_view objects, body_model, header, target, rewrite;
  };
  for (const Case& c : {
           Case{kObjects, "mistral", "", "mistral", ""},
           Case{kObjects, "mistral", "asked", "asked", ""},
           Case{kObjects, "llama", "", "llama-70b", "alias"},
           Case{kObjects, "llama", "asked", "llama-70b", "alias"},
           Case{kGenericRule, "llama", "", "any", "everything"},
           Case{kGenericRule, "any", "", "any", "everything"},
           Case{kGenericRule, "", "", "any", "everything"},
       }) {
    ObjectsBed bed(c.objects);
    const std::string body = c.body_model.empty()
                                 ? R"({"messages":[{"role":"user","content":"x"}]})"
                                 : "{\"model\":\"" + std::string(c.body_model) +
                                       R"(","messages":[{"role":"user","content":"x"}]})";
    Session session(bed.director(), 1, bed.now);
    const plugin::Header headers[] = {{"x-llm-d-model-name-rewrite", c.header}};
    const Decision d = Decide(session, bed, body, Post(kChatPath, headers));
    ASSERT_EQ(d.kind, Decision::Kind::kForward) << d.reply.message;
    EXPECT_EQ(session.context().target_model, c.target);
    EXPECT_EQ(session.context().incoming_model, c.body_model);
    EXPECT_EQ(d.forward.splice.bytes.empty(), c.body_model == c.target);
    if (!c.rewrite.empty()) {
      EXPECT_EQ(bed.metrics.ValueOf(MetricId::kModelRewriteDecisionsTotal,
                                    {c.rewrite, c.body_model, c.target}), 1);
    }
    session.OnAborted(Termination::kClientDisconnect, 0, bed.now);
  }
}

TEST(Rewrites, SplitByWeightAndSurviveAReload) {
  ObjectsBed bed;
  std::map<std::string, int> targets;
  for (uint64_t seed = 0; seed < 400; ++seed) {
    Session session(bed.director(), seed, bed.now);
    Decide(session, bed, R"({"model":"split","messages":[{"role":"user","content":"x"}]})");
    bed.Publish(kObjects);  // what the session shows is its own
    ++targets[std::string(session.context().target_model)];
    session.OnAborted(Termination::kClientDisconnect, 0, bed.now);
  }
  EXPECT_NEAR(targets["left"], 300, 45);
  EXPECT_EQ(targets["left"] + targets["right"], 400);
}

TEST(Rewrites, AMissingModelIs400WithoutARuleForAll) {
  ObjectsBed bed;
  Session session(bed.director(), 1, bed.now);
  const std::string_view body = R"({"messages":[{"role":"user","content":"x"}]})";
  EXPECT_EQ(Decide(session, bed, body).reply.http_status, 400);
  session.OnDone(0, bed.now);
  // The rule goes while the body is on its way.
  bed.Publish(kGenericRule);
  Session late(bed.director(), 1, bed.now);
  late.OnHead(Post(), bed.now);
  bed.Publish(kObjects);
  late.OnBody(body, bed.now);
  const Decision d = late.OnBodyEnd(bed.now);
  EXPECT_EQ(d.reply.http_status, 400);
  EXPECT_EQ(d.reply.message, "model not found in request body");
  late.OnDone(0, bed.now);
}

// ---- fairness ids
// ----------------------------------------------------------------------------------

TEST(Session, TheFairnessIdIsTheHeadersThenTheAgentsThenTheDefault) {
  struct Case {
    std::vector<plugin::Header> headers;
    std::string_view id;
  };
  for (const Case& c : {
           Case{{}, "default-flow"},
           Case{{{"x-agent", "claude"}}, "claude"},
           Case{{{"x-agent", "claude"}, {"X-Llm-D-Inference-Fairness-Id", "tenant"}}, "tenant"},
           Case{{{"x-gateway-inference-fairness-id", "old"}}, "old"},
           Case{{{"x-gateway-inference-fairness-id", "old"},
                 {"x-llm-d-inference-fairness-id", "new"}}, "new"},
           Case{{{"x-llm-d-inference-fairness-id", ""}}, "default-flow"},
       }) {
    Bed bed(2);
    bed.Load(base::Concat(Bed::kHead, "plugins: [{type: agent-identity}]"));
    Session session(bed.director(), 1, bed.now);
    Decide(session, bed, kChat, Post(kChatPath, c.headers));
    EXPECT_EQ(session.context().fairness_id, c.id);
    session.OnAborted(Termination::kClientDisconnect, 0, bed.now);
  }
}

TEST(Session, AHeaderProcessorMayRefuse) {
  Bed bed(2);
  bed.Load(base::Concat(Bed::kHead, "plugins: [{type: agent-identity}]"));
  Session session(bed.director(), 1, bed.now);
  const plugin::Header headers[] = {{"x-agent", "bad"}};
  const Decision d = Decide(session, bed, kChat, Post(kChatPath, headers));
  EXPECT_EQ(d.reply.http_status, 403);
  EXPECT_EQ(d.reply.message, "no such agent");
  session.OnDone(0, bed.now);
  EXPECT_EQ(bed.metrics.ValueOf(MetricId::kRequestErrorTotal,
                                {"llama", "llama", "default-flow", "0", "Forbidden"}), 1);
}

// ---- subsets
// ---------------------------------------------------------------------------------------

TEST(Subsets, LimitTheChoice) {
  using Entries = std::vector<std::string_view>;
  struct Case {
    Entries entries;
    std::vector<uint16_t> ports;  // of the candidates
  };
  for (const Case& c : {Case{{"10.0.0.1:8002"}, {8002}},
                        Case{{"10.0.0.1:8003", "10.0.0.1:8001", "10.0.0.2"}, {8001, 8003}},
                        Case{{"10.0.0.1"}, {8000, 8001, 8002, 8003}}, Case{{}, {}},
                        Case{{"10.0.0.1:99", "x"}, {}}}) {
    Bed bed(4);
    Session session(bed.director(), 1, bed.now);
    session.OnHead(Post(), bed.now);
    session.SetSubset(Entries{"10.0.0.1:8000"});
    session.OnBody(kChat, bed.now);
    session.SetSubset(c.entries);  // the later one counts
    const Decision d = session.OnBodyEnd(bed.now);
    ASSERT_EQ(d.kind == Decision::Kind::kForward, !c.ports.empty());
    if (c.ports.empty()) {
      EXPECT_EQ(d.reply.http_status, 503);
      EXPECT_EQ(d.reply.dropped_reason, "rejected-no-endpoints");
      session.OnDone(0, bed.now);
      continue;
    }
    std::vector<uint16_t> ports;
    for (const plugin::ScoredCandidate& s : d.forward.scored) {
      ports.push_back(static_cast<uint16_t>(8000 + s.endpoint));
    }
    std::sort(ports.begin(), ports.end());
    EXPECT_EQ(ports, c.ports);
    session.OnAborted(Termination::kError, 0, bed.now);
  }
}

TEST(Subsets, MayNameEjectedEndpointsOnly) {
  Bed bed(6);
  for (uint32_t i = 0; i < fleet::Health::kFailuresToEject; ++i) {
    bed.fleet.health(2).ReportFailure(bed.now);
  }
  Session session(bed.director(), 1, bed.now);
  session.OnHead(Post(), bed.now);
  session.OnBody(kChat, bed.now);
  const std::string_view only[] = {"10.0.0.1:8002"};
  session.SetSubset(only);
  const Decision d = session.OnBodyEnd(bed.now);
  ASSERT_EQ(d.kind, Decision::Kind::kForward);
  EXPECT_EQ(d.forward.endpoints[0].endpoint, 2u);
  session.OnAborted(Termination::kError, 0, bed.now);
}

TEST(Subsets, TheScoresOfAllCandidatesAreThere) {
  Bed bed(6, {.endpoints_wanted = 1});
  for (fleet::EndpointNumber n = 0; n < 6; ++n) {
    bed.fleet.ReportLoad(n, {.waiting = static_cast<float>(n)}, bed.now);
  }
  Session session(bed.director(), 1, bed.now);
  const Decision d = Decide(session, bed);
  EXPECT_EQ(d.forward.endpoints.size(), 1u);
  ASSERT_EQ(d.forward.scored.size(), 6u);
  for (const plugin::ScoredCandidate& c : d.forward.scored) {
    EXPECT_LE(c.score, d.forward.endpoints[0].score);
    const double queue = 2.0 / (1 + c.endpoint);
    EXPECT_TRUE(std::abs(c.score - queue) < 1e-6 || std::abs(c.score - queue - 3) < 1e-6);
  }
  session.OnAborted(Termination::kError, 0, bed.now);
}

// ---- a proxy that sends by itself ----

TEST(Session, AnEndpointWhoseRepliesSayThatItIsDownIsEjected) {
  Bed bed(6);
  const std::string_view only[] = {"10.0.0.1:8002"};
  for (uint32_t i = 0; i < fleet::Health::kFailuresToEject; ++i) {
    EXPECT_NE(bed.fleet.health(2).state(bed.now), fleet::Health::State::kEjected) << i;
    Session session(bed.director(), 1, bed.now);
    session.OnHead(Post(), bed.now);
    session.SetSubset(only);
    session.OnBody(kChat, bed.now);
    ASSERT_EQ(session.OnBodyEnd(bed.now).kind, Decision::Kind::kForward);
    session.OnResponseHead({.status = 503}, bed.now);
    session.OnDone(0, bed.now);
  }
  EXPECT_EQ(bed.fleet.health(2).state(bed.now), fleet::Health::State::kEjected);
}

// ---- conditional requests, and what filters leave
// -----------------------------------------------------

TEST(Session, IfAvailableWantsACachedPrefix) {
  for (const auto& [value, cached, refused] :
       std::vector<std::tuple<std::string_view, bool, bool>>{
           {"if-available", true, false},
           {"if-available", false, true},
           {"respond-async, IF-Available ; wait=1", false, true},
           {"respond-async;if-available", false, false},
           {"if-available-not", false, false},
           {"", false, false}}) {
    Bed bed(3);
    // Without the scorer, the choice knows nothing of the prefix.
    bed.Load(base::Concat(Bed::kHead, cached ? "plugins: [{type: prefix-cache-scorer}]"
                                             : "plugins: [{type: queue-scorer}]"));
    Session session(bed.director(), 1, bed.now);
    const plugin::Header headers[] = {{"accept", "x"}, {"Prefer", "wait=3"}, {"Prefer", value}};
    const Decision d = Decide(session, bed, kChat, Post(kChatPath, headers));
    EXPECT_EQ(d.kind == Decision::Kind::kReply, refused) << value;
    if (refused) {
      EXPECT_EQ(d.reply.http_status, 412);
      EXPECT_EQ(d.reply.message, "no decode worker has the requested KV cache");
    }
    session.OnAborted(Termination::kClientDisconnect, 0, bed.now);
    EXPECT_EQ(bed.InFlight(), 0);
  }
}

TEST(Session, TheFilterThatLeavesNothingDecidesTheAnswer) {
  struct Case {
    std::string_view order;
    uint32_t keep;  // 99: the label filter leaves nothing
    double saturation;
    int status;
  };
  constexpr std::string_view kLoadFirst = "utilization-detector}, {pluginRef: label-filter";
  constexpr std::string_view kLabelFirst = "label-filter}, {pluginRef: utilization-detector";
  for (const Case& c : {Case{kLoadFirst, 0, 0, 200}, Case{kLoadFirst, 0, 1, 429},
                        Case{kLoadFirst, 99, 0, 503}, Case{kLoadFirst, 99, 1, 429},
                        Case{kLabelFirst, 99, 1, 503}, Case{kLabelFirst, 1, 1, 429},
                        Case{kLabelFirst, 99, 0, 503}}) {
    Bed bed(2);
    bed.Load(base::Concat(Bed::kHead,
                          "plugins: [{type: label-filter}, {type: utilization-detector}]\n"
                          "schedulingProfiles: [{name: p, plugins: [{pluginRef: ",
                          c.order, "}]}]"));
    TestKnobs().keep = c.keep;
    TestKnobs().saturation = c.saturation;
    Session session(bed.director(), 1, bed.now);
    const Decision d = Decide(session, bed);
    EXPECT_EQ(d.kind == Decision::Kind::kForward ? 200 : d.reply.http_status, c.status) << c.order;
    if (c.status != 200) {
      EXPECT_EQ(d.reply.dropped_reason,
                c.status == 429 ? "rejected-saturated" : "rejected-no-endpoints");
      EXPECT_EQ(d.reply.retry_after_seconds, c.status == 429 ? kRetryAfterSaturatedSeconds
                                                             : kRetryAfterNoEndpointsSeconds);
    }
    session.OnAborted(Termination::kClientDisconnect, 0, bed.now);
  }
}

// ---- waiting
// ---------------------------------------------------------------------------------------

constexpr std::string_view kWaitingYaml =
    "plugins: [{type: waiting-producer}, {type: inflight-load-producer}, {type: reply-watcher}, "
    "{type: prefix-cache-scorer, parameters: {producer: waiting-producer}}]";

struct WaitingBed : Bed {
  explicit WaitingBed(size_t endpoints = 4) : Bed(endpoints) {
    Load(base::Concat(kHead, kWaitingYaml));
  }
};

TEST(Waiting, ARequestWaitsForAProducerAndGoesOn) {
  WaitingBed bed;
  Session session(bed.director(), 1, bed.now);
  Decision d = Decide(session, bed);
  ASSERT_EQ(d.kind, Decision::Kind::kWait);
  EXPECT_EQ(d.wait_until, bed.now + milliseconds(10));
  EXPECT_EQ(bed.InFlight(), 0);
  bed.now += milliseconds(4);
  d = session.OnWake(bed.now);  // for something else
  ASSERT_EQ(d.kind, Decision::Kind::kWait);
  EXPECT_EQ(d.wait_until, bed.now + milliseconds(10));
  bed.now += milliseconds(10);
  TestKnobs().ready = true;
  d = session.OnWake(bed.now);
  ASSERT_EQ(d.kind, Decision::Kind::kForward);
  EXPECT_EQ(d.forward.endpoints[0].endpoint, 0u) << "where the producer says the prompt is";
  EXPECT_EQ(bed.InFlight(), 12);
  EXPECT_EQ(TestKnobs().asked, 3);
  EXPECT_EQ(TestKnobs().abandoned, 0);
  session.OnResponseHead({.status = 200}, bed.now);
  session.OnDone(0, bed.now);
  EXPECT_EQ(bed.InFlight(), 0);
}

TEST(Waiting, EndsWithoutTheProducerWhenItsTimeIsUp) {
  WaitingBed bed;
  Session session(bed.director(), 1, bed.now);
  const base::TimePoint begin = bed.now;
  Decision d = Decide(session, bed);
  while (d.kind == Decision::Kind::kWait) {
    EXPECT_EQ(TestKnobs().abandoned, 0);
    bed.now = d.wait_until;
    d = session.OnWake(bed.now);
  }
  ASSERT_EQ(d.kind, Decision::Kind::kForward);
  EXPECT_EQ(bed.now, begin + milliseconds(100));
  EXPECT_EQ(TestKnobs().asked, 11) << "at the very end once more";
  EXPECT_EQ(TestKnobs().abandoned, 1);
  EXPECT_EQ(bed.metrics.ValueOf(MetricId::kProducerFailuresTotal, {"waiting-producer", "timeout"}),
            1);
  session.OnAborted(Termination::kError, 0, bed.now);
  EXPECT_EQ(TestKnobs().abandoned, 1);
}

TEST(Waiting, TheClientMayLeave) {
  WaitingBed bed;
  Session session(bed.director(), 1, bed.now);
  ASSERT_EQ(Decide(session, bed).kind, Decision::Kind::kWait);
  session.OnAborted(Termination::kClientDisconnect, 0, bed.now);
  EXPECT_EQ(TestKnobs().abandoned, 1);
  EXPECT_EQ(TestKnobs().watched.ends, 0) << "it was never routed";
  EXPECT_EQ(bed.metrics.ValueOf(MetricId::kClientAbortsTotal, {"before_decision"}), 1);
  EXPECT_EQ(bed.director().active(), 0u);
}

TEST(Waiting, IsNotForThePast) {
  WaitingBed bed;
  TestKnobs().wait_backwards = true;
  Session session(bed.director(), 1, bed.now);
  EXPECT_EQ(Decide(session, bed).kind, Decision::Kind::kForward);
  EXPECT_EQ(TestKnobs().asked, 1);
  EXPECT_EQ(TestKnobs().abandoned, 1);
  session.OnAborted(Termination::kError, 0, bed.now);
}

TEST(Waiting, WorkBesideTheLoopIsHandedOutOnceAndCalledOffAtTheEnd) {
  struct Task final : plugin::OutsideTask {};
  for (const bool gives_up : {false, true}) {
    WaitingBed bed;
    const auto task = TestKnobs().task = std::make_shared<Task>();
    Session session(bed.director(), 1, bed.now);
    Decision d = Decide(session, bed);
    ASSERT_EQ(d.kind, Decision::Kind::kWait);
    EXPECT_EQ(d.ask, task);
    bed.now += milliseconds(4);
    d = session.OnWake(bed.now);
    ASSERT_EQ(d.kind, Decision::Kind::kWait);
    EXPECT_EQ(d.ask, nullptr) << "it is under way";
    EXPECT_EQ(session.context().asked, task);
    EXPECT_FALSE(task->cancelled());
    if (!gives_up) {
      task->End(base::OkStatus());
      TestKnobs().ready = true;
      EXPECT_EQ(session.OnWake(bed.now).kind, Decision::Kind::kForward);
      EXPECT_EQ(session.context().asked, nullptr);
    }
    session.OnAborted(Termination::kClientDisconnect, 0, bed.now);
    EXPECT_TRUE(task->cancelled());
    EXPECT_EQ(task->ended(), !gives_up);
    TestKnobs().task.reset();
  }
}

TEST(Waiting, WhoLeftTheFleetMeanwhileIsNotChosen) {
  for (size_t left : {size_t{2}, size_t{0}}) {
    WaitingBed bed;
    Session session(bed.director(), 1, bed.now);
    ASSERT_EQ(Decide(session, bed).kind, Decision::Kind::kWait);
    bed.SetEndpoints(left);
    bed.now += milliseconds(10);
    TestKnobs().ready = left > 0;
    const Decision d = session.OnWake(bed.now);
    if (left == 0) {
      EXPECT_EQ(d.reply.http_status, 503);
      EXPECT_EQ(TestKnobs().abandoned, 1);
    } else {
      ASSERT_EQ(d.kind, Decision::Kind::kForward);
      for (const auto& c : d.forward.endpoints) EXPECT_LT(c.endpoint, left);
    }
    session.OnAborted(Termination::kError, 0, bed.now);
    EXPECT_EQ(TestKnobs().abandoned, left == 0);
  }
}

TEST(Waiting, WakingSomebodyWhoIsAwakeIsABug) {
  WaitingBed bed;
  Session session(bed.director(), 1, bed.now);
  const uint64_t bugs = Bugs();
  EXPECT_EQ(session.OnWake(bed.now).reply.http_status, 500);
  EXPECT_EQ(Bugs(), bugs + 1);
  ASSERT_EQ(Decide(session, bed).kind, Decision::Kind::kWait);
  EXPECT_EQ(session.OnBodyEnd(bed.now).reply.http_status, 500);
  session.SetSubset({});
  EXPECT_EQ(Bugs(), bugs + 3);
  EXPECT_TRUE(session.OnBody("more", bed.now)) << "only counted";
  session.OnAborted(Termination::kError, 0, bed.now);
}

// ---- headers in both directions, the end as plugins see it
// ---------------------------------------------

std::string Shown(std::span<const plugin::Header> headers) {
  std::string text;
  for (const plugin::Header& h : headers) text += base::Concat(h.name, "=", h.value, ";");
  return text;
}

TEST(Headers, FollowTheRequestToItsNextEndpoint) {
  Bed bed(4);
  bed.Load(base::Concat(Bed::kHead, "plugins: [{type: header-setter}]"));
  Session session(bed.director(), 1, bed.now);
  Decision d = Decide(session, bed);
  const auto port = [&] { return std::to_string(8000 + d.forward.endpoints[0].endpoint); };
  EXPECT_EQ(Shown(d.forward.set_headers), "x-first=yes;x-target=" + port() + ";");
  d = session.OnUpstreamFailed(UpstreamFailure::kConnect, 0, true, bed.now);
  EXPECT_EQ(Shown(d.forward.set_headers), "x-target=" + port() + ";")
      << "what was for the first endpoint only is gone";
  session.OnAborted(Termination::kError, 0, bed.now);
}

struct WatchedBed : Bed {
  explicit WatchedBed(DirectorOptions options = {}) : Bed(4, options) {
    Load(base::Concat(kHead, "plugins: [{type: reply-watcher}, {type: inflight-load-producer}, "
                             "{type: refuser}]"));
  }
};

TEST(Replies, AreShownToPlugins) {
  WatchedBed bed;
  Session session(bed.director(), 1, bed.now);
  EXPECT_FALSE(session.skip_response());
  Decide(session, bed);
  EXPECT_TRUE(session.reads_response_headers());
  const plugin::Header headers[] = {{"server", "uvicorn"}};
  const auto edits = session.OnResponseHead({.status = 201, .event_stream = true,
                                             .headers = headers, .served_endpoint = "1.2.3.4:5"},
                                            bed.now);
  EXPECT_EQ(Shown(edits), "x-served=1.2.3.4:5;");
  EXPECT_EQ(TestKnobs().watched.headers, "server=uvicorn;");
  session.OnResponseBody("data: {}\n\ndata: {\"usage\":{\"completion_tokens\":9}}\n\n", bed.now);
  EXPECT_TRUE(session.end_metadata().empty());
  session.OnDone(9, bed.now);
  const auto& w = TestKnobs().watched;
  EXPECT_EQ(w.heads, 1);
  EXPECT_EQ(w.ends, 1);
  EXPECT_EQ(w.status, 201);
  EXPECT_EQ(w.event_count, 2u);
  EXPECT_TRUE(w.body_shown);
  ASSERT_EQ(session.end_metadata().size(), 1u);
  EXPECT_EQ(session.end_metadata()[0].name_space, "envoy.lb");
  EXPECT_EQ(session.end_metadata()[0].value, 9);
}

TEST(Replies, TheEndIsShownOnceHoweverItComes) {
  enum class How { kGone, kEvicted, kRefused, kNoEndpoints, kFailed, kDropped };
  for (How how : {How::kGone, How::kEvicted, How::kRefused, How::kNoEndpoints, How::kFailed}) {
    WatchedBed bed;
    if (how == How::kNoEndpoints) bed.SetEndpoints(0);
    if (how == How::kRefused) TestKnobs().refuse = static_cast<int>(base::StatusCode::kInternal);
    {
      Session session(bed.director(), 1, bed.now);
      Decide(session, bed);
      if (how == How::kFailed) {
        session.OnUpstreamFailed(UpstreamFailure::kTimeout, 0, true, bed.now);
      }
      if (how == How::kGone || how == How::kEvicted) {
        session.OnAborted(how == How::kGone ? Termination::kClientDisconnect
                                            : Termination::kEvicted, 0, bed.now);
      } else {
        session.OnDone(0, bed.now);
      }
    }
    const auto& w = TestKnobs().watched;
    EXPECT_EQ(w.ends, how == How::kNoEndpoints ? 0 : 1) << static_cast<int>(how);
    EXPECT_EQ(w.status, 0) << "the engine said nothing";
    EXPECT_EQ(w.heads, 0);
    EXPECT_EQ(w.termination, how == How::kGone      ? Termination::kClientDisconnect
                             : how == How::kEvicted ? Termination::kEvicted
                                                    : Termination::kNatural);
    EXPECT_EQ(bed.InFlight(), 0);
  }
}

TEST(Replies, WithoutBodiesGiveEverythingBackAtTheEnd) {
  Bed bed(4);
  for (int i = 0; i < 3; ++i) {
    Session session(bed.director(), 1, bed.now);
    Decide(session, bed, kChat, Post(kChatPath, kRewrite));
    session.OnResponseHead({.status = 200, .event_stream = i == 0}, bed.now + milliseconds(5));
    EXPECT_EQ(bed.InFlight(), 12) << "the first token has not been seen";
    session.OnDone(0, bed.now + milliseconds(9));
    EXPECT_EQ(bed.InFlight(), 0);
    EXPECT_FALSE(session.usage().present);
    EXPECT_EQ(session.record().duration_us, 9000u);
    EXPECT_EQ(bed.metrics.ValueOf(MetricId::kRepliesUnreadTotal), i + 1);
  }
  // Nothing would have been read from these.
  Session error(bed.director(), 1, bed.now);
  Decide(error, bed);
  error.OnResponseHead({.status = 404}, bed.now);
  error.OnDone(0, bed.now);
  Session opaque(bed.director(), 1, bed.now);
  Decide(opaque, bed, "x", Post("/v1/rerank"));
  opaque.OnResponseHead({.status = 200}, bed.now);
  opaque.OnDone(0, bed.now);
  EXPECT_EQ(bed.metrics.ValueOf(MetricId::kRepliesUnreadTotal), 3);
}

TEST(Replies, OfAnotherEndpointOfTheListAreBookedThere) {
  Bed bed(4);
  Session session(bed.director(), 1, bed.now);
  const Decision d = Decide(session, bed);
  const fleet::EndpointNumber first = d.forward.endpoints[0].endpoint;
  const fleet::EndpointNumber second = d.forward.endpoints[1].endpoint;
  const std::string served(session.EndpointName(second));
  session.OnResponseHead({.status = 200, .served_endpoint = served}, bed.now);
  EXPECT_EQ(bed.fleet.CounterSum(fleet::kRequestsInFlight, first), 0);
  EXPECT_EQ(bed.fleet.CounterSum(fleet::kRequestsInFlight, second), 1);
  EXPECT_EQ(bed.InFlight(), 12);
  EXPECT_EQ(session.record().endpoint, second);
  session.OnResponseBody(R"({"usage":{"prompt_tokens":9}})", bed.now);
  session.OnDone(30, bed.now);
  EXPECT_EQ(bed.InFlight(), 0);
}

}  // namespace
}  // namespace llmd::director
