// Pieces of the Prometheus text format 0.0.4, appended to a string. Pure and thread-safe.
// Numbers are written as Go's client writes them (strconv 'g', shortest form that reads back).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "telemetry/metrics.h"

namespace llmd::telemetry {

// "0.005", "1", "1.048576e+06", "+Inf", "NaN".
void AppendNumber(std::string* out, double value);
// HELP and TYPE lines.
void AppendHeader(std::string* out, std::string_view name, MetricKind kind, std::string_view help);
// `name="value"` with escapes, after a comma unless `labels` is empty.
void AppendLabel(std::string* labels, std::string_view name, std::string_view value);
// One line. `labels` is rendered by AppendLabel; `suffix` follows the name ("_sum").
void AppendSample(std::string* out, std::string_view name, std::string_view suffix,
                  std::string_view labels, double value);
// All lines of one histogram series. `counts` has one element more than `bounds` (+Inf) and is not
// cumulative.
void AppendHistogram(std::string* out, std::string_view name, std::string_view labels,
                     std::span<const double> bounds, std::span<const uint64_t> counts, double sum);

}  // namespace llmd::telemetry
