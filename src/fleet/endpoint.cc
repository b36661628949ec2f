#include "fleet/endpoint.h"

#include <algorithm>

namespace llmd::fleet {

const std::string* EndpointSpec::Label(std::string_view key) const {
  auto at = std::lower_bound(labels.begin(), labels.end(), key,
                             [](const auto& label, std::string_view k) { return label.first < k; });
  return at != labels.end() && at->first == key ? &at->second : nullptr;
}

std::string JoinHostPort(std::string_view address, uint16_t port) {
  const bool ipv6 = address.find(':') != std::string_view::npos;
  std::string out;
  out.reserve(address.size() + 8);
  if (ipv6) out += '[';
  out += address;
  if (ipv6) out += ']';
  out += ':';
  out += std::to_string(port);
  return out;
}

}  // namespace llmd::fleet
