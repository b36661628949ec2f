// RequestContext: everything a plugin may see of one request. No clock, no socket: time and chance
// come with the event.
//
// Lives as long as the session that owns it; one worker only. Views (names, headers, prompt pieces)
// point into the request's buffers or arena and live as long.
#pragma once

#include <cstdint>
#include <memory>
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

class OutsideTask;

struct Header {
  std::string_view name;  // as received; compare with base::EqualsIgnoreCase
  std::string_view value;
};

// Headers to add to a head or to replace in it. The list and its text lie in an arena.
class HeaderEdits {
 public:
  // More than any config sets: routing headers of three disaggregation roles, a session token, and
  // one header per selector of a screener.
  static constexpr size_t kMax = 32;

  // Copies both. A name that is set already (ASCII case ignored) gets the new value. False, counted
  // as a bug, and nothing set: kMax names are there, or the text cannot stand in a head (empty
  // name, control characters).
  bool Set(base::Arena& arena, std::string_view name, std::string_view value);
  // In the order in which names were first set.
  std::span<const Header> headers() const { return {items_, size_}; }
  size_t size() const { return size_; }
  // Forgets the names set after the first `size`.
  void Truncate(size_t size) {
    if (size < size_) size_ = size;
  }

 private:
  Header* items_ = nullptr;  // room for kMax, made with the first Set
  size_t size_ = 0;
};

struct RequestContext {
  std::string_view request_id;
  std::string_view method;
  std::string_view path;  // without query
  std::span<const Header> headers;
  const protocol::Request* body = nullptr;  // never nullptr once parsed
  // The body's bytes as they came, where a parser reads it; until the request is forwarded.
  std::span<const std::string_view> body_parts;
  std::string_view incoming_model;          // may be empty (opaque bodies)
  std::string_view target_model;            // after a rewrite; equal to incoming_model without one
  // Empty while header processors run when the client named none; never after.
  std::string_view fairness_id;
  std::string_view objective;  // name of the InferenceObjective that the client asked for, or ""
  int32_t priority = 0;        // of that objective; 0 without one
  base::TimePoint received_at;
  int64_t received_unix_ns = 0;  // 0: the door has no wall clock
  base::TimePoint now;  // of the event being handled
  base::Random random{0};
  base::Arena* arena = nullptr;
  fleet::View* fleet = nullptr;
  Attributes attributes;
  HeaderEdits to_engine;
  // Set by a data producer that cannot answer yet; see DataProducer::Produce. TimePoint{}: no wait.
  base::TimePoint wait_until{};
  // What that producer waits for beside the loop, see outside.h. Another producer never sees it.
  std::shared_ptr<OutsideTask> asked;
  size_t worker = 0;  // which of Fleet::worker_count() handles the request

  // Adds or replaces a header of the request towards the engine; see HeaderEdits::Set. What a
  // PreRequest plugin sets is forgotten when a retry moves the request, before it is called again.
  bool SetHeader(std::string_view name, std::string_view value) {
    return to_engine.Set(*arena, name, value);
  }
  // First value of the header, ASCII case ignored.
  std::optional<std::string_view> FindHeader(std::string_view name) const;
};

}  // namespace llmd::plugin
