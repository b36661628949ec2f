#include "sim/json_error.h"

namespace llmd::sim {
namespace {

constexpr int kDepthMax = 1024;  // as deep as the reader of good documents goes

class Checker {
 public:
  explicit Checker(std::string_view text) : text_(text) {}

  std::optional<JsonError> Run() {
    SkipSpace();
    if (Value(0)) {
      SkipSpace();
      if (at_ == text_.size()) return std::nullopt;
      Fail(at_, "Extra data");
    }
    size_t characters = 0;
    for (char c : text_.substr(0, error_at_)) characters += (c & 0xC0) != 0x80;
    return JsonError{characters, message_};
  }

 private:
  bool Fail(size_t at, std::string_view message) {
    error_at_ = at;
    message_ = message;
    return false;
  }
  char Peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  void SkipSpace() {
    while (at_ < text_.size() && std::string_view(" \t\n\r").contains(text_[at_])) ++at_;
  }
  bool Word(std::string_view word) {
    if (!text_.substr(at_).starts_with(word)) return false;
    at_ += word.size();
    return true;
  }

  bool Value(int depth) {
    if (depth > kDepthMax) return Fail(at_, "Expecting value");
    switch (Peek()) {
      case '{': return Object(depth);
      case '[': return Array(depth);
      case '"': return String();
      default: break;
    }
    for (std::string_view word : {"null", "true", "false", "NaN", "Infinity", "-Infinity"}) {
      if (Word(word)) return true;
    }
    return Number();
  }

  bool Object(int depth) {
    ++at_;
    SkipSpace();
    if (Peek() == '}') {
      ++at_;
      return true;
    }
    while (true) {
      if (Peek() != '"') return Fail(at_, "Expecting property name enclosed in double quotes");
      if (!String()) return false;
      SkipSpace();
      if (Peek() != ':') return Fail(at_, "Expecting ':' delimiter");
      ++at_;
      SkipSpace();
      if (!Value(depth + 1)) return false;
      SkipSpace();
      if (Peek() == '}') {
        ++at_;
        return true;
      }
      if (Peek() != ',') return Fail(at_, "Expecting ',' delimiter");
      ++at_;
      SkipSpace();
    }
  }

  bool Array(int depth) {
    ++at_;
    SkipSpace();
    if (Peek() == ']') {
      ++at_;
      return true;
    }
    while (true) {
      if (!Value(depth + 1)) return false;
      SkipSpace();
      if (Peek() == ']') {
        ++at_;
        return true;
      }
      if (Peek() != ',') return Fail(at_, "Expecting ',' delimiter");
      ++at_;
      SkipSpace();
    }
  }

  bool String() {
    const size_t begin = at_++;
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '"') {
        ++at_;
        return true;
      }
      if (static_cast<unsigned char>(c) < 0x20) return Fail(at_, "Invalid control character at");
      if (c == '\\') {
        if (at_ + 1 >= text_.size()) break;
        const char escape = text_[at_ + 1];
        if (escape == 'u') {
          if (!Hex4(at_ + 2)) return Fail(at_ + 1, "Invalid \\uXXXX escape");
          at_ += 4;
        } else if (!std::string_view("\"\\/bfnrt").contains(escape)) {
          return Fail(at_, "Invalid \\escape");
        }
        ++at_;
      }
      ++at_;
    }
    return Fail(begin, "Unterminated string starting at");
  }

  bool Hex4(size_t at) const {
    if (at + 4 > text_.size()) return false;
    return text_.substr(at, 4).find_first_not_of("0123456789abcdefABCDEF") ==
           std::string_view::npos;
  }

  size_t Digits(size_t at) const {
    size_t n = 0;
    while (at + n < text_.size() && text_[at + n] >= '0' && text_[at + n] <= '9') ++n;
    return n;
  }

  // As far as a number goes; what is wrong behind it is the caller's "delimiter" or "Extra data".
  bool Number() {
    size_t p = at_;
    if (Peek() == '-') ++p;
    const size_t whole = Digits(p);
    if (whole == 0) return Fail(at_, "Expecting value");
    p += text_[p] == '0' ? 1 : whole;
    if (p < text_.size() && text_[p] == '.') {
      if (const size_t n = Digits(p + 1); n > 0) p += 1 + n;
    }
    if (p < text_.size() && (text_[p] == 'e' || text_[p] == 'E')) {
      const bool sign = p + 1 < text_.size() && (text_[p + 1] == '+' || text_[p + 1] == '-');
      if (const size_t n = Digits(p + 1 + sign); n > 0) p += 1 + sign + n;
    }
    at_ = p;
    return true;
  }

  std::string_view text_;
  size_t at_ = 0;
  size_t error_at_ = 0;
  std::string_view message_;
};

}  // namespace

std::optional<JsonError> FindJsonError(std::string_view text) { return Checker(text).Run(); }

}  // namespace llmd::sim
