// Block hashes as vLLM computes and publishes them (v1/core/kv_cache_utils.py, utils/hashing.py):
//
//   root  = H(cbor(seed text)), or 32 random bytes without a seed (PYTHONHASHSEED)
//   block = H(cbor([parent digest, [tokens], extra]))
//
// with canonical CBOR; `extra` is null, or for the first block of a prompt with a cache salt
// [["cache_salt", salt]]. sha256_cbor has 32 bytes, xxhash_cbor (XXH3-128) 16. Events carry the
// digest, or its last 8 bytes as a big-endian integer. vLLM's default, sha256, hashes Python
// pickles, which only Python makes.
//
// Thread safety: none (scratch memory). Cost: about half a microsecond per block of 16 tokens.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "engine/block_hash.h"

namespace llmd::engine {

enum class WireHashKind : uint8_t { kSha256Cbor, kXxhashCbor };
// vLLM's names: "sha256_cbor", "xxhash_cbor".
std::optional<WireHashKind> ParseWireHashKind(std::string_view name);

// The first digest_bytes() of the hasher count, the rest is 0.
using Digest = std::array<char, 32>;

class WireHasher {
 public:
  // Without `seed` the root comes from `random`.
  WireHasher(WireHashKind kind, const std::optional<std::string>& seed, uint64_t random);
  ~WireHasher();

  size_t digest_bytes() const;
  const Digest& root() const { return root_; }
  // `salt` only for the first block of a prompt.
  Digest Chain(const Digest& parent, std::span<const Token> block, std::string_view salt = "");
  // The integer of an event.
  uint64_t KeyOf(const Digest& digest) const;

 private:
  struct Impl;

  const WireHashKind kind_;
  std::string scratch_;
  std::unique_ptr<Impl> impl_;
  Digest root_{};
};

}  // namespace llmd::engine
