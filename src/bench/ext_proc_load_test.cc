#include "bench/ext_proc_load.h"

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/arena.h"
#include "base/strings.h"
#include "bench/bench.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "net/grpc_server.h"
#include "nlohmann/json.hpp"
#include "runtime/worker.h"
#include "wire/ext_proc.h"

namespace llmd::bench {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using wire::ExtProcHeader;
using wire::ExtProcKind;

// What the picker below does wrong.
enum class Fault { kNone, kRefuse, kNoEndpoint, kCutBody, kStatus, kNeverAnswer, kOutOfOrder };

// What a picker saw of one stream.
struct Seen {
  std::map<std::string, std::string> headers;
  std::string body;
  size_t body_messages = 0;
  size_t largest_message = 0;
  bool response_headers = false;
  size_t response_messages = 0;
  std::string response;
  net::GrpcEnd end{};
};

// A picker in miniature, on a thread of its own: every request goes to one endpoint.
class TestPicker final : public net::GrpcService {
 public:
  explicit TestPicker(Fault fault = Fault::kNone) : fault_(fault), pool_(1, "picker") {
    server_ = std::make_unique<net::GrpcServer>(pool_.loop(0));
    server_->AddService("/envoy.service.ext_proc.v3.ExternalProcessor/", *this);
    listener_ = std::make_unique<net::GrpcListener>(pool_.loop(0),
                                                    std::vector<net::GrpcServer*>{server_.get()});
    port_ = listener_->Listen(runtime::SocketAddress::Ipv4(0x7f000001, 0)).value();
    pool_.Start();
  }
  ~TestPicker() override {
    Stop();
    listener_.reset();
    server_.reset();
  }
  net::GrpcHandler* OnCall(net::GrpcCall& call) override { return new Stream(*this, call); }

  std::string target() const { return "127.0.0.1:" + std::to_string(port_); }
  // Ends the thread; what it saw may be read then.
  const std::vector<Seen>& Stop() {
    pool_.Stop();
    return seen_;
  }
  size_t connections() const { return server_->stats().accepted; }

 private:
  class Stream final : public net::GrpcHandler {
   public:
    Stream(TestPicker& picker, net::GrpcCall& call)
        : picker_(picker), call_(call), reader_(&arena_), writer_(&call.buffers()) {}
    void OnMessagePiece(base::Slice piece, bool last) override {
      ASSERT_TRUE(reader_.Feed(std::move(piece), last).ok());
      if (!last) return;
      OnMessage(reader_.message());
      reader_.Clear();
    }
    void OnEnd(net::GrpcEnd why) override {
      seen_.end = why;
      picker_.seen_.push_back(seen_);
      delete this;
    }

   private:
    void OnMessage(const wire::ExtProcMessage& message) {
      std::vector<base::Slice> body;
      reader_.TakeBody(&body);
      switch (message.kind) {
        case ExtProcKind::kRequestHeaders:
          for (const ExtProcHeader& header : message.headers) {
            seen_.headers.emplace(header.name, header.value);
          }
          return;
        case ExtProcKind::kRequestBody:
          ++seen_.body_messages;
          seen_.largest_message = std::max<size_t>(seen_.largest_message, message.body_bytes);
          for (const base::Slice& piece : body) seen_.body += piece.view();
          if (message.end_of_stream) Answer();
          return;
        case ExtProcKind::kResponseHeaders:
          seen_.response_headers = true;
          call_.Send(writer_.Headers(ExtProcKind::kResponseHeaders, {}));
          return;
        case ExtProcKind::kResponseBody:
          ++seen_.response_messages;
          for (const base::Slice& piece : body) seen_.response += piece.view();
          Echo(ExtProcKind::kResponseBody, body, message.end_of_stream);
          return;
        default:
          ADD_FAILURE() << wire::ExtProcKindName(message.kind);
      }
    }
    void Answer() {
      const ExtProcHeader destination{wire::kEndpointKey, "10.0.0.1:8000"};
      switch (picker_.fault_) {
        case Fault::kRefuse:
          call_.Send(writer_.Immediate({.status = 503, .body = "nobody there"}));
          call_.Finish(base::StatusCode::kOk);
          return;
        case Fault::kStatus:
          call_.Finish(base::StatusCode::kInternal, "it broke");
          return;
        case Fault::kNeverAnswer:
          return;
        case Fault::kNoEndpoint:
          call_.Send(writer_.Headers(ExtProcKind::kRequestHeaders, {}));
          break;
        case Fault::kOutOfOrder:
          break;
        default:
          call_.Send(
              writer_.Headers(ExtProcKind::kRequestHeaders, {.set_headers = {&destination, 1}}));
      }
      std::string_view rest = seen_.body;
      if (picker_.fault_ == Fault::kCutBody) rest.remove_suffix(1);
      do {
        const base::Slice piece = call_.buffers().Copy(rest.substr(0, 62'000));
        rest.remove_prefix(piece.size());
        Echo(ExtProcKind::kRequestBody, {&piece, 1}, rest.empty());
      } while (!rest.empty());
    }
    void Echo(ExtProcKind kind, std::span<const base::Slice> body, bool end_of_stream) {
      std::vector<base::Slice> message;
      writer_.Body(kind, body, end_of_stream, {}, &message);
      call_.Send(message);
    }

    TestPicker& picker_;
    net::GrpcCall& call_;
    base::Arena arena_;
    wire::ExtProcReader reader_;
    wire::ExtProcWriter writer_;
    Seen seen_;
  };

  const Fault fault_;
  runtime::WorkerPool pool_;
  std::unique_ptr<net::GrpcServer> server_;
  std::unique_ptr<net::GrpcListener> listener_;
  uint16_t port_ = 0;
  std::vector<Seen> seen_;
};

BenchOptions OptionsFor(const TestPicker& picker) {
  BenchOptions options;
  options.ext_proc.target = picker.target();
  options.concurrency = 4;
  options.request_count_max = 20;
  options.duration = seconds(20);
  options.prompts.length = workload::LengthSpec::Fixed(100'000);
  options.prompts.length_in_bytes = true;
  return options;
}

Report RunOnce(const BenchOptions& options) {
  runtime::EventLoop loop;
  BenchRun run(loop, options);
  auto report = run.Run();
  EXPECT_TRUE(report) << (report ? "" : report.error().message());
  return report ? *report : Report();
}

TEST(ExtProcLoad, SaysWhatEnvoyWouldSay) {
  TestPicker picker;
  BenchOptions options = OptionsFor(picker);
  options.headers = {"X-Llm-D-Inference-Objective: food-review"};
  const Report report = RunOnce(options);
  EXPECT_EQ(report.measured.succeeded, 20u);
  EXPECT_EQ(report.measured.failed, 0u);
  EXPECT_EQ(report.measured.decision.count(), 20u);
  EXPECT_LE(report.measured.decision.max(), report.measured.latency.max());
  const std::vector<Seen>& all = picker.Stop();
  ASSERT_EQ(all.size(), 20u);
  EXPECT_EQ(picker.connections(), 2u);
  for (const Seen& seen : all) {
    EXPECT_EQ(seen.headers.at(":path"), "/v1/chat/completions");
    EXPECT_EQ(seen.headers.at("content-length"), std::to_string(seen.body.size()));
    EXPECT_EQ(seen.headers.at("x-llm-d-inference-objective"), "food-review");
    EXPECT_EQ(seen.body_messages, 5u) << "three of 32 KiB, the rest, and the end";
    EXPECT_EQ(seen.largest_message, 32u << 10);
    const auto body = nlohmann::json::parse(seen.body);
    EXPECT_EQ(body["messages"][0]["content"].get<std::string>().size(), 100'000u);
    EXPECT_TRUE(seen.response_headers);
    EXPECT_EQ(seen.response_messages, 2u);
    EXPECT_EQ(nlohmann::json::parse(seen.response)["usage"]["total_tokens"], 272);
    EXPECT_EQ(seen.end, net::GrpcEnd::kClientReset);
  }
  EXPECT_NE(all[0].headers.at("x-request-id"), all[1].headers.at("x-request-id"));
}

TEST(ExtProcLoad, StreamsChunksOneByOneOrMany) {
  for (const uint32_t window : {1u, 3u, 1000u}) {
    TestPicker picker;
    BenchOptions options = OptionsFor(picker);
    options.body.stream = true;
    options.ext_proc.response_chunks = 12;
    options.ext_proc.chunk_window = window;
    const Report report = RunOnce(options);
    EXPECT_EQ(report.measured.succeeded, 20u);
    EXPECT_EQ(report.measured.events, 20u * 12);
    EXPECT_EQ(report.measured.chunk_echo.count(), 20u * 12);
    const Seen& seen = picker.Stop().front();
    EXPECT_EQ(seen.response_messages, 13u);
    EXPECT_TRUE(seen.response.ends_with("data: [DONE]\n\n"));
    EXPECT_EQ(nlohmann::json::parse(ToJson(report))["successes"]["stream_events"], 20 * 12);
  }
}

TEST(ExtProcLoad, ChunksMayComeAsTokensDo) {
  TestPicker picker;
  BenchOptions options = OptionsFor(picker);
  options.request_count_max = 4;
  options.body.stream = true;
  options.ext_proc.response_chunks = 11;
  options.ext_proc.chunk_window = 100;
  options.ext_proc.chunk_interval = milliseconds(3);
  const Report report = RunOnce(options);
  EXPECT_EQ(report.measured.succeeded, 4u);
  EXPECT_GE(report.measured.latency.min(), 30'000'000u) << "ten intervals";
  EXPECT_LT(report.measured.chunk_echo.Percentile(50), 3'000'000u);
}

TEST(ExtProcLoad, SendsNoBodiesOrNoResponseAtAll) {
  for (const ExtProcResponse response : {ExtProcResponse::kHeaders, ExtProcResponse::kNone}) {
    TestPicker picker;
    BenchOptions options = OptionsFor(picker);
    options.ext_proc.response = response;
    const Report report = RunOnce(options);
    EXPECT_EQ(report.measured.succeeded, 20u);
    for (const Seen& seen : picker.Stop()) {
      EXPECT_EQ(seen.response_headers, response == ExtProcResponse::kHeaders);
      EXPECT_EQ(seen.response_messages, 0u);
    }
  }
}

TEST(ExtProcLoad, ManyStreamsShareTheConnections) {
  TestPicker picker;
  BenchOptions options = OptionsFor(picker);
  options.concurrency = 300;
  options.request_count_max = 900;
  options.prompts.length = workload::LengthSpec::Fixed(5'000);
  options.ext_proc.connections = 3;
  options.workers = 2;
  const Report report = RunOnce(options);
  EXPECT_EQ(report.measured.succeeded, 900u);
  picker.Stop();
  EXPECT_EQ(picker.connections(), 4u) << "two per worker: three do not divide";
}

TEST(ExtProcLoad, FailuresAreNamed) {
  struct Case {
    Fault fault;
    const char* kind;
    const char* detail;
  };
  for (const Case& c : {Case{Fault::kRefuse, "immediate 503", "nobody there"},
                        Case{Fault::kNoEndpoint, "no-endpoint", "names none"},
                        Case{Fault::kCutBody, "body-changed", " bytes came back"},
                        Case{Fault::kStatus, "grpc INTERNAL", "it broke"},
                        Case{Fault::kOutOfOrder, "out-of-order", "request_body"},
                        Case{Fault::kNeverAnswer, "timeout", ""}}) {
    SCOPED_TRACE(c.kind);
    TestPicker picker(c.fault);
    BenchOptions options = OptionsFor(picker);
    options.request_timeout = c.fault == Fault::kNeverAnswer ? milliseconds(100) : seconds(10);
    const Report report = RunOnce(options);
    EXPECT_EQ(report.measured.succeeded, 0u);
    EXPECT_EQ(report.measured.failed, 20u);
    ASSERT_EQ(report.measured.failures.size(), 1u);
    EXPECT_EQ(report.measured.failures.begin()->first, c.kind);
    EXPECT_THAT(report.measured.failures.begin()->second.first_detail, HasSubstr(c.detail));
  }
}

TEST(ExtProcLoad, ADeadPickerFailsWithoutSpinning) {
  BenchOptions options;
  {
    TestPicker picker;
    options = OptionsFor(picker);
  }
  options.request_count_max = UINT64_MAX;
  options.duration = milliseconds(200);
  const Report report = RunOnce(options);
  EXPECT_EQ(report.measured.succeeded, 0u);
  EXPECT_GT(report.measured.failed, 0u);
  EXPECT_LT(report.measured.failed, 200u) << "four at a time, one try per 10 ms";
}

}  // namespace
}  // namespace llmd::bench
