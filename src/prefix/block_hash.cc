#include "prefix/block_hash.h"

#include <algorithm>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace llmd::prefix {
namespace {

#if defined(__x86_64__)

constexpr size_t kLanes = 4;
constexpr size_t kStripeBytes = kLanes * 16;

// Digits of pi, 16 bytes per lane: numbers without structure that nobody chose.
alignas(16) constexpr uint64_t kKeys[2 * kLanes + 4] = {
    0x243f6a8885a308d3u, 0x13198a2e03707344u, 0xa4093822299f31d0u, 0x082efa98ec4e6c89u,
    0x452821e638d01377u, 0xbe5466cf34e90c6cu, 0xc0ac29b7c97c50ddu, 0x3f84d5b5b5470917u,
    0x9216d5d98979fb1bu, 0xd1310ba698dfb5acu, 0x2ffd72dbd01adfb7u, 0xb8e1afed6a267e96u,
};

[[gnu::target("aes,sse4.1")]] inline __m128i Key(size_t i) {
  return _mm_load_si128(reinterpret_cast<const __m128i*>(kKeys) + i);
}

// Two rounds per word: one changed byte reaches all sixteen before the next word of the lane comes
// in. One round would leave it in four, and two texts that differ in just the right five bytes
// would meet again.
[[gnu::target("aes,sse4.1")]] inline __m128i Absorb(__m128i lane, __m128i word) {
  return _mm_aesenc_si128(_mm_aesenc_si128(_mm_xor_si128(lane, word), Key(4)), Key(5));
}

[[gnu::target("avx512f,vaes,aes")]] inline __m512i AbsorbWide(__m512i lanes, __m512i words,
                                                              __m512i key4, __m512i key5) {
  lanes = _mm512_xor_si512(lanes, words);
  return _mm512_aesenc_epi128(_mm512_aesenc_epi128(lanes, key4), key5);
}

// One operand enters as data, the other as round key, so that swapping them changes the result.
[[gnu::target("aes,sse4.1")]] inline __m128i Merge(__m128i a, __m128i b) {
  return _mm_aesenc_si128(_mm_aesenc_si128(a, b), Key(4));
}

[[gnu::target("aes,sse4.1")]] inline uint64_t Fold(__m128i a, __m128i b, __m128i c, __m128i d,
                                                   __m128i length) {
  const __m128i all = Absorb(Merge(Merge(a, b), Merge(c, d)), length);
  return static_cast<uint64_t>(_mm_cvtsi128_si64(all)) ^
         static_cast<uint64_t>(_mm_extract_epi64(all, 1));
}

[[gnu::target("aes,sse4.1")]] inline __m128i Load(const char* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}

[[gnu::target("aes,sse4.1")]] uint64_t HashAes(const char* data, size_t size) {
  // The length goes into every lane's start, so that padding a tail is not ambiguous.
  const __m128i length = _mm_set1_epi64x(static_cast<int64_t>(size));
  __m128i lane[kLanes];
  for (size_t i = 0; i < kLanes; ++i) lane[i] = _mm_add_epi64(Key(i), length);

  const char* end = data + size;
  for (; data + kStripeBytes <= end; data += kStripeBytes) {
    for (size_t i = 0; i < kLanes; ++i) lane[i] = Absorb(lane[i], Load(data + 16 * i));
  }
  if (data < end) {
    alignas(16) char tail[kStripeBytes] = {};
    std::memcpy(tail, data, static_cast<size_t>(end - data));
    for (size_t i = 0; i < kLanes; ++i) lane[i] = Absorb(lane[i], Load(tail + 16 * i));
  }

  return Fold(lane[0], lane[1], lane[2], lane[3], length);
}

// The same values: what are four lanes there are the four quarters of one register here.
[[gnu::target("avx512f,vaes,aes,sse4.1")]] uint64_t HashWideAes(const char* data, size_t size) {
  const __m128i length = _mm_set1_epi64x(static_cast<int64_t>(size));
  const __m512i key4 = _mm512_broadcast_i32x4(Key(4));
  const __m512i key5 = _mm512_broadcast_i32x4(Key(5));
  __m512i lanes =
      _mm512_add_epi64(_mm512_loadu_si512(kKeys), _mm512_set1_epi64(static_cast<int64_t>(size)));

  const char* end = data + size;
  for (; data + kStripeBytes <= end; data += kStripeBytes) {
    lanes = AbsorbWide(lanes, _mm512_loadu_si512(data), key4, key5);
  }
  if (data < end) {
    alignas(64) char tail[kStripeBytes] = {};
    std::memcpy(tail, data, static_cast<size_t>(end - data));
    lanes = AbsorbWide(lanes, _mm512_load_si512(tail), key4, key5);
  }
  return Fold(_mm512_castsi512_si128(lanes), _mm512_extracti32x4_epi32(lanes, 1),
              _mm512_extracti32x4_epi32(lanes, 2), _mm512_extracti32x4_epi32(lanes, 3), length);
}

// The loop around it too, so that keys stay in registers from block to block.
[[gnu::target("avx512f,vaes,aes,sse4.1"), gnu::flatten]] BlockHash ChainWideAes(
    BlockHash parent, const char* data, size_t block_bytes, size_t count, BlockHash* out) {
  for (size_t i = 0; i < count; ++i) {
    parent = base::Mix64(parent, HashWideAes(data + i * block_bytes, block_bytes));
    out[i] = parent;
  }
  return parent;
}

#endif

uint64_t HashXxh3(const char* data, size_t size) { return base::Hash64({data, size}); }

template <uint64_t (*kContent)(const char*, size_t)>
BlockHash Chain(BlockHash parent, const char* data, size_t block_bytes, size_t count,
                BlockHash* out) {
  for (size_t i = 0; i < count; ++i) {
    parent = base::Mix64(parent, kContent(data + i * block_bytes, block_bytes));
    out[i] = parent;
  }
  return parent;
}

constexpr HashKernel kKernels[] = {
#if defined(__x86_64__)
    {"vaes", HashWideAes, ChainWideAes},
    {"aes", HashAes, Chain<HashAes>},
#endif
    {"xxh3", HashXxh3, Chain<HashXxh3>},
};

// Of kKernels.
size_t FirstKernel() {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("aes") || !__builtin_cpu_supports("sse4.1")) return 2;
  return __builtin_cpu_supports("vaes") && __builtin_cpu_supports("avx512f") ? 0 : 1;
#else
  return 0;
#endif
}

const HashKernel& BestKernel() {
  static const HashKernel& best = kKernels[FirstKernel()];
  return best;
}

}  // namespace

std::span<const HashKernel> HashKernels() { return std::span(kKernels).subspan(FirstKernel()); }

void PromptHasher::EmitBlocks(const char* data, size_t size, size_t count) {
  parent_ = BestKernel().chain(parent_, data, size, count, out_.data() + count_);
  count_ += count;
}

void PromptHasher::Append(std::string_view bytes) {
  if (full()) return;
  if (staged_ > 0) {
    const size_t n = std::min(bytes.size(), block_bytes_ - staged_);
    std::memcpy(staging_ + staged_, bytes.data(), n);
    staged_ += n;
    bytes.remove_prefix(n);
    if (staged_ < block_bytes_) return;
    Emit(staging_, block_bytes_);
    staged_ = 0;
  }
  const size_t whole = std::min(bytes.size() / block_bytes_, out_.size() - count_);
  EmitBlocks(bytes.data(), block_bytes_, whole);
  bytes.remove_prefix(whole * block_bytes_);
  if (full() || bytes.empty()) return;
  std::memcpy(staging_, bytes.data(), bytes.size());
  staged_ = bytes.size();
}

void PromptHasher::AlignToToken() {
  static constexpr char kZeros[kBytesPerToken] = {};
  const size_t over = staged_ % kBytesPerToken;
  if (over != 0) Append({kZeros, kBytesPerToken - over});
}

void PromptHasher::AppendTokens(uint32_t token, uint64_t count) {
  char bytes[64 * kBytesPerToken];
  const size_t filled = std::min<uint64_t>(count, 64);
  for (size_t i = 0; i < filled * kBytesPerToken; ++i) {
    bytes[i] = static_cast<char>(token >> (8 * (i % kBytesPerToken)));
  }
  while (count > 0 && !full()) {
    const size_t n = std::min<uint64_t>(count, filled);
    Append({bytes, n * kBytesPerToken});
    count -= n;
  }
}

std::span<BlockHash> PromptHasher::Finish() {
  if (staged_ > 0 && !full()) Emit(staging_, staged_);
  staged_ = 0;
  return out_.first(count_);
}

}  // namespace llmd::prefix
