// MessagePack: a zero-copy pull reader, and a small writer that always picks the shortest form.
//
//   MsgpackReader in(payload);
//   uint32_t n;
//   if (!in.ReadArray(&n)) return false;
//   for (uint32_t i = 0; i < n; ++i) if (!in.ReadUint(&value)) return false;
//
// A Read gives false, and moves nothing, when the next value is of another type or is cut off; then
// the caller may try another Read or Skip. Text and binary are views into the payload.
//
// Thread safety: none; a reader is a plain value and copying it remembers a place.
// Invariants: 1. A count that ReadArray or ReadMap gives is at most the number of bytes left (twice
// that is not possible for a map: each pair takes two), so it may size a buffer. 2. No recursion,
// no allocation. 3. Skip steps over a whole value or moves nothing. Limits: Skip refuses values
// nested deeper than kMsgpackDepthMax. Format: github.com/msgpack/msgpack/blob/master/spec.md.
// Extension types are stepped over only.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace llmd::wire {

inline constexpr uint32_t kMsgpackDepthMax = 64;

enum class MsgpackType : uint8_t {
  kNone,  // nothing left, or the one byte that the format does not use
  kNil,
  kBool,
  kUint,  // integers that are not negative, whatever their form
  kInt,   // negative ones
  kFloat,
  kText,
  kBinary,
  kArray,
  kMap,
  kExtension,
};

class MsgpackReader {
 public:
  explicit MsgpackReader(std::string_view bytes)
      : p_(bytes.data()), end_(bytes.data() + bytes.size()) {}

  // Looks at the first byte of the next value only; kUint for integers of a signed form until read.
  MsgpackType Peek() const;
  size_t bytes_left() const { return static_cast<size_t>(end_ - p_); }
  const char* position() const { return p_; }

  bool ReadNil() {
    if (p_ == end_ || tag() != 0xc0) return false;
    ++p_;
    return true;
  }
  bool ReadBool(bool* value);
  // Any integer that fits.
  bool ReadUint(uint64_t* value);
  bool ReadInt(int64_t* value);
  // Any integer; a negative one as its two's complement.
  bool ReadBits(uint64_t* value) {
    if (bytes_left() >= 9 && tag() == 0xcf) {
      *value = Load<uint64_t>(p_ + 1);
      p_ += 9;
      return true;
    }
    bool is_negative;
    return ReadInteger(value, &is_negative);
  }
  // A float of either width or any integer.
  bool ReadNumber(double* value);
  bool ReadText(std::string_view* text) {
    if (p_ == end_) return false;
    if ((tag() & 0xe0) != 0xa0) return ReadRun(0xd9, text);
    const size_t length = tag() & 0x1f;
    if (length > bytes_left() - 1) return false;
    *text = {p_ + 1, length};
    p_ += 1 + length;
    return true;
  }
  bool ReadBinary(std::string_view* bytes) { return p_ != end_ && ReadRun(0xc4, bytes); }
  bool ReadArray(uint32_t* count) { return ReadCount(0x90, 0xdc, 1, count); }
  bool ReadMap(uint32_t* pairs) { return ReadCount(0x80, 0xde, 2, pairs); }
  // Steps over one value, with all that is in it.
  bool Skip();

  // The next out.size() integers, each below 2^32. False, and nothing is moved, when one is not.
  bool ReadUint32s(std::span<uint32_t> out);
  // The next out.size() integers as ReadBits reads them.
  bool ReadBitsRun(std::span<uint64_t> out);

 private:
  template <class T>
  static T Load(const char* p) {
    T value;
    std::memcpy(&value, p, sizeof(value));
    if constexpr (std::endian::native == std::endian::little && sizeof(T) > 1) {
      value = std::byteswap(value);
    }
    return value;
  }
  uint8_t tag() const { return static_cast<uint8_t>(*p_); }
  bool ReadInteger(uint64_t* bits, bool* is_negative);
  // Text and binary tags come in threes, those of counts in pairs, for lengths of 1, 2 and 4 bytes.
  bool ReadRun(uint8_t tag8, std::string_view* bytes);
  bool ReadCount(uint8_t fix, uint8_t tag16, size_t item_bytes, uint32_t* count) {
    if (p_ == end_) return false;
    if ((tag() & 0xf0) != fix) return ReadLongCount(tag16, item_bytes, count);
    const uint32_t n = tag() & 0x0f;
    if (n * item_bytes > bytes_left() - 1) return false;
    *count = n;
    ++p_;
    return true;
  }
  bool ReadLongCount(uint8_t tag16, size_t item_bytes, uint32_t* count);

  const char* p_;
  const char* end_;
};

// Appends to a string; arrays and maps are announced with their count and then filled.
class MsgpackWriter {
 public:
  void Nil() { out_.push_back('\xc0'); }
  void Bool(bool value) { out_.push_back(value ? '\xc3' : '\xc2'); }
  void Uint(uint64_t value);
  void Int(int64_t value);
  void Float(double value);
  void Text(std::string_view text);
  void Binary(std::string_view bytes);
  void Array(size_t count) { Count(count, 0x90, 0xdc); }
  void Map(size_t pairs) { Count(pairs, 0x80, 0xde); }
  // Bytes that are msgpack already.
  void Raw(std::string_view encoded) { out_.append(encoded); }

  const std::string& bytes() const { return out_; }
  std::string Take() { return std::move(out_); }
  void Clear() { out_.clear(); }

 private:
  void Tagged(uint8_t tag, uint64_t value, size_t bytes);
  void Count(size_t count, uint8_t fix, uint8_t tag16);

  std::string out_;
};

}  // namespace llmd::wire
