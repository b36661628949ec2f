// Errors as clients see them: one table from status code to HTTP status, error type and dropped
// reason, and the OpenAI error body made from it.
//
// Types by HTTP status are vLLM's ("BadRequestError" ...), so that a client cannot tell whether the
// engine or the gateway refused. Thread-safe, pure.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace llmd::protocol {

struct ErrorMapping {
  base::StatusCode code;
  int http_status;
  std::string_view type;  // ErrorTypeOf(http_status)
  // Value of x-llm-d-request-dropped-reason where the code fixes it; else empty, and whoever drops
  // the request names the reason.
  std::string_view dropped_reason;
};
const ErrorMapping& ErrorMappingOf(base::StatusCode code);

// Values of x-llm-d-request-dropped-reason.
inline constexpr std::string_view kDroppedReasonHeader = "x-llm-d-request-dropped-reason";
inline constexpr std::string_view kRejectedSaturated = "rejected-saturated";
inline constexpr std::string_view kRejectedNoEndpoints = "rejected-no-endpoints";
inline constexpr std::string_view kRejectedTtlExpired = "rejected-ttl-expired";
inline constexpr std::string_view kRejectedContextCancelled = "rejected-context-cancelled";
inline constexpr std::string_view kRejectedShuttingDown = "rejected-shutting-down";
inline constexpr std::string_view kEvicted = "evicted";

// "NotFoundError" for 404 and so on; statuses without a name of their own: InternalServerError from
// 500 up, BadRequestError below.
std::string_view ErrorTypeOf(int http_status);

// {"error":{"message":...,"type":...,"param":...,"code":...}}; an empty `param` is null.
std::string ErrorBody(int http_status, std::string_view message, std::string_view param = "");
// The body for a status that is not OK.
std::string ErrorBody(const base::Status& status);

// What ends a stream that died after its first byte: the error as an event, then the end marker
// that clients wait for. Starts with an empty line, because the engine may have died inside an
// event.
std::string ErrorEvent(int http_status, std::string_view message);

}  // namespace llmd::protocol
