#include "base/uuid.h"

namespace llmd::base {

std::string_view WriteUuid(uint64_t high, uint64_t low, std::span<char, kUuidBytes> out) {
  static constexpr char kHex[] = "0123456789abcdef";
  high = (high & ~uint64_t{0xf000}) | 0x4000;             // version 4
  low = (low & ~(uint64_t{3} << 62)) | uint64_t{2} << 62;  // variant of RFC 9562
  size_t at = 0;
  for (int digit = 0; digit < 32; ++digit) {
    if (digit == 8 || digit == 12 || digit == 16 || digit == 20) out[at++] = '-';
    const uint64_t half = digit < 16 ? high : low;
    out[at++] = kHex[half >> (60 - 4 * (digit % 16)) & 15];
  }
  return {out.data(), out.size()};
}

}  // namespace llmd::base
