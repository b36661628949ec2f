// Sessions of the APIs beside OpenAI's: what is rewritten, what is read of the reply, what is not.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/strings.h"
#include "director/director_testing.h"

namespace llmd::director {
namespace {

using protocol::Api;
using testing::Bed;

// Claims every path that some parser claims.
struct EveryParser : plugin::Plugin, plugin::Parser {
  EveryParser() {
    for (int i = 0; i < protocol::kApiCount; ++i) {
      const protocol::ApiInfo& info = protocol::InfoOf(static_cast<Api>(i));
      if (!info.path_suffix.empty()) all.push_back({info.path_suffix, info.api, info.exact_path});
    }
  }
  std::span<const Claim> claims() const override { return all; }
  std::vector<Claim> all;
};

void UseParsers(Bed& bed, std::string_view names) {
  plugin::Catalogue catalogue = testing::TestCatalogue();
  catalogue.Add({.type = "every-parser", .factory = [](plugin::PluginContext&) {
                   return std::make_unique<EveryParser>();
                 }});
  std::string yaml(Bed::kYaml);
  yaml += "requestHandler:\n  parsers:\n";
  for (const std::string_view name : base::Split(names, ' ')) {
    yaml += base::Concat("  - pluginRef: ", name, "\n");
  }
  const auto compiled =
      Compile(yaml, "c.yaml", catalogue, bed.fleet, {.endpoints_given = true}, nullptr);
  ASSERT_TRUE(compiled.has_value()) << compiled.error().message();
  bed.generation = *compiled;
  bed.generations.Publish(*compiled);
}

constexpr plugin::Header kRewrite[] = {{"x-llm-d-model-name-rewrite", "lora-7"}};

RequestHead Post(std::string_view path, std::span<const plugin::Header> headers = {}) {
  return {.method = "POST", .path = path, .content_type = "application/json", .headers = headers,
          .request_id = "req-1", .peer = "10.1.1.1", .content_length = 100};
}

// The decision, and the reply as it leaves.
struct Exchange {
  Exchange(Bed& b, RequestHead head, std::string_view body)
      : bed(b), session(b.director(), 1, b.now) {
    policy = session.OnHead(head, bed.now);
    session.OnBody(body, bed.now);
    decision = session.OnBodyEnd(bed.now);
    forwarded = std::string(body);
    const Forward::Splice& splice = decision.forward.splice;
    forwarded.replace(splice.begin, splice.end - splice.begin, splice.bytes);
  }
  // The reply in pieces of `step` bytes.
  std::string Reply(bool event_stream, std::string_view reply, size_t step) {
    session.OnResponseHead({.status = 200, .event_stream = event_stream}, bed.now);
    std::string out;
    for (size_t at = 0; at < reply.size(); at += step) {
      std::string piece(reply.substr(at, step));
      const Forward::Splice splice = session.OnResponseBody(piece, bed.now);
      out += piece.replace(splice.begin, splice.end - splice.begin, splice.bytes);
    }
    out += session.TakeHeldBack();
    session.OnDone(reply.size(), bed.now);
    return out;
  }

  Bed& bed;
  Session session;
  BodyPolicy policy;
  Decision decision;
  std::string forwarded;
};

std::string UsageOf(const Session& session) {
  const protocol::Usage& u = session.usage();
  return u.present ? base::Concat(std::to_string(u.prompt_tokens), "+",
                                  std::to_string(u.completion_tokens), " of ",
                                  std::to_string(u.cached_tokens), " cached")
                   : "none";
}

TEST(SessionApis, AMessagesStreamIsRewrittenRestoredAndCounted) {
  Bed bed(2);
  UseParsers(bed, "every-parser passthrough-parser");
  const std::string_view reply =
      "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"lora-7\","
      "\"usage\":{\"input_tokens\":25,\"cache_read_input_tokens\":9,\"output_tokens\":1}}}\n\n"
      "event: message_delta\ndata: {\"type\":\"message_delta\","
      "\"usage\":{\"output_tokens\":15}}\n\n"
      "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
  std::string want(reply);
  want.replace(want.find("lora-7"), 6, "claude");
  for (const size_t step : {size_t{1}, size_t{7}, reply.size()}) {
    Exchange e(bed, Post("/v1/messages", kRewrite),
               R"({"model":"claude","max_tokens":9,"messages":[{"role":"user","content":"x"}]})");
    ASSERT_EQ(e.decision.kind, Decision::Kind::kForward);
    EXPECT_EQ(e.forwarded,
              R"({"model":"lora-7","max_tokens":9,"messages":[{"role":"user","content":"x"}]})");
    EXPECT_EQ(e.Reply(true, reply, step), want);
    EXPECT_EQ(UsageOf(e.session), "25+15 of 9 cached");
  }
}

TEST(SessionApis, CountTokensIsRoutedUnread) {
  Bed bed(2);
  UseParsers(bed, "every-parser passthrough-parser");
  Exchange e(bed, Post("/v1/messages/count_tokens", kRewrite), "whatever");
  ASSERT_EQ(e.decision.kind, Decision::Kind::kForward);
  EXPECT_TRUE(e.session.skip_response());
  EXPECT_EQ(e.forwarded, "whatever");
  EXPECT_EQ(e.Reply(false, R"({"input_tokens":3,"usage":{"prompt_tokens":3}})", 5),
            R"({"input_tokens":3,"usage":{"prompt_tokens":3}})");
  EXPECT_EQ(UsageOf(e.session), "none");
}

TEST(SessionApis, WithoutAPlaceForAModelNothingIsRewritten) {
  Bed bed(2);
  UseParsers(bed, "every-parser passthrough-parser");
  const std::string_view body = R"({"input_ids":[1,2,3],"stream":true})";
  Exchange e(bed, Post("/generate", kRewrite), body);
  ASSERT_EQ(e.decision.kind, Decision::Kind::kForward) << e.decision.reply.message;
  EXPECT_EQ(e.forwarded, body);
  EXPECT_FALSE(e.session.skip_response());
  const std::string_view reply =
      "data: {\"text\":\"a\",\"meta_info\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\n\n"
      "data: {\"text\":\"ab\",\"meta_info\":{\"prompt_tokens\":3,\"completion_tokens\":2,"
      "\"cached_tokens\":1}}\n\ndata: [DONE]\n\n";
  EXPECT_EQ(e.Reply(true, reply, 10), reply);
  EXPECT_EQ(UsageOf(e.session), "3+2 of 1 cached");
}

TEST(SessionApis, AGrpcStreamIsReadAcrossItsMessages) {
  Bed bed(2);
  UseParsers(bed, "every-parser passthrough-parser");
  // GenerateRequest {text: "hi", stream: true}.
  const std::string body("\0\0\0\0\6\x1a\2hi\x28\1", 11);
  // GenerateResponse {chunk {prompt_tokens: 5, completion_tokens: n, cached_tokens: 4}}.
  std::string reply;
  for (const char n : {1, 2, 3}) {
    reply += std::string("\0\0\0\0\x8\x0a\6\x10\5\x18", 10) + n + std::string("\x20\4", 2);
  }
  for (const size_t step : {size_t{1}, size_t{4}, reply.size()}) {
    Exchange e(bed, Post("/vllm.grpc.engine.VllmEngine/Generate", kRewrite), body);
    ASSERT_EQ(e.decision.kind, Decision::Kind::kForward) << e.decision.reply.message;
    EXPECT_EQ(e.forwarded, body);
    EXPECT_EQ(e.Reply(false, reply, step), reply);
    EXPECT_EQ(UsageOf(e.session), "5+3 of 4 cached");
    EXPECT_FALSE(e.session.streaming()) << "an error event would be no gRPC message";
  }
  Exchange refused(bed, Post("/vllm.grpc.engine.VllmEngine/Generate"), "\1");
  EXPECT_EQ(refused.decision.reply.http_status, 400);
}

TEST(SessionApis, WithoutAFallbackUnclaimedBodiesAreRefused) {
  Bed bed(2);
  UseParsers(bed, "every-parser");
  Exchange e(bed, Post("/v1/rerank"), "{}");
  ASSERT_EQ(e.decision.kind, Decision::Kind::kReply);
  EXPECT_EQ(e.decision.reply.http_status, 400);
  EXPECT_EQ(e.decision.reply.message, "no parser registered matching path suffix for: /v1/rerank");
  e.session.OnDone(0, bed.now);

  RequestHead get = Post("/v1/models");
  get.method = "GET";
  get.content_length.reset();
  Session session(bed.director(), 1, bed.now);
  EXPECT_EQ(session.OnHead(get, bed.now), BodyPolicy::kNoBody);
  EXPECT_EQ(session.OnBodyEnd(bed.now).kind, Decision::Kind::kForward);
  session.OnAborted(Termination::kClientDisconnect, 0, bed.now);

  UseParsers(bed, "every-parser passthrough-parser");
  Exchange passed(bed, Post("/v1/rerank"), "{}");
  EXPECT_EQ(passed.decision.kind, Decision::Kind::kForward);
  passed.Reply(false, "{}", 2);
}

}  // namespace
}  // namespace llmd::director
