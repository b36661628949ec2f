#include "director/session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

// The tour: a streamed chat from its head to its end.
TEST(Session, AStreamedChatFromHeadToEnd) {
  Bed bed(4);
  Session session(bed.director(), 7, bed.now);
  EXPECT_EQ(session.OnHead(Post(), bed.now), BodyPolicy::kDecideAtEnd);
  session.OnBody(kChat.substr(0, 20), bed.now);
  session.OnBody(kChat.substr(20), bed.now);
  const Decision decision = session.OnBodyEnd(bed.now + milliseconds(1));
  ASSERT_EQ(decision.kind, Decision::Kind::kForward);
  ASSERT_EQ(decision.forward.endpoints.size(), 3u) << "the pick and two fallbacks";
  EXPECT_EQ(decision.forward.splice.begin, decision.forward.splice.end);
  const fleet::EndpointNumber chosen = decision.forward.endpoints[0].endpoint;
  EXPECT_EQ(session.EndpointName(chosen), "10.0.0.1:" + std::to_string(8000 + chosen));
  EXPECT_EQ(bed.fleet.CounterSum(fleet::kRequestsInFlight, chosen), 1);
  EXPECT_EQ(bed.InFlight(), 12) << "1 of the director, 1 and 10 of the producer";
  EXPECT_EQ(TestKnobs().tally, 11);

  session.OnResponseHead({.status = 200, .event_stream = true}, bed.now + milliseconds(10));
  EXPECT_TRUE(session.streaming());
  session.OnResponseBody("data: {\"choices\":[]}\n\n", bed.now + milliseconds(20));
  EXPECT_EQ(bed.InFlight(), 2) << "the prompt's tokens went back with the first one";
  EXPECT_EQ(TestKnobs().tally, 1);
  session.OnResponseBody("data: {\"usage\":{\"prompt_tokens\":9,\"comple",
                         bed.now + milliseconds(30));
  session.OnResponseBody("tion_tokens\":5,\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\n",
                         bed.now + milliseconds(40), /*continues=*/true);
  session.OnResponseBody("data: [DONE]\n\n", bed.now + milliseconds(60));
  session.OnDone(200, bed.now + milliseconds(60));
  EXPECT_EQ(bed.InFlight(), 0);
  EXPECT_EQ(TestKnobs().tally, 0);
  EXPECT_EQ(session.usage().completion_tokens, 5);
  const DecisionRecord& r = session.record();
  EXPECT_EQ(r.prompt_tokens, 9u);
  EXPECT_EQ(r.cached_tokens, 4u);
  EXPECT_EQ(r.ttft_us, 20000u);
  EXPECT_EQ(r.duration_us, 60000u);
  EXPECT_EQ(r.endpoint, chosen);
  EXPECT_EQ(r.http_status, 200);

  const std::string_view labels[] = {"llama", "llama", "default-flow", "0"};
  EXPECT_EQ(bed.metrics.ValueOf(MetricId::kRequestTotal, labels), 1);
  EXPECT_EQ(bed.metrics.ValueOf(MetricId::kRequestRunning, labels), 0);
  EXPECT_EQ(bed.metrics.ValueOf(MetricId::kRequestStreamingItlSeconds, labels), 2)
      << "one chunk came in two pieces";
  EXPECT_EQ(bed.metrics.ValueOf(MetricId::kRequestOutputTokens, labels), 1);
  EXPECT_EQ(bed.metrics.ValueOf(MetricId::kRequestTtftSeconds,
                                {"llama", "llama", "default-flow", "0", "true"}), 1);
  EXPECT_EQ(bed.metrics.ValueOf(MetricId::kSchedulerAttemptsTotal,
                                {"success", "llama", "e" + std::to_string(chosen), "default",
                                 std::to_string(8000 + chosen)}), 1);
}

TEST(Session, TheRecordShowsTheDecision) {
  Bed bed(3);
  bed.fleet.ReportLoad(1, {.waiting = 4, .running = 2, .kv_usage = 0.5},
                       bed.now - milliseconds(30));
  Session session(bed.director(), 7, bed.now);
  Decide(session, bed);
  const DecisionRecord& r = session.record();
  EXPECT_STREQ(r.request_id, "req-1");
  EXPECT_STREQ(r.model, "llama");
  EXPECT_EQ(r.fleet_count, 3);
  EXPECT_EQ(r.candidate_count, 3);
  ASSERT_EQ(r.shown, 3);
  ASSERT_EQ(r.scorer_count, 2);
  EXPECT_EQ(r.total_blocks, 4u);
  EXPECT_GT(r.prompt_tokens_estimated, 0u);
  EXPECT_NE(r.prefix_hash, 0u);
  EXPECT_EQ(r.candidates[0].endpoint, r.endpoint);
  EXPECT_EQ(r.candidates[0].matched_blocks, 4u) << "the prefix scorer weighs most";
  for (size_t i = 0; i < 3; ++i) {
    const RecordCandidate& c = r.candidates[i];
    EXPECT_FLOAT_EQ(c.score, 2 * c.scores[0] + 3 * c.scores[1]);
    EXPECT_EQ(c.load_age_ms, c.endpoint == 1 ? 30 : -1);
    EXPECT_EQ(c.waiting, c.endpoint == 1 ? 4 : 0);
    if (i > 0) EXPECT_LE(c.score, r.candidates[i - 1].score);
  }
  session.OnAborted(Termination::kClientDisconnect, 0, bed.now);
  EXPECT_EQ(bed.records.Find("req-1")->endpoint, r.endpoint);
  EXPECT_EQ(bed.metrics.ValueOf(MetricId::kClientAbortsTotal, {"before_response"}), 1);
}

TEST(Session, MoreCandidatesThanARecordShows) {
  Bed bed(40);
  for (fleet::EndpointNumber n = 0; n < 40; ++n) {
    bed.fleet.ReportLoad(n, {.waiting = static_cast<float>(n % 20)}, bed.now);
  }
  Session session(bed.director(), 7, bed.now);
  Decide(session, bed);
  const DecisionRecord& r = session.record();
  EXPECT_EQ(r.candidate_count, 40);
  ASSERT_EQ(r.shown, kRecordCandidatesMax);
  for (size_t i = 1; i < r.shown; ++i) EXPECT_LE(r.candidates[i].score, r.candidates[i - 1].score);
  EXPECT_GE(r.candidates[r.shown - 1].score, 2.0f / (1 + 8)) << "nobody better was left out";
  session.OnAborted(Termination::kError, 0, bed.now);
}

TEST(Session, RefusesWhatItCannotUse) {
  struct Case {
    std::string_view body;
    std::string_view message;
  };
  for (const Case& c : {Case{R"({"messages":[{"role":"user","content":"x"}]})", "model"},
                        Case{R"({"model":"m")", "truncated"}, Case{"[]", "object"},
                        Case{R"({"model":3})", "model"}}) {
    Bed bed(2);
    Session session(bed.director(), 1, bed.now);
    const Decision d = Decide(session, bed, c.body);
    ASSERT_EQ(d.kind, Decision::Kind::kReply) << c.body;
    EXPECT_EQ(d.reply.http_status, 400);
    EXPECT_EQ(d.reply.error_type, "BadRequestError");
    EXPECT_THAT(std::string(d.reply.message), ::testing::HasSubstr(std::string(c.message)));
    session.OnDone(0, bed.now);
    EXPECT_EQ(bed.records.Last(9).size(), 1u) << "refusals are recorded too";
  }
}

TEST(Session, AnEmptyFleetIs503WithRetryAfter) {
  Bed bed(0);
  Session session(bed.director(), 1, bed.now);
  const Decision d = Decide(session, bed);
  ASSERT_EQ(d.kind, Decision::Kind::kReply);
  EXPECT_EQ(d.reply.http_status, 503);
  EXPECT_EQ(d.reply.message, "failed to find endpoint candidates for serving the request");
  EXPECT_EQ(d.reply.dropped_reason, "rejected-no-endpoints");
  EXPECT_EQ(d.reply.retry_after_seconds, kRetryAfterNoEndpointsSeconds);
  session.OnDone(0, bed.now);
  EXPECT_EQ(bed.metrics.ValueOf(MetricId::kRequestErrorTotal,
                                {"llama", "llama", "default-flow", "0", "ServiceUnavailable"}), 1);
}

TEST(Session, FiltersThatLeaveNothingSay429WhenTheServersAreFull) {
  Bed bed(2);
  bed.Load(R"({apiVersion: llm-d.ai/v1alpha1, kind: EndpointPickerConfig,
               plugins: [{type: utilization-detector}]})");
  TestKnobs().saturation = 1;
  Session session(bed.director(), 1, bed.now);
  const Decision d = Decide(session, bed);
  EXPECT_EQ(d.reply.http_status, 429);
  EXPECT_EQ(d.reply.message, "no endpoints available for the given request");
  EXPECT_EQ(d.reply.dropped_reason, "rejected-saturated");
  session.OnDone(0, bed.now);
}

TEST(Session, APreRequestPluginMayRefuse) {
  Bed bed(2);
  TestKnobs().refuse = static_cast<int>(base::StatusCode::kFailedPrecondition);
  Session session(bed.director(), 1, bed.now);
  const Decision d = Decide(session, bed);
  EXPECT_EQ(d.reply.http_status, 412);
  EXPECT_EQ(d.reply.message, "refused");
  EXPECT_EQ(bed.InFlight(), 0) << "what the others wanted booked is not";
  session.OnDone(0, bed.now);
}

// ---- body policies
// --------------------------------------------------------------------------------

TEST(Session, UnknownPathsPassThroughAtOnce) {
  Bed bed(2);
  Session session(bed.director(), 1, bed.now);
  RequestHead head = Post("/v1/rerank");
  EXPECT_EQ(session.OnHead(head, bed.now), BodyPolicy::kDecideEarly);
  EXPECT_TRUE(session.OnBody("anything", bed.now));
  EXPECT_EQ(session.OnBodyEnd(bed.now).kind, Decision::Kind::kForward);
  EXPECT_TRUE(session.OnBody(" at all", bed.now)) << "only counted";
  session.OnResponseHead({.status = 200}, bed.now);
  session.OnResponseBody(R"({"usage":{"prompt_tokens":9}})", bed.now);
  session.OnDone(30, bed.now);
  EXPECT_FALSE(session.usage().present);
  EXPECT_EQ(bed.InFlight(), 0);
}

TEST(Session, RequestsWithoutABodyAreDecidedAtOnce) {
  Bed bed(2);
  for (std::string_view path : {std::string_view("/health"), kChatPath}) {
    Session session(bed.director(), 1, bed.now);
    RequestHead head = Post(path);
    head.method = "GET";
    head.content_length.reset();
    EXPECT_EQ(session.OnHead(head, bed.now), BodyPolicy::kNoBody);
    EXPECT_EQ(session.OnBodyEnd(bed.now).kind, Decision::Kind::kForward);
    session.OnAborted(Termination::kClientDisconnect, 0, bed.now);
  }
  // An empty POST is the engine's to refuse.
  Session post(bed.director(), 1, bed.now);
  RequestHead head = Post();
  head.content_length = 0;
  EXPECT_EQ(post.OnHead(head, bed.now), BodyPolicy::kNoBody);
  EXPECT_EQ(post.OnBodyEnd(bed.now).kind, Decision::Kind::kForward);
  post.OnAborted(Termination::kClientDisconnect, 0, bed.now);
}

constexpr std::string_view kForm =
    "--xy\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper\r\n--xy\r\n"
    "Content-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n";

TEST(Session, MultipartIsHeldUntilTheModelIsRead) {
  Bed bed(2);
  Session session(bed.director(), 1, bed.now);
  const plugin::Header headers[] = {{"X-Llm-D-Model-Name-Rewrite", "whisper-large"}};
  RequestHead head = Post("/v1/audio/transcriptions", headers);
  head.content_type = "multipart/form-data; boundary=xy";
  EXPECT_EQ(session.OnHead(head, bed.now), BodyPolicy::kDecideEarly);
  EXPECT_FALSE(session.OnBody(kForm.substr(0, 60), bed.now));
  EXPECT_TRUE(session.OnBody(kForm.substr(60), bed.now));
  const Decision d = session.OnBodyEnd(bed.now);
  EXPECT_EQ(session.context().incoming_model, "whisper");
  EXPECT_EQ(session.context().target_model, "whisper-large");
  const auto& splice = d.forward.splice;
  EXPECT_EQ(kForm.substr(splice.begin, splice.end - splice.begin), "whisper");
  EXPECT_EQ(splice.bytes, "whisper-large");
  session.OnAborted(Termination::kClientDisconnect, 0, bed.now);
}

TEST(Session, MultipartWithoutAModelIsRoutedAfter64KiB) {
  Bed bed(2);
  Session session(bed.director(), 1, bed.now);
  RequestHead head = Post("/v1/audio/transcriptions");
  head.content_type = "multipart/form-data; boundary=xy";
  session.OnHead(head, bed.now);
  session.OnBody("--xy\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n", bed.now);
  const std::string audio(1024, 'a');
  int chunks = 0;
  while (!session.OnBody(audio, bed.now)) ++chunks;
  EXPECT_EQ(chunks, 63);
  EXPECT_EQ(session.OnBodyEnd(bed.now).kind, Decision::Kind::kForward);
  EXPECT_EQ(session.context().incoming_model, "");
  session.OnAborted(Termination::kClientDisconnect, 0, bed.now);
}

// ---- rewriting
// ------------------------------------------------------------------------------------

const plugin::Header kRewrite[] = {{"x-llm-d-model-name-rewrite", "llama-8b"},
                                   {"x-llm-d-inference-fairness-id", "tenant"}};

std::string Apply(std::string_view piece, const Forward::Splice& splice) {
  return std::string(piece.substr(0, splice.begin)) + std::string(splice.bytes) +
         std::string(piece.substr(splice.end));
}

TEST(Session, ARewriteSplicesOnlyTheModel) {
  Bed bed(2);
  Session session(bed.director(), 1, bed.now);
  const Decision d = Decide(session, bed, kChat, Post(kChatPath, kRewrite));
  EXPECT_EQ(session.context().incoming_model, "llama");
  EXPECT_EQ(session.context().target_model, "llama-8b");
  EXPECT_EQ(session.context().fairness_id, "tenant");
  EXPECT_EQ(
      Apply(kChat, d.forward.splice),
      R"({"model":"llama-8b","messages":[{"role":"user","content":"Hello there, how are you?"}]})");
  session.OnAborted(Termination::kClientDisconnect, 0, bed.now);
  EXPECT_EQ(bed.metrics.ValueOf(MetricId::kRequestTotal, {"llama", "llama-8b", "tenant", "0"}), 1);
}

TEST(Session, ABodyWithoutAModelGetsOne) {
  Bed bed(2);
  Session session(bed.director(), 1, bed.now);
  const std::string_view body = R"({"messages":[{"role":"user","content":"x"}]})";
  const Decision d = Decide(session, bed, body, Post(kChatPath, kRewrite));
  EXPECT_EQ(Apply(body, d.forward.splice),
            R"({"model":"llama-8b","messages":[{"role":"user","content":"x"}]})");
  session.OnAborted(Termination::kClientDisconnect, 0, bed.now);
}

// However the reply is cut, the client reads the name it asked for and nothing else changes.
void CheckRestored(std::string_view reply, bool event_stream, std::string_view expected) {
  for (size_t cut = 1; cut <= reply.size(); ++cut) {
    Bed bed(2);
    Session session(bed.director(), 1, bed.now);
    Decide(session, bed, kChat, Post(kChatPath, kRewrite));
    session.OnResponseHead({.status = 200, .event_stream = event_stream}, bed.now);
    EXPECT_TRUE(session.restores_model());
    std::string relayed;
    for (size_t at = 0; at < reply.size(); at += cut) {
      const std::string_view piece = reply.substr(at, cut);
      relayed += Apply(piece, session.OnResponseBody(piece, bed.now));
    }
    relayed += session.TakeHeldBack();
    EXPECT_EQ(relayed, expected) << cut;
    EXPECT_EQ(session.usage().completion_tokens, 5) << cut;
    session.OnDone(0, bed.now);
  }
}

TEST(Session, RestoresTheModelInAStream) {
  CheckRestored(
      "data: "
      "{\"model\":\"llama-8b\",\"choices\":[{\"text\":\"\\\"model\\\":\\\"llama-8b\\\"\"}]}\n\n"
      ": ping\n\ndata: {\"id\":1,\"model\":\"llama-8b\"}\r\n\r\ndata: {\"model\":\"other\"}\n\n"
      "data: {\"model\":\"llama-8b\",\"usage\":{\"completion_tokens\":5}}\n\ndata: [DONE]\n\ndata: "
      "rest",
      true,
      "data: {\"model\":\"llama\",\"choices\":[{\"text\":\"\\\"model\\\":\\\"llama-8b\\\"\"}]}\n\n"
      ": ping\n\ndata: {\"id\":1,\"model\":\"llama\"}\r\n\r\ndata: {\"model\":\"other\"}\n\n"
      "data: {\"model\":\"llama\",\"usage\":{\"completion_tokens\":5}}\n\ndata: [DONE]\n\ndata: "
      "rest");
}

TEST(Session, RestoresTheModelInADocument) {
  CheckRestored(
      R"({"object":"x","data":["model","llama-8b"],"model":"llama-8b",)"
      R"("usage":{"completion_tokens":5}} )",
      false,
      R"({"object":"x","data":["model","llama-8b"],"model":"llama",)"
      R"("usage":{"completion_tokens":5}} )");
}

TEST(Session, ErrorsAndUnrewrittenRepliesAreLeftAlone) {
  Bed bed(2);
  Session error(bed.director(), 1, bed.now);
  Decide(error, bed, kChat, Post(kChatPath, kRewrite));
  error.OnResponseHead({.status = 404}, bed.now);
  EXPECT_FALSE(error.restores_model());
  error.OnDone(0, bed.now);
  EXPECT_EQ(bed.metrics.ValueOf(MetricId::kRequestErrorTotal,
                                {"llama", "llama-8b", "tenant", "0", "ModelServerError"}), 1);
  Session plain(bed.director(), 1, bed.now);
  Decide(plain, bed);
  plain.OnResponseHead({.status = 200, .event_stream = true}, bed.now);
  EXPECT_FALSE(plain.restores_model());
  plain.OnAborted(Termination::kError, 0, bed.now);
}

// ---- retries
// --------------------------------------------------------------------------------------

TEST(Retries, GoToTheNextEndpointAndTakeTheBookingsAlong) {
  Bed bed(4);
  Session session(bed.director(), 1, bed.now);
  Decision d = Decide(session, bed);
  const std::vector<plugin::ScoredCandidate> order(d.forward.endpoints.begin(),
                                                   d.forward.endpoints.end());
  for (size_t attempt = 1; attempt <= kRetriesMax; ++attempt) {
    d = session.OnUpstreamFailed(UpstreamFailure::kReset, 0, true, bed.now);
    ASSERT_EQ(d.kind, Decision::Kind::kForward) << attempt;
    EXPECT_EQ(d.forward.endpoints[0].endpoint, order[attempt].endpoint);
    EXPECT_EQ(bed.InFlight(), 12);
    EXPECT_EQ(TestKnobs().tally, 11);
    EXPECT_EQ(bed.fleet.CounterSum(fleet::kRequestsInFlight, order[attempt].endpoint), 1);
  }
  d = session.OnUpstreamFailed(UpstreamFailure::kReset, 0, true, bed.now);
  EXPECT_EQ(d.reply.http_status, 502);
  EXPECT_EQ(bed.InFlight(), 0);
  EXPECT_EQ(TestKnobs().tally, 0);
  session.OnDone(0, bed.now);
  EXPECT_EQ(session.record().attempts, 3);
  EXPECT_EQ(bed.metrics.ValueOf(MetricId::kRetriesTotal, {"reset"}), 2);
  EXPECT_EQ(bed.metrics.ValueOf(MetricId::kRetriesDeniedTotal, {"attempts"}), 1);
}

TEST(Retries, DependOnHowTheAttemptFailed) {
  struct Case {
    UpstreamFailure failure;
    bool body_kept;
    int status_else;  // 0 = retried
    std::string_view denied;
  };
  for (const Case& c :
       {Case{UpstreamFailure::kConnect, true, 0, ""}, Case{UpstreamFailure::kReset, true, 0, ""},
        Case{UpstreamFailure::kStatus502or503or504, true, 0, ""},
        Case{UpstreamFailure::kStaleConnection, true, 0, ""},
        Case{UpstreamFailure::kTimeout, true, 504, "not_retriable"},
        Case{UpstreamFailure::kConnect, false, 503, "body"},
        Case{UpstreamFailure::kReset, false, 502, "body"},
        Case{UpstreamFailure::kStaleConnection, false, 502, "body"},
        Case{UpstreamFailure::kStatus502or503or504, false, 503, "body"}}) {
    Bed bed(4);
    Session session(bed.director(), 1, bed.now);
    Decide(session, bed);
    const Decision d = session.OnUpstreamFailed(c.failure, 503, c.body_kept, bed.now);
    EXPECT_EQ(d.kind == Decision::Kind::kForward, c.status_else == 0);
    if (c.status_else) {
      EXPECT_EQ(d.reply.http_status, c.status_else);
      EXPECT_EQ(bed.metrics.ValueOf(MetricId::kRetriesDeniedTotal, {c.denied}), 1);
    }
    session.OnAborted(Termination::kError, 0, bed.now);
    EXPECT_EQ(bed.InFlight(), 0);
  }
}

TEST(Retries, AStaleConnectionGoesToTheSameEndpointOnceWithoutBudget) {
  Bed bed(4);
  Session session(bed.director(), 1, bed.now);
  const Decision first = Decide(session, bed);
  const fleet::EndpointNumber chosen = first.forward.endpoints[0].endpoint;
  const int routed = TestKnobs().routed;
  Decision d = session.OnUpstreamFailed(UpstreamFailure::kStaleConnection, 0, true, bed.now);
  EXPECT_EQ(d.forward.endpoints[0].endpoint, chosen);
  EXPECT_EQ(TestKnobs().routed, routed) << "nothing moved";
  d = session.OnUpstreamFailed(UpstreamFailure::kStaleConnection, 0, true, bed.now);
  EXPECT_NE(d.forward.endpoints[0].endpoint, chosen);
  EXPECT_EQ(bed.InFlight(), 12);
  session.OnAborted(Termination::kError, 0, bed.now);
}

TEST(Retries, KeepToTheBudget) {
  Bed bed(4);
  std::vector<std::unique_ptr<Session>> sessions;
  const auto retried = [&](size_t n) {
    size_t count = 0;
    while (sessions.size() < n) {
      sessions.push_back(std::make_unique<Session>(bed.director(), sessions.size(), bed.now));
      Decide(*sessions.back(), bed);
    }
    for (auto& s : sessions) {
      count += s->OnUpstreamFailed(UpstreamFailure::kConnect, 0, true, bed.now).kind ==
               Decision::Kind::kForward;
    }
    for (auto& s : sessions) s->OnAborted(Termination::kError, 0, bed.now);
    sessions.clear();
    return count;
  };
  EXPECT_EQ(retried(2), 2u);
  EXPECT_EQ(retried(10), kRetryBudgetFloor);
  EXPECT_EQ(retried(100), 20u) << "a fifth of those active";
  EXPECT_EQ(retried(10), kRetryBudgetFloor) << "the end gives the budget back";
  EXPECT_EQ(bed.InFlight(), 0);
  EXPECT_EQ(bed.director().active(), 0u);
}

TEST(Retries, PassOverEjectedEndpoints) {
  Bed bed(6, {.endpoints_wanted = 6});
  Session session(bed.director(), 1, bed.now);
  const Decision d = Decide(session, bed);
  const fleet::EndpointNumber second = d.forward.endpoints[1].endpoint;
  const fleet::EndpointNumber third = d.forward.endpoints[2].endpoint;
  for (uint32_t i = 0; i < fleet::Health::kFailuresToEject; ++i) {
    bed.fleet.health(second).ReportFailure(bed.now);
  }
  const Decision next = session.OnUpstreamFailed(UpstreamFailure::kConnect, 0, true, bed.now);
  EXPECT_EQ(next.forward.endpoints[0].endpoint, third);
  session.OnAborted(Termination::kError, 0, bed.now);
}

TEST(Retries, FailuresEjectAndSuccessesForget) {
  Bed bed(1);
  for (uint32_t i = 0; i < fleet::Health::kFailuresToEject; ++i) {
    Session session(bed.director(), i, bed.now);
    Decide(session, bed);
    session.OnUpstreamFailed(UpstreamFailure::kConnect, 0, true, bed.now);
    session.OnDone(0, bed.now);
  }
  EXPECT_EQ(bed.fleet.health(0).state(bed.now), fleet::Health::State::kEjected);
  EXPECT_EQ(bed.metrics.ValueOf(MetricId::kEjectionsTotal, {"e0"}), 1);
}

TEST(Retries, ARefusedStatusMayStillBeRelayed) {
  Bed bed(1);
  Session session(bed.director(), 1, bed.now);
  Decide(session, bed);
  const Decision d =
      session.OnUpstreamFailed(UpstreamFailure::kStatus502or503or504, 503, true, bed.now);
  EXPECT_EQ(d.kind, Decision::Kind::kReply);
  EXPECT_EQ(bed.InFlight(), 12) << "the engine is busy until its reply is read";
  const uint64_t bugs = Bugs();
  session.OnResponseHead({.status = 503}, bed.now);
  session.OnResponseBody("overloaded", bed.now);
  session.OnDone(10, bed.now);
  EXPECT_EQ(Bugs(), bugs);
  EXPECT_EQ(bed.InFlight(), 0);
}

}  // namespace
}  // namespace llmd::director
