// For golden_test.cc: what is read from a reply, by the way that the reply's format asks for, as
// text.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/strings.h"
#include "protocol/grpc_reply.h"
#include "protocol/request.h"
#include "protocol/usage.h"
#include "wire/sse.h"

namespace llmd::protocol {

enum class ReplyKind { kDocument, kEvents, kGrpc };

inline std::string DescribeUsage(const Usage& usage) {
  if (!usage.present) return "no usage";
  return base::Concat("prompt=", std::to_string(usage.prompt_tokens),
                      " completion=", std::to_string(usage.completion_tokens),
                      " total=", std::to_string(usage.total_tokens), " cached=",
                      usage.has_cached ? std::to_string(usage.cached_tokens) : "untold");
}

// The usage, and the model's literal in the first place that has one.
inline std::string DescribeReply(Api api, ReplyKind kind, std::string_view reply, size_t cut) {
  const std::vector<char> first(reply.begin(), reply.begin() + cut);
  const std::vector<char> second(reply.begin() + cut, reply.end());
  const std::string_view parts[] = {{first.data(), first.size()}, {second.data(), second.size()}};
  ReplyFields fields;
  std::string model = "none";
  if (kind == ReplyKind::kDocument) {
    ReplyScanner scanner;
    for (const std::string_view part : parts) scanner.Feed(part);
    fields = scanner.fields();
    if (fields.model_end > 0) {
      model = reply.substr(fields.model_begin, fields.model_end - fields.model_begin);
    }
  } else if (kind == ReplyKind::kGrpc) {
    GrpcReplyScanner scanner(api);
    for (const std::string_view part : parts) scanner.Feed(part);
    fields.usage = scanner.usage();
  } else {
    wire::SseParser sse;
    for (const std::string_view part : parts) {
      sse.Feed(part);
      for (wire::SseEvent event; sse.Next(&event);) {
        if (MayHoldUsage(event.data, InfoOf(api).reply)) ScanPayload(event.data, &fields);
        uint64_t begin, end;
        if (model == "none" && FindModel(event.data, &begin, &end)) {
          model = event.data.substr(begin, end - begin);
        }
      }
    }
  }
  return base::Concat(DescribeUsage(fields.usage), " model=", model, "\n");
}

}  // namespace llmd::protocol
