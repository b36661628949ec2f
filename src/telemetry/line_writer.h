// Writing one log line into a fixed buffer: what does not fit is cut, never written past the end.
//
// Thread safety: none. Strings are made safe for a line: control characters are escaped, invalid
// UTF-8 becomes U+FFFD in JSON, so one record is always one line and JSON always parses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace llmd::telemetry {

class LineWriter {
 public:
  explicit LineWriter(std::span<char> buffer) : buffer_(buffer) {}

  void Append(char c) {
    if (size_ < buffer_.size()) {
      buffer_[size_++] = c;
    } else {
      cut_ = true;
    }
  }
  void Append(std::string_view text);
  void AppendInt(int64_t value);
  void AppendUint(uint64_t value);
  void AppendDouble(double value);  // shortest form; NaN and Inf as words
  // Nanoseconds as milliseconds with three decimals.
  void AppendMilliseconds(int64_t ns);
  // RFC 3339, UTC, microseconds: 2025-01-02T03:04:05.678901Z.
  void AppendTime(int64_t unix_ns);
  // At most `max` bytes of `text`, "..." after a cut.
  void AppendJsonString(std::string_view text, size_t max);
  // Bare if it is a plain word, else quoted with escapes.
  void AppendTextValue(std::string_view text, size_t max);

  size_t size() const { return size_; }
  bool cut() const { return cut_; }
  // Forgets everything written after `size` was the size.
  void Rewind(size_t size) {
    size_ = size;
    cut_ = false;
  }
  // What follows may use `bytes` less of the buffer.
  void ShrinkBy(size_t bytes) { buffer_ = buffer_.first(buffer_.size() - bytes); }
  // Undoes ShrinkBy.
  void GrowBy(size_t bytes) { buffer_ = {buffer_.data(), buffer_.size() + bytes}; }
  std::string_view view() const { return {buffer_.data(), size_}; }

 private:
  void AppendEscaped(std::string_view text);

  std::span<char> buffer_;
  size_t size_ = 0;
  bool cut_ = false;
};

}  // namespace llmd::telemetry
