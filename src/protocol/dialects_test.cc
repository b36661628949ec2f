// What goes wrong in the dialects beside OpenAI's, and their limits. What goes right:
// golden_test.cc.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "protocol/request_testing.h"
#include "wire/protobuf.h"

namespace llmd::protocol {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

struct Case {
  Api api;
  std::string body;
  std::string want;  // without INVALID_ARGUMENT
};

// The error of `body`, the same at every cut.
void Check(const Case& c) {
  const std::string want = c.want.empty() ? "" : "INVALID_ARGUMENT: " + c.want;
  for (size_t cut = 0; cut <= c.body.size(); ++cut) {
    const std::string got = DescribeRequest(c.api, c.body, {cut});
    if (want.empty()) {
      ASSERT_THAT(got, StartsWith("model=")) << c.body << " cut at " << cut;
    } else {
      ASSERT_EQ(got, want) << c.body << " cut at " << cut;
    }
  }
}

TEST(Dialects, ErrorsOfMessages) {
  constexpr std::string_view kMissing = "invalid messages request: must have at least one message";
  const Case cases[] = {
      {Api::kMessages, R"({"model":"m","messages":[{"role":"user","content":"x"}]})", ""},
      {Api::kMessages, R"({"messages":[{"role":"user","content":"x"}]})",
       "model not found in request body"},
      {Api::kMessages, R"({"model":"m"})", std::string(kMissing)},
      {Api::kMessages, R"({"model":"m","messages":[]})", std::string(kMissing)},
      {Api::kMessages, R"({"model":"m",)",
       "error unmarshaling request body: truncated JSON (at byte 13)"},
      {Api::kMessages, R"({"model":"m","system":7,"messages":[{}]})",
       "the system prompt must be a string or an array of parts (at byte 22)"},
      {Api::kMessages, R"({"model":"m","messages":[{"content":{"type":"text"}}]})",
       base::Concat(kMissing, ": content must be a string or an array of parts (at byte 36)")},
      {Api::kMessages, R"({"model":"m","messages":[{"content":[{"type":1}]}]})",
       base::Concat(kMissing, ": type must be a string (at byte 45)")},
      {Api::kMessages, R"({"model":"m","messages":[{"content":[{"source":[1]}]}]})",
       base::Concat(kMissing, ": media must be a string or an object (at byte 47)")},
      {Api::kMessages, R"({"model":"m","messages":[{"content":[{"text":"a","text":"b"}]}]})",
       base::Concat(kMissing, ": a field is given twice (at byte 49)")},
      {Api::kMessagesCountTokens, "what it is does not matter", ""},
  };
  for (const Case& c : cases) Check(c);
}

TEST(Dialects, ToolResultsInsideEachOtherEndSomewhere) {
  std::string body = R"({"model":"m","messages":[{"content":)";
  for (int i = 0; i < 10; ++i) body += R"([{"type":"tool_result","content":)";
  EXPECT_THAT(DescribeRequest(Api::kMessages, body, {}), HasSubstr("nested too deeply"));
}

TEST(Dialects, ErrorsOfTheEnginesApis) {
  constexpr std::string_view kVllm =
      "invalid generate request: must have non-empty token_ids field";
  constexpr std::string_view kSglang = "invalid generate request: input_ids must be provided";
  const Case cases[] = {
      {Api::kVllmGenerate, R"({"token_ids":[1]})", "model not found in request body"},
      {Api::kVllmGenerate, R"({"model":"m","token_ids":[]})", std::string(kVllm)},
      {Api::kVllmGenerate, R"({"model":"m","token_ids":null})", std::string(kVllm)},
      {Api::kVllmGenerate, R"({"model":"m","token_ids":"1,2"})",
       base::Concat(kVllm, ": must be an array of token ids (at byte 25)")},
      {Api::kVllmGenerate, R"({"model":"m","token_ids":["a"]})",
       base::Concat(kVllm, ": must be an array of token ids (at byte 26)")},
      {Api::kVllmGenerate, R"({"model":"m","token_ids":[[1]]})",
       base::Concat(kVllm, ": must be an array of token ids (at byte 26)")},
      {Api::kVllmGenerate, R"({"model":"m","token_ids":[1,-2]})",
       "invalid generate request: malformed number (at byte 28)"},
      {Api::kVllmGenerate, R"({"model":"m","token_ids":[1],"sampling_params":[]})",
       "sampling_params must be an object (at byte 47)"},
      {Api::kVllmGenerate, R"({"model":"m","token_ids":[1],"sampling_params":{"max_tokens":{}}})",
       "the maximum number of tokens must be a whole number (at byte 61)"},
      {Api::kVllmGenerate, R"({"model":"m","token_ids":[1],"features":{"mm_hashes":[]}})",
       "features must hold mm_hashes and mm_placeholders by modality (at byte 53)"},
      {Api::kVllmGenerate, R"({"model":"m","token_ids":[1],"features":{"mm_hashes":{"new":7}}})",
       ""},
      {Api::kSglangGenerate, R"({"input_ids":[1]})", ""},
      {Api::kSglangGenerate, R"({"text":"not read here"})", std::string(kSglang)},
      {Api::kSglangGenerate, R"({"input_ids":[1],"extra_key":5})",
       "extra_key must be a string (at byte 29)"},
      {Api::kSglangGenerate, "[1]", "invalid generate request: not a JSON object (at byte 0)"},
  };
  for (const Case& c : cases) Check(c);
}

TEST(Dialects, MediaBeyondTheLimitAreCounted) {
  constexpr size_t kMany = MediaFeatureList::kMediaFeaturesMax + 5;
  std::string hashes, places;
  for (size_t i = 0; i < kMany; ++i) {
    hashes += i ? ",\"h\"" : "\"h\"";
    places += i ? R"(,{"offset":1,"length":1})" : R"({"offset":1,"length":1})";
  }
  const std::string body =
      base::Concat(R"({"model":"m","token_ids":[1],"features":{"mm_hashes":{"image":[)", hashes,
                   R"(]},"mm_placeholders":{"image":[)", places, "]}}}");
  base::Arena arena;
  Request request;
  RequestParser parser(Api::kVllmGenerate, arena, &request);
  EXPECT_TRUE(parser.Feed(body));
  ASSERT_TRUE(parser.Finish().ok());
  EXPECT_EQ(request.media_features.size(), MediaFeatureList::kMediaFeaturesMax);
  EXPECT_EQ(request.pieces_dropped, 5u);
}

// gRPC bodies ------------------------------------------------------------------------------------

std::string Varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
  return out;
}
std::string Number(uint32_t field, uint64_t value) {
  return Varint(uint64_t{field} << 3) + Varint(value);
}
std::string Bytes(uint32_t field, std::string_view bytes) {
  return Varint(uint64_t{field} << 3 | 2) + Varint(bytes.size()) + std::string(bytes);
}
std::string Frame(std::string_view message, char flag = 0) {
  std::string out(1, flag);
  for (int shift = 24; shift >= 0; shift -= 8) {
    out.push_back(static_cast<char>(message.size() >> shift));
  }
  return out + std::string(message);
}
std::string Vertex(std::string_view json) { return Frame(Bytes(2, Bytes(2, json))); }

TEST(Dialects, ErrorsOfVllmOverGrpc) {
  constexpr std::string_view kPayload = "invalid or unsupported gRPC payload: ";
  const std::string ids = Bytes(2, Bytes(2, "\x01\x02"));
  const Case cases[] = {
      {Api::kVllmGrpcGenerate, Frame(ids), ""},
      {Api::kVllmGrpcGenerate, Frame(ids) + "what comes behind is not read", ""},
      {Api::kVllmGrpcGenerate, Frame(Bytes(3, "")), ""},
      {Api::kVllmGrpcGenerate, Frame(Bytes(2, "")), ""},
      {Api::kVllmGrpcGenerate, Frame(""), "not supported request inputType"},
      {Api::kVllmGrpcEmbed, Frame(Bytes(1, "id")), "missing tokenized input in EmbedRequest"},
      {Api::kVllmGrpcGenerate, "",
       base::Concat(kPayload,
                    "invalid gRPC frame: expected at least 5 bytes for header, got 0")},
      {Api::kVllmGrpcGenerate, std::string(4, '\0'),
       base::Concat(kPayload,
                    "invalid gRPC frame: expected at least 5 bytes for header, got 4")},
      {Api::kVllmGrpcGenerate, Frame(ids).substr(0, 8),
       base::Concat(kPayload,
                    "incomplete gRPC payload: header indicates 6 bytes, but only 3 bytes are "
                    "available")},
      {Api::kVllmGrpcGenerate, Frame(ids, 1),
       base::Concat(kPayload, "compressed gRPC payload is not supported")},
      {Api::kVllmGrpcGenerate, Frame(ids + ids),
       "unmarshaling GenerateRequest: a field is given twice (at byte 8)"},
      {Api::kVllmGrpcGenerate, Frame(ids + Bytes(3, "text")),
       "unmarshaling GenerateRequest: a field is given twice (at byte 8)"},
      {Api::kVllmGrpcOther, "anything", ""},
  };
  for (const Case& c : cases) Check(c);
  for (const std::string& bad : {Bytes(2, Bytes(2, "\x01\x80")),  // an id without an end
                                 Bytes(2, Bytes(2, std::string(11, '\x80'))),
                                 std::string("\xff"), std::string("\x00", 1)}) {
    EXPECT_THAT(DescribeRequest(Api::kVllmGrpcEmbed, Frame(bad), {}),
                StartsWith("INVALID_ARGUMENT: unmarshaling EmbedRequest: "));
  }
}

TEST(Dialects, TokenIdsOneByOneAreOnePromptAllTheSame) {
  std::string tokenized, want = "tokens:";
  uint64_t count = 0;
  for (uint32_t id = 1; id < 4'000'000'000u; id += 1'500'000, ++count) {
    tokenized += Number(2, id);
    want += " " + std::to_string(id);
  }
  tokenized += Bytes(2, "\x05");  // packed ids may follow
  want += " 5\n";
  const std::string body = Frame(Bytes(2, tokenized));
  for (const size_t cut : {size_t{0}, size_t{1000}, body.size() / 2}) {
    const std::string got = DescribeRequest(Api::kVllmGrpcGenerate, body, {cut});
    EXPECT_THAT(got, HasSubstr(base::Concat("prompts=1 messages=0 media=0 ids=",
                                            std::to_string(count + 1), " ")));
    EXPECT_THAT(got, ::testing::EndsWith(want));
  }
}

TEST(Dialects, ErrorsOfVertexAi) {
  const Case cases[] = {
      {Api::kVertexChatCompletions, Vertex(R"({"messages":[{"role":"user","content":"x"}]})"), ""},
      {Api::kVertexChatCompletions, Vertex(R"({"model":"m"})"),
       "parsing ChatCompletionsRequest: invalid chat completions request: must have valid "
       "messages field"},
      {Api::kVertexRawPredict, Vertex(R"({"input":)"),
       "parsing RawPredictRequest: error unmarshaling request bodyMap: truncated JSON (at byte "
       "9)"},
      {Api::kVertexStreamRawPredict, Frame(Bytes(1, "endpoint")),
       "StreamRawPredictRequest has no HttpBody"},
      {Api::kVertexStreamRawPredict, Frame(Bytes(2, Bytes(1, "text/plain"))),
       "parsing StreamRawPredictRequest: error unmarshaling request bodyMap: truncated JSON (at "
       "byte 0)"},
      {Api::kVertexRawPredict, Frame(Bytes(2, ""), 1),
       "invalid or unsupported gRPC payload: compressed gRPC payload is not supported"},
      {Api::kVertexRawPredict, Frame("\xff"),
       base::Concat("unmarshaling RawPredictRequest: ",
                    wire::ProtoErrorText(wire::ProtoError::kTruncated), " (at byte 1)")},
  };
  for (const Case& c : cases) Check(c);
}

}  // namespace
}  // namespace llmd::protocol
