#include "net/grpc_text.h"

#include <cstdint>

#include "base/strings.h"

namespace llmd::net {

std::optional<base::Duration> ParseGrpcTimeout(std::string_view text) {
  if (text.size() < 2 || text.size() > 9) return std::nullopt;
  int64_t value = 0;
  for (char c : text.substr(0, text.size() - 1)) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + (c - '0');
  }
  // 99,999,999 hours exceed what nanoseconds can count; a year stands for all that long.
  constexpr int64_t kYearHours = 365 * 24;
  switch (text.back()) {
    case 'H':
      return std::chrono::hours(value < kYearHours ? value : kYearHours);
    case 'M':
      return std::chrono::minutes(value < kYearHours * 60 ? value : kYearHours * 60);
    case 'S':
      return std::chrono::seconds(value);
    case 'm':
      return std::chrono::milliseconds(value);
    case 'u':
      return std::chrono::microseconds(value);
    case 'n':
      return std::chrono::nanoseconds(value);
    default:
      return std::nullopt;
  }
}

void AppendGrpcMessage(std::string* out, std::string_view message, size_t bytes_max) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  if (message.size() > bytes_max) {
    size_t end = bytes_max;
    while (end > 0 && (static_cast<unsigned char>(message[end]) & 0xc0) == 0x80) --end;
    message = message.substr(0, end);
  }
  for (char c : message) {
    if (c >= ' ' && c <= '~' && c != '%') {
      out->push_back(c);
      continue;
    }
    const unsigned byte = static_cast<unsigned char>(c);
    out->push_back('%');
    out->push_back(kHex[byte >> 4]);
    out->push_back(kHex[byte & 15]);
  }
}

bool IsGrpcContentType(std::string_view type) {
  constexpr std::string_view kType = "application/grpc";
  if (type.size() < kType.size() || !base::EqualsIgnoreCase(type.substr(0, kType.size()), kType)) {
    return false;
  }
  return type.size() == kType.size() || type[kType.size()] == '+' || type[kType.size()] == ';';
}

}  // namespace llmd::net
