// Reference-counted byte buffers: how bodies travel without copies.
//
// A Block is a pooled run of bytes that a socket read fills. A Slice is a view into a Block that
// keeps it alive. Bodies are sequences of Slices: scanning, hashing, splicing and the gather write
// all look at the same bytes.
//
// Thread safety: none. A BufferPool, its Blocks and their Slices belong to one worker.
// Invariants: 1. A Block returns to its pool (or the heap) when its last Slice dies. 2. Bytes of a
// Block that a Slice covers are never changed again. 3. A pool outlives its Blocks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace llmd::base {

class BufferPool;

class Block {
 public:
  char* data() { return reinterpret_cast<char*>(this) + kHeaderBytes; }
  const char* data() const { return reinterpret_cast<const char*>(this) + kHeaderBytes; }
  size_t capacity() const { return capacity_; }

  static constexpr size_t kHeaderBytes = 64;  // keeps data() on a cache line of its own

 private:
  friend class BufferPool;
  friend class Slice;
  Block() = default;

  uint32_t refs_ = 0;
  uint32_t size_class_ = 0;
  size_t capacity_ = 0;
  BufferPool* pool_ = nullptr;
  Block* next_free_ = nullptr;
};

class Slice {
 public:
  Slice() = default;
  // `data` must lie inside `block`.
  Slice(Block* block, const char* data, size_t size) : block_(block), data_(data), size_(size) {
    if (block_) ++block_->refs_;
  }
  Slice(const Slice& o) : Slice(o.block_, o.data_, o.size_) {}
  Slice(Slice&& o) noexcept
      : block_(std::exchange(o.block_, nullptr)),
        data_(std::exchange(o.data_, nullptr)),
        size_(std::exchange(o.size_, 0)) {}
  Slice& operator=(Slice o) noexcept {
    std::swap(block_, o.block_);
    std::swap(data_, o.data_);
    std::swap(size_, o.size_);
    return *this;
  }
  ~Slice() {
    if (block_ && --block_->refs_ == 0) Release(block_);
  }
  // Views bytes that need no owner (string literals, storage that outlives the Slice).
  static Slice Unowned(std::string_view bytes) {
    return Slice(nullptr, bytes.data(), bytes.size());
  }

  const char* data() const { return data_; }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  std::string_view view() const { return {data_, size_}; }
  Slice Sub(size_t offset, size_t size) const { return Slice(block_, data_ + offset, size); }
  void RemovePrefix(size_t n) {
    data_ += n;
    size_ -= n;
  }

 private:
  static void Release(Block* block);

  Block* block_ = nullptr;
  const char* data_ = nullptr;
  size_t size_ = 0;
};

// Keeps free Blocks by size class (powers of two from 4 KiB to 256 KiB, larger ones come from and
// go back to the heap). Keeps at most `kept_bytes_max` of free memory.
class BufferPool {
 public:
  static constexpr size_t kSmallestBytes = 4 << 10;
  static constexpr size_t kLargestPooledBytes = 256 << 10;
  static constexpr size_t kClassCount = 7;  // 4, 8, 16, 32, 64, 128, 256 KiB

  explicit BufferPool(size_t kept_bytes_max = 32u << 20) : kept_bytes_max_(kept_bytes_max) {}
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  // A Block of at least `bytes`, its content undefined. The caller wraps it in a Slice or gives it
  // back with Put before anything else refers to it.
  Block* Get(size_t bytes);
  void Put(Block* block);
  // A Slice over a fresh copy of `bytes`.
  Slice Copy(std::string_view bytes);

  size_t live_bytes() const { return live_bytes_; }  // capacity handed out and not yet back
  size_t kept_bytes() const { return kept_bytes_; }

 private:
  size_t kept_bytes_max_;
  size_t kept_bytes_ = 0;
  size_t live_bytes_ = 0;
  Block* free_[kClassCount] = {};
};

}  // namespace llmd::base
