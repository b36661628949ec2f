// Block hashes: a prompt's bytes as a chain of 64-bit values, one per block, each covering every
// byte before it. Equal values mean equal prefixes, so where two chains agree at one place they
// agree at all places before it; the index leans on that.
//
// A block is `block_bytes` of content; the estimate of four bytes per token makes a block of 64
// tokens 256 bytes. The last block may be shorter. Counts of blocks, and so of matches, are those
// of the chain upstream computes (dataproducer/prefixhash) over the same bytes: content hash per
// block, mixed with the hash before it, the first with model and cache salt. The values differ:
// they are private to one process, and to a processor kind, since the kernel is picked at run time.
//
// Not for secrets: content is hashed unseeded, and whoever can send prompts could construct two
// that share a hash. All they gain is a request routed to a server that lacks its prefix.
//
// Thread safety: functions are pure; a PromptHasher belongs to one thread.
// Invariants: 1. The hashes depend on the bytes only, not on how Append cut them. 2. Nothing is
// allocated. 3. Hashing stops when `out` is full; the rest is ignored.
// Limits: kBlockBytesMax. Cost (prefix_bench.cc, one EPYC core): 128 KiB in blocks of 256 bytes
// take 2.8 us with AES rounds on 64 bytes at a time, 5.7 us on 16, 13.5 us with XXH3.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/hash.h"

namespace llmd::prefix {

using BlockHash = uint64_t;

inline constexpr size_t kBytesPerToken = 4;
// 8,192 tokens: far above any engine's block, small enough to stage in a request's arena.
inline constexpr size_t kBlockBytesMax = 32 << 10;

// The value before the first block: different models and salts never share blocks.
inline uint64_t ChainSeed(std::string_view model, std::string_view cache_salt) {
  return base::Mix64(base::Hash64(model), base::Hash64(cache_salt));
}

// How content is hashed: "vaes" with AES rounds on 64 bytes at a time, "aes" on 16 (the values are
// the same), "xxh3" where the processor has neither.
struct HashKernel {
  std::string_view name;
  uint64_t (*content)(const char* data, size_t size);
  // `count` blocks that lie one behind the other, behind one of hash `parent`: writes their hashes
  // and returns the last (`parent` when there is none).
  BlockHash (*chain)(BlockHash parent, const char* data, size_t block_bytes, size_t count,
                     BlockHash* out);
};
// Those that this processor has, the fastest first.
std::span<const HashKernel> HashKernels();

class PromptHasher {
 public:
  // `staging` holds at least `block_bytes`; both spans outlive the hasher. `block_bytes` is a
  // positive multiple of kBytesPerToken, at most kBlockBytesMax.
  PromptHasher(uint64_t seed, size_t block_bytes, std::span<BlockHash> out, std::span<char> staging)
      : parent_(seed), block_bytes_(block_bytes), out_(out), staging_(staging.data()) {}

  void Append(std::string_view bytes);
  // Pads with zero bytes to a whole token.
  void AlignToToken();
  // `count` tokens of value `token`, least significant byte first.
  void AppendTokens(uint32_t token, uint64_t count);
  // Closes the chain with the partial block, if there is one, and returns all hashes.
  std::span<BlockHash> Finish();
  bool full() const { return count_ == out_.size(); }

 private:
  void Emit(const char* data, size_t size) { EmitBlocks(data, size, 1); }
  void EmitBlocks(const char* data, size_t size, size_t count);

  uint64_t parent_;
  size_t block_bytes_;
  std::span<BlockHash> out_;
  char* staging_;
  size_t staged_ = 0;
  size_t count_ = 0;
};

}  // namespace llmd::prefix
