// A list that grows in an arena: for readers that learn the number of elements at the end.
// Thread safety: none. Memory left behind by growing is at most the size of the list.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

#include "base/arena.h"

namespace llmd::wire {

template <class T>
class ArenaList {
 public:
  static constexpr size_t kFirstCapacity = 8;

  // Room for `capacity` elements before the first growth, taken with the first Push.
  explicit ArenaList(base::Arena* arena, size_t capacity = kFirstCapacity)
      : arena_(arena), next_capacity_(capacity) {}

  T& Push(const T& value) {
    if (size_ == room_.size()) {
      const std::span<T> grown = arena_->NewSpan<T>(next_capacity_);
      std::copy(room_.begin(), room_.end(), grown.begin());
      room_ = grown;
      next_capacity_ *= 2;
    }
    return room_[size_++] = value;
  }
  void Clear() { size_ = 0; }
  size_t size() const { return size_; }
  std::span<T> items() const { return room_.first(size_); }

 private:
  base::Arena* arena_;
  std::span<T> room_;
  size_t size_ = 0;
  size_t next_capacity_;
};

}  // namespace llmd::wire
