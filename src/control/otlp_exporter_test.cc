#include "control/otlp_exporter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "base/strings.h"
#include "net/grpc_server.h"
#include "net/http_server.h"
#include "net/net_testing.h"
#include "runtime/thread_pool.h"
#include "wire/otlp.h"

namespace llmd::control {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A collector that answers as it is told and keeps what it got.
class Collector final : public net::GrpcService {
 public:
  net::GrpcHandler* OnCall(net::GrpcCall& call) override {
    tenants.emplace_back(call.Metadata("x-tenant"));
    return (new Export(call, *this));
  }
  std::vector<std::string> requests, tenants;
  std::vector<base::StatusCode> answers;  // the first ones; then OK
  std::string reply;
  bool silent = false;

 private:
  struct Export final : net::GrpcHandler {
    Export(net::GrpcCall& c, Collector& o) : call(c), owner(o) {}
    void OnMessagePiece(base::Slice piece, bool last) override { request += piece.view(); }
    void OnHalfClose() override {
      const size_t at = owner.requests.size();
      owner.requests.push_back(request);
      if (owner.silent) return;
      if (at < owner.answers.size() && owner.answers[at] != base::StatusCode::kOk) {
        return call.Finish(owner.answers[at], "not now");
      }
      call.Send(std::string_view(owner.reply));
      call.Finish(base::StatusCode::kOk);
    }
    void OnEnd(net::GrpcEnd) override { delete this; }
    net::GrpcCall& call;
    Collector& owner;
    std::string request;
  };
};

class OtlpExporterTest : public ::testing::Test {
 protected:
  OtlpExporterTest() : pool_(1, 16, "lookup"), resolver_(loop_, pool_) {}

  void Begin(OtlpOptions options) {
    options.host = "127.0.0.1";
    options.interval = milliseconds(1);
    options.headers = {{"x-tenant", "t1"}};
    options.resource = {{"service.name", "epp"}};
    exporter_ = OtlpExporter::Create(loop_, resolver_, tracer_, std::move(options), 1).value();
  }
  uint16_t ListenGrpc() {
    server_ = std::make_unique<net::GrpcServer>(loop_, net::GrpcServerOptions{});
    server_->AddService("/opentelemetry.proto.collector.trace.v1.TraceService/Export",
                        collector_);
    listener_ = std::make_unique<net::GrpcListener>(
        loop_, std::vector<net::GrpcServer*>{server_.get()});
    return listener_->Listen(runtime::SocketAddress::Ipv4(net::kLoopback, 0)).value();
  }
  template <class Done>
  bool Until(Done done) {
    return net::TurnUntil(loop_, done);
  }

  runtime::EventLoop loop_;
  runtime::ThreadPool pool_;
  net::Resolver resolver_;
  telemetry::Tracer tracer_{telemetry::TracerOptions{}};
  Collector collector_;
  std::unique_ptr<net::GrpcServer> server_;
  std::unique_ptr<net::GrpcListener> listener_;
  std::unique_ptr<OtlpExporter> exporter_;
};

// A list entry that the exporter passes on unread.
const std::string kSpans = "\x12\x03one";

// The tour: spans pushed by a worker arrive in one request, with who sent them.
TEST_F(OtlpExporterTest, SpansArrive) {
  Begin({.port = ListenGrpc()});
  tracer_.Push(kSpans, 2);
  tracer_.Push(kSpans, 3);
  ASSERT_TRUE(Until([&] { return tracer_.stats().exported == 5; }));
  ASSERT_EQ(collector_.requests.size(), 1u);
  EXPECT_THAT(collector_.requests[0], HasSubstr(kSpans + kSpans));
  EXPECT_THAT(collector_.requests[0], HasSubstr("service.name"));
  EXPECT_THAT(collector_.tenants, ElementsAre("t1"));
}

TEST_F(OtlpExporterTest, ManySpansGoInBatches) {
  Begin({.port = ListenGrpc(), .batch_spans_max = 10});
  for (int i = 0; i < 7; ++i) tracer_.Push(kSpans, 4);
  ASSERT_TRUE(Until([&] { return tracer_.stats().exported == 28; }));
  EXPECT_EQ(collector_.requests.size(), 4u) << "two pushes each";
}

TEST_F(OtlpExporterTest, WhatMayPassIsTriedAgain) {
  collector_.answers = {base::StatusCode::kUnavailable};
  Begin({.port = ListenGrpc()});
  tracer_.Push(kSpans, 5);
  ASSERT_TRUE(Until([&] { return tracer_.stats().exported == 5; }));
  ASSERT_EQ(collector_.requests.size(), 2u);
  EXPECT_EQ(collector_.requests[0], collector_.requests[1]);
  EXPECT_EQ(tracer_.stats().failed, 0u);
}

TEST_F(OtlpExporterTest, WhatWillNotPassIsLostAndCounted) {
  collector_.answers = {base::StatusCode::kInvalidArgument};
  Begin({.port = ListenGrpc()});
  tracer_.Push(kSpans, 5);
  ASSERT_TRUE(Until([&] { return tracer_.stats().failed == 5; }));
  tracer_.Push(kSpans, 2);
  ASSERT_TRUE(Until([&] { return tracer_.stats().exported == 2; }));
  EXPECT_EQ(collector_.requests.size(), 2u);
}

TEST_F(OtlpExporterTest, RefusedSpansAreCounted) {
  collector_.reply = "\x0a\x06\x08\x03\x12\x02no";
  Begin({.port = ListenGrpc()});
  tracer_.Push(kSpans, 5);
  ASSERT_TRUE(Until([&] { return tracer_.stats().exported == 2; }));
  EXPECT_EQ(tracer_.stats().failed, 3u);
}

TEST_F(OtlpExporterTest, ACollectorThatNeverAnswersIsGivenUpOn) {
  collector_.silent = true;
  Begin({.port = ListenGrpc(), .timeout = milliseconds(20)});
  tracer_.Push(kSpans, 5);
  ASSERT_TRUE(Until([&] { return collector_.requests.size() == 1; }));
  bool flushed = false;
  exporter_->Flush([&] { flushed = true; });
  ASSERT_TRUE(Until([&] { return flushed; }));
  EXPECT_EQ(tracer_.stats().failed, 5u) << "a flush tries once";
}

TEST_F(OtlpExporterTest, FlushSendsAtOnce) {
  OtlpOptions options{.port = ListenGrpc()};
  Begin(options);
  net::TurnABit(loop_);
  for (int i = 0; i < 3; ++i) tracer_.Push(kSpans, 400);
  bool flushed = false;
  exporter_->Flush([&] { flushed = true; });
  ASSERT_TRUE(Until([&] { return flushed; }));
  EXPECT_EQ(tracer_.stats().exported, 1200u);
}

TEST_F(OtlpExporterTest, NobodyListens) {
  net::RawListener closed(loop_);
  Begin({.port = closed.port()});
  // The port is taken but nobody reads: gone with an attempt under way.
  tracer_.Push(kSpans, 5);
  net::TurnABit(loop_, 20);
  exporter_.reset();
  net::TurnABit(loop_);
  EXPECT_EQ(tracer_.stats().exported, 0u);
}

TEST_F(OtlpExporterTest, OverHttp) {
  net::RawListener collector(loop_);
  Begin({.protocol = OtlpOptions::Protocol::kHttpProtobuf, .port = collector.port()});
  tracer_.Push(kSpans, 5);
  net::RawPeer peer = collector.Accept();
  ASSERT_TRUE(peer.WaitFor(kSpans));
  const std::string request = peer.Take();
  EXPECT_TRUE(request.starts_with("POST /v1/traces HTTP/1.1\r\nhost: 127.0.0.1:")) << request;
  EXPECT_THAT(request, HasSubstr("\r\ncontent-type: application/x-protobuf\r\n"));
  EXPECT_THAT(request, HasSubstr("\r\nx-tenant: t1\r\n"));
  const size_t body = request.size() - request.find("\r\n\r\n") - 4;
  EXPECT_THAT(request, HasSubstr("\r\ncontent-length: " + std::to_string(body) + "\r\n"));
  ASSERT_TRUE(peer.Send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
  ASSERT_TRUE(Until([&] { return tracer_.stats().exported == 5; }));

  // The connection is kept; a refusal loses the batch.
  tracer_.Push(kSpans, 2);
  ASSERT_TRUE(peer.WaitFor(kSpans));
  ASSERT_TRUE(peer.Send("HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno"));
  ASSERT_TRUE(Until([&] { return tracer_.stats().failed == 2; }));
}

}  // namespace
}  // namespace llmd::control
