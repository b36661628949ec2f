#include <gmock/gmock.h>
#include <gtest/gtest.h>


#include "base/strings.h"
#include "epp/endpoint_picker.h"
#include "epp/epp_testing.h"
#include "plugins/data_source/metrics_data_source.h"
#include "plugins/discovery/file_discovery.h"
#include "plugins/extractor/core_metrics_extractor.h"
#include "plugins/filter/header_based_testing_filter.h"
#include "plugins/filter/label_selector_filter.h"
#include "plugins/parser/openai_parser.h"
#include "plugins/parser/passthrough_parser.h"
#include "plugins/picker/max_score_picker.h"
#include "plugins/producer/approx_prefix_cache_producer.h"
#include "plugins/producer/inflight_load_producer.h"
#include "plugins/producer/token_producer.h"
#include "plugins/profile_handler/single_profile_handler.h"
#include "plugins/response/destination_endpoint_served_verifier.h"
#include "plugins/saturation/concurrency_detector.h"
#include "plugins/saturation/utilization_detector.h"
#include "plugins/scorer/kv_cache_utilization_scorer.h"
#include "plugins/scorer/prefix_cache_scorer.h"
#include "plugins/scorer/queue_scorer.h"
#include "runtime/clock.h"

namespace llmd::epp {
namespace {

using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using wire::StructField;

constexpr std::string_view kChat =
    R"({"model":"m","messages":[{"role":"user","content":"Hello"}]})";
constexpr std::string_view kOne = "127.0.0.1:9901", kTwo = "127.0.0.1:9902";

plugin::Catalogue MakeCatalogue() {
  plugin::Catalogue catalogue;
  for (auto type :
       {plugins::FileDiscoveryType(), plugins::MetricsDataSourceType(),
        plugins::CoreMetricsExtractorType(), plugins::OpenAiParserType(),
        plugins::PassthroughParserType(), plugins::TokenProducerType(),
        plugins::ApproxPrefixCacheProducerType(), plugins::InFlightLoadProducerType(),
        plugins::UtilizationDetectorType(), plugins::ConcurrencyDetectorType(),
        plugins::SingleProfileHandlerType(), plugins::QueueScorerType(),
        plugins::KvCacheUtilizationScorerType(), plugins::PrefixCacheScorerType(),
        plugins::MaxScorePickerType(), plugins::LabelSelectorFilterType(),
        plugins::HeaderBasedTestingFilterType(),
        plugins::DestinationEndpointServedVerifierType()}) {
    catalogue.Add(std::move(type));
  }
  return catalogue;
}

class EppTest : public ::testing::Test {
 protected:
  EppTest() {
    options_.listen = options_.health_listen = options_.metrics_listen = "127.0.0.1:0";
    options_.secure_serving = false;
    options_.workers = 2;
    options_.drain_timeout = base::Duration(0);
    options_.endpoints = {std::string(kOne), std::string(kTwo)};
  }
  // The profile's plugins beside a file of the two endpoints.
  void UseConfig(std::string_view plugins) {
    options_.endpoints = {std::string(kOne), std::string(kTwo)};
    options_.config_text = base::Concat(
        "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins: [", plugins, "]\n");
  }
  void Start() {
    auto picker = EndpointPicker::Start(options_, catalogue_, nullptr, nullptr);
    ASSERT_TRUE(picker) << picker.error().message();
    picker_ = std::move(*picker);
    ASSERT_TRUE(picker_->WaitForEndpoints(2, std::chrono::seconds(5)));
    proxy_ = std::make_unique<Proxy>(picker_->port());
  }
  Proxy::Call& Post(std::string_view body = kChat, Proxy::Headers extra = {}) {
    Proxy::Call& call = proxy_->Begin();
    Proxy::Headers headers = {{":method", "POST"},
                              {":path", "/v1/chat/completions"},
                              {"content-type", "application/json"},
                              {"content-length", std::to_string(body.size())},
                              {"x-request-id", "id-1"}};
    headers.insert(headers.end(), extra.begin(), extra.end());
    proxy_->RequestHeaders(call, headers);
    proxy_->RequestBody(call, body, true);
    return call;
  }
  // Answers a routed call as a model server would.
  std::vector<TestReply> Respond(Proxy::Call& call, std::string_view body, size_t replies_before) {
    proxy_->ResponseHeaders(call, {{":status", "200"}, {"content-type", "application/json"}});
    proxy_->ResponseBody(call, body, true);
    auto replies = proxy_->Replies(call, replies_before + 2);
    replies.erase(replies.begin(), replies.begin() + static_cast<std::ptrdiff_t>(replies_before));
    return replies;
  }

  plugin::Catalogue catalogue_ = MakeCatalogue();
  EppOptions options_;
  std::unique_ptr<EndpointPicker> picker_;
  std::unique_ptr<Proxy> proxy_;
};

TEST_F(EppTest, PicksAnEndpointAndPassesBodiesOn) {
  Start();
  Proxy::Call& call = Post();
  auto replies = proxy_->Replies(call, 2);
  ASSERT_EQ(replies.size(), 2u);
  EXPECT_EQ(replies[0].kind, "request_headers");
  EXPECT_TRUE(replies[0].clear_route_cache);
  const std::string picked = replies[0].Set("x-gateway-destination-endpoint");
  EXPECT_THAT(picked, AnyOf(kOne, kTwo));
  EXPECT_EQ(replies[0].Metadata("envoy.lb/x-gateway-destination-endpoint"), picked);
  EXPECT_EQ(replies[0].Set("Content-Length"), std::to_string(kChat.size()));
  EXPECT_EQ(replies[0].Set("x-request-id"), "(not set)") << "the client's stays as it is";
  EXPECT_EQ(replies[1].kind, "request_body");
  EXPECT_EQ(replies[1].body, kChat);
  EXPECT_TRUE(replies[1].end_of_stream);

  replies = Respond(call, R"({"usage":{"prompt_tokens":1}})", 2);
  ASSERT_EQ(replies.size(), 2u);
  EXPECT_EQ(replies[0].kind, "response_headers");
  EXPECT_EQ(replies[1].body, R"({"usage":{"prompt_tokens":1}})");
  EXPECT_TRUE(replies[1].end_of_stream);
  proxy_->client().Reset(call, 2);  // as Envoy ends a stream
}

TEST_F(EppTest, NothingIsSaidBeforeTheBodyIsWhole) {
  Start();
  Proxy::Call& call = proxy_->Begin();
  proxy_->RequestHeaders(call, {{":method", "POST"}, {":path", "/v1/chat/completions"}});
  for (const char c : kChat) proxy_->RequestBody(call, {&c, 1}, false);
  proxy_->TurnABit();
  EXPECT_TRUE(call.messages.empty());
  proxy_->RequestBody(call, "", true);
  const auto replies = proxy_->Replies(call, 2);
  ASSERT_EQ(replies.size(), 2u);
  EXPECT_NE(replies[0].Set("x-request-id"), "(not set)") << "one was made";
  EXPECT_EQ(replies[1].body, kChat);
}

TEST_F(EppTest, LargeBodiesComeBackInChunks) {
  Start();
  std::string body = R"({"model":"m","messages":[{"role":"user","content":")";
  body += std::string(200'000, 'x') + R"("}]})";
  Proxy::Call& call = proxy_->Begin();
  proxy_->RequestHeaders(call, {{":method", "POST"}, {":path", "/v1/chat/completions"}});
  for (size_t at = 0; at < body.size(); at += 32 << 10) {
    proxy_->RequestBody(call, std::string_view(body).substr(at, 32 << 10), false);
  }
  proxy_->RequestBody(call, "", true);
  const auto replies = proxy_->Replies(call, 5);
  ASSERT_EQ(replies.size(), 5u);
  std::string all;
  for (size_t i = 1; i < replies.size(); ++i) {
    EXPECT_LE(replies[i].body.size(), 62'000u);
    EXPECT_EQ(replies[i].end_of_stream, i + 1 == replies.size());
    all += replies[i].body;
  }
  EXPECT_EQ(all, body);
}

TEST_F(EppTest, ARewriteChangesOnlyTheModel) {
  Start();
  Proxy::Call& call = Post(kChat, {{"x-llm-d-model-name-rewrite", "longer-name"}});
  auto replies = proxy_->Replies(call, 2);
  ASSERT_EQ(replies.size(), 2u);
  const std::string body =
      R"({"model":"longer-name","messages":[{"role":"user","content":"Hello"}]})";
  EXPECT_EQ(replies[1].body, body);
  EXPECT_EQ(replies[0].Set("Content-Length"), std::to_string(body.size()));
  EXPECT_THAT(replies[0].removed, ElementsAre("x-llm-d-model-name-rewrite"));
  // The client gets the name that it asked for, split over messages or not.
  proxy_->ResponseHeaders(call, {{":status", "200"},
                                 {"content-type", "text/event-stream"},
                                 {"content-length", "99"}});
  proxy_->ResponseBody(call, "data: {\"model\":\"longer-", false);
  proxy_->ResponseBody(call, "name\"}\n\ndata: [DONE]\n\n", true);
  replies = proxy_->Replies(call, 5);
  ASSERT_EQ(replies.size(), 5u);
  EXPECT_THAT(replies[2].removed, ElementsAre("content-length"));
  EXPECT_EQ(replies[3].body + replies[4].body, "data: {\"model\":\"m\"}\n\ndata: [DONE]\n\n");
}

TEST_F(EppTest, HeaderOnlyRequestsAreRoutedToo) {
  Start();
  const StructField subset[] = {StructField::String(wire::kSubsetKey, kTwo)};
  const StructField metadata[] = {StructField::Struct(wire::kSubsetNamespace, subset)};
  proxy_->SetMetadata(metadata);
  for (int i = 0; i < 8; ++i) {
    Proxy::Call& call = proxy_->Begin();
    proxy_->RequestHeaders(call, {{":method", "GET"}, {":path", "/v1/models"}}, true);
    const auto replies = proxy_->Replies(call, 1);
    ASSERT_EQ(replies.size(), 1u);
    EXPECT_EQ(replies[0].Set("x-gateway-destination-endpoint"), kTwo);
    EXPECT_EQ(replies[0].Set("Content-Length"), "(not set)");
  }
}

TEST_F(EppTest, TheSubsetHintIsHonoured) {
  Start();
  const auto picks = [&](std::span<const StructField> metadata) {
    proxy_->SetMetadata(metadata);
    Proxy::Call& call = Post();
    const auto replies = proxy_->Replies(call, 2);
    if (replies.empty()) return std::string("nothing");
    if (replies[0].kind != "immediate") return replies[0].Set("x-gateway-destination-endpoint");
    return base::Concat(std::to_string(replies[0].status), " ",
                        replies[0].Set("x-llm-d-request-dropped-reason"));
  };
  const StructField one[] = {StructField::String("", kOne)};
  const StructField unknown[] = {StructField::String("", "10.9.9.9:80")};
  const struct {
    StructField hint;
    std::string expected;
  } cases[] = {
      {StructField::List(wire::kSubsetKey, one), std::string(kOne)},
      {StructField::String(wire::kSubsetKey, "10.9.9.9:80, 127.0.0.1:9902"), std::string(kTwo)},
      {StructField::List(wire::kSubsetKey, {}), "503 rejected-no-endpoints"},
      {StructField::List(wire::kSubsetKey, unknown), "503 rejected-no-endpoints"},
  };
  for (const auto& c : cases) {
    const StructField metadata[] = {StructField::Struct(wire::kSubsetNamespace, {&c.hint, 1})};
    EXPECT_EQ(picks(metadata), c.expected);
  }
}

TEST_F(EppTest, RequestTrailersEndTheBody) {
  Start();
  Proxy::Call& call = proxy_->Begin();
  proxy_->RequestHeaders(call, {{":method", "POST"}, {":path", "/v1/chat/completions"}});
  proxy_->RequestBody(call, kChat, false);
  proxy_->RequestTrailers(call);
  const auto replies = proxy_->Replies(call, 3);
  ASSERT_EQ(replies.size(), 3u);
  EXPECT_EQ(replies[1].body, kChat);
  EXPECT_FALSE(replies[1].end_of_stream) << "the trailers are the end";
  EXPECT_EQ(replies[2].kind, "request_trailers");
}

TEST_F(EppTest, ResponseTrailersEndTheResponse) {
  Start();
  Proxy::Call& call = Post();
  ASSERT_EQ(proxy_->Replies(call, 2).size(), 2u);
  proxy_->ResponseHeaders(call, {{":status", "200"}, {"content-type", "application/grpc"}});
  proxy_->ResponseBody(call, "abc", false);
  proxy_->ResponseTrailers(call);
  const auto replies = proxy_->Replies(call, 5);
  ASSERT_EQ(replies.size(), 5u);
  EXPECT_EQ(replies[3].body, "abc");
  EXPECT_FALSE(replies[3].end_of_stream);
  EXPECT_EQ(replies[4].kind, "response_trailers");
}

TEST_F(EppTest, AfterTheEndOfABodyNothingMoreOfItCounts) {
  Start();
  Proxy::Call& call = Post();
  ASSERT_EQ(proxy_->Replies(call, 2).size(), 2u);
  proxy_->RequestBody(call, "again", true);
  EXPECT_EQ(Respond(call, "{}", 2).size(), 2u);
}

TEST_F(EppTest, RefusalsAreImmediateResponses) {
  Start();
  Proxy::Call& call = Post("{\"model\":");
  const auto replies = proxy_->Replies(call, 1);
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].kind, "immediate");
  EXPECT_EQ(replies[0].status, 400);
  EXPECT_EQ(replies[0].Set("content-type"), "application/json");
  EXPECT_THAT(replies[0].body, HasSubstr(R"("type":"BadRequestError")"));
  EXPECT_TRUE(proxy_->WaitForEnd(call));
  EXPECT_EQ(call.grpc_status, 0);
}

TEST_F(EppTest, RefusalsCanReadLikeUpstreams) {
  options_.error_format = ErrorFormat::kText;
  Start();
  Proxy::Call& call = Post(R"({"messages":[{"role":"user","content":"Hello"}]})");
  const auto replies = proxy_->Replies(call, 1);
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].body, "inference error: BadRequest - model not found in request body");
  EXPECT_EQ(replies[0].Set("content-type"), "(not set)");
}

TEST_F(EppTest, AnEmptiedListSaysWhy) {
  for (const bool saturated : {true, false}) {
    UseConfig(saturated ? "{type: concurrency-detector, parameters: {maxConcurrency: 1}}"
                        : "{type: header-based-testing-filter}");
    Start();
    std::vector<TestReply> replies;
    for (int i = 0; i < 3; ++i) {
      Proxy::Call& call = Post();
      replies = proxy_->Replies(call, 1);
      ASSERT_FALSE(replies.empty());
    }
    EXPECT_EQ(replies[0].status, saturated ? 429 : 503);
    EXPECT_EQ(replies[0].Set("x-llm-d-request-dropped-reason"),
              saturated ? "rejected-saturated" : "rejected-no-endpoints");
    EXPECT_NE(replies[0].Set("retry-after"), "(not set)");
  }
}

TEST_F(EppTest, ClientsCannotSpeakForTheGateway) {
  Start();
  Proxy::Call& call = Post(kChat, {{"x-gateway-destination-endpoint", "6.6.6.6:66"},
                                   {"x-gateway-destination-endpoint-served", "6.6.6.6:66"},
                                   {"X-LLM-D-Inference-Objective", "gold"},
                                   {"x-mine", "stays"}});
  const auto replies = proxy_->Replies(call, 1);
  ASSERT_FALSE(replies.empty());
  EXPECT_THAT(replies[0].Set("x-gateway-destination-endpoint"), AnyOf(kOne, kTwo));
  EXPECT_THAT(replies[0].removed, Contains("x-gateway-destination-endpoint-served"));
  EXPECT_THAT(replies[0].removed, Contains("X-LLM-D-Inference-Objective"));
  EXPECT_THAT(replies[0].removed, Not(Contains("x-mine")));
}

TEST_F(EppTest, ScoresAndFallbacksAreEmittedWhenAsked) {
  options_.emit_endpoint_scores = true;
  options_.fallback_endpoints = 2;
  Start();
  Proxy::Call& call = Post();
  const auto replies = proxy_->Replies(call, 1);
  ASSERT_FALSE(replies.empty());
  EXPECT_THAT(replies[0].Set("x-gateway-destination-endpoint"),
              AnyOf("127.0.0.1:9901,127.0.0.1:9902", "127.0.0.1:9902,127.0.0.1:9901"));
  const std::string scores = "envoy.lb/x-gateway-destination-endpoint-scores/";
  for (const std::string_view endpoint : {kOne, kTwo}) {
    EXPECT_NE(replies[0].Metadata(scores + std::string(endpoint)), "(not set)");
  }
}

TEST_F(EppTest, PluginsSeeWhoServed) {
  UseConfig("{type: queue-scorer}, {type: destination-endpoint-served-verifier}");
  Start();
  const StructField served[] = {StructField::String(wire::kEndpointServedKey, kTwo)};
  const StructField metadata[] = {StructField::Struct(wire::kEndpointNamespace, served)};
  Proxy::Call& call = Post();
  ASSERT_EQ(proxy_->Replies(call, 2).size(), 2u);
  proxy_->SetMetadata(metadata);
  const auto replies = Respond(call, "{}", 2);
  ASSERT_EQ(replies.size(), 2u);
  EXPECT_EQ(replies[0].Set("x-conformance-test-served-endpoint"), kTwo);
}

TEST_F(EppTest, OverTheMemoryBudgetNewRequestsGet429) {
  options_.memory_budget_bytes = 100 << 10;
  options_.workers = 1;
  Start();
  const std::string half = R"({"model":"m","messages":[{"role":"user","content":")" +
                           std::string(90 << 10, 'x');
  Proxy::Call& held = proxy_->Begin();
  proxy_->RequestHeaders(held, {{":method", "POST"}, {":path", "/v1/chat/completions"}});
  proxy_->RequestBody(held, half, false);
  proxy_->TurnABit();
  Proxy::Call& refused = proxy_->Begin();
  proxy_->RequestHeaders(refused, {{":method", "POST"}, {":path", "/v1/chat/completions"}});
  proxy_->RequestBody(refused, half, false);
  auto replies = proxy_->Replies(refused, 1);
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].status, 429);
  EXPECT_THAT(replies[0].body, HasSubstr("memory budget"));
  proxy_->client().Reset(held);
  proxy_->TurnABit();
  Proxy::Call& again = Post(half + R"("}]})");
  EXPECT_EQ(proxy_->Replies(again, 1)[0].kind, "request_headers") << "the memory came back";
}

TEST_F(EppTest, MessagesOutOfOrderEndTheCall) {
  Start();
  const auto status_of = [&](auto send) {
    Proxy::Call& call = proxy_->Begin();
    send(call);
    EXPECT_TRUE(proxy_->WaitForEnd(call));
    return call.grpc_status;
  };
  constexpr int kInvalidArgument = 3;
  EXPECT_EQ(status_of([&](auto& call) { proxy_->RequestBody(call, "x", true); }),
            kInvalidArgument);
  EXPECT_EQ(status_of([&](auto& call) {
              proxy_->RequestHeaders(call, {{":path", "/"}});
              proxy_->RequestHeaders(call, {{":path", "/"}});
            }),
            kInvalidArgument);
  EXPECT_EQ(status_of([&](auto& call) { proxy_->Raw(call, "\xff\xff\xff"); }), kInvalidArgument);
  EXPECT_EQ(status_of([&](auto& call) { proxy_->Raw(call, ""); }), kInvalidArgument);
  Proxy::Call& call = Post();
  EXPECT_EQ(proxy_->Replies(call, 2).size(), 2u) << "the connection lives";
}

TEST_F(EppTest, AProxyThatAnswersByItselfIsLetThrough) {
  Start();
  Proxy::Call& call = proxy_->Begin();
  proxy_->RequestHeaders(call, {{":method", "POST"}, {":path", "/v1/chat/completions"}});
  proxy_->ResponseHeaders(call, {{":status", "413"}});
  proxy_->ResponseBody(call, "too large", true);
  const auto replies = proxy_->Replies(call, 2);
  ASSERT_EQ(replies.size(), 2u);
  EXPECT_EQ(replies[0].kind, "response_headers");
  EXPECT_EQ(replies[1].body, "too large");
  EXPECT_TRUE(replies[1].end_of_stream);
}

TEST_F(EppTest, CountersBalanceWhateverTheEnd) {
  UseConfig("{type: concurrency-detector, parameters: {maxConcurrency: 1}}, {type: queue-scorer}");
  Start();
  // Each round would leave the pool full if a counter were lost.
  for (int round = 0; round < 6; ++round) {
    std::vector<Proxy::Call*> calls = {&Post(), nullptr};
    ASSERT_EQ(proxy_->Replies(*calls[0], 2)[0].kind, "request_headers") << round;
    calls[1] = &Post();
    ASSERT_EQ(proxy_->Replies(*calls[1], 2)[0].kind, "request_headers") << round;
    if (round % 3 == 1) {
      for (Proxy::Call* call : calls) Respond(*call, "{}", 2);
    } else if (round % 3 == 2) {  // response_body_mode NONE: the stream ends, and that is all
      for (Proxy::Call* call : calls) proxy_->ResponseHeaders(*call, {{":status", "200"}});
      for (Proxy::Call* call : calls) proxy_->Replies(*call, 3);
    }
    for (Proxy::Call* call : calls) proxy_->client().Reset(*call, 2);
    proxy_->TurnABit();
  }
}

TEST_F(EppTest, ManyStreamsAtOnce) {
  Start();
  std::vector<Proxy::Call*> calls;
  for (int i = 0; i < 500; ++i) calls.push_back(&Post());
  for (Proxy::Call* call : calls) {
    const auto replies = proxy_->Replies(*call, 2);
    ASSERT_EQ(replies.size(), 2u);
    EXPECT_EQ(replies[1].body, kChat);
  }
  for (Proxy::Call* call : calls) EXPECT_EQ(Respond(*call, "{}", 2).size(), 2u);
}

TEST_F(EppTest, StartsWithTheReasonWhenItCannot) {
  options_.endpoints.clear();
  auto picker = EndpointPicker::Start(options_, catalogue_, nullptr, nullptr);
  ASSERT_FALSE(picker);
  EXPECT_THAT(picker.error().message(), HasSubstr("file-discovery"));
  options_.endpoints = {std::string(kOne)};
  options_.secure_serving = true;
  options_.cert_path = "/nonexistent";
  picker = EndpointPicker::Start(options_, catalogue_, nullptr, nullptr);
  ASSERT_FALSE(picker);
  EXPECT_THAT(picker.error().message(), HasSubstr("/nonexistent/tls.crt"));
}

TEST_F(EppTest, ServesTlsWithACertificateOfItsOwn) {
  options_.secure_serving = true;
  Start();
  auto tls = net::TlsClientContext::Create({.insecure_skip_verify = true, .alpn = "h2"});
  ASSERT_TRUE(tls) << tls.error().message();
  proxy_ = std::make_unique<Proxy>(picker_->port(), net::GrpcTestClient::Options{.tls = *tls});
  Proxy::Call& call = Post();
  EXPECT_EQ(proxy_->Replies(call, 2).size(), 2u);
}

}  // namespace
}  // namespace llmd::epp
