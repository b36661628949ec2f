// What reading a request costs, by size and content: beside the scan itself, the records of its
// parts.
#include <benchmark/benchmark.h>

#include <string>

#include "protocol/request.h"
#include "protocol/usage.h"

namespace llmd::protocol {
namespace {

std::string Text(size_t bytes, bool escapes) {
  const std::string_view unit = escapes ? "say \\\"hi\\\"\\n\\tx = \\u00e9; "
                                        : "The quick brown fox jumps over the lazy dog. ";
  std::string text;
  while (text.size() < bytes) text += unit;
  return text;
}

std::string Body(size_t bytes, bool escapes) {
  return R"({"model":"llama","messages":[{"role":"system","content":"You are terse."},)"
         R"({"role":"user","content":")" +
         Text(bytes > 200 ? bytes - 200 : 0, escapes) +
         R"("}],"max_tokens":16,"stream":false,"temperature":0.7})";
}

void Parse(benchmark::State& state, Api api, const std::string& body, size_t read_bytes) {
  base::Arena arena;
  for (auto _ : state) {
    arena.Reset();
    Request request;
    RequestParser parser(api, arena, &request);
    for (size_t at = 0; at < body.size(); at += read_bytes) {
      parser.Feed(std::string_view(body).substr(at, read_bytes));
    }
    if (!parser.Finish().ok()) state.SkipWithError("the body is refused");
    benchmark::DoNotOptimize(request.pieces.data());
  }
  state.SetBytesProcessed(static_cast<int64_t>(body.size() * state.iterations()));
}

void Sizes(benchmark::internal::Benchmark* b) {
  for (const int kilobytes : {1, 16, 128, 512}) b->Arg(kilobytes << 10);
}

void BM_ChatPlain(benchmark::State& state) {
  Parse(state, Api::kChatCompletions, Body(static_cast<size_t>(state.range(0)), false), 16 << 10);
}
BENCHMARK(BM_ChatPlain)->Apply(Sizes);

void BM_ChatEscapes(benchmark::State& state) {
  Parse(state, Api::kChatCompletions, Body(static_cast<size_t>(state.range(0)), true), 16 << 10);
}
BENCHMARK(BM_ChatEscapes)->Apply(Sizes);

// A long conversation: many short messages instead of one long one.
void BM_ChatManyMessages(benchmark::State& state) {
  std::string body = R"({"model":"llama","messages":[)";
  while (body.size() < static_cast<size_t>(state.range(0))) {
    body += R"({"role":"user","content":"What is the capital of France, and why?"},)";
  }
  body += R"({"role":"user","content":"x"}]})";
  Parse(state, Api::kChatCompletions, body, 16 << 10);
}
BENCHMARK(BM_ChatManyMessages)->Apply(Sizes);

void BM_TokenIds(benchmark::State& state) {
  std::string body = R"({"model":"llama","prompt":[)";
  while (body.size() < static_cast<size_t>(state.range(0))) body += "128000,9906,11,";
  Parse(state, Api::kCompletions, body + "1]}", 16 << 10);
}
BENCHMARK(BM_TokenIds)->Apply(Sizes);

constexpr std::string_view kChunk =
    R"({"id":"chatcmpl-87c2366e855c5afc","object":"chat.completion.chunk","created":1795246234,)"
    R"("model":"tiny","choices":[{"index":0,"delta":{"content":"objects"},"logprobs":null,)"
    R"("finish_reason":null,"token_ids":null}]})";

void BM_MayHoldUsage(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(MayHoldUsage(kChunk));
}
BENCHMARK(BM_MayHoldUsage);

void BM_FindModel(benchmark::State& state) {
  uint64_t begin, end;
  for (auto _ : state) benchmark::DoNotOptimize(FindModel(kChunk, &begin, &end));
}
BENCHMARK(BM_FindModel);

void BM_ScanUsage(benchmark::State& state) {
  const std::string payload =
      R"({"id":"c","object":"chat.completion.chunk","created":1795246234,"model":"m","choices":[],)"
      R"("usage":{"prompt_tokens":12,"total_tokens":18,"completion_tokens":6}})";
  for (auto _ : state) {
    ReplyFields fields;
    ScanPayload(payload, &fields);
    benchmark::DoNotOptimize(fields.usage.total_tokens);
  }
}
BENCHMARK(BM_ScanUsage);

}  // namespace
}  // namespace llmd::protocol
