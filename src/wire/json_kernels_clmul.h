// PrefixXor of the kernels for CPUs with carry-less multiplication: included, as
// json_kernels_impl.h is, where code for such a CPU is compiled.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace llmd::wire::internal {
namespace {

// Bit i becomes the parity of bits 0 to i.
inline uint64_t PrefixXor(uint64_t mask) {
  const __m128i product = _mm_clmulepi64_si128(_mm_set_epi64x(0, static_cast<long long>(mask)),
                                               _mm_set1_epi8(-1), 0);
  return static_cast<uint64_t>(_mm_cvtsi128_si64(product));
}

}  // namespace
}  // namespace llmd::wire::internal
