// HTTP/2 frames of a hostile client into one connection, behind a proper preface. The first byte
// says how the input is cut into reads and how much each write takes; handlers answer by what they
// are sent, and check that they are told of one thing at a time.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string_view>

#include "base/check.h"
#include "net/fed_stream_testing.h"
#include "net/grpc_health.h"
#include "net/grpc_server.h"

namespace llmd::net {
namespace {

class Handler final : public GrpcHandler {
 public:
  Handler(GrpcCall& call, int& alive) : call_(call), alive_(alive) { ++alive_; }
  ~Handler() override { --alive_; }
  void OnMessagePiece(base::Slice piece, bool last) override {
    LLMD_CHECK(!busy_, "told of something while calling");
    LLMD_CHECK(last || !piece.empty(), "an empty piece inside a message");
    LLMD_CHECK(!half_closed_, "a message after the half-close");
    busy_ = true;
    const char what = piece.empty() ? '\0' : piece.view().front();
    received_ += piece.size();
    if (last) {
      const uint32_t announced = call_.message_bytes();  // 0 of a compressed message
      LLMD_CHECK(announced == 0 || received_ == announced, "a message of another length");
      received_ = 0;
    }
    switch (what) {
      case 'f':
        call_.Finish(base::StatusCode::kAborted, "asked for");
        break;
      case 'r':
        call_.Reset();
        break;
      case 'p':
        call_.PauseReading();
        break;
      case 'g':
        call_.ResumeReading();
        break;
      case 'l':
        call_.Send(std::string_view(large_, sizeof(large_)));
        break;
      default:
        call_.Send(std::move(piece));
    }
    busy_ = false;
  }
  void OnHalfClose() override {
    LLMD_CHECK(!half_closed_ && !busy_, "half-closed twice");
    half_closed_ = true;
    call_.Finish(base::StatusCode::kOk);
  }
  void OnEnd(GrpcEnd) override {
    LLMD_CHECK(!busy_, "ended from inside a call");
    call_.Send("too late");
    delete this;
  }

 private:
  GrpcCall& call_;
  int& alive_;
  uint64_t received_ = 0;
  bool busy_ = false;
  bool half_closed_ = false;
  char large_[100'000] = {};
};

class Service final : public GrpcService {
 public:
  GrpcHandler* OnCall(GrpcCall& call) override { return new Handler(call, alive); }
  int alive = 0;
};

}  // namespace
}  // namespace llmd::net

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace llmd;  // NOLINT
  if (size < 1) return 0;
  const size_t cut = data[0] == 0 ? 1 << 20 : data[0];
  std::string input = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + std::string("\0\0\0\4\0\0\0\0\0", 9);
  input.append(reinterpret_cast<const char*>(data) + 1, size - 1);
  runtime::EventLoop loop;
  net::GrpcHealth health;
  net::Service service;
  {
    net::GrpcHealthService health_service(loop, health);
    net::GrpcServer server(loop, {.message_bytes_max = 1 << 20,
                                  .reset_rate = {50, 1},
                                  .control_frame_rate = {50, 1},
                                  .window_update_rate = {50, 1}});
    server.AddService("/a", service);
    server.AddService(std::string(net::GrpcHealthService::kPath), health_service);
    auto stream = std::make_unique<net::FedStream>(input, cut);
    server.AdoptForTest(std::move(stream));
    // Whatever it does, it comes to rest: reads are 4 a turn, writes go on with each event.
    for (size_t turns = 0; turns < 64 && server.connection_count() > 0; ++turns) loop.Turn({});
  }
  LLMD_CHECK(service.alive == 0, "a handler was not told of its end");
  LLMD_CHECK(loop.buffers().live_bytes() == 0, "a block was not given back");
  return 0;
}
