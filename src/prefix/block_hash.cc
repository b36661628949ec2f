#include "prefix/block_hash.h"

#include <algorithm>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace llmd::prefix {

#if defined(__x86_64__)

namespace {

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

// One operand enters as data, the other as round key, so that swapping them changes the result.
[[gnu::target("aes,sse4.1")]] inline __m128i Merge(__m128i a, __m128i b) {
  return _mm_aesenc_si128(_mm_aesenc_si128(a, b), Key(4));
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

  const __m128i halves = Merge(Merge(lane[0], lane[1]), Merge(lane[2], lane[3]));
  const __m128i c = Absorb(halves, length);
  return static_cast<uint64_t>(_mm_cvtsi128_si64(c)) ^
         static_cast<uint64_t>(_mm_extract_epi64(c, 1));
}

}  // namespace

bool HasAesKernel() { return __builtin_cpu_supports("aes") && __builtin_cpu_supports("sse4.1"); }
uint64_t HashContentAes(const char* data, size_t size) { return HashAes(data, size); }

#else

bool HasAesKernel() { return false; }
uint64_t HashContentAes(const char* data, size_t size) { return HashContentPortable(data, size); }

#endif

uint64_t HashContentPortable(const char* data, size_t size) { return base::Hash64({data, size}); }

uint64_t HashContent(const char* data, size_t size) {
  static const bool aes = HasAesKernel();
  return aes ? HashContentAes(data, size) : HashContentPortable(data, size);
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
  while (bytes.size() >= block_bytes_ && !full()) {
    Emit(bytes.data(), block_bytes_);
    bytes.remove_prefix(block_bytes_);
  }
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
