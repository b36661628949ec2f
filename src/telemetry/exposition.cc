#include "telemetry/exposition.h"

#include <charconv>
#include <cmath>

namespace llmd::telemetry {

void AppendNumber(std::string* out, double value) {
  if (std::isnan(value)) {
    out->append("NaN");
    return;
  }
  if (std::isinf(value)) {
    out->append(value > 0 ? "+Inf" : "-Inf");
    return;
  }
  char text[40];
  // Go switches to an exponent below 1e-4 and from the sixth power of ten on (strconv/ftoa.go, %g
  // with the shortest precision); the standard library's own choice is by length.
  const double magnitude = std::fabs(value);
  const bool fixed = magnitude == 0 || (magnitude >= 1e-4 && magnitude < 1e6);
  const auto format = fixed ? std::chars_format::fixed : std::chars_format::scientific;
  // A number just below 1e6 that rounds up to it in its shortest form would read back as 1e6, so
  // the borders are exact.
  const auto [end, error] = std::to_chars(text, text + sizeof(text), value, format);
  out->append(text, end);
}

void AppendHeader(std::string* out, std::string_view name, MetricKind kind, std::string_view help) {
  out->append("# HELP ").append(name).push_back(' ');
  for (char c : help) {
    if (c == '\\') {
      out->append("\\\\");
    } else if (c == '\n') {
      out->append("\\n");
    } else {
      out->push_back(c);
    }
  }
  static constexpr std::string_view kKinds[] = {"counter", "gauge", "histogram"};
  out->append("\n# TYPE ").append(name).push_back(' ');
  out->append(kKinds[static_cast<size_t>(kind)]).push_back('\n');
}

void AppendLabel(std::string* labels, std::string_view name, std::string_view value) {
  if (!labels->empty()) labels->push_back(',');
  labels->append(name).append("=\"");
  for (char c : value) {
    switch (c) {
      case '\\':
        labels->append("\\\\");
        break;
      case '"':
        labels->append("\\\"");
        break;
      case '\n':
        labels->append("\\n");
        break;
      default:
        labels->push_back(c);
    }
  }
  labels->push_back('"');
}

void AppendSample(std::string* out, std::string_view name, std::string_view suffix,
                  std::string_view labels, double value) {
  out->append(name).append(suffix);
  if (!labels.empty()) {
    out->push_back('{');
    out->append(labels).push_back('}');
  }
  out->push_back(' ');
  AppendNumber(out, value);
  out->push_back('\n');
}

void AppendHistogram(std::string* out, std::string_view name, std::string_view labels,
                     std::span<const double> bounds, std::span<const uint64_t> counts, double sum) {
  uint64_t cumulative = 0;
  for (size_t i = 0; i <= bounds.size(); ++i) {
    cumulative += counts[i];
    out->append(name).append("_bucket{").append(labels);
    if (!labels.empty()) out->push_back(',');
    out->append("le=\"");
    if (i < bounds.size()) {
      AppendNumber(out, bounds[i]);
    } else {
      out->append("+Inf");
    }
    // Go prints counts of buckets as integers.
    out->append("\"} ").append(std::to_string(cumulative)).push_back('\n');
  }
  AppendSample(out, name, "_sum", labels, sum);
  out->append(name).append("_count");
  if (!labels.empty()) out->append("{").append(labels).append("}");
  out->append(" ").append(std::to_string(cumulative)).push_back('\n');
}

}  // namespace llmd::telemetry
