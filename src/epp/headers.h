// What the door makes of header lists: which of the client's are the picker's own, which path and
// method a request has. Pure; thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "base/arena.h"
#include "plugin/request_context.h"
#include "wire/ext_proc.h"

namespace llmd::epp {

// Headers that steer the picker or that it writes itself: no client's value of them may reach a
// model server (llm-d-router, pkg/epp/util/request/headers.go).
bool IsSystemOwned(std::string_view name);

struct RequestHeaders {
  std::span<const plugin::Header> all;  // in `arena`; views of the message's texts
  std::string_view method, path;        // path without the query
  std::string_view content_type, request_id, forwarded_for;
  std::optional<uint64_t> content_length;
  std::span<const std::string_view> to_remove;  // system-owned ones that the client sent
};

// The path is :path, else x-original-path, else x-forwarded-path, else /v1/completions.
RequestHeaders ReadRequestHeaders(std::span<const wire::ExtProcHeader> headers,
                                  base::Arena& arena);

struct ResponseHeaders {
  int status = 0;  // 0: none was sent
  bool event_stream = false;
  bool has_content_length = false;
};
ResponseHeaders ReadResponseHeaders(std::span<const wire::ExtProcHeader> headers);

}  // namespace llmd::epp
