#include "engine/block_pool.h"

#include <algorithm>
#include <bit>

#include "base/check.h"

namespace llmd::engine {

BlockPool::BlockPool(uint32_t block_count)
    : blocks_(block_count),
      buckets_(std::bit_ceil(block_count + 1), kNoBlock),
      bucket_mask_(static_cast<uint32_t>(buckets_.size()) - 1) {
  for (BlockId id = 0; id < block_count; ++id) PushWarm(id);
}

void BlockPool::Allocate(uint32_t n, std::vector<BlockId>* out, std::vector<BlockId>* evicted) {
  LLMD_CHECK(n <= free_count_, "more blocks asked for than are free");
  for (; n > 0; --n) {
    const BlockId id = coldest_;
    Unlink(id);
    if (blocks_[id].hashed) {
      Forget(id);
      ++evictions_;
      if (evicted != nullptr) evicted->push_back(id);
    }
    blocks_[id].references = 1;
    out->push_back(id);
  }
}

BlockId BlockPool::Find(uint64_t hash) const {
  BlockId id = buckets_[BucketOf(hash)];
  while (id != kNoBlock && blocks_[id].hash != hash) id = blocks_[id].next_in_bucket;
  return id;
}

void BlockPool::Hold(BlockId block) {
  if (blocks_[block].references++ == 0) Unlink(block);
}

void BlockPool::Register(BlockId block, uint64_t hash) {
  Block& b = blocks_[block];
  LLMD_DCHECK(!b.hashed && b.references > 0, "only a held block without a hash can get one");
  b.hash = hash;
  b.hashed = true;
  b.next_in_bucket = kNoBlock;
  BlockId* link = &buckets_[BucketOf(hash)];
  while (*link != kNoBlock) link = &blocks_[*link].next_in_bucket;
  *link = block;
}

void BlockPool::Release(std::span<const BlockId> sequence) {
  for (size_t i = sequence.size(); i-- > 0;) {
    Block& b = blocks_[sequence[i]];
    LLMD_DCHECK(b.references > 0, "released more often than held");
    if (--b.references == 0) PushWarm(sequence[i]);
  }
}

void BlockPool::ForgetAll() {
  std::ranges::fill(buckets_, kNoBlock);
  for (Block& block : blocks_) block.hashed = false;
}

void BlockPool::PushWarm(BlockId id) {
  Block& b = blocks_[id];
  b.colder = warmest_;
  b.warmer = kNoBlock;
  (warmest_ == kNoBlock ? coldest_ : blocks_[warmest_].warmer) = id;
  warmest_ = id;
  ++free_count_;
}

void BlockPool::Unlink(BlockId id) {
  Block& b = blocks_[id];
  (b.colder == kNoBlock ? coldest_ : blocks_[b.colder].warmer) = b.warmer;
  (b.warmer == kNoBlock ? warmest_ : blocks_[b.warmer].colder) = b.colder;
  --free_count_;
}

void BlockPool::Forget(BlockId id) {
  BlockId* link = &buckets_[BucketOf(blocks_[id].hash)];
  while (*link != id) link = &blocks_[*link].next_in_bucket;
  *link = blocks_[id].next_in_bucket;
  blocks_[id].hashed = false;
}

void BlockPool::VerifyForTest() const {
  std::vector<bool> listed(blocks_.size());
  uint32_t free = 0;
  BlockId previous = kNoBlock;
  for (BlockId id = coldest_; id != kNoBlock; previous = id, id = blocks_[id].warmer) {
    LLMD_CHECK(!listed[id], "block twice in the free list");
    LLMD_CHECK(blocks_[id].references == 0, "held block in the free list");
    LLMD_CHECK(blocks_[id].colder == previous, "free list links disagree");
    listed[id] = true;
    ++free;
  }
  LLMD_CHECK(previous == warmest_, "warm end is not the end");
  LLMD_CHECK(free == free_count_, "free count disagrees with the free list");
  uint32_t hashed = 0;
  for (BlockId head : buckets_) {
    for (BlockId id = head; id != kNoBlock; id = blocks_[id].next_in_bucket) {
      LLMD_CHECK(blocks_[id].hashed, "block without a hash in the table");
      ++hashed;
    }
  }
  for (BlockId id = 0; id < blocks_.size(); ++id) {
    LLMD_CHECK(listed[id] == (blocks_[id].references == 0), "free block not in the free list");
    if (blocks_[id].hashed) --hashed;
  }
  LLMD_CHECK(hashed == 0, "hashed blocks and table entries differ");
}

}  // namespace llmd::engine
