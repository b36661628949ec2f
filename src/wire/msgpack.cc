#include "wire/msgpack.h"

#include <array>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace llmd::wire {
namespace {

constexpr uint8_t kNil = 0xc0, kNeverUsed = 0xc1, kFalse = 0xc2, kTrue = 0xc3;
constexpr uint8_t kBin8 = 0xc4, kBin16 = 0xc5, kBin32 = 0xc6;
constexpr uint8_t kExt8 = 0xc7, kExt32 = 0xc9;
constexpr uint8_t kFloat32 = 0xca, kFloat64 = 0xcb;
constexpr uint8_t kUint8 = 0xcc, kUint16 = 0xcd, kUint32 = 0xce, kUint64 = 0xcf;
constexpr uint8_t kInt8 = 0xd0, kInt64 = 0xd3;
constexpr uint8_t kFixExt1 = 0xd4, kFixExt16 = 0xd8;
constexpr uint8_t kStr8 = 0xd9, kStr16 = 0xda, kStr32 = 0xdb;
constexpr uint8_t kArray16 = 0xdc, kArray32 = 0xdd, kMap16 = 0xde, kMap32 = 0xdf;
constexpr uint8_t kNegative = 0xe0;

// Bytes of an integer after its tag, by tag - kUint8 (uint8 to int64).
constexpr size_t IntegerBytes(uint8_t tag) { return size_t{1} << ((tag - kUint8) & 3); }

// For stepping over: bytes of the value itself (tag and length included, 0: not stepped over like
// this) and how many values follow that belong to it.
struct Step {
  uint8_t head;      // bytes of tag and length
  uint8_t length;    // of these, bytes of the length or count
  uint8_t extra;     // bytes of content that do not depend on a length
  uint8_t children;  // 0: the length counts bytes; 1, 2: it counts values, pairs
};

constexpr Step StepOf(uint8_t tag) {
  if (tag < 0x80 || tag >= kNegative || tag == kNil || tag == kFalse || tag == kTrue) {
    return {1, 0, 0, 0};
  }
  if (tag < 0x90) return {1, 0, 0, 2};  // fixmap
  if (tag < 0xa0) return {1, 0, 0, 1};  // fixarray
  if (tag < 0xc0) return {1, 0, static_cast<uint8_t>(tag & 0x1f), 0};
  if (tag >= kBin8 && tag <= kBin32) {
    return {static_cast<uint8_t>(1 + (1 << (tag - kBin8))),
            static_cast<uint8_t>(1 << (tag - kBin8)), 0, 0};
  }
  if (tag >= kExt8 && tag <= kExt32) {
    return {static_cast<uint8_t>(1 + (1 << (tag - kExt8))),
            static_cast<uint8_t>(1 << (tag - kExt8)), 1, 0};
  }
  if (tag == kFloat32) return {1, 0, 4, 0};
  if (tag == kFloat64) return {1, 0, 8, 0};
  if (tag >= kUint8 && tag <= kInt64) return {1, 0, static_cast<uint8_t>(IntegerBytes(tag)), 0};
  if (tag >= kFixExt1 && tag <= kFixExt16) {
    return {1, 0, static_cast<uint8_t>(1 + (1 << (tag - kFixExt1))), 0};
  }
  if (tag >= kStr8 && tag <= kStr32) {
    return {static_cast<uint8_t>(1 + (1 << (tag - kStr8))),
            static_cast<uint8_t>(1 << (tag - kStr8)), 0, 0};
  }
  if (tag == kArray16 || tag == kMap16)
    return {3, 2, 0, static_cast<uint8_t>(tag == kMap16 ? 2 : 1)};
  if (tag == kArray32 || tag == kMap32)
    return {5, 4, 0, static_cast<uint8_t>(tag == kMap32 ? 2 : 1)};
  return {0, 0, 0, 0};
}

constexpr std::array<Step, 256> kSteps = [] {
  std::array<Step, 256> steps{};
  for (size_t tag = 0; tag < steps.size(); ++tag) steps[tag] = StepOf(static_cast<uint8_t>(tag));
  return steps;
}();

uint64_t BigEndian(const char* p, size_t bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < bytes; ++i) value = value << 8 | static_cast<uint8_t>(p[i]);
  return value;
}

// Bit i says whether p[i] is `byte`, for 64 bytes.
uint64_t BytesEqual(const char* p, uint8_t byte) {
  uint64_t mask = 0;
#if defined(__SSE2__)
  const __m128i wanted = _mm_set1_epi8(static_cast<char>(byte));
  for (int i = 0; i < 4; ++i) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p) + i);
    const int equal = _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, wanted));
    mask |= static_cast<uint64_t>(static_cast<uint32_t>(equal)) << (16 * i);
  }
#else
  for (int i = 0; i < 64; ++i) mask |= uint64_t{static_cast<uint8_t>(p[i]) == byte} << i;
#endif
  return mask;
}

// Reads unsigned integers of up to 32 bits in their shortest forms while 64 bytes at a time are
// there, and moves `*at` behind them; returns how many. Token ids mix forms of 3 and 5 bytes at
// random, so that a branch on the tag is mispredicted every other time. Here the tags of 64 bytes
// are compared at once, and from one number to the next it takes a shift and an addition.
size_t ReadShortRun(const char** at, const char* end, std::span<uint32_t> out) {
  constexpr unsigned kWindow = 64, kLongest = 5;
  const char* p = *at;
  size_t i = 0;
  while (i < out.size() && end - p >= kWindow) {
    const uint64_t is_wide = BytesEqual(p, kUint32);
    const uint64_t is_either = is_wide | BytesEqual(p, kUint16);
    unsigned offset = 0;
    while (offset <= kWindow - kLongest && i < out.size()) {
      if ((is_either >> offset & 1) == 0) {
        const auto tag = static_cast<uint8_t>(p[offset]);
        if (tag < 0x80) {
          out[i++] = tag;
          offset += 1;
        } else if (tag == kUint8) {
          out[i++] = static_cast<uint8_t>(p[offset + 1]);
          offset += 2;
        } else {
          *at = p + offset;
          return i;
        }
        continue;
      }
      const auto wide = static_cast<unsigned>(is_wide >> offset & 1);
      uint32_t value;
      std::memcpy(&value, p + offset + 1, sizeof(value));
      if constexpr (std::endian::native == std::endian::little) value = std::byteswap(value);
      out[i++] = value >> (16 - 16 * wide);
      offset += 3 + 2 * wide;
    }
    p += offset;
  }
  *at = p;
  return i;
}

}  // namespace

MsgpackType MsgpackReader::Peek() const {
  if (p_ == end_) return MsgpackType::kNone;
  const uint8_t t = tag();
  if (t < 0x80) return MsgpackType::kUint;
  if (t < 0x90) return MsgpackType::kMap;
  if (t < 0xa0) return MsgpackType::kArray;
  if (t < 0xc0) return MsgpackType::kText;
  if (t >= kNegative) return MsgpackType::kInt;
  if (t == kNil) return MsgpackType::kNil;
  if (t == kNeverUsed) return MsgpackType::kNone;
  if (t <= kTrue) return MsgpackType::kBool;
  if (t <= kBin32) return MsgpackType::kBinary;
  if (t <= kExt32) return MsgpackType::kExtension;
  if (t <= kFloat64) return MsgpackType::kFloat;
  if (t <= kInt64) return MsgpackType::kUint;
  if (t <= kFixExt16) return MsgpackType::kExtension;
  if (t <= kStr32) return MsgpackType::kText;
  return t <= kArray32 ? MsgpackType::kArray : MsgpackType::kMap;
}

bool MsgpackReader::ReadBool(bool* value) {
  if (p_ == end_ || (tag() != kFalse && tag() != kTrue)) return false;
  *value = tag() == kTrue;
  ++p_;
  return true;
}

bool MsgpackReader::ReadInteger(uint64_t* bits, bool* is_negative) {
  if (p_ == end_) return false;
  const uint8_t t = tag();
  if (t < 0x80 || t >= kNegative) {
    *bits = static_cast<uint64_t>(static_cast<int64_t>(static_cast<int8_t>(t)));
    *is_negative = t >= kNegative;
    ++p_;
    return true;
  }
  if (t < kUint8 || t > kInt64) return false;
  const size_t bytes = IntegerBytes(t);
  if (bytes_left() < 1 + bytes) return false;
  uint64_t value = BigEndian(p_ + 1, bytes);
  *is_negative = false;
  if (t >= kInt8) {
    const unsigned shift = static_cast<unsigned>(64 - 8 * bytes);
    value = static_cast<uint64_t>(static_cast<int64_t>(value << shift) >> shift);
    *is_negative = static_cast<int64_t>(value) < 0;
  }
  *bits = value;
  p_ += 1 + bytes;
  return true;
}

bool MsgpackReader::ReadUint(uint64_t* value) {
  const char* start = p_;
  bool is_negative;
  if (ReadInteger(value, &is_negative) && !is_negative) return true;
  p_ = start;
  return false;
}

bool MsgpackReader::ReadInt(int64_t* value) {
  const char* start = p_;
  uint64_t bits;
  bool is_negative;
  if (ReadInteger(&bits, &is_negative) && (is_negative || bits <= INT64_MAX)) {
    *value = static_cast<int64_t>(bits);
    return true;
  }
  p_ = start;
  return false;
}

bool MsgpackReader::ReadNumber(double* value) {
  if (p_ == end_) return false;
  if (tag() == kFloat64 && bytes_left() >= 9) {
    *value = std::bit_cast<double>(Load<uint64_t>(p_ + 1));
    p_ += 9;
    return true;
  }
  if (tag() == kFloat32 && bytes_left() >= 5) {
    *value = std::bit_cast<float>(Load<uint32_t>(p_ + 1));
    p_ += 5;
    return true;
  }
  uint64_t bits;
  bool is_negative;
  if (!ReadInteger(&bits, &is_negative)) return false;
  *value =
      is_negative ? static_cast<double>(static_cast<int64_t>(bits)) : static_cast<double>(bits);
  return true;
}

bool MsgpackReader::ReadRun(uint8_t tag8, std::string_view* bytes) {
  const uint8_t t = tag();
  if (t < tag8 || t > tag8 + 2) return false;
  const size_t head = size_t{1} << (t - tag8);
  if (bytes_left() < 1 + head) return false;
  const uint64_t length = BigEndian(p_ + 1, head);
  if (length > bytes_left() - 1 - head) return false;
  *bytes = {p_ + 1 + head, static_cast<size_t>(length)};
  p_ += 1 + head + length;
  return true;
}

bool MsgpackReader::ReadLongCount(uint8_t tag16, size_t item_bytes, uint32_t* count) {
  if (tag() != tag16 && tag() != tag16 + 1) return false;
  const size_t head = tag() == tag16 ? 3 : 5;
  if (bytes_left() < head) return false;
  const uint64_t n = BigEndian(p_ + 1, head - 1);
  if (n * item_bytes > bytes_left() - head) return false;
  *count = static_cast<uint32_t>(n);
  p_ += head;
  return true;
}

bool MsgpackReader::Skip() {
  // Values still to be stepped over at each depth.
  std::array<uint64_t, kMsgpackDepthMax> open;
  uint32_t depth = 0;
  open[0] = 1;
  const char* p = p_;
  while (true) {
    while (open[depth] == 0) {
      if (depth == 0) {
        p_ = p;
        return true;
      }
      --depth;
    }
    --open[depth];
    if (p == end_) return false;
    const auto t = static_cast<uint8_t>(*p);
    const Step step = kSteps[t];
    const auto left = static_cast<size_t>(end_ - p);
    if (step.head == 0 || left < size_t{step.head} + step.extra) return false;
    uint64_t length = step.length == 0 ? 0 : BigEndian(p + 1, step.length);
    p += step.head + step.extra;
    if (step.children == 0) {
      if (length > static_cast<size_t>(end_ - p)) return false;
      p += length;
      continue;
    }
    if (step.length == 0) length = t & 0x0f;
    length *= step.children;
    if (length > static_cast<size_t>(end_ - p)) return false;
    if (++depth == kMsgpackDepthMax) return false;
    open[depth] = length;
  }
}

bool MsgpackReader::ReadUint32s(std::span<uint32_t> out) {
  const char* p = p_;
  size_t i = ReadShortRun(&p, end_, out);
  MsgpackReader rest(std::string_view(p, static_cast<size_t>(end_ - p)));
  for (; i < out.size(); ++i) {
    uint64_t value;
    if (!rest.ReadUint(&value) || value > UINT32_MAX) return false;
    out[i] = static_cast<uint32_t>(value);
  }
  p_ = rest.p_;
  return true;
}

bool MsgpackReader::ReadBitsRun(std::span<uint64_t> out) {
  const char* p = p_;
  size_t i = 0;
  for (; i < out.size() && end_ - p >= 9 && static_cast<uint8_t>(*p) == kUint64; ++i, p += 9) {
    out[i] = Load<uint64_t>(p + 1);
  }
  MsgpackReader rest(std::string_view(p, static_cast<size_t>(end_ - p)));
  for (; i < out.size(); ++i) {
    if (!rest.ReadBits(&out[i])) return false;
  }
  p_ = rest.p_;
  return true;
}

void MsgpackWriter::Tagged(uint8_t tag, uint64_t value, size_t bytes) {
  char text[9];
  text[0] = static_cast<char>(tag);
  for (size_t i = 0; i < bytes; ++i)
    text[1 + i] = static_cast<char>(value >> (8 * (bytes - 1 - i)));
  out_.append(text, 1 + bytes);
}

void MsgpackWriter::Uint(uint64_t value) {
  if (value < 0x80) {
    out_.push_back(static_cast<char>(value));
  } else if (value <= UINT8_MAX) {
    Tagged(kUint8, value, 1);
  } else if (value <= UINT16_MAX) {
    Tagged(kUint16, value, 2);
  } else if (value <= UINT32_MAX) {
    Tagged(kUint32, value, 4);
  } else {
    Tagged(kUint64, value, 8);
  }
}

void MsgpackWriter::Int(int64_t value) {
  const auto bits = static_cast<uint64_t>(value);
  if (value >= 0) {
    Uint(bits);
  } else if (value >= -32) {
    out_.push_back(static_cast<char>(value));
  } else if (value >= INT8_MIN) {
    Tagged(kInt8, bits, 1);
  } else if (value >= INT16_MIN) {
    Tagged(kInt8 + 1, bits, 2);
  } else if (value >= INT32_MIN) {
    Tagged(kInt8 + 2, bits, 4);
  } else {
    Tagged(kInt64, bits, 8);
  }
}

void MsgpackWriter::Float(double value) { Tagged(kFloat64, std::bit_cast<uint64_t>(value), 8); }

void MsgpackWriter::Text(std::string_view text) {
  if (text.size() < 32) {
    out_.push_back(static_cast<char>(0xa0 | text.size()));
  } else if (text.size() <= UINT8_MAX) {
    Tagged(kStr8, text.size(), 1);
  } else if (text.size() <= UINT16_MAX) {
    Tagged(kStr16, text.size(), 2);
  } else {
    Tagged(kStr32, text.size(), 4);
  }
  out_.append(text);
}

void MsgpackWriter::Binary(std::string_view bytes) {
  if (bytes.size() <= UINT8_MAX) {
    Tagged(kBin8, bytes.size(), 1);
  } else if (bytes.size() <= UINT16_MAX) {
    Tagged(kBin16, bytes.size(), 2);
  } else {
    Tagged(kBin32, bytes.size(), 4);
  }
  out_.append(bytes);
}

void MsgpackWriter::Count(size_t count, uint8_t fix, uint8_t tag16) {
  if (count < 16) {
    out_.push_back(static_cast<char>(fix | count));
  } else if (count <= UINT16_MAX) {
    Tagged(tag16, count, 2);
  } else {
    Tagged(tag16 + 1, count, 4);
  }
}

}  // namespace llmd::wire
