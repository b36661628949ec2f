#include "plugin/request_context.h"

#include <algorithm>

#include "base/check.h"
#include "base/strings.h"

namespace llmd::plugin {
namespace {

bool CanStandInAHead(std::string_view text) {
  return std::ranges::none_of(text, [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return (byte < 0x20 && c != '\t') || byte == 0x7f;
  });
}

}  // namespace

bool HeaderEdits::Set(base::Arena& arena, std::string_view name, std::string_view value) {
  if (name.empty() || !CanStandInAHead(name) || !CanStandInAHead(value)) {
    LLMD_BUG("a plugin set a header that cannot stand in a head");
    return false;
  }
  for (Header& header : std::span(items_, size_)) {
    if (!base::EqualsIgnoreCase(header.name, name)) continue;
    header.value = arena.Copy(value);
    return true;
  }
  if (size_ == kMax) {
    LLMD_BUG("plugins set more headers than a head may get");
    return false;
  }
  if (!items_) items_ = arena.NewSpan<Header>(kMax).data();
  items_[size_++] = {arena.Copy(name), arena.Copy(value)};
  return true;
}

std::optional<std::string_view> RequestContext::FindHeader(std::string_view name) const {
  for (const Header& header : headers) {
    if (base::EqualsIgnoreCase(header.name, name)) return header.value;
  }
  return std::nullopt;
}

}  // namespace llmd::plugin
