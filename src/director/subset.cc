#include "director/subset.h"

#include <algorithm>

#include "base/strings.h"

namespace llmd::director {
namespace {

unsigned char Lower(char c) {
  return static_cast<unsigned char>(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
}

bool Before(std::string_view a, std::string_view b) {
  return std::ranges::lexicographical_compare(a, b, {}, Lower, Lower);
}

// 0 where `text` is no port.
uint16_t PortOf(std::string_view text) {
  const auto port = base::ParseInt(text);
  return port && *port > 0 && *port <= UINT16_MAX ? static_cast<uint16_t>(*port) : uint16_t{0};
}

struct HostPort {
  std::string_view host;  // empty: not understood
  uint16_t port = 0;
};

HostPort SplitHostPort(std::string_view text) {
  text = base::Trim(text);
  const size_t colon = text.rfind(':');
  if (text.starts_with('[')) {
    const size_t close = text.find(']');
    if (close == std::string_view::npos) return {};
    const std::string_view host = text.substr(1, close - 1);
    if (close + 1 == text.size()) return {host, 0};
    const uint16_t port = colon == close + 1 ? PortOf(text.substr(colon + 1)) : uint16_t{0};
    return port ? HostPort{host, port} : HostPort{};
  }
  if (colon == std::string_view::npos || text.find(':') != colon) return {text, 0};
  const uint16_t port = PortOf(text.substr(colon + 1));
  return port ? HostPort{text.substr(0, colon), port} : HostPort{};
}

}  // namespace

Subset::Subset(base::Arena& arena, std::span<const std::string_view> entries) {
  entries_ = arena.NewSpan<Entry>(entries.size());
  size_t kept = 0;
  for (const std::string_view text : entries) {
    const HostPort split = SplitHostPort(text);
    if (!split.host.empty()) entries_[kept++] = {arena.Copy(split.host), split.port};
  }
  entries_ = entries_.first(kept);
  std::ranges::sort(entries_, Before, &Entry::address);
}

bool Subset::Allows(const fleet::EndpointSpec& endpoint) const {
  const auto same = std::ranges::equal_range(entries_, std::string_view(endpoint.address), Before,
                                             &Entry::address);
  return std::ranges::any_of(
      same, [&](const Entry& e) { return e.port == 0 || e.port == endpoint.port; });
}

}  // namespace llmd::director
