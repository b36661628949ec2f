// The kernels for CPUs with AVX-512 for bytes (Intel since 2017, AMD since 2022): a comparison of
// 64 bytes gives its mask at once. Headers come first: nothing of theirs may be compiled for a CPU
// that might not be there.
#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>

#include "wire/json_kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#pragma clang attribute push(                                                                 \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx2,bmi,bmi2,lzcnt,popcnt,pclmul"))), \
    apply_to = function)

namespace llmd::wire::internal {
namespace {

struct Block {
  __m512i bytes;

  static Block Load(const char* p) { return {_mm512_loadu_si512(p)}; }
  uint64_t Eq(char c) const { return _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(c)); }
  uint64_t Less(uint8_t bound) const {
    return _mm512_cmplt_epu8_mask(bytes, _mm512_set1_epi8(static_cast<char>(bound)));
  }
  uint64_t Digits() const {
    return _mm512_cmple_epu8_mask(_mm512_sub_epi8(bytes, _mm512_set1_epi8('0')),
                                  _mm512_set1_epi8(9));
  }
  Block Or20() const { return {_mm512_or_si512(bytes, _mm512_set1_epi8(0x20))}; }
  // A quote, a backslash or a control character anywhere.
  bool AnySpecial() const { return _mm512_testn_epi8_mask(ZeroIfSpecial(), ZeroIfSpecial()) != 0; }
  __m512i ZeroIfSpecial() const {
    const __m512i text = _mm512_min_epu8(_mm512_xor_si512(bytes, _mm512_set1_epi8('"')),
                                         _mm512_xor_si512(bytes, _mm512_set1_epi8('\\')));
    return _mm512_min_epu8(text, _mm512_subs_epu8(bytes, _mm512_set1_epi8(0x1f)));
  }
};

inline bool AnySpecialInFour(const char* p) {
  __m512i least = Block::Load(p).ZeroIfSpecial();
  for (int i = 1; i < 4; ++i) {
    least = _mm512_min_epu8(least, Block::Load(p + 64 * i).ZeroIfSpecial());
  }
  return _mm512_testn_epi8_mask(least, least) != 0;
}

}  // namespace
}  // namespace llmd::wire::internal

#include "wire/json_kernels_clmul.h"
#include "wire/json_kernels_impl.h"

#pragma clang attribute pop

namespace llmd::wire::internal {

const JsonKernels kAvx512JsonKernels = {"avx512",  StringEnd, ContainerEnd,
                                        NumbersEnd, LineEnd,   Find};

}  // namespace llmd::wire::internal

#endif
