// What the codec costs per message of the hot path.
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "wire/ext_proc.h"
#include "wire/ext_proc_client.h"

namespace llmd::wire {
namespace {

constexpr ExtProcHeader kHeaders[] = {
    {":authority", "inference.example.com"}, {":path", "/v1/chat/completions"},
    {":method", "POST"}, {":scheme", "http"}, {"user-agent", "OpenAI/Python 1.99.1"},
    {"accept", "application/json"}, {"accept-encoding", "gzip, deflate"},
    {"content-type", "application/json"}, {"content-length", "32768"},
    {"authorization", "Bearer sk-0123456789abcdef0123456789abcdef"},
    {"x-stainless-lang", "python"}, {"x-stainless-os", "Linux"}, {"x-stainless-arch", "x64"},
    {"x-stainless-runtime", "CPython"}, {"x-stainless-retry-count", "0"},
    {"x-forwarded-for", "10.1.2.3"}, {"x-forwarded-proto", "http"},
    {"x-envoy-expected-rq-timeout-ms", "600000"},
    {"x-request-id", "5ae4b3c2-6fd3-4d2c-9b5e-0f9f8f6b7a61"},
    {"traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
};
constexpr size_t kFrameBytes = 16 << 10;

void BM_ReadHeaders(benchmark::State& state) {
  base::BufferPool pool;
  ExtProcClientWriter client(&pool);
  const base::Slice message = client.Headers(ExtProcKind::kRequestHeaders, kHeaders, false);
  base::Arena arena(16 << 10);
  ExtProcReader reader(&arena);
  for (auto _ : state) {
    const base::Status status = reader.Feed(message, true);
    benchmark::DoNotOptimize(status.ok());
    benchmark::DoNotOptimize(reader.message().headers.data());
    reader.Clear();
    arena.Reset();
  }
}
BENCHMARK(BM_ReadHeaders);

void BM_ReadBody(benchmark::State& state) {
  base::BufferPool pool;
  ExtProcClientWriter client(&pool);
  std::vector<base::Slice> parts;
  const std::string bytes(static_cast<size_t>(state.range(0)), 'x');
  client.Body(ExtProcKind::kRequestBody, std::vector{pool.Copy(bytes)}, true, &parts);
  std::string flat;
  for (const base::Slice& part : parts) flat.append(part.view());
  std::vector<base::Slice> pieces;
  for (size_t at = 0; at < flat.size(); at += kFrameBytes) {
    pieces.push_back(pool.Copy(std::string_view(flat).substr(at, kFrameBytes)));
  }
  base::Arena arena;
  ExtProcReader reader(&arena);
  std::vector<base::Slice> body;
  for (auto _ : state) {
    for (size_t i = 0; i < pieces.size(); ++i) {
      const base::Status status = reader.Feed(pieces[i], i + 1 == pieces.size());
      benchmark::DoNotOptimize(status.ok());
    }
    body.clear();
    reader.TakeBody(&body);
    reader.Clear();
    benchmark::DoNotOptimize(body.data());
  }
}
BENCHMARK(BM_ReadBody)->Arg(200)->Arg((32 << 10) - 16)->Arg(32 << 10);  // one, two, three pieces

void BM_WriteHeadersReply(benchmark::State& state) {
  base::BufferPool pool;
  base::Arena arena;
  ExtProcWriter writer(&pool);
  size_t bytes = 0;
  for (auto _ : state) {
    const base::Slice reply = writer.Headers(
        ExtProcKind::kRequestHeaders,
        {.set_headers = kHeaders, .clear_route_cache = true,
         .dynamic_metadata = EndpointMetadata("10.0.0.1:8000", {}, &arena)});
    bytes = reply.size();
    benchmark::DoNotOptimize(reply.data());
    arena.Reset();
  }
  state.counters["message_bytes"] = static_cast<double>(bytes);
}
BENCHMARK(BM_WriteHeadersReply);

void BM_WriteBodyReply(benchmark::State& state) {
  base::BufferPool pool;
  ExtProcWriter writer(&pool);
  const base::Slice body[] = {pool.Copy(std::string(200, 'x'))};
  std::vector<base::Slice> out;
  for (auto _ : state) {
    out.clear();
    benchmark::DoNotOptimize(writer.Body(ExtProcKind::kResponseBody, body, false, {}, &out));
  }
}
BENCHMARK(BM_WriteBodyReply);

}  // namespace
}  // namespace llmd::wire
