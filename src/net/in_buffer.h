// Bytes received and not yet consumed: the block that recv fills, handed on as Slices.
//
// Thread safety: none.
// Invariants: 1. Unread bytes are contiguous. 2. Bytes once received do not change while a Slice
// covers them (growing copies unread bytes into a new block). 3. No block is held while there is
// nothing unread.
#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <string_view>

#include "base/buffer.h"

namespace llmd::net {

class InBuffer {
 public:
  explicit InBuffer(base::BufferPool& pool) : pool_(pool) {}

  // Free room behind the unread bytes: what is left of the present block when that is at least a
  // quarter of `wanted`, else of a fresh block of at least `wanted` bytes more than is unread.
  std::span<char> Room(size_t wanted) {
    if (!block_ || block_->capacity() - filled_ < (wanted + 3) / 4) Grow(wanted);
    return {block_->data() + filled_, block_->capacity() - filled_};
  }
  // `bytes` of the last Room were filled.
  void Filled(size_t bytes) {
    filled_ += bytes;
    DropIfEmpty();
  }
  std::string_view unread() const {
    return block_ ? std::string_view(block_->data() + begin_, filled_ - begin_)
                  : std::string_view();
  }
  bool empty() const { return begin_ == filled_; }
  // A view of unread bytes as a Slice that keeps them.
  base::Slice Share(std::string_view part) const {
    return base::Slice(block_, part.data(), part.size());
  }
  void Consume(size_t bytes) {
    begin_ += bytes;
    DropIfEmpty();
  }
  void Clear() { Consume(filled_ - begin_); }

 private:
  void DropIfEmpty() {
    if (begin_ != filled_) return;
    block_ = nullptr;
    hold_ = base::Slice();
    begin_ = filled_ = 0;
  }
  void Grow(size_t wanted) {
    const std::string_view rest = unread();
    base::Block* block = pool_.Get(rest.size() + wanted);
    if (!rest.empty()) std::memcpy(block->data(), rest.data(), rest.size());
    filled_ = rest.size();
    begin_ = 0;
    block_ = block;
    hold_ = base::Slice(block, block->data(), block->capacity());
  }

  base::BufferPool& pool_;
  base::Block* block_ = nullptr;
  base::Slice hold_;
  size_t begin_ = 0;
  size_t filled_ = 0;
};

}  // namespace llmd::net
