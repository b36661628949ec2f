// What a gRPC call costs the serving thread: CPU per call, the client on a thread of its own. The
// calls look like Envoy's ext_proc streams: a message of headers, the body in messages of 32 KiB,
// then the body back in messages of 62,000 bytes behind one of header edits, and a reset by the
// client. nghttp2 alone takes 3-4 us of it, grpc++ 28-34 us; upstream's whole picker .46 ms at 1
// KB.
#include <benchmark/benchmark.h>

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "net/grpc_client.h"
#include "net/grpc_server.h"
#include "runtime/clock.h"
#include "runtime/worker.h"

namespace llmd::net {
namespace {

constexpr uint32_t kLoopback = 0x7f000001;
constexpr size_t kFieldsBytes = 600;  // of a ProcessingRequest with request headers
constexpr size_t kEditBytes = 300;    // of the answer to it
constexpr size_t kRequestChunk = 32 << 10;
constexpr size_t kReplyChunk = 62'000;

// Answers like a picker once the body is complete: an empty message ends it.
class Door final : public GrpcService {
 public:
  GrpcHandler* OnCall(GrpcCall& call) override {
    if (spare_.empty()) {
      sessions_.push_back(std::make_unique<Session>(*this));
      spare_.push_back(sessions_.back().get());
    }
    Session* session = spare_.back();
    spare_.pop_back();
    session->call = &call;
    return session;
  }

 private:
  struct Session final : GrpcHandler {
    explicit Session(Door& d) : door(d) {}
    void OnMessagePiece(base::Slice piece, bool last) override {
      if (piece.empty()) {
        Answer();
      } else if (messages > 0) {
        body.push_back(std::move(piece));
      }
      messages += last;
    }
    void Answer() {
      call->Send(base::Slice::Unowned(door.edits_));
      size_t bytes = 0;
      for (base::Slice& piece : body) {
        bytes += piece.size();
        chunk.push_back(std::move(piece));
        if (bytes < kReplyChunk) continue;
        call->Send(chunk);
        chunk.clear();
        bytes = 0;
      }
      call->Send(chunk);
      chunk.clear();
      body.clear();
    }
    void OnEnd(GrpcEnd) override {
      messages = 0;
      body.clear();
      door.spare_.push_back(this);
    }
    Door& door;
    GrpcCall* call = nullptr;
    std::vector<base::Slice> body, chunk;
    size_t messages = 0;
  };

  const std::string edits_ = std::string(kEditBytes, 'e');
  std::vector<std::unique_ptr<Session>> sessions_;
  std::vector<Session*> spare_;
};

// One stream after the other; resets each when its answer is complete.
class Load final : public GrpcClientHandler {
 public:
  Load(GrpcChannel& channel, const std::string& body, size_t& done)
      : channel_(channel), body_(body), done_(done) {
    Next();
  }
  void OnMessagePiece(base::Slice piece, bool) override {
    received_ += piece.size();
    if (received_ < kEditBytes + body_.size()) return;
    call_->Reset(kHttp2InternalError);
    ++done_;
    Next();
  }
  void OnEnd(const GrpcClientEnd&) override { Next(); }

 private:
  void Next() {
    received_ = 0;
    call_ = channel_.Start("/envoy.service.ext_proc.v3.ExternalProcessor/Process", {}, *this);
    call_->Send(base::Slice::Unowned(fields_));
    for (size_t at = 0; at < body_.size(); at += kRequestChunk) {
      call_->Send(base::Slice::Unowned(std::string_view(body_).substr(at, kRequestChunk)));
    }
    call_->Send(base::Slice());
  }
  GrpcChannel& channel_;
  const std::string& body_;
  size_t& done_;
  const std::string fields_ = std::string(kFieldsBytes, 'f');
  GrpcClientCall* call_ = nullptr;
  size_t received_ = 0;
};

void BM_Call(benchmark::State& state) {
  const std::string body(static_cast<size_t>(state.range(0)), 'b');
  runtime::WorkerPool pool(1, "grpc");
  Door door;
  auto server = std::make_unique<GrpcServer>(pool.loop(0));
  server->AddService("/envoy.service.ext_proc.v3.ExternalProcessor/", door);
  GrpcListener listener(pool.loop(0), {server.get()});
  const auto port = listener.Listen(runtime::SocketAddress::Ipv4(kLoopback, 0)).value();
  pool.Start();
  auto server_cpu = [&] {
    base::Duration used{};
    pool.ForEach([&](size_t, runtime::EventLoop&) { used = runtime::ThreadCpuTime(); });
    return used;
  };
  {
    runtime::EventLoop loop;
    GrpcChannel channel(loop, {.address = runtime::SocketAddress::Ipv4(kLoopback, port)},
                        {.connections = 2});
    size_t done = 0;
    std::deque<Load> loads;
    for (int64_t i = 0; i < state.range(1); ++i) loads.emplace_back(channel, body, done);
    while (done < 100) loop.Turn(std::chrono::seconds(1));
    const base::Duration cpu_before = server_cpu();
    const size_t done_before = done;
    size_t wanted = done;
    for (auto _ : state) {
      ++wanted;
      while (done < wanted) loop.Turn(std::chrono::seconds(1));
    }
    state.counters["server_cpu_us"] =
        base::ToSeconds(server_cpu() - cpu_before) * 1e6 / static_cast<double>(done - done_before);
    state.SetBytesProcessed(state.iterations() * state.range(0));
  }
  pool.Stop();
  server.reset();
}
BENCHMARK(BM_Call)
    ->ArgNames({"bytes", "streams"})
    ->Args({1 << 10, 16})
    ->Args({1 << 10, 64})
    ->Args({16 << 10, 16})
    ->Args({128 << 10, 16})
    ->Args({512 << 10, 16})
    ->UseRealTime();

}  // namespace
}  // namespace llmd::net
