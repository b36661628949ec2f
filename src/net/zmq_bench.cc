// What a KV event costs on its way through ZeroMQ, both ends on one loop: sending, libzmq's thread,
// the kernel, and being handed out.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <string>

#include "net/zmq.h"

namespace llmd::net {
namespace {

struct Counter final : ZmqSink {
  uint64_t messages = 0;
  void OnZmqMessage(std::span<const std::string_view>) override { ++messages; }
};

// Bursts of messages of three frames, the payload of so many bytes.
void BM_ZmqMessage(benchmark::State& state) {
  constexpr int kBurst = 256;
  runtime::EventLoop loop;
  ZmqContext context(loop);
  Counter counter;
  ZmqSocketOptions bound, connected;
  bound.bind = {"tcp://127.0.0.1:0"};
  auto subscriber = ZmqSubscriber::Create(context, bound, {}, counter);
  if (!subscriber) std::abort();
  connected.connect = {(*subscriber)->bound()[0]};
  auto publisher = ZmqPublisher::Create(context, connected);
  if (!publisher) std::abort();
  const std::string payload(static_cast<size_t>(state.range(0)), 'x');
  const std::string_view frames[] = {"kv@10.0.0.1:8000@model", "12345678", payload};
  while (counter.messages == 0) {
    (*publisher)->Send(frames);
    loop.Turn(std::chrono::milliseconds(1));
  }
  for (auto _ : state) {
    const uint64_t until = (*subscriber)->stats().messages + kBurst;
    for (int i = 0; i < kBurst; ++i) (*publisher)->Send(frames);
    while (counter.messages < until) loop.Turn(std::chrono::milliseconds(1));
  }
  state.SetItemsProcessed(state.iterations() * kBurst);
  state.SetBytesProcessed(state.iterations() * kBurst * state.range(0));
}
BENCHMARK(BM_ZmqMessage)->Arg(200)->Arg(2'000)->Arg(20'000);

}  // namespace
}  // namespace llmd::net
