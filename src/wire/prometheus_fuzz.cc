// First line: metric specs separated by semicolons. Rest: the page. The scanner must agree with its
// twin; where it stopped early it must have seen a prefix of what the twin saw.
#include <cmath>
#include <cstdlib>

#include "base/strings.h"
#include "wire/prometheus.h"
#include "wire/prometheus_twin.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace llmd::wire;
  const std::string input(reinterpret_cast<const char*>(data), size);
  const size_t newline = input.find('\n');
  if (newline == std::string::npos) return 0;
  std::vector<MetricSpec> specs;
  for (std::string_view text : llmd::base::Split(std::string_view(input).substr(0, newline), ';')) {
    const auto spec = ParseMetricSpec(text);
    if (!spec) continue;
    const auto again = ParseMetricSpec(ToString(*spec));
    if (!again || *again != *spec) std::abort();
    if (specs.size() < WantedMetrics::kSpecsMax) specs.push_back(*spec);
  }
  // An exact-size copy, so that reading past the end is seen.
  const std::string page = input.substr(newline + 1);
  const std::vector<char> exact(page.begin(), page.end());
  const WantedMetrics wanted(specs);
  PageScanner scanner(wanted, std::string_view(exact.data(), exact.size()));
  const TwinResult twin = ScanSlowly(specs, page);
  size_t i = 0;
  std::string scratch;
  for (ScrapedSample s; scanner.Next(&s); ++i) {
    if (i >= twin.samples.size()) std::abort();
    const TwinSample& t = twin.samples[i];
    const bool same_value = s.value == t.value || (std::isnan(s.value) && std::isnan(t.value));
    if (s.spec != t.spec || !same_value || s.labels != t.labels || s.rest != t.rest) std::abort();
    s.TimestampMs();
    s.Label("le", &scratch);
  }
  const bool whole = scanner.scanned_bytes() == page.rfind('\n') + 1;
  if (!specs.empty() && whole && i != twin.samples.size()) std::abort();
  return 0;
}
