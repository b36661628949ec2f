#include "epp/errors.h"

#include "base/strings.h"
#include "protocol/error.h"
#include "wire/arena_list.h"

namespace llmd::epp {
namespace {

std::string_view UpstreamCode(int http_status) {
  switch (http_status) {
    case 400: return "BadRequest";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "NotFound";
    case 412: return "PreconditionFailed";
    case 429: return "ResourceExhausted";
    case 503: return "ServiceUnavailable";
    default: return "Internal";
  }
}

}  // namespace

wire::ExtProcImmediateReply ImmediateReplyOf(const director::Reply& reply, ErrorFormat format,
                                             base::Arena& arena) {
  wire::ArenaList<wire::ExtProcHeader> headers(&arena);
  std::string_view body;
  if (format == ErrorFormat::kText) {
    body = arena.Copy(base::Concat("inference error: ", UpstreamCode(reply.http_status), " - ",
                                   reply.message));
  } else {
    body = arena.Copy(protocol::ErrorBody(reply.http_status, reply.message));
    headers.Push({"content-type", "application/json"});
  }
  if (!reply.dropped_reason.empty()) {
    headers.Push({protocol::kDroppedReasonHeader, reply.dropped_reason});
  }
  if (reply.retry_after_seconds > 0) {
    headers.Push({"retry-after", arena.Copy(std::to_string(reply.retry_after_seconds))});
  }
  return {.status = reply.http_status, .headers = headers.items(), .body = body};
}

}  // namespace llmd::epp
