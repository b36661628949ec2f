#include "protocol/grpc_reply.h"

#include <gtest/gtest.h>

#include <string>

#include "protocol/golden_testing.h"

namespace llmd::protocol {
namespace {

std::string Frame(std::string_view message, char flag = 0) {
  std::string out(1, flag);
  for (int shift = 24; shift >= 0; shift -= 8) {
    out.push_back(static_cast<char>(message.size() >> shift));
  }
  return out + std::string(message);
}
// GenerateResponse {chunk {prompt_tokens: 5, completion_tokens: n}}.
std::string Chunk(char n) { return {'\x0a', 4, '\x10', 5, '\x18', n}; }
// HttpBody {data: ...}, shorter than 128 bytes.
std::string HttpBody(std::string_view data) {
  return std::string{'\x12', static_cast<char>(data.size())} + std::string(data);
}

std::string Usage(Api api, std::string_view reply) {
  const std::string whole = DescribeReply(api, ReplyKind::kGrpc, reply, 0);
  for (size_t cut = 0; cut <= reply.size(); ++cut) {
    EXPECT_EQ(DescribeReply(api, ReplyKind::kGrpc, reply, cut), whole) << "cut at " << cut;
  }
  return whole.substr(0, whole.find(" model"));
}

TEST(GrpcReplyScanner, TheLastChunkCounts) {
  EXPECT_EQ(Usage(Api::kVllmGrpcGenerate, Frame(Chunk(1)) + Frame(Chunk(2)) + Frame(Chunk(3))),
            "prompt=5 completion=3 total=8 cached=0");
}

TEST(GrpcReplyScanner, WhatCannotBeReadIsPassedOver) {
  EXPECT_EQ(Usage(Api::kVllmGrpcGenerate, ""), "no usage");
  EXPECT_EQ(Usage(Api::kVllmGrpcGenerate, Frame("\xff\xff")), "no usage");
  EXPECT_EQ(Usage(Api::kVllmGrpcGenerate, Frame("\xff") + Frame(Chunk(2))),
            "prompt=5 completion=2 total=7 cached=0");
  EXPECT_EQ(Usage(Api::kVllmGrpcGenerate, Frame(Chunk(1)) + Frame(Chunk(2), 1)),
            "prompt=5 completion=1 total=6 cached=0");
  EXPECT_EQ(Usage(Api::kVertexRawPredict, Frame(HttpBody("not JSON"))), "no usage");
  EXPECT_EQ(Usage(Api::kVertexRawPredict, Frame(HttpBody(R"({"usage":)"))), "no usage");
}

TEST(GrpcReplyScanner, EventsMayBeCutByTheMessages) {
  EXPECT_EQ(Usage(Api::kVertexStreamRawPredict,
                  Frame(HttpBody("data: {}\n\nda")) +
                      Frame(HttpBody("ta: {\"usage\":{\"prompt_tokens\":4}}\n\n"))),
            "prompt=4 completion=0 total=4 cached=untold");
}

TEST(GrpcReplyScanner, EveryMessageMayBeADocument) {
  EXPECT_EQ(Usage(Api::kVertexStreamRawPredict,
                  Frame(HttpBody(R"({"usage":{"prompt_tokens":4}})")) + Frame(HttpBody(" ")) +
                      Frame(HttpBody(R"({"choices":[]})"))),
            "prompt=4 completion=0 total=4 cached=untold");
}

}  // namespace
}  // namespace llmd::protocol
