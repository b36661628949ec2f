#include "epp/headers.h"

#include <algorithm>

#include "base/strings.h"
#include "director/headers.h"
#include "protocol/error.h"
#include "wire/arena_list.h"

namespace llmd::epp {
namespace {

constexpr std::string_view kDefaultPath = "/v1/completions";

constexpr std::string_view kSystemOwned[] = {
    director::kDestinationHeader,
    director::kDestinationSubsetHeader,
    director::kDestinationServedHeader,
    protocol::kDroppedReasonHeader,
    director::kFairnessIdHeader.name,
    director::kFairnessIdHeader.alias,
    director::kObjectiveHeader.name,
    director::kObjectiveHeader.alias,
    director::kModelRewriteHeader.name,
    director::kModelRewriteHeader.alias,
    director::kTtftSloHeader.name,
    director::kTtftSloHeader.alias,
    director::kTpotSloHeader.name,
    director::kTpotSloHeader.alias,
    "x-llm-d-video-fps",
    "x-llm-d-video-duration-seconds",
    "x-llm-d-video-resolution",
};

}  // namespace

bool IsSystemOwned(std::string_view name) {
  if (name.size() < 2 || (name[0] | 0x20) != 'x' || name[1] != '-') return false;
  return std::ranges::any_of(
      kSystemOwned, [&](std::string_view own) { return base::EqualsIgnoreCase(name, own); });
}

RequestHeaders ReadRequestHeaders(std::span<const wire::ExtProcHeader> headers,
                                  base::Arena& arena) {
  RequestHeaders read;
  std::span<plugin::Header> all = arena.NewSpan<plugin::Header>(headers.size());
  wire::ArenaList<std::string_view> to_remove(&arena);
  std::string_view path, original_path, forwarded_path;
  for (size_t i = 0; i < headers.size(); ++i) {
    const auto& [name, value] = headers[i];
    all[i] = {name, value};
    const auto is = [&](std::string_view other) { return base::EqualsIgnoreCase(name, other); };
    if (is(":path")) {
      path = value;
    } else if (is(":method")) {
      read.method = value;
    } else if (is("content-type")) {
      read.content_type = value;
    } else if (is("content-length")) {
      const auto length = base::ParseInt(value);
      if (length && *length >= 0) read.content_length = static_cast<uint64_t>(*length);
    } else if (is("x-request-id")) {
      read.request_id = value;
    } else if (is("x-forwarded-for")) {
      read.forwarded_for = value;
    } else if (is("x-original-path")) {
      original_path = value;
    } else if (is("x-forwarded-path")) {
      forwarded_path = value;
    } else if (IsSystemOwned(name)) {
      to_remove.Push(name);
    }
  }
  for (const std::string_view choice : {path, original_path, forwarded_path, kDefaultPath}) {
    if (choice.empty()) continue;
    read.path = choice.substr(0, choice.find('?'));
    break;
  }
  read.all = all;
  read.to_remove = to_remove.items();
  return read;
}

ResponseHeaders ReadResponseHeaders(std::span<const wire::ExtProcHeader> headers) {
  ResponseHeaders read;
  for (const auto& [name, value] : headers) {
    if (name == ":status") {
      read.status = static_cast<int>(base::ParseInt(value).value_or(0));
    } else if (base::EqualsIgnoreCase(name, "content-type")) {
      read.event_stream = value.find("text/event-stream") != std::string_view::npos;
    } else if (base::EqualsIgnoreCase(name, "content-length")) {
      read.has_content_length = true;
    }
  }
  return read;
}

}  // namespace llmd::epp
