#include "plugins/filter/header_based_testing_filter.h"

#include <algorithm>

#include "base/strings.h"
#include "plugins/factory.h"

namespace llmd::plugins {
namespace {

using plugin::EndpointNumber;

constexpr std::string_view kHeader = "test-epp-endpoint-selection";

struct Address {
  std::string_view ip;
  std::optional<uint16_t> port;
};

Address ReadAddress(std::string_view text) {
  if (text.starts_with('[')) {
    const size_t end = text.find(']');
    if (end == std::string_view::npos) return {text, {}};
    const std::string_view rest = text.substr(end + 1);
    const auto port = rest.starts_with(':') ? base::ParseInt(rest.substr(1)) : std::nullopt;
    if (!port) return {text.substr(1, end - 1), {}};
    return {text.substr(1, end - 1), static_cast<uint16_t>(*port)};
  }
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || text.find(':') != colon) return {text, {}};
  const auto port = base::ParseInt(text.substr(colon + 1));
  if (!port) return {text, {}};
  return {text.substr(0, colon), static_cast<uint16_t>(*port)};
}

class HeaderBasedTestingFilter final : public plugin::Plugin, public plugin::Filter {
 public:
  HeaderBasedTestingFilter(const NoParameters&, plugin::PluginContext&) {}
  void Apply(const plugin::RequestContext& request, plugin::Candidates& candidates) const override {
    const std::string_view wanted = request.FindHeader(kHeader).value_or("");
    std::span<bool> keep = request.arena->NewSpan<bool>(candidates.numbers.size());
    for (const std::string_view piece : base::Split(wanted, ',')) {
      const Address address = ReadAddress(base::Trim(piece));
      if (!address.ip.empty()) Mark(request, address, candidates.numbers, keep);
    }
    size_t i = 0;
    candidates.KeepIf([&](EndpointNumber) { return keep[i++]; });
  }

 private:
  static void Mark(const plugin::RequestContext& request, const Address& address,
                   std::span<const EndpointNumber> numbers, std::span<bool> keep) {
    for (size_t i = numbers.size(); i-- > 0;) {
      const fleet::EndpointSpec& spec = request.fleet->endpoint(numbers[i]).spec;
      if (spec.address != address.ip || (address.port && spec.port != *address.port)) continue;
      keep[i] = true;
      return;
    }
  }
};

}  // namespace

plugin::PluginType HeaderBasedTestingFilterType() {
  return MakeType<HeaderBasedTestingFilter>(
      "header-based-testing-filter",
      "Keeps the endpoints that header test-epp-endpoint-selection names; for tests.",
      NoParametersType);
}

}  // namespace llmd::plugins
