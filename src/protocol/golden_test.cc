// Golden pairs, one folder of testdata/ each: a request as clients send it, the reply as engines
// send it, and what is read from the two, wherever they are cut. `*.hex` files are gRPC bodies.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>

#include "protocol/golden_testing.h"
#include "protocol/request_testing.h"

namespace llmd::protocol {
namespace {

namespace fs = std::filesystem;

std::string ReadFile(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

std::string FromHex(const std::string& text) {
  std::istringstream in(text);
  std::string out;
  for (std::string byte; in >> byte;) {
    out.push_back(static_cast<char>(std::stoi(byte, nullptr, 16)));
  }
  return out;
}

struct Pair {
  const char* folder;
  Api api;
};
constexpr Pair kPairs[] = {
    {"chat_completions", Api::kChatCompletions},
    {"chat_completions_continuous_usage", Api::kChatCompletions},
    {"chat_completions_stream", Api::kChatCompletions},
    {"chat_completions_render", Api::kChatCompletionsRender},
    {"completions", Api::kCompletions},
    {"completions_stream", Api::kCompletions},
    {"completions_token_ids", Api::kCompletions},
    {"completions_render", Api::kCompletionsRender},
    {"embeddings", Api::kEmbeddings},
    {"responses", Api::kResponses},
    {"responses_stream", Api::kResponses},
    {"conversations", Api::kConversations},
    {"images_generations", Api::kImagesGenerations},
    {"messages", Api::kMessages},
    {"messages_stream", Api::kMessages},
    {"messages_stream_cached", Api::kMessages},
    {"messages_count_tokens", Api::kMessagesCountTokens},
    {"vllm_generate", Api::kVllmGenerate},
    {"vllm_generate_stream", Api::kVllmGenerate},
    {"sglang_generate", Api::kSglangGenerate},
    {"sglang_generate_stream", Api::kSglangGenerate},
    {"vllm_grpc_generate", Api::kVllmGrpcGenerate},
    {"vllm_grpc_generate_text", Api::kVllmGrpcGenerate},
    {"vllm_grpc_embed", Api::kVllmGrpcEmbed},
    {"vllm_grpc_health_check", Api::kVllmGrpcOther},
    {"vertex_chat_completions", Api::kVertexChatCompletions},
    {"vertex_raw_predict", Api::kVertexRawPredict},
    {"vertex_stream_raw_predict", Api::kVertexStreamRawPredict},
};

// The file of that stem, as bytes; its extension.
std::string Load(const fs::path& folder, std::string_view stem, std::string* extension) {
  for (const std::string_view ext : {".json", ".sse", ".hex"}) {
    const fs::path path = folder / base::Concat(stem, ext);
    if (!fs::exists(path)) continue;
    *extension = ext;
    return ext == ".hex" ? FromHex(ReadFile(path)) : ReadFile(path);
  }
  ADD_FAILURE() << "no " << stem << " in " << folder;
  return {};
}

class Golden : public ::testing::TestWithParam<Pair> {};

TEST_P(Golden, WhateverTheCut) {
  const auto [name, api] = GetParam();
  const fs::path folder = fs::path(LLMD_SOURCE_DIR "/src/protocol/testdata") / name;
  std::string extension;
  const std::string request = Load(folder, "request", &extension);
  const std::string want = ReadFile(folder / "request.want");
  for (size_t cut = 0; cut <= request.size(); ++cut) {
    ASSERT_EQ(DescribeRequest(api, request, {cut}), want) << "cut at " << cut;
  }
  const std::string reply = Load(folder, "reply", &extension);
  const ReplyKind kind = extension == ".hex"   ? ReplyKind::kGrpc
                         : extension == ".sse" ? ReplyKind::kEvents
                                               : ReplyKind::kDocument;
  const std::string reply_want = ReadFile(folder / "reply.want");
  for (size_t cut = 0; cut <= reply.size(); ++cut) {
    ASSERT_EQ(DescribeReply(api, kind, reply, cut), reply_want) << "cut at " << cut;
  }
}

INSTANTIATE_TEST_SUITE_P(Testdata, Golden, ::testing::ValuesIn(kPairs),
                         [](const auto& info) { return std::string(info.param.folder); });

TEST(GoldenPairs, EveryApiHasOne) {
  std::set<Api> seen = {Api::kOpaque};
  for (const Pair& pair : kPairs) seen.insert(pair.api);
  EXPECT_EQ(seen.size(), size_t{kApiCount});
}

}  // namespace
}  // namespace llmd::protocol
