#include <benchmark/benchmark.h>
#include <time.h>

#include "director/director_testing.h"
#include "protocol/usage.h"
#include "telemetry/trace.h"
#include "wire/sse.h"

namespace llmd::director {
namespace {

base::TimePoint Clock() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return base::TimePoint(std::chrono::seconds(t.tv_sec) + base::Duration(t.tv_nsec));
}

std::string Body(size_t bytes) {
  std::string body = R"({"model":"llama","messages":[{"role":"user","content":")";
  while (body.size() < bytes) body += "The quick brown fox jumps over the lazy dog. ";
  return body + R"("}]})";
}

const plugin::Header kHeaders[] = {{"Host", "gateway:8080"},
                                   {"User-Agent", "OpenAI/Python 1.99.0"},
                                   {"Accept", "application/json"},
                                   {"Content-Type", "application/json"},
                                   {"Authorization", "Bearer sk-0123456789"},
                                   {"X-Stainless-Lang", "python"},
                                   {"X-Stainless-Runtime", "CPython"},
                                   {"Accept-Encoding", "gzip, deflate"}};

// From the head to the end of a plain reply: everything but the sockets. Bodies come in the pieces
// in which sockets give them.
void RunRequests(benchmark::State& state, telemetry::Tracer* tracer) {
  testing::Bed bed(static_cast<size_t>(state.range(1)), {.clock = Clock, .tracer = tracer});
  const std::string body = Body(static_cast<size_t>(state.range(0)));
  const std::string reply =
      R"({"id":"cmpl-1","object":"chat.completion","model":"llama","choices":[{"index":0,)"
      R"("message":{"role":"assistant","content":"Hello, how can I help you today?"}}],)"
      R"("usage":{"prompt_tokens":20,"completion_tokens":9,"total_tokens":29}})";
  uint64_t seed = 0;
  for (auto _ : state) {
    bed.now += std::chrono::microseconds(50);
    Session session(bed.director(), ++seed, bed.now);
    session.OnHead({.method = "POST", .path = "/v1/chat/completions", .headers = kHeaders,
                    .request_id = "0123456789abcdef", .content_length = body.size()}, bed.now);
    for (size_t at = 0; at < body.size(); at += 64 << 10) {
      session.OnBody(std::string_view(body).substr(at, 64 << 10), bed.now);
    }
    benchmark::DoNotOptimize(session.OnBodyEnd(bed.now).kind);
    session.OnResponseHead({.status = 200}, bed.now);
    session.OnResponseBody(reply, bed.now);
    session.OnDone(reply.size(), bed.now);
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(body.size()));
}
void BM_Request(benchmark::State& state) { RunRequests(state, nullptr); }
BENCHMARK(BM_Request)->Args({1 << 10, 4})->Args({128 << 10, 4})->Args({1 << 10, 100})
    ->Args({1 << 10, 1000});

// The same with tracing on: of a hundred requests, range(2) are sampled.
void BM_TracedRequest(benchmark::State& state) {
  telemetry::Tracer tracer({.sampler = telemetry::TraceSampler::Ratio(
                                static_cast<double>(state.range(2)) / 100, true)});
  RunRequests(state, &tracer);
}
BENCHMARK(BM_TracedRequest)->Args({1 << 10, 4, 0})->Args({1 << 10, 4, 10})
    ->Args({1 << 10, 4, 100});

constexpr std::string_view kChunk =
    "data: {\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":"
    "1756200000,\"model\":\"llama\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" hello\"},"
    "\"logprobs\":null,\"finish_reason\":null}]}\n\n";

// A chunk of a stream, its scan included; BM_SseScan is the scan alone.
void BM_Chunk(benchmark::State& state) {
  testing::Bed bed(4, {.clock = Clock});
  const std::string body = Body(1 << 10);
  Session session(bed.director(), 1, bed.now);
  session.OnHead({.method = "POST", .path = "/v1/chat/completions", .request_id = "r",
                  .content_length = body.size()}, bed.now);
  session.OnBody(body, bed.now);
  session.OnBodyEnd(bed.now);
  session.OnResponseHead({.status = 200, .event_stream = true}, bed.now);
  for (auto _ : state) {
    bed.now += std::chrono::microseconds(50);
    benchmark::DoNotOptimize(session.OnResponseBody(kChunk, bed.now).end);
  }
  session.OnDone(0, bed.now);
}
BENCHMARK(BM_Chunk);

void BM_SseScan(benchmark::State& state) {
  wire::SseParser parser;
  for (auto _ : state) {
    parser.Feed(kChunk);
    for (wire::SseEvent event; parser.Next(&event);) {
      benchmark::DoNotOptimize(protocol::MayHoldUsage(event.data));
    }
  }
}
BENCHMARK(BM_SseScan);

void BM_RecordPush(benchmark::State& state) {
  RecordRing ring(1);
  DecisionRecord record;
  record.shown = static_cast<uint8_t>(state.range(0));
  for (auto _ : state) ring.Push(0, &record);
}
BENCHMARK(BM_RecordPush)->Arg(4)->Arg(16);

}  // namespace
}  // namespace llmd::director
