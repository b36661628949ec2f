// Hash chain over the tokens of a prompt: one 64-bit value per full block, each covering every
// token before it, as in vLLM. Equal chains mean equal prefixes up to a 64-bit collision (about
// 3e-8 for a million distinct blocks). Private to the model: engines on the wire use their own
// hashes.
//
// Pure and thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/hash.h"

namespace llmd::engine {

using Token = uint32_t;

// The parent of the first block. `salt` keeps tenants with a cache salt apart; 0 is none.
constexpr uint64_t RootHash(uint64_t seed, uint64_t salt) { return base::Mix64(seed, salt); }

inline uint64_t ChainHash(uint64_t parent, std::span<const Token> block) {
  return base::Mix64(parent, base::Hash64({reinterpret_cast<const char*>(block.data()),
                                           block.size_bytes()}));
}

// Appends the hashes of all full blocks of `tokens` to `out`.
inline void HashBlocks(uint64_t root, std::span<const Token> tokens, uint32_t block_tokens,
                       std::vector<uint64_t>* out) {
  uint64_t parent = root;
  for (size_t i = 0; i + block_tokens <= tokens.size(); i += block_tokens) {
    parent = ChainHash(parent, tokens.subspan(i, block_tokens));
    out->push_back(parent);
  }
}

}  // namespace llmd::engine
