// The baseline kernels: SSE2, which every x86-64 has; on other CPUs the compiler's vectors of
// bytes.
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace llmd::wire::internal {
namespace {

#if defined(__SSE2__)
struct Block {
  __m128i v[4];

  static Block Load(const char* p) {
    Block b;
    for (int i = 0; i < 4; ++i) {
      b.v[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 16 * i));
    }
    return b;
  }
  template <class F>
  uint64_t Mask(F f) const {
    uint64_t mask = 0;
    for (int i = 0; i < 4; ++i) {
      mask |= static_cast<uint64_t>(static_cast<uint32_t>(_mm_movemask_epi8(f(v[i])))) << (16 * i);
    }
    return mask;
  }
  uint64_t Eq(char c) const {
    const __m128i want = _mm_set1_epi8(c);
    return Mask([=](__m128i x) { return _mm_cmpeq_epi8(x, want); });
  }
  uint64_t Less(uint8_t bound) const {
    const __m128i most = _mm_set1_epi8(static_cast<char>(bound - 1));
    return Mask([=](__m128i x) { return _mm_cmpeq_epi8(_mm_min_epu8(x, most), x); });
  }
  uint64_t Digits() const {
    const __m128i zero = _mm_set1_epi8('0');
    const __m128i nine = _mm_set1_epi8(9);
    return Mask([=](__m128i x) {
      const __m128i value = _mm_sub_epi8(x, zero);
      return _mm_cmpeq_epi8(_mm_min_epu8(value, nine), value);
    });
  }
  Block Or20() const {
    Block b;
    for (int i = 0; i < 4; ++i) b.v[i] = _mm_or_si128(v[i], _mm_set1_epi8(0x20));
    return b;
  }
  // A quote, a backslash or a control character anywhere.
  bool AnySpecial() const {
    const __m128i quote = _mm_set1_epi8('"');
    const __m128i backslash = _mm_set1_epi8('\\');
    const __m128i control = _mm_set1_epi8(0x1f);
    __m128i any = _mm_setzero_si128();
    for (const __m128i x : v) {
      any = _mm_or_si128(any, _mm_or_si128(_mm_cmpeq_epi8(x, quote), _mm_cmpeq_epi8(x, backslash)));
      any = _mm_or_si128(any, _mm_cmpeq_epi8(_mm_min_epu8(x, control), x));
    }
    return _mm_movemask_epi8(any) != 0;
  }
};
#else
struct Block {
  uint8_t v[64];

  static Block Load(const char* p) {
    Block b;
    std::memcpy(b.v, p, sizeof(b.v));
    return b;
  }
  template <class F>
  uint64_t Mask(F f) const {
    uint64_t mask = 0;
    for (int i = 0; i < 64; ++i) mask |= uint64_t{f(v[i])} << i;
    return mask;
  }
  uint64_t Eq(char c) const {
    return Mask([c](uint8_t x) { return x == static_cast<uint8_t>(c); });
  }
  uint64_t Less(uint8_t bound) const {
    return Mask([bound](uint8_t x) { return x < bound; });
  }
  uint64_t Digits() const {
    return Mask([](uint8_t x) { return static_cast<uint8_t>(x - '0') <= 9; });
  }
  Block Or20() const {
    Block b;
    for (int i = 0; i < 64; ++i) b.v[i] = v[i] | 0x20;
    return b;
  }
  bool AnySpecial() const {
    bool any = false;
    for (const uint8_t x : v) any |= (x == '"') | (x == '\\') | (x < 0x20);
    return any;
  }
};
#endif

inline bool AnySpecialInFour(const char* p) {
  bool any = false;
  for (int i = 0; i < 4; ++i) any |= Block::Load(p + 64 * i).AnySpecial();
  return any;
}

// Bit i becomes the parity of bits 0 to i.
inline uint64_t PrefixXor(uint64_t mask) {
  for (int shift = 1; shift < 64; shift *= 2) mask ^= mask << shift;
  return mask;
}

}  // namespace
}  // namespace llmd::wire::internal

#include "wire/json_kernels_impl.h"

namespace llmd::wire::internal {

const JsonKernels kSse2JsonKernels = {"sse2", StringEnd, ContainerEnd, NumbersEnd, LineEnd, Find};

}  // namespace llmd::wire::internal
