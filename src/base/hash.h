// Hashing of bytes. Values are not stable across releases of llmd unless the name says the
// algorithm.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace llmd::base {

// XXH3, 64 bits, unseeded (seeded XXH3 is 1.7 times slower above 240 bytes).
uint64_t Hash64(std::string_view bytes);
// The classic xxh64 that upstream's hash chains use.
uint64_t XxHash64(std::string_view bytes, uint64_t seed);

// Mixes two 64-bit values into one; not commutative.
constexpr uint64_t Mix64(uint64_t a, uint64_t b) {
  uint64_t z = (a ^ 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u ^ b;
  z = (z ^ (z >> 32)) * 0x94d049bb133111ebu;
  return z ^ (z >> 29);
}

}  // namespace llmd::base
