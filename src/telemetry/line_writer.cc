#include "telemetry/line_writer.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstring>

namespace llmd::telemetry {
namespace {

// Written without an early exit so that the compiler can use vectors.
bool IsPlain(std::string_view text) {
  bool odd = false;
  for (char c : text) {
    const auto u = static_cast<unsigned char>(c);
    odd |= (u < 0x20) | (u >= 0x7f) | (u == '"') | (u == '\\');
  }
  return !odd;
}

bool IsPlainWord(std::string_view text) {
  bool odd = false;
  for (char c : text) {
    const auto u = static_cast<unsigned char>(c);
    odd |= (u <= 0x20) | (u >= 0x7f) | (u == '"') | (u == '\\') | (u == '=');
  }
  return !odd && !text.empty();
}

// Length of the valid UTF-8 sequence at the front (RFC 3629), 0 if there is none.
size_t Utf8Length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  size_t length = 1;
  unsigned low = 0x80, high = 0xbf;  // bounds of the second byte
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead <= 0xdf) {
    length = 2;
  } else if (lead >= 0xe0 && lead <= 0xef) {
    length = 3;
    if (lead == 0xe0) low = 0xa0;
    if (lead == 0xed) high = 0x9f;  // no surrogates
  } else if (lead >= 0xf0 && lead <= 0xf4) {
    length = 4;
    if (lead == 0xf0) low = 0x90;
    if (lead == 0xf4) high = 0x8f;
  } else {
    return 0;
  }
  if (text.size() < length || byte(1) < low || byte(1) > high) return 0;
  for (size_t i = 2; i < length; ++i) {
    if (byte(i) < 0x80 || byte(i) > 0xbf) return 0;
  }
  return length;
}

std::string_view CutTo(std::string_view text, size_t max) {
  if (text.size() <= max) return text;
  // Not inside of a UTF-8 sequence: at most three bytes back.
  size_t end = max;
  for (int i = 0; i < 3 && end > 0 && (text[end] & 0xc0) == 0x80; ++i) --end;
  return text.substr(0, end);
}

void TwoDigits(char* p, unsigned value) {
  p[0] = static_cast<char>('0' + value / 10);
  p[1] = static_cast<char>('0' + value % 10);
}

}  // namespace

void LineWriter::Append(std::string_view text) {
  const size_t n = std::min(text.size(), buffer_.size() - size_);
  if (n) std::memcpy(buffer_.data() + size_, text.data(), n);
  size_ += n;
  cut_ |= n < text.size();
}

void LineWriter::AppendInt(int64_t value) {
  char text[24];
  Append(std::string_view(text, std::to_chars(text, text + sizeof(text), value).ptr - text));
}

void LineWriter::AppendUint(uint64_t value) {
  char text[24];
  Append(std::string_view(text, std::to_chars(text, text + sizeof(text), value).ptr - text));
}

void LineWriter::AppendDouble(double value) {
  char text[40];
  Append(std::string_view(text, std::to_chars(text, text + sizeof(text), value).ptr - text));
}

void LineWriter::AppendMilliseconds(int64_t ns) {
  if (ns < 0) Append('-');
  const uint64_t us = (static_cast<uint64_t>(ns < 0 ? -ns : ns) + 500) / 1000;
  AppendUint(us / 1000);
  const auto rest = static_cast<unsigned>(us % 1000);
  char text[4] = {'.', static_cast<char>('0' + rest / 100)};
  TwoDigits(text + 2, rest % 100);
  Append(std::string_view(text, 4));
}

void LineWriter::AppendTime(int64_t unix_ns) {
  int64_t us = unix_ns / 1000;
  if (unix_ns % 1000 < 0) --us;
  int64_t days = us / 86'400'000'000;
  int64_t of_day = us % 86'400'000'000;
  if (of_day < 0) {
    of_day += 86'400'000'000;
    --days;
  }
  const std::chrono::year_month_day date{std::chrono::sys_days(std::chrono::days(days))};
  const auto year = static_cast<unsigned>(static_cast<int>(date.year()));
  const auto seconds = static_cast<unsigned>(of_day / 1'000'000);
  auto micros = static_cast<unsigned>(of_day % 1'000'000);
  char text[] = "0000-00-00T00:00:00.000000Z";
  TwoDigits(text, year / 100 % 100);
  TwoDigits(text + 2, year % 100);
  TwoDigits(text + 5, static_cast<unsigned>(date.month()));
  TwoDigits(text + 8, static_cast<unsigned>(date.day()));
  TwoDigits(text + 11, seconds / 3600);
  TwoDigits(text + 14, seconds / 60 % 60);
  TwoDigits(text + 17, seconds % 60);
  for (int i = 25; i >= 20; --i, micros /= 10) text[i] = static_cast<char>('0' + micros % 10);
  Append(std::string_view(text, sizeof(text) - 1));
}

void LineWriter::AppendEscaped(std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  while (!text.empty()) {
    const size_t length = Utf8Length(text);
    const char c = text[0];
    if (length == 0) {
      Append("\\ufffd");
    } else if (length > 1) {
      Append(text.substr(0, length));
    } else if (c == '"' || c == '\\') {
      Append('\\');
      Append(c);
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      Append("\\u00");
      Append(kHex[(c >> 4) & 15]);
      Append(kHex[c & 15]);
    } else {
      Append(c);
    }
    text.remove_prefix(std::max<size_t>(length, 1));
  }
}

void LineWriter::AppendJsonString(std::string_view text, size_t max) {
  const std::string_view kept = CutTo(text, max);
  Append('"');
  if (IsPlain(kept)) [[likely]] {
    Append(kept);
  } else {
    AppendEscaped(kept);
  }
  if (kept.size() < text.size()) Append("...");
  Append('"');
}

void LineWriter::AppendTextValue(std::string_view text, size_t max) {
  if (text.size() <= max && IsPlainWord(text)) {
    Append(text);
  } else {
    AppendJsonString(text, max);
  }
}

}  // namespace llmd::telemetry
