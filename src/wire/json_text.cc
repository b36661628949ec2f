// Strings and numbers of JSON turned into values.
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "base/check.h"
#include "base/strings.h"
#include "wire/json_kernels.h"
#include "wire/json_scan.h"

namespace llmd::wire {
namespace {

std::optional<uint32_t> Hex4(const char* p, const char* end) {
  if (end - p < 4) return std::nullopt;
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i) {
    const char c = p[i];
    const char lower = static_cast<char>(c | 0x20);
    if (c >= '0' && c <= '9') {
      value = value * 16 + static_cast<uint32_t>(c - '0');
    } else if (lower >= 'a' && lower <= 'f') {
      value = value * 16 + static_cast<uint32_t>(lower - 'a' + 10);
    } else {
      return std::nullopt;
    }
  }
  return value;
}

char* PutUtf8(uint32_t code, char* out) {
  if (code < 0x80) {
    *out++ = static_cast<char>(code);
    return out;
  }
  const int continuation = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  constexpr uint8_t kLead[] = {0, 0xc0, 0xe0, 0xf0};
  *out++ = static_cast<char>(kLead[continuation] | code >> (6 * continuation));
  for (int i = continuation - 1; i >= 0; --i) {
    *out++ = static_cast<char>(0x80 | (code >> (6 * i) & 0x3f));
  }
  return out;
}

// `p` is behind "\u"; moves it behind the escape (both halves of a surrogate pair).
std::optional<uint32_t> UnicodeEscape(const char*& p, const char* end) {
  const std::optional<uint32_t> first = Hex4(p, end);
  if (!first || (*first >= 0xdc00 && *first < 0xe000)) return std::nullopt;
  p += 4;
  if (*first < 0xd800 || *first >= 0xe000) return first;
  if (end - p < 6 || p[0] != '\\' || p[1] != 'u') return std::nullopt;
  const std::optional<uint32_t> second = Hex4(p + 2, end);
  if (!second || *second < 0xdc00 || *second >= 0xe000) return std::nullopt;
  p += 6;
  return 0x10000 + ((*first - 0xd800) << 10) + (*second - 0xdc00);
}

constexpr char SimpleEscape(char c) {
  switch (c) {
    case '"': case '\\': case '/': return c;
    case 'b': return '\b';
    case 'f': return '\f';
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    default: return 0;
  }
}

}  // namespace

std::optional<size_t> JsonUnescapeInto(std::string_view raw, char* out) {
  char* const out_begin = out;
  const char* p = raw.data();
  const char* const end = p + raw.size();
  while (p < end) {
    const char c = *p++;
    if (static_cast<uint8_t>(c) < 0x20 || c == '"') return std::nullopt;
    if (c != '\\') {
      *out++ = c;
      continue;
    }
    if (p == end) return std::nullopt;
    const char kind = *p++;
    if (kind == 'u') {
      const std::optional<uint32_t> code = UnicodeEscape(p, end);
      if (!code) return std::nullopt;
      out = PutUtf8(*code, out);
    } else if (const char plain = SimpleEscape(kind)) {
      *out++ = plain;
    } else {
      return std::nullopt;
    }
  }
  return static_cast<size_t>(out - out_begin);
}

std::optional<std::string_view> JsonUnescape(std::string_view raw, base::Arena& arena) {
  const bool plain = std::none_of(raw.begin(), raw.end(), [](char c) {
    return c == '\\' || c == '"' || static_cast<uint8_t>(c) < 0x20;
  });
  if (plain) return raw;
  char* out = static_cast<char*>(arena.Allocate(raw.size(), 1));
  const std::optional<size_t> size = JsonUnescapeInto(raw, out);
  if (!size) return std::nullopt;
  return std::string_view(out, *size);
}

size_t FindBytes(std::string_view text, std::string_view needle) {
  LLMD_DCHECK(needle.size() >= 2, "a needle of one byte is memchr's");
  const char* end = text.data() + text.size();
  const char* hit = internal::BestJsonKernels()->find(text.data(), end, needle);
  return hit == end ? std::string_view::npos : static_cast<size_t>(hit - text.data());
}

std::optional<int64_t> JsonWholeNumber(std::string_view text) {
  if (const std::optional<int64_t> whole = base::ParseInt(text)) return whole;
  const std::optional<double> value = base::ParseDouble(text);
  constexpr double kExactMax = 9007199254740992.0;  // 2^53: whole doubles are exact up to here
  if (!value || std::trunc(*value) != *value || std::abs(*value) > kExactMax) return std::nullopt;
  return static_cast<int64_t>(*value);
}

}  // namespace llmd::wire
