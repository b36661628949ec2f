// RequestContext: everything a plugin may see of one request. No clock, no socket: time and chance
// come with the event.
//
// Lives as long as the session that owns it; one worker only. Views (names, headers, prompt pieces)
// point into the request's buffers or arena and live as long.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "base/arena.h"
#include "base/random.h"
#include "base/time.h"
#include "fleet/fleet.h"
#include "plugin/attributes.h"
#include "protocol/request.h"

namespace llmd::plugin {

struct Header {
  std::string_view name;  // as received; compare with base::EqualsIgnoreCase
  std::string_view value;
};

struct RequestContext {
  std::string_view request_id;
  std::string_view method;
  std::string_view path;  // without query
  std::span<const Header> headers;
  const protocol::Request* body = nullptr;  // never nullptr once parsed
  std::string_view incoming_model;          // may be empty (opaque bodies)
  std::string_view target_model;            // after a rewrite; equal to incoming_model without one
  std::string_view fairness_id;
  int32_t priority = 0;
  base::TimePoint received_at;
  base::TimePoint now;  // of the event being handled
  base::Random random{0};
  base::Arena* arena = nullptr;
  fleet::View* fleet = nullptr;
  Attributes attributes;

  // First value of the header, ASCII case ignored.
  std::optional<std::string_view> FindHeader(std::string_view name) const;
};

}  // namespace llmd::plugin
