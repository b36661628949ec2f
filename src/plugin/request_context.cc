#include "plugin/request_context.h"

#include "base/strings.h"

namespace llmd::plugin {

std::optional<std::string_view> RequestContext::FindHeader(std::string_view name) const {
  for (const Header& header : headers) {
    if (base::EqualsIgnoreCase(header.name, name)) return header.value;
  }
  return std::nullopt;
}

}  // namespace llmd::plugin
