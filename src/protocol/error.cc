#include "protocol/error.h"

#include <iterator>

#include "base/check.h"
#include "base/strings.h"

namespace llmd::protocol {
namespace {

using base::StatusCode;

struct TypeRow {
  int http_status;
  std::string_view type;
};
constexpr TypeRow kTypes[] = {
    {400, "BadRequestError"},         {401, "AuthenticationError"},
    {403, "PermissionDeniedError"},   {404, "NotFoundError"},
    {409, "ConflictError"},           {412, "PreconditionFailedError"},
    {413, "RequestTooLargeError"},    {422, "UnprocessableEntityError"},
    {429, "RateLimitError"},
};

constexpr std::string_view TypeOf(int http_status) {
  for (const TypeRow& row : kTypes) {
    if (row.http_status == http_status) return row.type;
  }
  return http_status >= 500 ? "InternalServerError" : "BadRequestError";
}

constexpr ErrorMapping Row(StatusCode code, int http_status, std::string_view reason = "") {
  return {code, http_status, TypeOf(http_status), reason};
}

// In the order of the codes. Aborted is a request that had to make room for another one; 499 has no
// reader, the client being gone.
constexpr ErrorMapping kMappings[] = {
    Row(StatusCode::kOk, 200),
    Row(StatusCode::kCancelled, 499, kRejectedContextCancelled),
    Row(StatusCode::kUnknown, 500),
    Row(StatusCode::kInvalidArgument, 400),
    Row(StatusCode::kDeadlineExceeded, 504),
    Row(StatusCode::kNotFound, 404),
    Row(StatusCode::kAlreadyExists, 409),
    Row(StatusCode::kPermissionDenied, 403),
    Row(StatusCode::kResourceExhausted, 429, kRejectedSaturated),
    Row(StatusCode::kFailedPrecondition, 412),
    Row(StatusCode::kAborted, 429, kEvicted),
    Row(StatusCode::kOutOfRange, 400),
    Row(StatusCode::kUnimplemented, 501),
    Row(StatusCode::kInternal, 500),
    Row(StatusCode::kUnavailable, 503),
    Row(StatusCode::kDataLoss, 502),
    Row(StatusCode::kUnauthenticated, 401),
};
static_assert(std::size(kMappings) == static_cast<size_t>(StatusCode::kUnauthenticated) + 1);

}  // namespace

const ErrorMapping& ErrorMappingOf(StatusCode code) {
  const auto index = static_cast<size_t>(code);
  LLMD_CHECK(index < std::size(kMappings), "no such status code");
  return kMappings[index];
}

std::string_view ErrorTypeOf(int http_status) { return TypeOf(http_status); }

std::string ErrorBody(int http_status, std::string_view message, std::string_view param) {
  std::string body = R"({"error":{"message":)";
  base::AppendJsonString(&body, message);
  body.append(R"(,"type":)");
  base::AppendJsonString(&body, TypeOf(http_status));
  body.append(R"(,"param":)");
  if (param.empty()) {
    body.append("null");
  } else {
    base::AppendJsonString(&body, param);
  }
  body.append(R"(,"code":)").append(std::to_string(http_status)).append("}}");
  return body;
}

std::string ErrorBody(const base::Status& status) {
  return ErrorBody(ErrorMappingOf(status.code()).http_status, status.message());
}

std::string ErrorEvent(int http_status, std::string_view message) {
  return base::Concat("\n\ndata: ", ErrorBody(http_status, message), "\n\ndata: [DONE]\n\n");
}

}  // namespace llmd::protocol
