// A service for tests of the gRPC server: echoes messages and remembers what its calls were told.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "gtest/gtest.h"
#include "net/grpc_server.h"
#include "net/grpc_testing.h"

namespace llmd::net {

struct EchoHandler final : GrpcHandler {
  explicit EchoHandler(GrpcCall& c) : call(&c) {}
  void OnMessagePiece(base::Slice piece, bool last) override {
    ++pieces;
    EXPECT_TRUE(last || !piece.empty());
    if (!present) announced = call->message_bytes();
    present = true;
    message += piece.view();
    if (keep) kept.push_back(piece);
    if (echo) answer.push_back(std::move(piece));
    if (on_piece) on_piece(*this);
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
    answer.clear();
    call = nullptr;
  }

  GrpcCall* call;  // nullptr after its end
  std::string message;
  std::vector<std::string> messages;
  std::vector<base::Slice> answer, kept;
  uint32_t announced = 0;
  int pieces = 0, half_closes = 0, writable = 0, ends = 0;
  GrpcEnd end{};
  bool echo = true, keep = false, present = false;
  std::function<void(EchoHandler&)> on_piece, on_message;
  std::function<void(EchoHandler&)> on_half_close = [](EchoHandler& self) {
    self.call->Finish(base::StatusCode::kOk);
  };
};

struct EchoService final : GrpcService {
  GrpcHandler* OnCall(GrpcCall& call) override {
    ++calls;
    if (at_once) {
      at_once(call);
      return nullptr;
    }
    handlers.push_back(std::make_unique<EchoHandler>(call));
    if (prepare) prepare(*handlers.back());
    return handlers.back().get();
  }
  EchoHandler& last() { return *handlers.back(); }

  int calls = 0;
  std::vector<std::unique_ptr<EchoHandler>> handlers;  // also of ended calls
  std::function<void(EchoHandler&)> prepare;
  std::function<void(GrpcCall&)> at_once;
};

// One server with the service at /test.Echo/, on the loop of the test.
class GrpcServerFixture : public ::testing::Test {
 protected:
  using Client = GrpcTestClient;

  void SetUp() override { base::SetBugFatalForTest(true); }
  void TearDown() override {
    listener_.reset();
    server_.reset();
    base::SetBugFatalForTest(false);
  }
  void Serve(GrpcServerOptions options = {}) {
    server_ = std::make_unique<GrpcServer>(loop_, std::move(options));
    server_->AddService("/test.Echo/", service_);
    listener_ = std::make_unique<GrpcListener>(loop_, std::vector{server_.get()});
    port_ = listener_->Listen(runtime::SocketAddress::Ipv4(kLoopback, 0)).value();
  }
  const GrpcServerStats& stats() const { return server_->stats(); }
  // Until the service has seen `count` calls.
  bool WaitForCalls(Client& client, int count) {
    return client.WaitFor([&] { return service_.calls >= count; });
  }

  runtime::EventLoop loop_;
  EchoService service_;
  std::unique_ptr<GrpcServer> server_;
  std::unique_ptr<GrpcListener> listener_;
  uint16_t port_ = 0;
};

}  // namespace llmd::net
