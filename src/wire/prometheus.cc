#include "wire/prometheus.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/strings.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace llmd::wire {
namespace {

bool IsBlank(char c) { return c == ' ' || c == '\t'; }

std::string_view SkipBlanks(std::string_view text) {
  while (!text.empty() && IsBlank(text.front())) text.remove_prefix(1);
  return text;
}

bool IsNameChar(char c, bool first, bool colons) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (colons && c == ':') ||
         (!first && c >= '0' && c <= '9');
}

bool IsName(std::string_view text, bool colons) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (!IsNameChar(text[i], i == 0, colons)) return false;
  }
  return !text.empty();
}

// Reads `"..."` at the front; `raw` is what stands between the quotes. False if it does not end.
bool TakeQuoted(std::string_view* text, std::string_view* raw) {
  for (size_t i = 1; i < text->size(); ++i) {
    if ((*text)[i] == '\\') {
      ++i;
    } else if ((*text)[i] == '"') {
      *raw = text->substr(1, i - 1);
      text->remove_prefix(i + 1);
      return true;
    }
  }
  return false;
}

// One `name="value"` of a label block and the comma behind it.
bool TakeLabel(std::string_view* labels, std::string_view* name, std::string_view* raw) {
  *labels = SkipBlanks(*labels);
  const size_t equals = labels->find('=');
  if (equals == std::string_view::npos) return false;
  *name = base::Trim(labels->substr(0, equals));
  labels->remove_prefix(equals + 1);
  *labels = SkipBlanks(*labels);
  if (labels->empty() || labels->front() != '"' || !TakeQuoted(labels, raw)) return false;
  *labels = SkipBlanks(*labels);
  if (!labels->empty() && labels->front() == ',') labels->remove_prefix(1);
  return true;
}

std::optional<std::string_view> FindLabel(std::string_view labels, std::string_view wanted) {
  std::string_view name, raw;
  while (TakeLabel(&labels, &name, &raw)) {
    if (name == wanted) return raw;
  }
  return std::nullopt;
}

// Exposition format: \\, \" and \n; anything else stands for itself.
char Unescape(char escaped) { return escaped == 'n' ? '\n' : escaped; }

bool EqualsUnescaped(std::string_view raw, std::string_view text) {
  size_t at = 0;
  for (size_t i = 0; i < raw.size(); ++i, ++at) {
    char c = raw[i];
    if (c == '\\' && i + 1 < raw.size()) c = Unescape(raw[++i]);
    if (at >= text.size() || text[at] != c) return false;
  }
  return at == text.size();
}

bool ParseValue(std::string_view text, double* value) {
  if (!text.empty() && text[0] == '+') {
    text.remove_prefix(1);
    if (!text.empty() && text[0] == '-') return false;
  }
  // The standard library reads nan(...), Go does not.
  if (text.empty() || text.back() == ')') return false;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc() && end == text.data() + text.size();
}

std::string_view GroupOf(std::string_view name) {
  for (std::string_view suffix : {"_bucket", "_sum", "_count", "_total", "_created", "_info"}) {
    if (name.size() > suffix.size() && name.ends_with(suffix)) {
      return name.substr(0, name.size() - suffix.size());
    }
  }
  return name;
}

// Bytes in memory order, so that a mask of the first n bytes is the same on every machine we run
// on.
static_assert(std::endian::native == std::endian::little);

uint64_t LoadPrefix(const char* data, size_t size) {
  uint64_t prefix = 0;
  std::memcpy(&prefix, data, std::min<size_t>(size, 8));
  return prefix;
}

uint64_t FirstBytesMask(size_t n) { return n >= 8 ? ~uint64_t{0} : (uint64_t{1} << (8 * n)) - 1; }

base::Status BadSpec(std::string_view text, std::string_view what) {
  std::string message = "not a metric specification: ";
  base::AppendJsonString(&message, text.substr(0, 200));
  return base::InvalidArgument(
      message.append(": ").append(what).append(", expected name{label=value,...}"));
}

// One `label=value` or `label="value"` and the comma or brace behind it; empty `*error` on success.
std::string_view TakeSpecLabel(std::string_view* text, std::pair<std::string, std::string>* label) {
  const size_t equals = text->find('=');
  if (equals == std::string_view::npos) return "a label has no value";
  const std::string_view name = base::Trim(text->substr(0, equals));
  if (!IsName(name, false)) return "a label name is invalid";
  label->first = name;
  *text = SkipBlanks(text->substr(equals + 1));
  if (!text->empty() && text->front() == '"') {
    std::string_view raw;
    if (!TakeQuoted(text, &raw)) return "a quote is not closed";
    for (size_t i = 0; i < raw.size(); ++i) {
      label->second.push_back(raw[i] == '\\' && i + 1 < raw.size() ? Unescape(raw[++i]) : raw[i]);
    }
    *text = SkipBlanks(*text);
    return "";
  }
  const size_t end = std::min(text->find_first_of(",}\" \t"), text->size());
  if (end == 0) return "a label has no value";
  label->second = text->substr(0, end);
  *text = SkipBlanks(text->substr(end));
  return "";
}

}  // namespace

base::Result<MetricSpec> ParseMetricSpec(std::string_view text) {
  MetricSpec spec;
  std::string_view rest = base::Trim(text);
  const size_t name_end = std::min(rest.find_first_of("{ \t"), rest.size());
  spec.name = rest.substr(0, name_end);
  if (!IsName(spec.name, true)) return std::unexpected(BadSpec(text, "the name is invalid"));
  rest = SkipBlanks(rest.substr(name_end));
  if (rest.empty()) return spec;
  if (rest.front() != '{' || rest.back() != '}') {
    return std::unexpected(BadSpec(text, "labels stand in one pair of braces"));
  }
  rest = SkipBlanks(rest.substr(1));
  while (rest != "}") {
    std::pair<std::string, std::string> label;
    if (const auto what = TakeSpecLabel(&rest, &label); !what.empty()) {
      return std::unexpected(BadSpec(text, what));
    }
    for (const auto& [name, _] : spec.labels) {
      if (name == label.first) return std::unexpected(BadSpec(text, "a label is given twice"));
    }
    spec.labels.push_back(std::move(label));
    if (rest == "}") break;
    if (rest.empty() || rest.front() != ',') {
      return std::unexpected(BadSpec(text, "labels are separated by commas"));
    }
    rest = SkipBlanks(rest.substr(1));
    if (rest == "}") return std::unexpected(BadSpec(text, "a label is missing after the comma"));
  }
  return spec;
}

std::string ToString(const MetricSpec& spec) {
  std::string out = spec.name;
  for (const auto& [name, value] : spec.labels) {
    out.append(&name == &spec.labels.front().first ? "{" : ",").append(name).append("=\"");
    for (char c : value) {
      if (c == '\\' || c == '"') out.push_back('\\');
      out.append(c == '\n' ? "\\n" : std::string_view(&c, 1));
    }
    out.push_back('"');
  }
  if (!spec.labels.empty()) out.push_back('}');
  return out;
}

WantedMetrics::WantedMetrics(std::vector<MetricSpec> specs) : specs_(std::move(specs)) {
  LLMD_CHECK(specs_.size() <= kSpecsMax, "too many metric specs");
  for (uint32_t i = 0; i < specs_.size(); ++i) {
    const std::string& name = specs_[i].name;
    LLMD_CHECK(IsName(name, true), "a metric spec without a valid name");
    auto at = std::find_if(families_.begin(), families_.end(),
                           [&](const Family& family) { return family.name == name; });
    if (at == families_.end()) {
      Family family;
      family.name = name;
      family.group = GroupOf(name);
      family.prefix_mask = FirstBytesMask(name.size());
      family.prefix = LoadPrefix(name.data(), name.size());
      common_mask_ &= family.prefix_mask;
      at = families_.insert(families_.end(), std::move(family));
    }
    at->specs.push_back(i);
  }
  for (const Family& family : families_) filter_ |= FilterBit(family.prefix & common_mask_);
}

std::optional<std::string_view> ScrapedSample::Label(std::string_view name,
                                                     std::string* scratch) const {
  const auto raw = FindLabel(labels, name);
  if (!raw || raw->find('\\') == std::string_view::npos) return raw;
  scratch->clear();
  for (size_t i = 0; i < raw->size(); ++i) {
    const bool escape = (*raw)[i] == '\\' && i + 1 < raw->size();
    scratch->push_back(escape ? Unescape((*raw)[++i]) : (*raw)[i]);
  }
  return *scratch;
}

std::optional<int64_t> ScrapedSample::TimestampMs() const {
  const std::string_view token = rest.substr(0, std::min(rest.find_first_of(" \t"), rest.size()));
  if (token.empty() || token.front() == '#') return std::nullopt;
  if (const auto ms = base::ParseInt(token)) return ms;
  double seconds;
  if (!ParseValue(token, &seconds) || !(std::fabs(seconds) < 1e15)) return std::nullopt;
  return std::llround(seconds * 1000);
}

PageScanner::PageScanner(const WantedMetrics& wanted, std::string_view page)
    : wanted_(wanted),
      page_(page.data()),
      page_end_(page.data() + page.size()),
      line_(page.data()),
      block_(page.data()),
      families_left_(static_cast<uint32_t>(wanted.families_.size())) {
  const size_t last = page.rfind('\n');
  end_ = last == std::string_view::npos ? page_ : page_ + last + 1;
  if (end_ != page_end_) error_ = ScanError::kTruncated;
  newlines_ = page.empty() ? 0 : NewlinesOf(block_);
}

// Bit i: byte i of the 64 at `block` is a newline. The page's last block may be shorter.
inline uint64_t PageScanner::NewlinesOf(const char* block) const {
  char tail[64];
  if (page_end_ - block < 64) [[unlikely]] {
    std::memset(tail, 0, sizeof(tail));
    std::memcpy(tail, block, static_cast<size_t>(page_end_ - block));
    block = tail;
  }
#if defined(__SSE2__)
  const __m128i newline = _mm_set1_epi8('\n');
  uint64_t bits = 0;
  for (int i = 0; i < 4; ++i) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block + 16 * i));
    const auto mask = static_cast<uint32_t>(_mm_movemask_epi8(_mm_cmpeq_epi8(bytes, newline)));
    bits |= static_cast<uint64_t>(mask) << (16 * i);
  }
#else
  uint64_t bits = 0;
  for (int i = 0; i < 64; ++i) bits |= static_cast<uint64_t>(block[i] == '\n') << i;
#endif
  return bits;
}

inline uint64_t PageScanner::PrefixOf(const char* line) const {
  if (page_end_ - line >= 8) [[likely]] {
    uint64_t prefix;
    std::memcpy(&prefix, line, 8);
    return prefix;
  }
  return LoadPrefix(line, static_cast<size_t>(page_end_ - line));
}

uint32_t PageScanner::FamilyAtLine() const {
  const uint64_t prefix = PrefixOf(line_);
  const auto rest = static_cast<size_t>(end_ - line_);
  for (uint32_t i = 0; i < wanted_.families_.size(); ++i) {
    const auto& family = wanted_.families_[i];
    const size_t size = family.name.size();
    if ((prefix & family.prefix_mask) != family.prefix || rest <= size) continue;
    const char next = line_[size];
    if ((next == '{' || IsBlank(next)) && std::memcmp(line_, family.name.data(), size) == 0) {
      return i;
    }
  }
  return kNoFamily;
}

bool PageScanner::LineStartsAnotherGroup() const {
  const std::string_view line(line_, static_cast<size_t>(end_ - line_));
  if (line.front() == '#') {
    for (std::string_view word : {"# HELP ", "# TYPE ", "# UNIT ", "# EOF"}) {
      if (line.starts_with(word)) return true;
    }
    return false;
  }
  return line.front() != '\n' && line.front() != '\r' &&
         !line.starts_with(wanted_.families_[current_].group);
}

bool PageScanner::NextCandidate() {
  const uint64_t filter = wanted_.filter_, mask = wanted_.common_mask_;
  // In registers while looking: most lines of a page pass through this loop and nothing else.
  const char* line = line_;
  const char* block = block_;
  uint64_t newlines = newlines_;
  bool found = false;
  if (fresh_ && line < end_) {
    found = (filter & WantedMetrics::FilterBit(PrefixOf(line) & mask)) != 0;
  }
  fresh_ = false;
  while (!found) {
    while (newlines == 0) {
      if (end_ - block <= 64) break;
      block += 64;
      newlines = NewlinesOf(block);
    }
    if (newlines == 0) {
      line = end_;
      break;
    }
    line = block + std::countr_zero(newlines) + 1;
    newlines &= newlines - 1;
    if (line >= end_) {
      line = end_;
      break;
    }
    // Once every family was seen, each line is looked at, to find the end of the last group.
    found = families_left_ == 0 || (filter & WantedMetrics::FilterBit(PrefixOf(line) & mask)) != 0;
  }
  line_ = line;
  block_ = block;
  newlines_ = newlines;
  return found;
}

bool PageScanner::ReadLine(const WantedMetrics::Family& family) {
  const auto* newline =
      static_cast<const char*>(std::memchr(line_, '\n', static_cast<size_t>(end_ - line_)));
  std::string_view rest(line_, static_cast<size_t>(newline - line_));
  if (rest.ends_with('\r')) rest.remove_suffix(1);
  rest = SkipBlanks(rest.substr(family.name.size()));
  line_sample_ = {};
  if (!rest.empty() && rest.front() == '{') {
    rest.remove_prefix(1);
    size_t at = 0;
    for (bool quoted = false; at < rest.size() && (quoted || rest[at] != '}'); ++at) {
      if (rest[at] == '"') quoted = !quoted;
      if (quoted && rest[at] == '\\') ++at;
    }
    if (at >= rest.size()) return false;
    line_sample_.labels = rest.substr(0, at);
    rest = SkipBlanks(rest.substr(at + 1));
  }
  const size_t value_end = std::min(rest.find_first_of(" \t"), rest.size());
  if (!ParseValue(rest.substr(0, value_end), &line_sample_.value)) return false;
  line_sample_.rest = SkipBlanks(rest.substr(value_end));
  return true;
}

bool PageScanner::Next(ScrapedSample* sample) {
  for (;;) {
    while (matching_ && next_spec_ < matching_->specs.size()) {
      const uint32_t number = matching_->specs[next_spec_++];
      const auto& labels = wanted_.specs_[number].labels;
      const bool matches = std::all_of(labels.begin(), labels.end(), [&](const auto& label) {
        const auto raw = FindLabel(line_sample_.labels, label.first);
        return raw && EqualsUnescaped(*raw, label.second);
      });
      if (!matches) continue;
      *sample = line_sample_;
      sample->spec = number;
      return true;
    }
    matching_ = nullptr;
    if (wanted_.families_.empty() || !NextCandidate()) return false;
    const uint32_t family = FamilyAtLine();
    if (family == kNoFamily) {
      if (families_left_ == 0 && LineStartsAnotherGroup()) {
        end_ = line_;  // nothing wanted can follow
        return false;
      }
      continue;
    }
    current_ = family;
    if (!(seen_ >> family & 1)) {
      seen_ |= uint64_t{1} << family;
      --families_left_;
    }
    if (!ReadLine(wanted_.families_[family])) {
      error_ = ScanError::kMalformed;
      continue;
    }
    matching_ = &wanted_.families_[family];
    next_spec_ = 0;
  }
}

}  // namespace llmd::wire
