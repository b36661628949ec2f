// ChunkCache: the ids of chunks of text seen before, least recently used ones thrown out.
//
// Chunks are found by a 128-bit hash of their text under a secret seed, so that nobody can make two
// that are mistaken for each other; the texts themselves are not kept.
//
// Thread safety: all functions may be called by any thread at any time; locks are held for one
// lookup or insertion each.
// Invariant: what is kept, its bookkeeping included, is never more than the budget.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/adaptive_mutex.h"

namespace llmd::text {

class ChunkCache {
 public:
  struct Key {
    uint64_t low;
    uint64_t high;
    bool operator==(const Key&) const = default;
  };
  struct Stats {
    uint64_t evicted = 0;
    size_t chunks = 0;
    size_t bytes = 0;
  };

  ChunkCache(size_t budget_bytes, uint64_t seed);

  Key KeyOf(std::string_view chunk) const;
  // Appends the ids of the chunk and returns true, or returns false.
  bool Append(const Key& key, std::vector<uint32_t>& ids);
  // A chunk that alone is over a shard's share of the budget is not kept.
  void Insert(const Key& key, std::span<const uint32_t> ids);
  Stats stats() const;

 private:
  static constexpr size_t kShards = 16;
  // The nodes of list and map and what the allocator adds to them.
  static constexpr size_t kOverheadBytes = 176;

  struct Chunk {
    Key key;
    size_t count;
    std::unique_ptr<uint32_t[]> ids;
    size_t bytes() const { return count * sizeof(uint32_t) + kOverheadBytes; }
  };
  struct Hash {
    size_t operator()(const Key& key) const { return key.low; }
  };
  struct Shard {
    mutable base::AdaptiveMutex mutex;
    std::list<Chunk> chunks;  // most recently used first
    std::unordered_map<Key, std::list<Chunk>::iterator, Hash> places;
    size_t bytes = 0;
    uint64_t evicted = 0;
  };

  Shard& ShardOf(const Key& key) { return shards_[key.high % kShards]; }

  size_t shard_budget_bytes_;
  uint64_t seed_;
  std::array<Shard, kShards> shards_;
};

}  // namespace llmd::text
