#include "gateway/heads.h"

#include <gtest/gtest.h>

#include <string>

namespace llmd::gateway {
namespace {

wire::RequestHead ParseRequest(std::string_view text) {
  wire::RequestHead head;
  wire::HeadParser parser;
  EXPECT_EQ(parser.ParseRequest(text, head), wire::ParseState::kDone);
  return head;
}

TEST(EngineHead, PassesEndToEndFieldsAndReplacesItsOwn) {
  base::BufferPool buffers;
  const std::string_view text =
      "POST /v1/chat/completions?x=1 HTTP/1.1\r\n"
      "Host: api.example\r\n"
      "Connection: keep-alive, X-Hop\r\n"
      "X-Hop: 1\r\n"
      "Keep-Alive: timeout=5\r\n"
      "Accept-Encoding: gzip, br\r\n"
      "Content-Length: 7\r\n"
      "Expect: 100-continue\r\n"
      "X-Forwarded-For: 9.9.9.9\r\n"
      "X-LLM-D-Inference-Objective: high\r\n"
      "x-gateway-destination-endpoint: 1.2.3.4:5\r\n"
      "Authorization: Bearer secret\r\n"
      "User-Agent: test\r\n\r\n";
  const wire::RequestHead client = ParseRequest(text);
  const base::Slice head = WriteEngineHead({.client = client,
                                            .request_id = "abc",
                                            .client_ip = "10.0.0.7",
                                            .drop_authorization = true,
                                            .body = EngineHeadSpec::Body::kLength,
                                            .content_length = 9},
                                           buffers);
  EXPECT_EQ(head.view(),
            "POST /v1/chat/completions?x=1 HTTP/1.1\r\n"
            "Host: api.example\r\n"
            "User-Agent: test\r\n"
            "x-request-id: abc\r\n"
            "accept-encoding: identity\r\n"
            "x-forwarded-proto: http\r\n"
            "x-forwarded-for: 9.9.9.9, 10.0.0.7\r\n"
            "content-length: 9\r\n\r\n");
}

TEST(EngineHead, HeadersOfTheDecisionAndTheOperatorReplaceTheClients) {
  base::BufferPool buffers;
  const wire::RequestHead client = ParseRequest(
      "GET http://api.example/health HTTP/1.1\r\nHost: api.example\r\n"
      "X-Set: client\r\nAuthorization: Bearer client\r\n\r\n");
  const plugin::Header set[] = {{"x-set", "decision"}};
  const base::Slice head = WriteEngineHead({.client = client,
                                            .request_id = "1",
                                            .client_ip = "::1",
                                            .client_is_tls = true,
                                            .engine_header_name = "authorization",
                                            .engine_header_value = "Bearer engine",
                                            .set_headers = set},
                                           buffers);
  EXPECT_EQ(head.view(),
            "GET /health HTTP/1.1\r\n"
            "Host: api.example\r\n"
            "x-request-id: 1\r\n"
            "accept-encoding: identity\r\n"
            "x-forwarded-proto: https\r\n"
            "x-forwarded-for: ::1\r\n"
            "x-set: decision\r\n"
            "authorization: Bearer engine\r\n\r\n");
}

TEST(EngineHead, HasRoomForTheLargestHead) {
  base::BufferPool buffers;
  std::string text = "GET / HTTP/1.1\r\nHost: a\r\n";
  for (int i = 0; i < 60; ++i) {
    text += "f" + std::to_string(i) + ": " + std::string(1000, 'x') + "\r\n";
  }
  text += "\r\n";
  const wire::RequestHead client = ParseRequest(text);
  const std::string id(128, 'i');
  const base::Slice head =
      WriteEngineHead({.client = client, .request_id = id, .client_ip = "::1"}, buffers);
  EXPECT_GT(head.size(), 60'000u);
  EXPECT_TRUE(head.view().ends_with("\r\n\r\n"));
}

TEST(ClientHead, KeepsTheEnginesFieldsAndAddsTheRequestId) {
  base::BufferPool buffers;
  wire::ResponseHead engine;
  wire::HeadParser parser;
  ASSERT_EQ(parser.ParseResponse("HTTP/1.1 404 Not Found\r\nserver: uvicorn\r\nDate: x\r\n"
                                 "Transfer-Encoding: chunked\r\ncontent-type: application/json\r\n"
                                 "Connection: close\r\n\r\n",
                                 engine, false),
            wire::ParseState::kDone);
  EXPECT_EQ(WriteClientHead(engine, "id-1", {}, buffers).view(),
            "HTTP/1.1 404 Not Found\r\nserver: uvicorn\r\ncontent-type: application/json\r\n"
            "x-request-id: id-1\r\n");
  wire::ResponseHead named;
  wire::HeadParser again;
  ASSERT_EQ(again.ParseResponse("HTTP/1.1 200 OK\r\nX-Request-Id: engine\r\n"
                                "content-length: 3\r\n\r\n",
                                named, false),
            wire::ParseState::kDone);
  EXPECT_EQ(WriteClientHead(named, "id-1", {}, buffers).view(),
            "HTTP/1.1 200 OK\r\nX-Request-Id: engine\r\n");
}

TEST(ClientHead, SetHeadersReplaceTheEngines) {
  base::BufferPool buffers;
  wire::ResponseHead engine;
  wire::HeadParser parser;
  ASSERT_EQ(parser.ParseResponse("HTTP/1.1 200 OK\r\nX-Session-Token: old\r\nserver: uvicorn\r\n"
                                 "content-length: 3\r\n\r\n",
                                 engine, false),
            wire::ParseState::kDone);
  const std::string value(3000, 'v');
  const plugin::Header set[] = {{"x-session-token", "new"}, {"x-long", value}};
  EXPECT_EQ(WriteClientHead(engine, "id-1", set, buffers).view(),
            "HTTP/1.1 200 OK\r\nserver: uvicorn\r\nx-session-token: new\r\nx-long: " + value +
                "\r\nx-request-id: id-1\r\n");
}

TEST(ControlHeader, AreTheGatewaysOwn) {
  EXPECT_TRUE(IsControlHeader("X-Gateway-Destination-Endpoint"));
  EXPECT_TRUE(IsControlHeader("x-slo-ttft-ms"));
  EXPECT_FALSE(IsControlHeader("x-request-id"));
  EXPECT_FALSE(IsControlHeader("user-agent"));
}

}  // namespace
}  // namespace llmd::gateway
