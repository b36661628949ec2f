#include "base/buffer.h"

#include <bit>
#include <cstdlib>
#include <cstring>
#include <new>

#include "base/check.h"

namespace llmd::base {

void Slice::Release(Block* block) { block->pool_->Put(block); }

BufferPool::~BufferPool() {
  LLMD_CHECK(live_bytes_ == 0, "a Slice outlived its BufferPool");
  for (Block* block : free_) {
    while (block) std::free(std::exchange(block, block->next_free_));
  }
}

Block* BufferPool::Get(size_t bytes) {
  size_t size_class = kClassCount;
  size_t capacity = bytes;
  if (bytes <= kLargestPooledBytes) {
    capacity = std::bit_ceil(bytes < kSmallestBytes ? kSmallestBytes : bytes);
    size_class = std::countr_zero(capacity) - std::countr_zero(kSmallestBytes);
    if (Block* block = free_[size_class]) {
      free_[size_class] = block->next_free_;
      kept_bytes_ -= block->capacity_;
      live_bytes_ += block->capacity_;
      return block;
    }
  }
  void* memory = std::aligned_alloc(64, Block::kHeaderBytes + ((capacity + 63) & ~size_t{63}));
  LLMD_CHECK(memory != nullptr, "out of memory");
  Block* block = new (memory) Block;
  block->size_class_ = static_cast<uint32_t>(size_class);
  block->capacity_ = capacity;
  block->pool_ = this;
  live_bytes_ += capacity;
  return block;
}

void BufferPool::Put(Block* block) {
  LLMD_DCHECK(block->refs_ == 0, "a Block was given back while a Slice refers to it");
  live_bytes_ -= block->capacity_;
  if (block->size_class_ == kClassCount || kept_bytes_ + block->capacity_ > kept_bytes_max_) {
    std::free(block);
    return;
  }
  block->next_free_ = free_[block->size_class_];
  free_[block->size_class_] = block;
  kept_bytes_ += block->capacity_;
}

Slice BufferPool::Copy(std::string_view bytes) {
  Block* block = Get(bytes.size());
  std::memcpy(block->data(), bytes.data(), bytes.size());
  return Slice(block, block->data(), bytes.size());
}

}  // namespace llmd::base
