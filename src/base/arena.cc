#include "base/arena.h"

#include <algorithm>
#include <cstdlib>

#include "base/check.h"

namespace llmd::base {

void Arena::Grow(size_t bytes_min) {
  const size_t bytes = std::max(next_bytes_, bytes_min);
  auto* chunk = static_cast<Chunk*>(std::malloc(sizeof(Chunk) + bytes));
  LLMD_CHECK(chunk != nullptr, "out of memory");
  *chunk = {head_, bytes};
  head_ = chunk;
  cursor_ = reinterpret_cast<uintptr_t>(chunk + 1);
  limit_ = cursor_ + bytes;
  allocated_bytes_ += bytes;
  next_bytes_ = bytes * 2;
}

void Arena::FreeFrom(Chunk* chunk) {
  while (chunk) std::free(std::exchange(chunk, chunk->previous));
}

void Arena::Reset() {
  if (!head_) return;
  while (head_->previous) {
    allocated_bytes_ -= head_->bytes;
    std::free(std::exchange(head_, head_->previous));
  }
  cursor_ = reinterpret_cast<uintptr_t>(head_ + 1);
  limit_ = cursor_ + head_->bytes;
  next_bytes_ = head_->bytes * 2;
}

}  // namespace llmd::base
