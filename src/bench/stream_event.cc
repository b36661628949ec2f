#include "bench/stream_event.h"

#include "protocol/usage.h"

namespace llmd::bench {
namespace {

// True when member `quoted_name` (with quotes and colon) has a value that is neither null nor
// empty.
bool HasContent(std::string_view payload, std::string_view quoted_name) {
  size_t at = payload.find(quoted_name);
  while (at != std::string_view::npos) {
    at += quoted_name.size();
    while (at < payload.size() && payload[at] == ' ') ++at;
    if (at + 1 < payload.size()) {
      const char opening = payload[at];
      const char next = payload[at + 1];
      if ((opening == '"' && next != '"') || (opening == '[' && next != ']')) return true;
    }
    at = payload.find(quoted_name, at);
  }
  return false;
}

bool IsError(std::string_view payload) {
  size_t at = 0;
  while (at < payload.size() && (payload[at] == '{' || payload[at] == ' ')) ++at;
  return payload.substr(at).starts_with("\"error\"");
}

}  // namespace

EventKind ClassifyEvent(std::string_view payload) {
  if (protocol::IsDone(payload)) return EventKind::kDone;
  for (const std::string_view name : {"\"content\":", "\"text\":", "\"reasoning_content\":",
                                      "\"reasoning\":", "\"tool_calls\":"}) {
    if (HasContent(payload, name)) return EventKind::kToken;
  }
  return IsError(payload) ? EventKind::kError : EventKind::kOther;
}

}  // namespace llmd::bench
