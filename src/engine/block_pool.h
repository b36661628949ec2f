// The paged KV memory of one engine: blocks with reference counts, found by content hash, given out
// least recently used first. After vLLM V1 (v1/core/block_pool.py, kv_cache_utils.py).
//
// A block that nobody holds stays findable until its memory is given out again: that is the prefix
// cache. All operations are O(1) per block and allocate nothing.
//
// Thread safety: none.
// Invariants:
//  1. A block is in the free list exactly when its reference count is 0.
//  2. free_count() + blocks with a reference = size().
//  3. A block is in the hash table exactly when it has a hash; several blocks may have the same
//     hash (a recomputed last block has), Find then gives the one registered first.
// Limit: the block count is fixed at construction.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace llmd::engine {

using BlockId = uint32_t;
inline constexpr BlockId kNoBlock = UINT32_MAX;

class BlockPool {
 public:
  explicit BlockPool(uint32_t block_count);

  uint32_t size() const { return static_cast<uint32_t>(blocks_.size()); }
  uint32_t free_count() const { return free_count_; }
  // Blocks that lost their content to a new owner.
  uint64_t evictions() const { return evictions_; }

  // Takes `n` blocks off the cold end of the free list, each with one reference and no hash, and
  // appends them to `out`. Needs n <= free_count(). Those that lost their content are appended to
  // `evicted` too, in order; hash_of still tells what it was.
  void Allocate(uint32_t n, std::vector<BlockId>* out, std::vector<BlockId>* evicted = nullptr);
  BlockId Find(uint64_t hash) const;
  bool IsFree(BlockId block) const { return blocks_[block].references == 0; }
  // One more reference; a free block leaves the free list.
  void Hold(BlockId block);
  // Names the content of a held block that has no hash yet.
  void Register(BlockId block, uint64_t hash);
  // One reference less for every block of a sequence. Blocks that become free go to the warm end of
  // the free list, last block first: so the tail of a prefix is evicted before its head.
  void Release(std::span<const BlockId> sequence);

  // No block can be found any more; references stay.
  void ForgetAll();

  uint32_t references(BlockId block) const { return blocks_[block].references; }
  bool hashed(BlockId block) const { return blocks_[block].hashed; }
  uint64_t hash_of(BlockId block) const { return blocks_[block].hash; }
  // CHECKs the invariants in O(size()).
  void VerifyForTest() const;

 private:
  struct Block {
    uint64_t hash = 0;
    uint32_t references = 0;
    BlockId colder = kNoBlock;  // neighbours in the free list
    BlockId warmer = kNoBlock;
    BlockId next_in_bucket = kNoBlock;
    bool hashed = false;
  };

  uint32_t BucketOf(uint64_t hash) const { return static_cast<uint32_t>(hash) & bucket_mask_; }
  void PushWarm(BlockId id);
  void Unlink(BlockId id);
  void Forget(BlockId id);

  std::vector<Block> blocks_;
  std::vector<BlockId> buckets_;
  uint32_t bucket_mask_;
  BlockId coldest_ = kNoBlock;
  BlockId warmest_ = kNoBlock;
  uint32_t free_count_ = 0;
  uint64_t evictions_ = 0;
};

}  // namespace llmd::engine
