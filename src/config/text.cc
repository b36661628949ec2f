// What is written in one word: scalars, quantities, durations; and the error list.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <tuple>

#include "base/strings.h"
#include "config/document.h"

namespace llmd::config {
namespace {

bool OneOf(std::string_view text, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), text) != words.end();
}

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

size_t SkipDigits(std::string_view text, size_t at) {
  while (at < text.size() && IsDigit(text[at])) ++at;
  return at;
}

// go-yaml: [-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?
bool LooksLikeFloat(std::string_view text) {
  size_t at = !text.empty() && (text[0] == '-' || text[0] == '+') ? 1 : 0;
  const size_t whole = SkipDigits(text, at);
  size_t end = whole;
  if (end < text.size() && text[end] == '.') end = SkipDigits(text, end + 1);
  const bool has_digits = whole > at || end > whole + 1;
  if (!has_digits) return false;
  if (end < text.size() && (text[end] == 'e' || text[end] == 'E')) {
    at = end + 1;
    if (at < text.size() && (text[at] == '-' || text[at] == '+')) ++at;
    end = SkipDigits(text, at);
    if (end == at) return false;
  }
  return end == text.size();
}

// Go's strconv.ParseInt(text, 0, 64): 0x, 0o, 0b and a leading 0 choose the base.
std::optional<int64_t> ParseGoInteger(std::string_view text) {
  const bool negative = !text.empty() && text[0] == '-';
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) text.remove_prefix(1);
  uint64_t base = 10;
  if (text.size() > 1 && text[0] == '0') {
    const char letter = static_cast<char>(text[1] | 0x20);
    base = letter == 'x' ? 16 : letter == 'b' ? 2 : 8;
    text.remove_prefix(letter == 'x' || letter == 'b' || letter == 'o' ? 2 : 1);
  }
  if (text.empty()) return std::nullopt;
  const uint64_t limit = uint64_t{1} << 63;
  uint64_t value = 0;
  for (char c : text) {
    const char lower = static_cast<char>(c | 0x20);
    uint64_t digit = 99;
    if (IsDigit(c)) digit = static_cast<uint64_t>(c - '0');
    if (lower >= 'a' && lower <= 'f') digit = static_cast<uint64_t>(lower - 'a' + 10);
    if (digit >= base || value > (limit - digit) / base) return std::nullopt;
    value = value * base + digit;
  }
  if (negative) return static_cast<int64_t>(~value + 1);
  if (value == limit) return std::nullopt;
  return static_cast<int64_t>(value);
}

}  // namespace

// go-yaml v2 (resolve.go), which the Go programs read their configuration with.
Scalar ResolvePlainScalar(std::string_view text) {
  Scalar scalar;
  if (OneOf(text, {"", "~", "null", "Null", "NULL"})) {
    scalar.kind = NodeKind::kNull;
    return scalar;
  }
  if (OneOf(text, {"y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"})) {
    scalar.kind = NodeKind::kBool;
    scalar.boolean = true;
    return scalar;
  }
  if (OneOf(text, {"n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"})) {
    scalar.kind = NodeKind::kBool;
    return scalar;
  }
  constexpr double kInf = std::numeric_limits<double>::infinity();
  if (OneOf(text, {".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"})) {
    scalar.kind = NodeKind::kDouble;
    scalar.number = kInf;
    return scalar;
  }
  if (OneOf(text, {"-.inf", "-.Inf", "-.INF", ".nan", ".NaN", ".NAN"})) {
    scalar.kind = NodeKind::kDouble;
    scalar.number = text[0] == '-' ? -kInf : std::numeric_limits<double>::quiet_NaN();
    return scalar;
  }
  const char first = text[0];
  if (!IsDigit(first) && first != '-' && first != '+' && first != '.') return scalar;
  std::string plain(text);
  std::erase(plain, '_');
  if (const auto integer = ParseGoInteger(plain)) {
    scalar.kind = NodeKind::kInt;
    scalar.integer = *integer;
    scalar.number = static_cast<double>(*integer);
  } else if (LooksLikeFloat(plain)) {
    scalar.kind = NodeKind::kDouble;
    scalar.number = std::strtod(plain.c_str(), nullptr);
  }
  return scalar;
}

std::string_view NodeKindName(NodeKind kind) {
  switch (kind) {
    case NodeKind::kNull:
      return "null";
    case NodeKind::kBool:
      return "a boolean";
    case NodeKind::kInt:
      return "an integer";
    case NodeKind::kDouble:
      return "a number";
    case NodeKind::kString:
      return "a string";
    case NodeKind::kList:
      return "a list";
    case NodeKind::kMap:
      return "a map";
  }
  return "";
}

void ErrorList::Add(const Node& at, std::string_view what) {
  Add(at.document() ? std::string_view(at.document()->filename()) : "", at.position(), at.path(),
      what);
}

void ErrorList::Add(std::string_view filename, Position position, std::string_view path,
                    std::string_view what) {
  if (total_++ >= kErrorsMax) return;
  std::string text;
  if (!filename.empty()) text.append(filename);
  if (position.line > 0) {
    text.append(":").append(std::to_string(position.line));
    text.append(":").append(std::to_string(position.column));
  }
  if (!path.empty()) {
    if (!text.empty()) text.push_back(' ');
    text.append(path);
  }
  if (!text.empty()) text.append(": ");
  errors_.push_back({std::string(filename), position, text.append(what)});
}

std::vector<std::string> ErrorList::Lines() const {
  std::vector<const Error*> order;
  for (const Error& error : errors_) order.push_back(&error);
  std::sort(order.begin(), order.end(), [](const Error* a, const Error* b) {
    return std::tie(a->filename, a->position.line, a->position.column, a) <
           std::tie(b->filename, b->position.line, b->position.column, b);
  });
  std::vector<std::string> lines;
  for (const Error* error : order) lines.push_back(error->text);
  if (total_ > errors_.size()) {
    lines.push_back(base::Concat("and ", std::to_string(total_ - errors_.size()), " more errors"));
  }
  return lines;
}

std::string ErrorList::ToString() const { return base::Join(Lines(), "\n"); }

base::Status ErrorList::ToStatus() const {
  return ok() ? base::OkStatus() : base::InvalidArgument(ToString());
}

std::string DidYouMean(std::string_view word, std::span<const std::string_view> allowed) {
  const std::string_view near = base::NearestWord(word, allowed);
  return near.empty() ? "" : base::Concat("; did you mean ", near, "?");
}

// k8s.io/apimachinery: pkg/api/resource/quantity.go.
std::optional<int64_t> ParseQuantity(std::string_view text, bool bytes) {
  if (bytes && text.size() > 1 && text.back() == 'B') text.remove_suffix(1);
  const bool negative = !text.empty() && text[0] == '-';
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) text.remove_prefix(1);
  const size_t whole = SkipDigits(text, 0);
  size_t end = whole;
  if (end < text.size() && text[end] == '.') end = SkipDigits(text, end + 1);
  const size_t fraction = end > whole ? end - whole - 1 : 0;
  const std::string_view suffix = text.substr(end);
  // 18 digits each way keep the products below inside of 128 bits.
  if (whole + fraction == 0 || whole > 19 || fraction > 18) return std::nullopt;
  unsigned __int128 mantissa = 0;
  for (char c : text.substr(0, end)) {
    if (c != '.') mantissa = mantissa * 10 + static_cast<unsigned>(c - '0');
  }
  int tens = 0, twos = 0;
  static constexpr std::string_view kTens = "num kMGTPE", kTwos = "KMGTPE";
  if (suffix.size() == 1 && suffix != " " && kTens.find(suffix[0]) != std::string_view::npos) {
    tens = 3 * (static_cast<int>(kTens.find(suffix[0])) - 3);
  } else if (suffix.size() == 2 && suffix[1] == 'i' &&
             kTwos.find(suffix[0]) != std::string_view::npos) {
    twos = 10 * (static_cast<int>(kTwos.find(suffix[0])) + 1);
  } else if (suffix.size() > 1 && (suffix[0] == 'e' || suffix[0] == 'E')) {
    std::string_view exponent = suffix.substr(1);
    if (exponent.size() > 1 && exponent[0] == '+') exponent.remove_prefix(1);
    const auto value = base::ParseInt(exponent);
    if (!value || *value < -18 || *value > 18) return std::nullopt;
    tens = static_cast<int>(*value);
  } else if (!suffix.empty()) {
    return std::nullopt;
  }
  const long double size = static_cast<long double>(mantissa) *
                           powl(10, tens - static_cast<int>(fraction)) * powl(2, twos);
  if (size >= 0x1p63L) return std::nullopt;
  const int scale = tens - static_cast<int>(fraction);
  for (int i = 0; i < scale; ++i) mantissa *= 10;
  mantissa <<= twos;
  bool rest = false;
  for (int i = 0; i > scale; --i) {
    rest |= mantissa % 10 != 0;
    mantissa /= 10;
  }
  const auto value = static_cast<uint64_t>(mantissa) + (rest ? 1 : 0);
  if (value > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
  return negative ? -static_cast<int64_t>(value) : static_cast<int64_t>(value);
}

namespace {

// "1.5" for 1500 thousandths: a decimal fraction without trailing zeros.
std::string Fraction(uint64_t value, uint64_t unit) {
  std::string out = std::to_string(value / unit);
  std::string digits = std::to_string(unit + value % unit).substr(1);
  while (!digits.empty() && digits.back() == '0') digits.pop_back();
  if (!digits.empty()) out.append(".").append(digits);
  return out;
}

}  // namespace

std::string FormatGoDuration(int64_t ns) {
  if (ns == 0) return "0s";
  std::string out = ns < 0 ? "-" : "";
  const uint64_t u = ns < 0 ? ~static_cast<uint64_t>(ns) + 1 : static_cast<uint64_t>(ns);
  if (u < 1'000) return out.append(std::to_string(u)).append("ns");
  if (u < 1'000'000) return out.append(Fraction(u, 1'000)).append("µs");
  if (u < 1'000'000'000) return out.append(Fraction(u, 1'000'000)).append("ms");
  constexpr uint64_t kSecond = 1'000'000'000, kMinute = 60 * kSecond, kHour = 60 * kMinute;
  if (u >= kHour) out.append(std::to_string(u / kHour)).append("h");
  if (u >= kMinute) out.append(std::to_string(u / kMinute % 60)).append("m");
  return out.append(Fraction(u % kMinute, kSecond)).append("s");
}

}  // namespace llmd::config
