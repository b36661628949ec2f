#include "gateway/gateway.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>  // mkdtemp

#include <filesystem>
#include <fstream>
#include <thread>

#include "base/strings.h"
#include "gateway/gateway_testing.h"
#include "plugins/data_source/metrics_data_source.h"
#include "plugins/discovery/file_discovery.h"
#include "plugins/extractor/core_metrics_extractor.h"
#include "plugins/parser/openai_parser.h"
#include "plugins/parser/passthrough_parser.h"
#include "plugins/picker/max_score_picker.h"
#include "plugins/producer/approx_prefix_cache_producer.h"
#include "plugins/producer/token_producer.h"
#include "plugins/profile_handler/single_profile_handler.h"
#include "plugins/saturation/utilization_detector.h"
#include "plugins/scorer/kv_cache_utilization_scorer.h"
#include "plugins/scorer/load_aware_scorer.h"
#include "plugins/scorer/prefix_cache_scorer.h"
#include "plugins/scorer/queue_scorer.h"
#include "runtime/clock.h"
#include "runtime/socket.h"

namespace llmd::gateway {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::string_view kChat =
    R"({"model":"m","messages":[{"role":"user","content":"Say hello to the world."}]})";

// Calls `step` now and in each coming turn until it is true. The loop owns what is still waiting.
void EachTurnUntilTrue(runtime::EventLoop& loop, std::move_only_function<bool()> step) {
  if (step()) return;
  loop.Post([&loop, step = std::move(step)]() mutable {
    EachTurnUntilTrue(loop, std::move(step));
  });
}

class Lines final : public telemetry::LogSink {
 public:
  base::WallTime Now() override { return {}; }
  void Write(telemetry::LogLevel, std::string_view line) override {
    std::lock_guard lock(mutex_);
    text_.append(line);
  }
  std::string text() const {
    std::lock_guard lock(mutex_);
    return text_;
  }

 private:
  mutable std::mutex mutex_;
  std::string text_;
};

// What the default profile and the test of reloads need.
plugin::Catalogue MakeCatalogue() {
  plugin::Catalogue catalogue;
  for (auto type : {plugins::FileDiscoveryType(), plugins::MetricsDataSourceType(),
                    plugins::CoreMetricsExtractorType(), plugins::OpenAiParserType(),
                    plugins::PassthroughParserType(), plugins::TokenProducerType(),
                    plugins::ApproxPrefixCacheProducerType(), plugins::UtilizationDetectorType(),
                    plugins::SingleProfileHandlerType(), plugins::QueueScorerType(),
                    plugins::KvCacheUtilizationScorerType(), plugins::PrefixCacheScorerType(),
                    plugins::LoadAwareScorerType(), plugins::MaxScorePickerType()}) {
    catalogue.Add(std::move(type));
  }
  return catalogue;
}

// Waits for something that another thread does; true as soon as it holds.
template <class Condition>
bool Eventually(Condition condition) {
  const base::TimePoint limit = runtime::Now() + std::chrono::seconds(10);
  while (!condition()) {
    if (runtime::Now() > limit) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

// Lets every request wait 30 ms, tells the engine so and the client which status it had.
struct SlowHook : plugin::Plugin,
                  plugin::DataProducer,
                  plugin::PreRequest,
                  plugin::ResponseProcessor {
  base::Status Produce(plugin::RequestContext& r,
                       std::span<const plugin::EndpointNumber>) override {
    const base::TimePoint ready = r.received_at + std::chrono::milliseconds(30);
    if (r.now < ready) r.wait_until = ready;
    return base::OkStatus();
  }
  base::Status OnRouted(plugin::RequestContext& r, const plugin::SchedulingResult&,
                        plugin::BookingList*) override {
    const bool waited = r.now >= r.received_at + std::chrono::milliseconds(30);
    r.SetHeader("x-waited", waited ? "yes" : "no");
    return base::OkStatus();
  }
  void OnResponseHead(plugin::RequestContext& r, const plugin::ResponseHead& head,
                      plugin::HeaderEdits* to_client) override {
    to_client->Set(*r.arena, "x-fields", std::to_string(head.headers.size()));
  }
};

class GatewayTest : public ::testing::Test {
 protected:
  ~GatewayTest() override {
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
  }
  // A path in a folder of this test's own, for tests of several builds may run at once.
  std::string File(std::string_view name) {
    if (folder_.empty()) {
      folder_ = ::testing::TempDir() + "gateway_test.XXXXXX";
      EXPECT_NE(mkdtemp(folder_.data()), nullptr);
    }
    return base::Concat(folder_, "/", name);
  }
  // Starts a gateway over the engines, one worker, ports of the kernel's choice.
  void Start(std::initializer_list<const ScriptedEngine*> engines,
             const std::function<void(GatewayOptions&)>& change = nullptr) {
    GatewayOptions options;
    options.listen = "127.0.0.1:0";
    options.metrics_listen = "127.0.0.1:0";
    options.workers = 1;
    for (const ScriptedEngine* engine : engines) options.endpoints.push_back(engine->host_port());
    if (change) change(options);
    auto gateway = Gateway::Start(options, catalogue_, &lines_, nullptr);
    ASSERT_TRUE(gateway) << gateway.error().ToString();
    gateway_ = std::move(*gateway);
  }
  std::string Admin(std::string_view target) {
    BlockingClient client(gateway_->metrics_port());
    client.Send(base::Concat("GET ", target, " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    return client.ReadResponse().body;
  }
  // A metric's line value, or -1.
  double Metric(std::string_view series) {
    const std::string page = Admin("/metrics");
    const size_t at = page.find(base::Concat("\n", series, " "));
    if (at == std::string::npos) return -1;
    const size_t begin = at + series.size() + 2;
    return base::ParseDouble(std::string_view(page).substr(begin, page.find('\n', begin) - begin))
        .value_or(-1);
  }
  // In-flight requests over all endpoints, as the admin page shows them.
  bool NothingInFlight() {
    const std::string page = Admin("/debug/endpoints");
    for (size_t at = 0; (at = page.find("\"in_flight\":", at)) != std::string::npos; ++at) {
      if (page.compare(at, 14, "\"in_flight\":0,") != 0) return false;
    }
    return true;
  }

  std::string folder_;
  plugin::Catalogue catalogue_ = MakeCatalogue();
  Lines lines_;
  std::unique_ptr<Gateway> gateway_;
};

TEST_F(GatewayTest, RelaysAChatCompletion) {
  ScriptedEngine engine("a");
  Start({&engine});
  BlockingClient client(gateway_->port());
  client.Send(PostRequest("/v1/chat/completions", kChat, "X-Request-Id: my-id\r\n"));
  const auto response = client.ReadResponse();
  EXPECT_EQ(response.status, 200);
  EXPECT_THAT(response.body, HasSubstr(R"("name":"a")"));
  EXPECT_THAT(response.head, HasSubstr("x-request-id: my-id\r\n"));
  ASSERT_EQ(engine.seen().size(), 1u);
  const auto seen = engine.seen()[0];
  EXPECT_EQ(seen.body, kChat);
  EXPECT_EQ(seen.fields.find("accept-encoding")->second, "identity");
  EXPECT_EQ(seen.fields.find("x-forwarded-for")->second, "127.0.0.1");
  EXPECT_TRUE(Eventually([&] { return lines_.text().find("my-id") != std::string::npos; }));
  EXPECT_THAT(Admin("/debug/decisions?id=my-id"), HasSubstr("prefix-cache-scorer"));
  EXPECT_TRUE(Eventually([&] { return NothingInFlight(); }));
}

TEST_F(GatewayTest, KeepsConnectionsAndServesPipelinedRequestsInOrder) {
  ScriptedEngine engine("a", [](net::ServerExchange& exchange, const ScriptedEngine::Seen& seen) {
    exchange.Respond(200, "application/json", seen.body);
  });
  Start({&engine});
  BlockingClient client(gateway_->port());
  std::string all;
  for (int i = 0; i < 5; ++i) {
    all += PostRequest("/v1/completions",
                       R"({"model":"m","prompt":"number )" + std::to_string(i) + "\"}");
  }
  client.Send(all);
  for (int i = 0; i < 5; ++i) {
    EXPECT_THAT(client.ReadResponse().body, HasSubstr("number " + std::to_string(i)));
  }
}

TEST_F(GatewayTest, ChunkedUploadsAndExpectContinueArriveWhole) {
  ScriptedEngine engine("a");
  Start({&engine});
  BlockingClient client(gateway_->port());
  client.Send(
      "POST /v1/completions HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
      "Transfer-Encoding: chunked\r\n\r\n");
  EXPECT_THAT(client.ReadUntil("\r\n\r\n"), HasSubstr("100 Continue"));
  client.Send("10\r\n{\"model\":\"m\",\"pr\r\n");
  client.Send("c\r\nompt\":\"abc\"}\r\n0\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().status, 200);
  const auto seen = engine.seen();
  ASSERT_EQ(seen.size(), 1u);
  EXPECT_EQ(seen[0].body, R"({"model":"m","prompt":"abc"})");
  EXPECT_EQ(seen[0].fields.find("content-length")->second, "28");
  EXPECT_EQ(seen[0].fields.count("expect"), 0u);
}

TEST_F(GatewayTest, StreamsEventsAsTheyComeAndReadsTheirUsage) {
  // The engine waits between events until the test has seen the one before.
  std::atomic<int> allowed{0};
  ScriptedEngine engine("a", [&](net::ServerExchange& exchange, const ScriptedEngine::Seen&) {
    exchange.SendHead("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n",
                      net::ResponseFraming::kChunked);
    EachTurnUntilTrue(exchange.loop(), [&, i = 0]() mutable {
      if (allowed.load() < i) return false;
      if (i < 3) {
        exchange.SendBody(
            base::Concat("data: {\"choices\":[{\"text\":\"", std::to_string(i++), "\"}]}\n\n"));
        return false;
      }
      exchange.SendBody(std::string_view(
          "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3,"));
      exchange.SendBody(std::string_view("\"total_tokens\":10}}\n\ndata: [DONE]\n\n"));
      exchange.Finish();
      return true;
    });
  });
  Start({&engine});
  BlockingClient client(gateway_->port());
  client.Send(PostRequest("/v1/completions", R"({"model":"m","prompt":"abc","stream":true})"));
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(client.ReadUntil(std::to_string(i) + "\"}]}\n\n"), HasSubstr("data: {"));
    allowed.store(i + 1);
  }
  EXPECT_THAT(client.ReadUntil("0\r\n\r\n"), HasSubstr("data: [DONE]"));
  const std::string labels =
      R"({fairness_id="default-flow",model_name="m",priority="0",target_model_name="m"})";
  EXPECT_TRUE(Eventually(
      [&] { return Metric("llm_d_epp_request_output_tokens_sum" + labels) == 3; }))
      << Admin("/metrics?name[]=llm_d_epp_request_output_tokens");
  EXPECT_EQ(Metric("llm_d_epp_request_input_tokens_sum" + labels), 7);
  EXPECT_TRUE(Eventually([&] { return NothingInFlight(); }));
}

TEST_F(GatewayTest, BadInputGetsAClearErrorInOpenAiShape) {
  ScriptedEngine engine("a");
  Start({&engine}, [](GatewayOptions& options) { options.max_body_bytes = 1000; });
  const struct {
    std::string request;
    int status;
    std::string_view text;
  } cases[] = {
      {PostRequest("/v1/chat/completions", "{\"model\":"), 400, "error"},
      {PostRequest("/v1/chat/completions", "[1]"), 400, "error"},
      {PostRequest("/v1/completions", R"({"prompt":"a"})"), 400, "model"},
      {PostRequest("/v1/completions", R"({"model":7,"prompt":"a"})"), 400, "model"},
      {PostRequest("/v1/chat/completions", std::string(1001, ' ')), 413, "error"},
      {"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", 501,
       "upgrade"},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
       400, "error"},
      {"GET / HTTP/1.1\r\nHost: a\r\nbad header: x\r\n\r\n", 400, "error"},
      {"GET / HTTP/1.1\r\nHost: a\r\nx: " + std::string(100'000, 'x') + "\r\n\r\n", 431, "error"},
  };
  for (const auto& c : cases) {
    BlockingClient client(gateway_->port());
    client.Send(c.request);
    const auto response = client.ReadResponse();
    EXPECT_EQ(response.status, c.status) << c.request.substr(0, 200);
    EXPECT_THAT(response.body, HasSubstr(R"({"error":{)"));
    EXPECT_THAT(response.body, HasSubstr(std::string(c.text)));
  }
  EXPECT_EQ(engine.seen().size(), 0u);
  EXPECT_TRUE(Eventually([&] { return NothingInFlight(); }));
}

TEST_F(GatewayTest, AFailingEndpointIsRetriedElsewhereBeforeTheFirstByte) {
  std::atomic<int> refused{0};
  ScriptedEngine bad("bad", [&](net::ServerExchange& exchange, const ScriptedEngine::Seen&) {
    ++refused;
    exchange.Respond(503, "application/json", "{}");
  });
  ScriptedEngine good("good");
  bad.SetLoad(0, 0, 0);
  good.SetLoad(50, 50, 0.9);  // so that the first choice is the bad one
  Start({&bad, &good});
  EXPECT_TRUE(Eventually([&] {
    return Admin("/debug/endpoints").find("\"waiting\":50") != std::string::npos;
  }));
  for (int i = 0; i < 20; ++i) {
    BlockingClient client(gateway_->port());
    client.Send(PostRequest("/v1/chat/completions", kChat));
    const auto response = client.ReadResponse();
    EXPECT_EQ(response.status, 200);
    EXPECT_THAT(response.body, HasSubstr(R"("name":"good")"));
  }
  // Ejected after a few failures in a row, so not every request was tried there.
  EXPECT_GE(refused.load(), 1);
  EXPECT_LT(refused.load(), 20);
  EXPECT_TRUE(Eventually([&] { return NothingInFlight(); }));
}

TEST_F(GatewayTest, ADeadEndpointIsRetriedAndADeadFleetAnswers503) {
  auto dead = std::make_unique<ScriptedEngine>("dead");
  ScriptedEngine alive("alive");
  Start({dead.get(), &alive});
  dead->Kill();
  for (int i = 0; i < 10; ++i) {
    BlockingClient client(gateway_->port());
    client.Send(PostRequest("/v1/chat/completions", kChat));
    EXPECT_THAT(client.ReadResponse().body, HasSubstr(R"("name":"alive")"));
  }
  alive.Kill();
  BlockingClient client(gateway_->port());
  client.Send(PostRequest("/v1/chat/completions", kChat));
  const auto response = client.ReadResponse();
  EXPECT_THAT(response.status, AnyOf(502, 503));
  EXPECT_THAT(response.body, HasSubstr("\"error\""));
  EXPECT_TRUE(Eventually([&] { return NothingInFlight(); }));
}

TEST_F(GatewayTest, AnEngineThatDiesMidStreamGivesAnErrorEventAndAClosedStream) {
  std::atomic<bool> die{false};
  ScriptedEngine engine("a", [&](net::ServerExchange& exchange, const ScriptedEngine::Seen&) {
    exchange.SendHead("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n",
                      net::ResponseFraming::kChunked);
    exchange.SendBody(std::string_view("data: {\"choices\":[]}\n\ndata: {\"cho"));
    EachTurnUntilTrue(exchange.loop(), [&] {
      if (!die.load()) return false;
      exchange.Abort();
      return true;
    });
  });
  Start({&engine});
  BlockingClient client(gateway_->port());
  client.Send(PostRequest("/v1/completions", R"({"model":"m","prompt":"abc","stream":true})"));
  EXPECT_THAT(client.ReadUntil("choices"), HasSubstr("200 OK"));
  die.store(true);
  const std::string rest = client.ReadAll();
  EXPECT_THAT(rest, HasSubstr("data: {\"error\":{"));
  EXPECT_TRUE(rest.ends_with("data: [DONE]\n\n\r\n0\r\n\r\n")) << rest;
  EXPECT_TRUE(Eventually([&] { return NothingInFlight(); }));
  EXPECT_TRUE(Eventually([&] { return lines_.text().find("engine_died") != std::string::npos; }));
}

TEST_F(GatewayTest, AClientThatLeavesCancelsTheEngineAtOnce) {
  ScriptedEngine engine("a", [](net::ServerExchange& exchange, const ScriptedEngine::Seen&) {
    exchange.SendHead("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n",
                      net::ResponseFraming::kChunked);
    exchange.SendBody(std::string_view("data: {}\n\n"));  // and never ends
  });
  Start({&engine});
  {
    BlockingClient client(gateway_->port());
    client.Send(PostRequest("/v1/completions", R"({"model":"m","prompt":"abc","stream":true})"));
    client.ReadUntil("data: {}");
    EXPECT_FALSE(NothingInFlight());
  }
  EXPECT_TRUE(Eventually([&] { return engine.client_gone_count() == 1; }));
  EXPECT_TRUE(Eventually([&] { return NothingInFlight(); }));
  EXPECT_EQ(Metric(R"(llmd_client_aborts_total{stage="in_response"})"), 1);
}

TEST_F(GatewayTest, ModelsAreTheUnionOfAllEndpoints) {
  ScriptedEngine a("a"), b("b");
  Start({&a, &b});
  BlockingClient::Response response;
  EXPECT_TRUE(Eventually([&] {
    BlockingClient client(gateway_->port());
    client.Send("GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n");
    response = client.ReadResponse();
    return response.body.find("\"a\"") != std::string::npos &&
           response.body.find("\"b\"") != std::string::npos;
  }));
  EXPECT_EQ(response.body,
            R"({"object":"list","data":[{"id":"m","object":"model"},{"id":"a","object":"model"},)"
            R"({"id":"b","object":"model"}]})");
}

TEST_F(GatewayTest, ModelsOfAnEndpointThatStartsLateAreKnownSoon) {
  const auto address = runtime::SocketAddress::Ipv4(0x7f000001, 0);
  const auto listening = runtime::ListenTcp(address);  // keeps the port until the engine is there
  ASSERT_TRUE(listening);
  const uint16_t port = runtime::LocalAddress(*listening)->port();
  Start({}, [&](GatewayOptions& o) { o.endpoints = {"127.0.0.1:" + std::to_string(port)}; });
  auto models = [&] {
    BlockingClient client(gateway_->port());
    client.Send("GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n");
    return client.ReadResponse();
  };
  const auto early = models();
  EXPECT_EQ(early.status, 503);
  EXPECT_THAT(early.head, HasSubstr("retry-after: 1\r\n"));
  runtime::CloseFd(*listening);
  ScriptedEngine late("late", nullptr, port);
  EXPECT_TRUE(Eventually([&] { return models().status == 200; }));
}

TEST_F(GatewayTest, TheMetricsPageTellsOfThePoolAndTheProcess) {
  ScriptedEngine busy("busy");
  busy.SetLoad(10, 1, 0.4);  // twice utilization-detector's queue threshold
  Start({&busy});
  EXPECT_TRUE(Eventually([&] {
    return Metric(R"(llm_d_epp_flow_control_pool_saturation{inference_pool="default",)"
                  R"(stage="effective"})") == 2;
  }));
  EXPECT_EQ(Metric(R"(llm_d_epp_average_queue_size{name="default"})"), 10);
  BlockingClient client(gateway_->port());
  client.Send(PostRequest("/v1/chat/completions", kChat));
  EXPECT_EQ(client.ReadResponse().status, 200);
  EXPECT_TRUE(Eventually([&] { return Metric("llmd_connections_open") == 1; }));
  EXPECT_EQ(Metric(R"(llmd_connections_total{side="client"})"), 1);
  EXPECT_EQ(Metric(R"(llmd_connections_total{side="endpoint"})"), 1);
  EXPECT_GT(Metric("process_open_fds"), 5);
  EXPECT_GT(Metric("process_resident_memory_bytes"), 1e6);
  EXPECT_GE(Metric(R"(llm_d_epp_prefix_indexer_hit_ratio_count)"
                   R"({plugin_name="approx-prefix-cache-producer",)"
                   R"(plugin_type="approx-prefix-cache-producer"})"),
            1);
}

TEST_F(GatewayTest, UnknownPathsPassThroughUntouched) {
  ScriptedEngine engine("a", [](net::ServerExchange& exchange, const ScriptedEngine::Seen& seen) {
    exchange.Respond(200, "text/plain", seen.method + " " + seen.target + " " + seen.body);
  });
  Start({&engine});
  BlockingClient client(gateway_->port());
  client.Send("GET /version?x=%20y HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().body, "GET /version?x=%20y ");
  client.Send(PostRequest("/tokenize", "not json"));
  EXPECT_EQ(client.ReadResponse().body, "POST /tokenize not json");
}

TEST_F(GatewayTest, RepliesWithoutABodyEndAtOnceAndKeepTheConnection) {
  ScriptedEngine engine("a", [](net::ServerExchange& exchange, const ScriptedEngine::Seen& seen) {
    const bool none = seen.target == "/none";
    exchange.SendHead(none ? "HTTP/1.1 204 No Content\r\n" : "HTTP/1.1 200 OK\r\n",
                      none ? net::ResponseFraming::kNone : net::ResponseFraming::kLength,
                      seen.target == "/long" ? 1234 : 0);
    exchange.Finish();
  });
  Start({&engine});
  BlockingClient client(gateway_->port());
  client.Send("GET /empty HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}");
  EXPECT_THAT(client.ReadUntil("\r\n\r\n"), HasSubstr("Content-Length: 0\r\n"));
  client.Send("HEAD /long HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(client.ReadUntil("\r\n\r\n"), HasSubstr("Content-Length: 1234\r\n"));
  client.Send("GET /none HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(client.ReadUntil("\r\n\r\n"),
              AllOf(HasSubstr(" 204 "), Not(HasSubstr("Content-Length"))));
}

TEST_F(GatewayTest, ApiKeysGuardTheDoorAndDoNotReachTheEngine) {
  const std::string path = File("keys");
  // SHA-256 of "abc".
  std::ofstream(path) << "team ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n";
  ScriptedEngine engine("a");
  Start({&engine}, [&](GatewayOptions& options) {
    options.api_key_file = path;
    options.engine_header = "X-Engine-Key: inner";
  });
  BlockingClient client(gateway_->port());
  client.Send(PostRequest("/v1/chat/completions", kChat));
  EXPECT_EQ(client.ReadResponse().status, 401);
  client.Send(PostRequest("/v1/chat/completions", kChat, "Authorization: Bearer abd\r\n"));
  EXPECT_EQ(client.ReadResponse().status, 401);
  client.Send(PostRequest("/v1/chat/completions", kChat, "Authorization: Bearer abc\r\n"));
  EXPECT_EQ(client.ReadResponse().status, 200);
  const auto seen = engine.seen();
  ASSERT_EQ(seen.size(), 1u);
  EXPECT_EQ(seen[0].fields.count("authorization"), 0u);
  EXPECT_EQ(seen[0].fields.find("x-engine-key")->second, "inner");
  EXPECT_TRUE(
      Eventually([&] { return Metric(R"(llmd_key_requests_total{key="team"})") == 1; }));
  EXPECT_EQ(Metric(R"(llmd_key_rejected_total{reason="missing"})"), 1);
  EXPECT_EQ(Metric(R"(llmd_key_rejected_total{reason="unknown"})"), 1);
}

TEST_F(GatewayTest, BodiesBeyondTheMemoryBudgetGet429) {
  ScriptedEngine engine("a");
  Start({&engine}, [](GatewayOptions& options) { options.memory_budget_bytes = 100'000; });
  BlockingClient client(gateway_->port());
  const std::string body =
      R"({"model":"m","prompt":")" + std::string(200'000, 'x') + R"("})";
  client.Send(PostRequest("/v1/completions", body));
  const auto response = client.ReadResponse();
  EXPECT_EQ(response.status, 429);
  EXPECT_THAT(response.head, HasSubstr("x-llm-d-request-dropped-reason: rejected-saturated"));
  BlockingClient again(gateway_->port());
  again.Send(PostRequest("/v1/chat/completions", kChat));
  EXPECT_EQ(again.ReadResponse().status, 200);
}

TEST_F(GatewayTest, MultipartUploadsAreRoutedByModelAndStreamThrough) {
  ScriptedEngine engine("a", [](net::ServerExchange& exchange, const ScriptedEngine::Seen& seen) {
    exchange.Respond(200, "text/plain", std::to_string(seen.body.size()));
  });
  Start({&engine});
  const std::string begin =
      "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n"
      "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n";
  const std::string end = "\r\n--b--\r\n";
  const std::string file(3'000'000, 'f');
  BlockingClient client(gateway_->port());
  client.Send(base::Concat(
      "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; "
      "boundary=b\r\nContent-Length: ",
      std::to_string(begin.size() + file.size() + end.size()), "\r\n\r\n"));
  client.Send(begin);
  client.Send(file);
  client.Send(end);
  const auto response = client.ReadResponse();
  EXPECT_EQ(response.body, std::to_string(begin.size() + file.size() + end.size()));
}

constexpr std::string_view kSlowHookConfig =
    "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"
    "plugins: [{type: slow-hook}, {type: queue-scorer}]\n";

TEST_F(GatewayTest, RequestsMayWaitForAPluginAndCarryItsHeaders) {
  catalogue_.Add({.type = "slow-hook", .factory = [](plugin::PluginContext&) {
                    return std::make_unique<SlowHook>();
                  }});
  ScriptedEngine engine("a");
  Start({&engine}, [](GatewayOptions& o) { o.config_text = kSlowHookConfig; });
  BlockingClient client(gateway_->port());
  for (int i = 0; i < 2; ++i) {  // the relay is used again
    client.Send(PostRequest("/v1/chat/completions", kChat));
    const auto response = client.ReadResponse();
    EXPECT_EQ(response.status, 200);
    EXPECT_THAT(response.head, HasSubstr("x-fields: "));
    EXPECT_THAT(response.head, ::testing::Not(HasSubstr("x-fields: 0")));
  }
  ASSERT_EQ(engine.seen().size(), 2u);
  EXPECT_EQ(engine.seen()[1].fields.find("x-waited")->second, "yes");
  EXPECT_EQ(engine.seen()[1].body, kChat);
}

TEST_F(GatewayTest, AnUploadThatIsDecidedEarlyArrivesWholeAfterAWait) {
  catalogue_.Add({.type = "slow-hook", .factory = [](plugin::PluginContext&) {
                    return std::make_unique<SlowHook>();
                  }});
  ScriptedEngine engine("a", [](net::ServerExchange& exchange, const ScriptedEngine::Seen& seen) {
    exchange.Respond(200, "text/plain", std::to_string(seen.body.size()));
  });
  Start({&engine}, [](GatewayOptions& o) { o.config_text = kSlowHookConfig; });
  for (const size_t bytes : {size_t{10}, size_t{3'000'000}}) {
    BlockingClient client(gateway_->port());
    client.Send(base::Concat("POST /v1/other HTTP/1.1\r\nHost: a\r\nContent-Length: ",
                             std::to_string(bytes), "\r\n\r\n"));
    client.Send(std::string(bytes / 2, 'a'));
    client.Send(std::string(bytes - bytes / 2, 'b'));
    EXPECT_EQ(client.ReadResponse().body, std::to_string(bytes));
  }
}

TEST_F(GatewayTest, AClientMayLeaveWhileItsRequestWaits) {
  catalogue_.Add({.type = "slow-hook", .factory = [](plugin::PluginContext&) {
                    return std::make_unique<SlowHook>();
                  }});
  ScriptedEngine engine("a");
  Start({&engine}, [](GatewayOptions& o) { o.config_text = kSlowHookConfig; });
  for (int i = 0; i < 3; ++i) {
    BlockingClient client(gateway_->port());
    client.Send(PostRequest("/v1/chat/completions", kChat));
    client.Close();
  }
  EXPECT_TRUE(Eventually([&] {
    return Metric(R"(llmd_client_aborts_total{stage="before_decision"})") == 3;
  }));
  EXPECT_TRUE(Eventually([&] { return NothingInFlight(); }));
  EXPECT_TRUE(engine.seen().empty());
}

TEST_F(GatewayTest, DrainingFinishesWhatIsUnderWay) {
  std::atomic<bool> go{false};
  ScriptedEngine engine("a", [&](net::ServerExchange& exchange, const ScriptedEngine::Seen&) {
    EachTurnUntilTrue(exchange.loop(), [&] {
      if (!go.load()) return false;
      exchange.Respond(200, "text/plain", "late");
      return true;
    });
  });
  Start({&engine});
  BlockingClient client(gateway_->port());
  client.Send(PostRequest("/v1/chat/completions", kChat));
  EXPECT_TRUE(Eventually([&] { return !engine.seen().empty(); }));
  std::thread drain([&] { gateway_->Drain(); });
  EXPECT_TRUE(Eventually([&] { return Admin("/readyz") == "draining\n"; }));
  go.store(true);
  EXPECT_EQ(client.ReadResponse().body, "late");
  drain.join();
}

TEST_F(GatewayTest, ConfigAndEndpointFilesAreReloadedAndBadOnesLeaveTheOldInForce) {
  ScriptedEngine a("a"), b("b");
  const std::string endpoints = File("endpoints.yaml");
  const std::string config = File("config.yaml");
  auto write_endpoints = [&](const ScriptedEngine& engine) {
    const std::string& address = engine.host_port();
    std::ofstream(endpoints) << "endpoints:\n- name: e\n  address: 127.0.0.1\n  port: \""
                             << address.substr(address.find(':') + 1) << "\"\n";
  };
  auto config_text = [&](std::string_view scorer) {
    return base::Concat(
        "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- type: ", scorer,
        "\n- type: file-discovery\n  parameters:\n    path: ", endpoints,
        "\n    watchFile: true\ndataLayer:\n  discovery:\n    pluginRef: file-discovery\n");
  };
  write_endpoints(a);
  std::ofstream(config) << config_text("queue-scorer");
  Start({}, [&](GatewayOptions& options) { options.config_file = config; });
  auto served_by = [&] {
    BlockingClient client(gateway_->port());
    client.Send(PostRequest("/v1/chat/completions", kChat));
    return client.ReadResponse().body;
  };
  EXPECT_THAT(served_by(), HasSubstr(R"("name":"a")"));
  write_endpoints(b);
  EXPECT_TRUE(Eventually([&] { return served_by().find(R"("name":"b")") != std::string::npos; }));

  std::ofstream(config) << config_text("load-aware-scorer");
  EXPECT_TRUE(Eventually(
      [&] { return Admin("/debug/config").find("load-aware-scorer") != std::string::npos; }));
  std::ofstream(config) << config_text("no-such-scorer");
  EXPECT_TRUE(Eventually([&] {
    return Metric(R"(llmd_config_reloads_total{file="config",result="rejected"})") >= 1;
  }));
  EXPECT_THAT(Admin("/debug/config"), HasSubstr("load-aware-scorer"));
  EXPECT_THAT(served_by(), HasSubstr(R"("name":"b")"));
}

TEST_F(GatewayTest, WrongOptionsAreRefusedWithTheRemedy) {
  const struct {
    std::function<void(GatewayOptions&)> change;
    std::string_view text;
  } cases[] = {
      {[](GatewayOptions& o) { o.endpoints.clear(); }, "--endpoints"},
      {[](GatewayOptions& o) { o.endpoints = {"nonsense"}; }, "host:port"},
      {[](GatewayOptions& o) { o.tls_cert = "x"; }, "--tls-key"},
      {[](GatewayOptions& o) { o.config_file = "/no/such/file"; }, "/no/such/file"},
      {[](GatewayOptions& o) { o.config_text = "plugins: 3"; }, "--config-text:1:"},
      {[](GatewayOptions& o) { o.engine_header = "no colon"; }, "--engine-header"},
      {[](GatewayOptions& o) { o.listen = "nowhere"; }, "--listen"},
  };
  for (const auto& c : cases) {
    GatewayOptions options;
    options.listen = options.metrics_listen = "127.0.0.1:0";
    options.workers = 1;
    options.endpoints = {"127.0.0.1:1"};
    c.change(options);
    const auto gateway = Gateway::Start(options, catalogue_, nullptr, nullptr);
    ASSERT_FALSE(gateway) << c.text;
    EXPECT_THAT(std::string(gateway.error().message()), HasSubstr(std::string(c.text)));
  }
}

}  // namespace
}  // namespace llmd::gateway
