// Reading Prometheus text pages for a few wanted samples, as fast as memory allows.
//
// A scrape loop needs five numbers out of a 20-70 KB page, a thousand times per tick. So nothing is
// parsed that is not wanted: SIMD finds line starts, an eight-byte prefix filter drops almost all
// of them, and only lines of wanted families are read. The scan ends once each wanted family was
// seen and passed (the format keeps a family's lines together).
//
//   const WantedMetrics wanted({spec_queue, spec_kv});
//   PageScanner scan(wanted, page);
//   for (ScrapedSample s; scan.Next(&s);) values[s.spec] = s.value;
//   if (scan.error() != ScanError::kNone) ...
//
// Thread safety: WantedMetrics is immutable; a PageScanner belongs to one thread. The page must
// live, unchanged, as long as the scanner and its samples. Next allocates nothing. Tolerated: CRLF,
// HELP/TYPE/UNIT/EOF and other comments, timestamps, OpenMetrics exemplars, NaN and Inf, spaces
// after names and inside label braces. Lines that begin with a space and quoted (UTF-8) metric
// names are skipped; no known model server writes either. Errors: kTruncated when the last line has
// no newline (samples before it were delivered; whether the page ends at the right place is for
// Content-Length to say), kMalformed when a wanted line could not be read (it is skipped, the rest
// is delivered). Sources: prometheus.io exposition formats 0.0.4; OpenMetrics 1.0.
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

// Which sample: `name` or `name{label=value,...}`, values optionally in double quotes; a sample
// matches when it has each label with exactly that value. Same grammar as upstream's engine specs.
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

  // At most kSpecsMax specs with valid names, which callers see to (CHECK); several may name the
  // same family with different labels. A name is that of sample lines, so of a histogram `x_sum`,
  // not `x`.
  explicit WantedMetrics(std::vector<MetricSpec> specs);
  const std::vector<MetricSpec>& specs() const { return specs_; }

 private:
  friend class PageScanner;
  struct Family {
    std::string name;
    std::string group;            // name without _total, _sum, ...: lines of one metric share it
    uint64_t prefix = 0;          // first eight bytes of the name, zero-filled
    uint64_t prefix_mask = 0;     // those bytes of them that exist
    std::vector<uint32_t> specs;  // numbers of the specs with this name
  };
  static uint64_t FilterBit(uint64_t prefix) {
    return uint64_t{1} << ((prefix * 0x9e3779b97f4a7c15u) >> 58);
  }
  std::vector<MetricSpec> specs_;
  std::vector<Family> families_;
  uint64_t filter_ = 0;                  // FilterBit(prefix & common_mask_) of every family
  uint64_t common_mask_ = ~uint64_t{0};  // the bytes that every family's name has
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
  size_t scanned_bytes() const { return static_cast<size_t>(line_ - page_); }

 private:
  static constexpr uint32_t kNoFamily = UINT32_MAX;

  // Moves line_ to the next line start that may be a wanted one; false at the end.
  bool NextCandidate();
  // Which family the line at line_ belongs to, kNoFamily if none.
  uint32_t FamilyAtLine() const;
  // True if the line at line_ cannot belong to the group of the last wanted family.
  bool LineStartsAnotherGroup() const;
  // Reads the line at line_ into line_sample_.
  bool ReadLine(const WantedMetrics::Family& family);
  uint64_t NewlinesOf(const char* block) const;
  uint64_t PrefixOf(const char* line) const;

  const WantedMetrics& wanted_;
  const char* page_;
  const char* page_end_;
  const char* end_;               // just after the last newline of the page
  const char* line_;              // start of the current line
  const char* block_;             // the 64 bytes that newlines_ tells about
  uint64_t newlines_;             // those of the block that were not passed yet
  bool fresh_ = true;             // line_ was not looked at yet
  uint32_t current_ = kNoFamily;  // family of the last wanted line
  uint32_t families_left_;
  uint64_t seen_ = 0;
  const WantedMetrics::Family* matching_ =
      nullptr;  // its specs are being matched with line_sample_
  size_t next_spec_ = 0;
  ScrapedSample line_sample_;
  ScanError error_ = ScanError::kNone;
};

}  // namespace llmd::wire
