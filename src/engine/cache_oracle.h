// CacheOracle: the prefix hits that one cache of a given size would give if all requests went
// through it, one after the other. The yardstick for prefix-aware routing: N servers with good
// affinity come near to one cache of N times the size.
//
// A request touches all its full blocks; the least recently used block is evicted first, the tail
// of a prefix before its head, as in the engine. Nothing is ever held, so an engine, which cannot
// evict what it is using, can only do worse.
//
// Thread safety: none. Memory: about 60 bytes per block.
#pragma once

#include <cstdint>
#include <list>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/block_hash.h"

namespace llmd::engine {

class CacheOracle {
 public:
  // `blocks_max` > 0 blocks of `block_tokens` tokens.
  CacheOracle(size_t blocks_max, uint32_t block_tokens)
      : blocks_max_(blocks_max), block_tokens_(block_tokens) {}

  // Number of the prompt's tokens that are found; then the cache holds all its full blocks.
  uint32_t Access(std::span<const Token> prompt);

  uint64_t queried_tokens() const { return queried_tokens_; }
  uint64_t hit_tokens() const { return hit_tokens_; }
  double hit_ratio() const {
    return queried_tokens_ == 0 ? 0 : static_cast<double>(hit_tokens_) / queried_tokens_;
  }

 private:
  const size_t blocks_max_;
  const uint32_t block_tokens_;
  std::list<uint64_t> by_age_;  // coldest first
  std::unordered_map<uint64_t, std::list<uint64_t>::iterator> place_;
  std::vector<uint64_t> hashes_;
  uint64_t queried_tokens_ = 0;
  uint64_t hit_tokens_ = 0;
};

}  // namespace llmd::engine
