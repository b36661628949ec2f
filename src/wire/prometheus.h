// Reading Prometheus text pages for a few wanted samples, as fast as memory allows.
//
// A scrape loop needs five numbers out of a 20-70 KB page, a thousand times per tick. So nothing is
// parsed that is not wanted: SIMD finds line starts, an eight-byte prefix filter drops almost all of
// them, and only lines of wanted families are read. The scan ends once each wanted family was seen
// and passed (the format keeps a family's lines together).
//
//   const WantedMetrics wanted({spec_queue, spec_kv});
//   PageScanner scan(wanted, page);
//   for (ScrapedSample s; scan.Next(&s);) values[s.spec] = s.value;
//   if (scan.error() != ScanError::kNone) ...
//
// Thread safety: WantedMetrics is immutable; a PageScanner belongs to one thread. The page must live,
// unchanged, as long as the scanner and its samples. Next allocates nothing.
// Tolerated: CRLF, HELP/TYPE/UNIT/EOF and other comments, timestamps, OpenMetrics exemplars, NaN and
// Inf, spaces after names and inside label braces. Lines that begin with a space and quoted (UTF-8)
// metric names are skipped; no known model server writes either.
// Errors: kTruncated when the last line has no newline (samples before it were delivered; whether the
// page ends at the right place is for Content-Length to say), kMalformed when a wanted line could not be
// read (it is skipped, the rest is delivered).
// Sources: prometheus.io exposition formats 0.0.4; OpenMetrics 1.0.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace llmd::wire {

// Which sample: `name` or `name{label=value,...}`, values optionally in double quotes; a sample matches
// when it has each label with exactly that value. Same grammar as upstream's engine specs.
struct MetricSpec {
  std::string name;
  std::vector<std::pair<std::string, std::string>> labels;
  friend bool operator==(const MetricSpec&, const MetricSpec&) = default;
};
base::Result<MetricSpec> ParseMetricSpec(std::string_view text);
std::string ToString(const MetricSpec& spec);  // parses back to the same

class WantedMetrics {
 public:
  static constexpr size_t kSpecsMax = 64;

  // At most kSpecsMax specs (CHECK); several may name the same family with different labels. A name
  // is that of sample lines, so of a histogram `x_sum`, not `x`.
  explicit WantedMetrics(std::vector<MetricSpec> specs);
  const std::vector<MetricSpec>& specs() const { return specs_; }

 private:
  friend class PageScanner;
  struct Family {
    std::string name;
    uint64_t prefix;               // its first eight bytes, zero-filled
    uint64_t prefix_mask;          // the bytes of them that exist
    std::vector<uint32_t> specs;   // numbers of the specs with this name
  };
  static uint32_t FilterBit(uint64_t prefix) {
    return static_cast<uint32_t>((prefix * 0x9e3779b97f4a7c15u) >> 58);
  }
  std::vector<MetricSpec> specs_;
  std::vector<Family> families_;
  uint64_t filter_ = 0;        // bit FilterBit(prefix & common_mask_) per family
  uint64_t common_mask_ = ~uint64_t{0};  // bytes that every family's name has
};

struct ScrapedSample {
  uint32_t spec = 0;  // number in WantedMetrics::specs
  double value = 0;
  std::string_view labels;  // between the braces, escapes as written; "" without
  std::string_view rest;    // after the value: timestamp and exemplar, as written

  // Unescaped value of a label. The view points into the page, or into `scratch` when there were
  // escapes to undo. nullopt: no such label.
  std::optional<std::string_view> Label(std::string_view name, std::string* scratch) const;
  // Milliseconds; a timestamp with a fraction or exponent is OpenMetrics seconds.
  std::optional<int64_t> TimestampMs() const;
};

enum class ScanError : uint8_t { kNone, kTruncated, kMalformed };

class PageScanner {
 public:
  PageScanner(const WantedMetrics& wanted, std::string_view page);

  // The next wanted sample, in page order (several specs that one line matches: in spec order).
  bool Next(ScrapedSample* sample);
  ScanError error() const { return error_; }
  // Bytes read when the scan ended early; page size otherwise. For benches and tests.
  size_t scanned_bytes() const { return static_cast<size_t>(line_ - page_.data()); }

 private:
  // Moves line_ to the next line start that passes the filter; false at the end of the page.
  bool NextCandidate();
  // Reads the line at line_ as family `family`; true if it is one (then pending_ holds it).
  bool ReadLine(uint32_t family);

  const WantedMetrics& wanted_;
  std::string_view page_;
  const char* line_;       // start of the current line
  const char* end_;        // just after the last newline of the page
  uint64_t newlines_ = 0;  // of the block at block_, those not looked at yet
  const char* block_;
  bool at_line_ = true;           // line_ was not looked at yet
  uint32_t current_family_;       // family of the last wanted line, or none
  uint32_t families_left_;
  uint64_t seen_families_ = 0;
  const WantedMetrics::Family* pending_ = nullptr;  // line with specs still to be matched
  size_t pending_spec_ = 0;
  ScrapedSample pending_sample_;
  ScanError error_ = ScanError::kNone;
};

}  // namespace llmd::wire
