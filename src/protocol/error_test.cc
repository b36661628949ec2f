#include "protocol/error.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "wire/sse.h"

namespace llmd::protocol {
namespace {

TEST(Error, BodyHasTheShapeOfTheApi) {
  EXPECT_EQ(ErrorBody(base::InvalidArgument("model not found in request body")),
            R"({"error":{"message":"model not found in request body","type":"BadRequestError",)"
            R"("param":null,"code":400}})");
  const auto body = nlohmann::json::parse(ErrorBody(404, "no \"m\"\n", "model"));
  EXPECT_EQ(body["error"]["message"], "no \"m\"\n");
  EXPECT_EQ(body["error"]["param"], "model");
  EXPECT_EQ(body["error"]["code"], 404);
}

TEST(Error, TypesByStatus) {
  const struct {
    int status;
    std::string_view type;
  } cases[] = {
      {400, "BadRequestError"},   {401, "AuthenticationError"},      {403, "PermissionDeniedError"},
      {404, "NotFoundError"},     {422, "UnprocessableEntityError"}, {429, "RateLimitError"},
      {412, "PreconditionFailedError"}, {413, "RequestTooLargeError"}, {405, "BadRequestError"},
      {500, "InternalServerError"}, {503, "InternalServerError"},
  };
  for (const auto& c : cases) EXPECT_EQ(ErrorTypeOf(c.status), c.type) << c.status;
}

TEST(Error, EveryCodeIsMapped) {
  using base::StatusCode;
  for (int code = 0; code <= static_cast<int>(StatusCode::kUnauthenticated); ++code) {
    const ErrorMapping& mapping = ErrorMappingOf(static_cast<StatusCode>(code));
    EXPECT_EQ(mapping.code, static_cast<StatusCode>(code));
    EXPECT_EQ(mapping.type, ErrorTypeOf(mapping.http_status));
  }
  EXPECT_EQ(ErrorMappingOf(StatusCode::kInvalidArgument).http_status, 400);
  EXPECT_EQ(ErrorMappingOf(StatusCode::kFailedPrecondition).http_status, 412);
  EXPECT_EQ(ErrorMappingOf(StatusCode::kUnavailable).http_status, 503);
  EXPECT_EQ(ErrorMappingOf(StatusCode::kResourceExhausted).http_status, 429);
  EXPECT_EQ(ErrorMappingOf(StatusCode::kResourceExhausted).dropped_reason, "rejected-saturated");
}

TEST(Error, TheEventEndsAStreamThatDiedInsideALine) {
  wire::SseParser parser;
  wire::SseEvent event;
  parser.Feed("data: {\"cut of");
  EXPECT_FALSE(parser.Next(&event));
  const std::string error = ErrorEvent(502, "the model server closed the connection");
  parser.Feed(error);
  ASSERT_TRUE(parser.Next(&event));
  EXPECT_EQ(event.data, "{\"cut of");
  ASSERT_TRUE(parser.Next(&event));
  EXPECT_EQ(nlohmann::json::parse(event.data)["error"]["type"], "InternalServerError");
  ASSERT_TRUE(parser.Next(&event));
  EXPECT_EQ(event.data, "[DONE]");
}

}  // namespace
}  // namespace llmd::protocol
