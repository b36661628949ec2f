#include "protocol/usage.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace llmd::protocol {
namespace {

TEST(Usage, FromAStreamedChatChunk) {
  const std::string_view payload =
      R"({"id":"c","model":"tiny","choices":[],"usage":{"prompt_tokens":12,"total_tokens":18,)"
      R"("completion_tokens":6,"prompt_tokens_details":{"cached_tokens":8}}})";
  ASSERT_TRUE(MayHoldUsage(payload));
  ReplyFields fields;
  ScanPayload(payload, &fields);
  EXPECT_TRUE(fields.usage.present);
  EXPECT_EQ(fields.usage.prompt_tokens, 12);
  EXPECT_EQ(fields.usage.completion_tokens, 6);
  EXPECT_EQ(fields.usage.total_tokens, 18);
  EXPECT_TRUE(fields.usage.has_cached);
  EXPECT_EQ(fields.usage.cached_tokens, 8);
  EXPECT_EQ(payload.substr(fields.model_begin, fields.model_end - fields.model_begin), "\"tiny\"");
}

struct Case {
  std::string_view body;
  bool present;
  int64_t prompt, completion, total, cached;
  std::string_view model;
};

// As vLLM 0.32, llama-server and the OpenAI APIs write them.
const Case kCases[] = {
    {R"({"model":"m","usage":{"prompt_tokens":4,"total_tokens":8,"completion_tokens":4}})", true, 4,
     4, 8, 0, "\"m\""},
    {R"({"model":"m","usage":{"prompt_tokens":4,"prompt_tokens_details":null}})", true, 4, 0, 4, 0,
     "\"m\""},
    {R"({"model":"m","usage":{"input_tokens":11,"input_tokens_details":{"cached_tokens":3,)"
     R"("cached_tokens_per_turn":[]},"output_tokens":4,"output_tokens_details":{},)"
     R"("total_tokens":15}})",
     true, 11, 4, 15, 3, "\"m\""},
    {R"({"type":"response.completed","response":{"id":"r","model":"m","output":[{"usage":7}],)"
     R"("usage":{"input_tokens":31,"output_tokens":2,"total_tokens":33}}})",
     true, 31, 2, 33, 0, "\"m\""},
    {R"({"usage":null,"choices":[{"text":"\"usage\":{\"prompt_tokens\":1}"}],"model":"a\"b"})",
     false, 0, 0, 0, 0, R"("a\"b")"},
    {R"({"choices":[{"usage":{"prompt_tokens":9},"model":"inner"}]})", false, 0, 0, 0, 0, ""},
    {R"({"usage":[{"prompt_tokens":9}]})", false, 0, 0, 0, 0, ""},
    {R"({"usage":{"prompt_tokens":{"x":1}},"model":"m"})", true, 0, 0, 0, 0, ""},
    {R"({"usage":{"prompt_tokens":-5,"completion_tokens":1.5}})", true, 0, 0, 0, 0, ""},
    {R"([{"usage":{"prompt_tokens":9}}])", false, 0, 0, 0, 0, ""},
    {R"({"type":"message_start","message":{"model":"m","usage":{"input_tokens":25,)"
     R"("cache_read_input_tokens":7,"output_tokens":1}}})",
     true, 25, 1, 26, 7, "\"m\""},
    {R"({"meta_info":{"id":"r","finish_reason":{"type":"stop"},"prompt_tokens":3,)"
     R"("completion_tokens":2,"cached_tokens":1},"text":"x"})",
     true, 3, 2, 5, 1, ""},
    {R"({"meta_info":{"id":"r","cached_tokens":1}})", false, 0, 0, 0, 1, ""},
    {R"({"object":"error","message":"the model \"m\" is unknown"})", false, 0, 0, 0, 0, ""},
    {"[DONE]", false, 0, 0, 0, 0, ""},
    {"", false, 0, 0, 0, 0, ""},
};

void Check(const Case& c, const ReplyFields& fields) {
  EXPECT_EQ(fields.usage.present, c.present) << c.body;
  EXPECT_EQ(fields.usage.prompt_tokens, c.prompt) << c.body;
  EXPECT_EQ(fields.usage.completion_tokens, c.completion) << c.body;
  EXPECT_EQ(fields.usage.total_tokens, c.total) << c.body;
  EXPECT_EQ(fields.usage.cached_tokens, c.cached) << c.body;
  EXPECT_EQ(c.body.substr(fields.model_begin, fields.model_end - fields.model_begin), c.model)
      << c.body;
}

TEST(Usage, TableAtEveryCut) {
  for (const Case& c : kCases) {
    ReplyFields fields;
    ScanPayload(c.body, &fields);
    Check(c, fields);
    if (c.present) {
      EXPECT_TRUE(MayHoldUsage(c.body) || MayHoldUsage(c.body, ReplyFormat::kSglang)) << c.body;
    }
    for (size_t cut = 0; cut <= c.body.size(); ++cut) {
      ReplyScanner scanner;
      scanner.Feed(c.body.substr(0, cut));
      scanner.Feed(c.body.substr(cut));
      Check(c, scanner.fields());
    }
  }
}

TEST(Usage, FieldsStayWhereAPayloadSaysNothing) {
  ReplyFields fields;
  ScanPayload(R"({"usage":{"prompt_tokens":3}})", &fields);
  ScanPayload(R"({"model":"m","choices":[]})", &fields);
  ScanPayload(R"({"usage":{"completion_tokens":2}})", &fields);
  EXPECT_EQ(fields.usage.prompt_tokens, 3);
  EXPECT_EQ(fields.usage.completion_tokens, 2);
  EXPECT_EQ(fields.model_end, 0u);  // the last payload has no model
}

TEST(Usage, WhatTwoEventsTellIsPutTogether) {
  ReplyFields fields;
  ScanPayload(
      R"({"message":{"usage":{"input_tokens":25,"output_tokens":1,"cache_read_input_tokens":9}}})",
      &fields);
  ScanPayload(R"({"type":"message_delta","usage":{"input_tokens":0,"output_tokens":15}})", &fields);
  EXPECT_EQ(fields.usage.prompt_tokens, 25);
  EXPECT_EQ(fields.usage.completion_tokens, 15);
  EXPECT_EQ(fields.usage.total_tokens, 40);
  EXPECT_EQ(fields.usage.cached_tokens, 9);
}

TEST(Usage, MayHoldUsageRejectsWhatCannot) {
  const struct {
    std::string payload;
    bool may;
  } cases[] = {
      {"", false},
      {"[DONE]", false},
      {R"({"choices":[{"delta":{"content":"usage"}}]})", true},  // the string, not the key: look
      {R"({"choices":[{"delta":{"content":"the usage of"}}]})", false},
      {R"({"choices":[{"delta":{"content":"\"usage\""}}]})", false},
      {R"({"usage":null})", false},
      {R"({"usage" : null})", false},
      {R"({"usage":null,"response":{"usage":{"a":1}}})", true},
      {R"({"usage":{"prompt_tokens":1}})", true},
      {std::string(300, 'x') + R"("usage":{})", true},
      {R"("usage":{})" + std::string(300, 'x'), true},
      {std::string(300, 'x') + R"("usage":null)", false},
      {R"("usage")", false},
  };
  for (const auto& c : cases) EXPECT_EQ(MayHoldUsage(c.payload), c.may) << c.payload;
}

TEST(Usage, FindModelStopsAtTheModel) {
  uint64_t begin = 0, end = 0;
  ASSERT_TRUE(FindModel(R"({"id":"x","model":"tiny","broken)", &begin, &end));
  EXPECT_EQ(begin, 18u);
  EXPECT_EQ(end, 24u);
  EXPECT_FALSE(FindModel(R"({"choices":[{"model":"tiny"}]})", &begin, &end));
  EXPECT_TRUE(FindModel(R"({"type":"response.created","response":{"model":"m"}})", &begin, &end));
}

}  // namespace
}  // namespace llmd::protocol
