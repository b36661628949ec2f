// docs/metrics.md out of the table.
#include <string>

#include "telemetry/exposition.h"
#include "telemetry/metrics.h"

namespace llmd::telemetry {
namespace {

void AppendCode(std::string* out, std::string_view text) {
  out->append("`").append(text).append("`");
}

void AppendBuckets(std::string* out, std::span<const double> buckets) {
  for (size_t i = 0; i < buckets.size(); ++i) {
    if (i) out->push_back(' ');
    AppendNumber(out, buckets[i]);
  }
}

void AppendRow(std::string* out, const MetricInfo& info) {
  static constexpr std::string_view kKinds[] = {"counter", "gauge", "histogram"};
  out->append("| ");
  AppendCode(out, info.name);
  out->append(" | ").append(kKinds[static_cast<size_t>(info.kind)]);
  out->append(" | ").append(info.labels.empty() ? "-" : info.labels);
  out->append(" | ").append(info.unit.empty() ? "-" : info.unit);
  out->append(" | ").append(info.help).append(" | ");
  if (!info.twin.empty()) {
    AppendCode(out, info.twin);
    if (!info.twin_labels.empty()) out->append(" {").append(info.twin_labels).append("}");
  }
  out->append(" |\n");
}

void AppendTable(std::string* out, MetricOrigin origin) {
  out->append(
      "| Name | Kind | Labels | Unit | Meaning | Deprecated twin |\n|---|---|---|---|---|---|\n");
  for (const MetricInfo& info : AllMetrics()) {
    if (info.origin == origin) AppendRow(out, info);
  }
}

}  // namespace

std::string MetricsReference() {
  std::string out =
      "# Metric reference\n\n"
      "Generated from `src/telemetry/metrics.def`; `telemetry_test` checks that it is current.\n\n"
      "A series appears when it is first used, a labelled histogram with its first observation.\n"
      "Model names and fairness ids are exposed by name up to 1,000 of each, further ones as "
      "`other`;\n"
      "a family holds at most 10,000 series (`llmd_series_overflow_total` counts what did not "
      "fit).\n"
      "Deprecated twins show the same numbers under the name that older dashboards use;\n"
      "`a=b` means that the twin's label `a` is the label `b`.\n\n"
      "## The Endpoint Picker's own\n\n";
  AppendTable(&out, MetricOrigin::kUpstream);
  out.append("\n## Ours\n\n");
  AppendTable(&out, MetricOrigin::kOurs);
  out.append("\n## Buckets\n\n| Histogram | Upper bounds |\n|---|---|\n");
  for (const MetricInfo& info : AllMetrics()) {
    if (info.kind != MetricKind::kHistogram) continue;
    out.append("| ");
    AppendCode(&out, info.name);
    out.append(" | ");
    AppendBuckets(&out, info.buckets);
    out.append(" |\n");
  }
  return out;
}

}  // namespace llmd::telemetry
