#include "bench/bench.h"

#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "base/strings.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "net/http_server.h"
#include "nlohmann/json.hpp"
#include "runtime/loop.h"
#include "runtime/socket.h"
#include "runtime/worker.h"

namespace llmd::bench {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

// What the server below does with the next requests.
struct Behaviour {
  int status = 200;
  int tokens = 5;  // per streamed reply
  bool send_done = true;
  bool send_error_event = false;
  bool never_answer = false;
  base::Duration delay{};  // before each reply
};

// An engine in miniature: one request, one reply.
class EngineExchange final : public net::ExchangeHandler {
 public:
  EngineExchange(net::ServerExchange& exchange, const Behaviour& behaviour,
                 std::vector<std::string>* bodies)
      : exchange_(exchange),
        behaviour_(behaviour),
        bodies_(bodies),
        timer_(exchange.loop(), [this] { Reply(); }) {}

  void OnBody(base::Slice piece) override { body_ += piece.view(); }
  void OnBodyEnd() override {
    bodies_->push_back(body_);
    if (behaviour_.never_answer) return;
    if (behaviour_.delay.count() > 0) {
      timer_.ArmAfter(behaviour_.delay);
    } else {
      Reply();
    }
  }
  void OnFinished() override { delete this; }
  void OnClientGone(net::GoneReason) override { delete this; }

 private:
  void Reply() {
    if (behaviour_.status != 200) {
      exchange_.Respond(behaviour_.status, "application/json", R"({"error":{"message":"no"}})");
    } else if (nlohmann::json::parse(body_).value("stream", false)) {
      Stream();
    } else {
      exchange_.Respond(
          200, "application/json",
          R"({"choices":[{"message":{"content":"x y z"}}],"usage":{"prompt_tokens":40,)"
          R"("completion_tokens":3,"prompt_tokens_details":{"cached_tokens":16}}})");
    }
  }
  void Stream() {
    exchange_.SendHead("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n",
                       net::ResponseFraming::kChunked);
    Event(R"({"choices":[{"delta":{"role":"assistant","content":""}}]})");
    for (int i = 0; i < behaviour_.tokens; ++i) {
      Event(R"({"choices":[{"delta":{"content":"word "}}]})");
    }
    if (behaviour_.send_error_event) Event(R"({"error":{"message":"engine died"}})");
    Event(R"({"choices":[],"usage":{"prompt_tokens":40,"completion_tokens":)" +
          std::to_string(behaviour_.tokens) + "}}");
    if (behaviour_.send_done) Event("[DONE]");
    exchange_.Finish();
  }
  void Event(std::string_view payload) {
    exchange_.SendBody(base::Concat("data: ", payload, "\n\n"));
  }

  net::ServerExchange& exchange_;
  const Behaviour behaviour_;
  std::vector<std::string>* bodies_;
  std::string body_;
  runtime::Timer timer_;
};

// Serves /v1/models and completions on a thread of its own.
class TestEngine final : public net::HttpService {
 public:
  explicit TestEngine(Behaviour behaviour = {}) : behaviour_(behaviour), pool_(1, "engine") {
    server_ = std::make_unique<net::HttpServer>(pool_.loop(0), *this);
    const auto port = server_->Listen(runtime::SocketAddress::Ipv4(0x7f000001, 0));
    EXPECT_TRUE(port);
    port_ = port.value_or(0);
    pool_.Start();
  }
  ~TestEngine() override {
    pool_.Stop();
    server_.reset();
  }

  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  const std::vector<std::string>& bodies() const { return bodies_; }  // when no run is under way
  std::string last_head;

  net::ExchangeHandler* OnRequest(net::ServerExchange& exchange) override {
    if (exchange.head().path == "/v1/models") {
      exchange.Respond(200, "application/json", R"({"object":"list","data":[{"id":"tiny"}]})");
      return nullptr;
    }
    last_head.clear();
    for (const wire::HttpField& field : exchange.head().fields) {
      last_head += base::Concat(field.name, ": ", field.value, "\n");
    }
    return new EngineExchange(exchange, behaviour_, &bodies_);
  }

 private:
  Behaviour behaviour_;
  runtime::WorkerPool pool_;
  std::unique_ptr<net::HttpServer> server_;
  uint16_t port_ = 0;
  std::vector<std::string> bodies_;
};

BenchOptions OptionsFor(const TestEngine& engine) {
  BenchOptions options;
  options.urls = {engine.url()};
  options.request_count_max = 50;
  options.duration = seconds(20);
  options.prompts.length = workload::LengthSpec::Fixed(64);
  return options;
}

Report RunOnce(const BenchOptions& options) {
  runtime::EventLoop loop;
  BenchRun run(loop, options);
  auto report = run.Run();
  EXPECT_TRUE(report) << (report ? "" : report.error().message());
  return report ? *report : Report();
}

TEST(BenchRun, MeasuresAClosedLoop) {
  TestEngine engine;
  BenchOptions options = OptionsFor(engine);
  options.concurrency = 4;
  options.watched = {{"self", {getpid()}}};
  const Report report = RunOnce(options);
  EXPECT_EQ(report.options.body.model, "tiny") << "asked from /v1/models";
  EXPECT_EQ(report.measured.sent, 50u);
  EXPECT_EQ(report.measured.succeeded, 50u);
  EXPECT_EQ(report.measured.failed, 0u);
  EXPECT_EQ(report.measured.latency.count(), 50u);
  EXPECT_EQ(report.measured.ttft.count(), 0u);
  EXPECT_EQ(report.measured.prompt_tokens_sum, 2000u);
  EXPECT_EQ(report.measured.output_tokens_sum, 150u);
  EXPECT_EQ(report.measured.cached_tokens_sum, 800u);
  EXPECT_GT(report.elapsed_s, 0);
  ASSERT_EQ(report.processes.size(), 1u);
  EXPECT_GT(report.processes[0].cpu_s, 0);
  EXPECT_GT(report.processes[0].resident_bytes, 1u << 20);
  ASSERT_EQ(engine.bodies().size(), 50u);
  const auto body = nlohmann::json::parse(engine.bodies().back());
  EXPECT_EQ(body["model"], "tiny");
  EXPECT_EQ(body["messages"][0]["content"].get<std::string>().size(), 256u);
}

TEST(BenchRun, StampsEveryEventOfAStream) {
  TestEngine engine({.tokens = 7});
  BenchOptions options = OptionsFor(engine);
  options.body.stream = true;
  const Report report = RunOnce(options);
  EXPECT_EQ(report.measured.succeeded, 50u);
  EXPECT_EQ(report.measured.events, 50u * 9);  // role, 7 tokens, usage
  EXPECT_EQ(report.measured.token_events, 50u * 7);
  EXPECT_EQ(report.measured.ttft.count(), 50u);
  EXPECT_EQ(report.measured.inter_token.count(), 50u * 6);
  EXPECT_EQ(report.measured.tpot.count(), 50u);
  EXPECT_EQ(report.measured.output_tokens_sum, 350u);
  EXPECT_LE(report.measured.ttft.max(), report.measured.latency.max());
}

TEST(BenchRun, OpenLoopKeepsItsSchedule) {
  TestEngine engine;
  BenchOptions options = OptionsFor(engine);
  options.arrival = workload::Arrival::kConstant;
  options.rate = 500;
  options.request_count_max = 100;
  options.workers = 2;
  const Report report = RunOnce(options);
  EXPECT_EQ(report.measured.succeeded, 100u);
  EXPECT_GT(report.send_s, 0.19);
  EXPECT_EQ(report.measured.delay.count(), 100u);
}

TEST(BenchRun, WarmUpIsNotCounted) {
  TestEngine engine;
  BenchOptions options = OptionsFor(engine);
  options.arrival = workload::Arrival::kConstant;
  options.rate = 100;
  options.warm_up = milliseconds(200);
  options.request_count_max = 10;
  const Report report = RunOnce(options);
  EXPECT_EQ(report.measured.sent, 10u);
  EXPECT_EQ(report.measured.succeeded, 10u);
  EXPECT_EQ(engine.bodies().size(), 30u);
}

TEST(BenchRun, FailuresAreNamed) {
  struct Case {
    Behaviour behaviour;
    bool stream;
    const char* kind;
  };
  for (const Case& c : {Case{{.status = 503}, false, "http 503"},
                        Case{{.send_done = false}, true, "stream-without-done"},
                        Case{{.send_error_event = true}, true, "error-event"}}) {
    TestEngine engine(c.behaviour);
    BenchOptions options = OptionsFor(engine);
    options.body.stream = c.stream;
    const Report report = RunOnce(options);
    EXPECT_EQ(report.measured.succeeded, 0u);
    EXPECT_EQ(report.measured.failed, 50u);
    ASSERT_EQ(report.measured.failures.size(), 1u);
    EXPECT_EQ(report.measured.failures.begin()->first, c.kind);
    EXPECT_FALSE(report.measured.failures.begin()->second.first_detail.empty());
  }
}

TEST(BenchRun, ADeadTargetFailsWithoutSpinning) {
  uint16_t port;
  {
    TestEngine engine;
    port = static_cast<uint16_t>(std::stoi(engine.url().substr(engine.url().rfind(':') + 1)));
  }
  BenchOptions options;
  options.urls = {"http://127.0.0.1:" + std::to_string(port)};
  options.duration = milliseconds(300);
  options.body.model = "m";
  const Report report = RunOnce(options);
  EXPECT_EQ(report.measured.succeeded, 0u);
  EXPECT_GT(report.measured.failed, 0u);
  EXPECT_LT(report.measured.failed, 100u) << "one try per 10 ms";
  options.body.model.clear();
  runtime::EventLoop loop;
  BenchRun run(loop, options);
  const auto no_model = run.Run();
  ASSERT_FALSE(no_model);
  EXPECT_THAT(std::string(no_model.error().message()), HasSubstr("/v1/models"));
}

TEST(BenchRun, RequestsEndAtTheirTimeout) {
  TestEngine engine({.never_answer = true});
  BenchOptions options = OptionsFor(engine);
  options.concurrency = 2;
  options.request_count_max = 2;
  options.request_timeout = milliseconds(150);
  const Report report = RunOnce(options);
  EXPECT_EQ(report.measured.failed, 2u);
  ASSERT_EQ(report.measured.failures.size(), 1u);
  EXPECT_THAT(report.measured.failures.begin()->first,
              ::testing::AnyOf("timeout", "head-timeout", HasSubstr("timeout")));
}

TEST(BenchRun, TheDrainIsBounded) {
  TestEngine engine({.never_answer = true});
  BenchOptions options = OptionsFor(engine);
  options.duration = milliseconds(50);
  options.drain_timeout = milliseconds(100);
  const Report report = RunOnce(options);
  EXPECT_EQ(report.measured.failures.count("unfinished"), 1u);
}

TEST(BenchRun, InterruptEndsTheRunWithAReport) {
  TestEngine engine({.delay = milliseconds(5)});
  BenchOptions options = OptionsFor(engine);
  options.request_count_max = UINT64_MAX;
  options.duration = seconds(60);
  runtime::EventLoop loop;
  BenchRun run(loop, options);
  runtime::Timer timer(loop, [&] { run.Interrupt(); });
  timer.ArmAfter(milliseconds(200));
  const auto report = run.Run();
  ASSERT_TRUE(report);
  EXPECT_TRUE(report->interrupted);
  EXPECT_GT(report->measured.succeeded, 0u);
  EXPECT_LT(report->elapsed_s, 10);
}

TEST(BenchRun, SendsKeyAndHeadersAndTakesTurns) {
  TestEngine first;
  TestEngine second;
  BenchOptions options = OptionsFor(first);
  options.urls.push_back(second.url() + "/v1");
  options.api_key = "sk-test";
  options.headers = {"x-test: yes"};
  const Report report = RunOnce(options);
  EXPECT_EQ(report.measured.succeeded, 50u);
  EXPECT_EQ(first.bodies().size(), 25u);
  EXPECT_EQ(second.bodies().size(), 25u);
  EXPECT_THAT(second.last_head, HasSubstr("Authorization: Bearer sk-test\n"));
  EXPECT_THAT(second.last_head, HasSubstr("x-test: yes\n"));
  EXPECT_EQ(report.options.api_key, "");
}

TEST(BenchRun, TheSameSeedSendsTheSameRequests) {
  std::vector<std::vector<std::string>> runs;
  for (const uint64_t seed : {1, 1, 2}) {
    TestEngine engine;
    BenchOptions options = OptionsFor(engine);
    options.seed = seed;
    RunOnce(options);
    runs.push_back(engine.bodies());
  }
  EXPECT_EQ(runs[0], runs[1]);
  EXPECT_NE(runs[0], runs[2]);
}

TEST(BenchRun, AWatchedProcessMustExist) {
  TestEngine engine;
  BenchOptions options = OptionsFor(engine);
  options.watched = {{"ghost", {INT32_MAX}}};
  runtime::EventLoop loop;
  BenchRun run(loop, options);
  const auto report = run.Run();
  ASSERT_FALSE(report);
  EXPECT_THAT(std::string(report.error().message()), HasSubstr("ghost"));
}

}  // namespace
}  // namespace llmd::bench
