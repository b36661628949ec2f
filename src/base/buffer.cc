#include "base/buffer.h"

#include <bit>
#include <cstdlib>
#include <cstring>
#include <new>

#include "base/check.h"

namespace llmd::base {

namespace {

// Where in its page the data of a Block of kPlacedFromBytes or more begins. When little else is
// under way, a message received and the one sent for it both begin at the start of a kernel page,
// and the sent one is longer by some headers. AMD's copy instruction takes 16 times as long when
// the target's place within its page lies 1 to 15 bytes behind the source's: with Blocks that began
// at byte 128, any head that grew by 129 to 143 bytes, an ordinary one, made the kernel copy the
// whole body at 3.5 GB/s. Half a page away no usual growth does that.
constexpr size_t kPageOffset = 2048;
constexpr size_t kPlacedFromBytes = 16 << 10;
constexpr size_t kPageBytes = 4096;
constexpr size_t kLineBytes = 64;

size_t BytesBeforeData(size_t capacity) {
  return capacity >= kPlacedFromBytes ? kPageOffset : Block::kHeaderBytes;
}

void FreeBlock(Block* block) { std::free(block->data() - BytesBeforeData(block->capacity())); }

}  // namespace

void Slice::Release(Block* block) { block->pool_->Put(block); }

BufferPool::~BufferPool() {
  LLMD_CHECK(live_bytes_ == 0, "a Slice outlived its BufferPool");
  for (Block* block : free_) {
    while (block) FreeBlock(std::exchange(block, block->next_free_));
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
  const size_t before = BytesBeforeData(capacity);
  const size_t alignment = before == kPageOffset ? kPageBytes : kLineBytes;
  const size_t rounded = (before + capacity + alignment - 1) & ~(alignment - 1);
  char* memory = static_cast<char*>(std::aligned_alloc(alignment, rounded));
  LLMD_CHECK(memory != nullptr, "out of memory");
  Block* block = new (memory + before - Block::kHeaderBytes) Block;
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
    FreeBlock(block);
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
