#include "net/grpc_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/check.h"
#include "net/grpc_testing.h"

namespace llmd::net {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// What one call was told, and what it does about it.
struct EchoHandler final : GrpcHandler {
  explicit EchoHandler(GrpcCall& c) : call(&c) {}
  void OnMessagePiece(base::Slice piece, bool last) override {
    ++pieces;
    if (!present) announced = call->message_bytes();
    present = true;
    message += piece.view();
    if (keep) kept.push_back(piece);
    if (echo) answer.push_back(std::move(piece));
    if (!last) return;
    present = false;
    messages.push_back(std::exchange(message, {}));
    if (echo) call->Send(answer);
    answer.clear();
    if (on_message) on_message(*this);
  }
  void OnHalfClose() override {
    ++half_closes;
    if (on_half_close) on_half_close(*this);
  }
  void OnWritable() override { ++writable; }
  void OnEnd(GrpcEnd why) override {
    ++ends;
    end = why;
    call = nullptr;
  }

  GrpcCall* call;
  std::string message;
  std::vector<std::string> messages;
  std::vector<base::Slice> answer, kept;
  uint32_t announced = 0;
  int pieces = 0, half_closes = 0, writable = 0, ends = 0;
  GrpcEnd end{};
  bool echo = true, keep = false, present = false;
  std::function<void(EchoHandler&)> on_message;
  std::function<void(EchoHandler&)> on_half_close = [](EchoHandler& self) {
    self.call->Finish(base::StatusCode::kOk);
  };
};

struct EchoService final : GrpcService {
  GrpcHandler* OnCall(GrpcCall& call) override {
    if (at_once) {
      at_once(call);
      return nullptr;
    }
    handlers.push_back(std::make_unique<EchoHandler>(call));
    if (prepare) prepare(*handlers.back());
    return handlers.back().get();
  }
  EchoHandler& last() { return *handlers.back(); }

  std::vector<std::unique_ptr<EchoHandler>> handlers;  // also of ended calls
  std::function<void(EchoHandler&)> prepare;
  std::function<void(GrpcCall&)> at_once;
};

class GrpcServerTest : public ::testing::Test {
 protected:
  void SetUp() override { base::SetBugFatalForTest(true); }
  void TearDown() override {
    listener_.reset();
    server_.reset();
  }
  void Serve(GrpcServerOptions options = {}) {
    server_ = std::make_unique<GrpcServer>(loop_, std::move(options));
    server_->AddService("/test.Echo/", service_);
    listener_ = std::make_unique<GrpcListener>(loop_, std::vector{server_.get()});
    port_ = listener_->Listen(runtime::SocketAddress::Ipv4(kLoopback, 0)).value();
  }
  const GrpcServerStats& stats() const { return server_->stats(); }

  runtime::EventLoop loop_;
  EchoService service_;
  std::unique_ptr<GrpcServer> server_;
  std::unique_ptr<GrpcListener> listener_;
  uint16_t port_ = 0;
};

// The tutorial: a service answers each call with a handler, which hears the pieces of each message
// and sends one back.
TEST_F(GrpcServerTest, EchoesMessages) {
  Serve();
  GrpcTestClient client(loop_, port_);
  auto& stream = client.Open("/test.Echo/Chat", {{"x-name", "value"}});
  client.Send(stream, "hello");
  ASSERT_TRUE(client.WaitForMessages(stream, 1));
  EchoHandler& handler = service_.last();
  EXPECT_EQ(handler.call->path(), "/test.Echo/Chat");
  EXPECT_EQ(handler.call->authority(), "test");
  EXPECT_EQ(handler.call->Metadata("x-name"), "value");
  EXPECT_EQ(handler.call->Metadata("x-none"), "");
  EXPECT_EQ(handler.announced, 5u);
  client.Send(stream, "");
  client.Send(stream, std::string(3000, 'x'));
  client.HalfClose(stream);
  ASSERT_TRUE(client.WaitForEnd(stream));
  EXPECT_THAT(stream.messages, ElementsAre("hello", "", std::string(3000, 'x')));
  EXPECT_EQ(stream.http_status, 200);
  EXPECT_EQ(stream.grpc_status, 0);
  EXPECT_EQ(stream.error_code, 0u);
  EXPECT_EQ(handler.half_closes, 1);
  EXPECT_EQ(handler.ends, 1);
  EXPECT_EQ(handler.end, GrpcEnd::kFinished);
  EXPECT_EQ(stats().finished, 1u);
  EXPECT_EQ(server_->active_call_count(), 0u);
}

}  // namespace
}  // namespace llmd::net
