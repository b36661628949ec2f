// The kernels for CPUs with AVX2 and carry-less multiplication (Intel since 2013, AMD since 2015).
// Headers come first: nothing of theirs may be compiled for a CPU that might not be there.
#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>

#include "wire/json_kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#pragma clang attribute push(__attribute__((target("avx2,bmi,bmi2,lzcnt,popcnt,pclmul"))), \
                             apply_to = function)

namespace llmd::wire::internal {
namespace {

struct Block {
  __m256i low;
  __m256i high;

  static Block Load(const char* p) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))};
  }
  static uint64_t Mask(__m256i low, __m256i high) {
    return static_cast<uint64_t>(static_cast<uint32_t>(_mm256_movemask_epi8(low))) |
           static_cast<uint64_t>(static_cast<uint32_t>(_mm256_movemask_epi8(high))) << 32;
  }
  uint64_t Eq(char c) const {
    const __m256i want = _mm256_set1_epi8(c);
    return Mask(_mm256_cmpeq_epi8(low, want), _mm256_cmpeq_epi8(high, want));
  }
  static __m256i AtMost(__m256i x, __m256i most) {
    return _mm256_cmpeq_epi8(_mm256_min_epu8(x, most), x);
  }
  uint64_t Less(uint8_t bound) const {
    const __m256i most = _mm256_set1_epi8(static_cast<char>(bound - 1));
    return Mask(AtMost(low, most), AtMost(high, most));
  }
  uint64_t Digits() const {
    const __m256i zero = _mm256_set1_epi8('0');
    const __m256i nine = _mm256_set1_epi8(9);
    return Mask(AtMost(_mm256_sub_epi8(low, zero), nine),
                AtMost(_mm256_sub_epi8(high, zero), nine));
  }
  Block Or20() const {
    const __m256i bit = _mm256_set1_epi8(0x20);
    return {_mm256_or_si256(low, bit), _mm256_or_si256(high, bit)};
  }
  // A quote, a backslash or a control character anywhere.
  bool AnySpecial() const {
    const __m256i any = _mm256_or_si256(Special(low), Special(high));
    return !_mm256_testz_si256(any, any);
  }
  static __m256i Special(__m256i x) {
    const __m256i text = _mm256_or_si256(_mm256_cmpeq_epi8(x, _mm256_set1_epi8('"')),
                                         _mm256_cmpeq_epi8(x, _mm256_set1_epi8('\\')));
    return _mm256_or_si256(text, AtMost(x, _mm256_set1_epi8(0x1f)));
  }
};

inline bool AnySpecialInFour(const char* p) {
  __m256i any = _mm256_setzero_si256();
  for (int i = 0; i < 4; ++i) {
    const Block block = Block::Load(p + 64 * i);
    any = _mm256_or_si256(any,
                          _mm256_or_si256(Block::Special(block.low), Block::Special(block.high)));
  }
  return !_mm256_testz_si256(any, any);
}

}  // namespace
}  // namespace llmd::wire::internal

#include "wire/json_kernels_clmul.h"
#include "wire/json_kernels_impl.h"

#pragma clang attribute pop

namespace llmd::wire::internal {

const JsonKernels kAvx2JsonKernels = {"avx2", StringEnd, ContainerEnd, NumbersEnd, LineEnd, Find};

}  // namespace llmd::wire::internal
#endif
