// Bump allocation for one request: everything is freed at once.
//
// Thread safety: none. Destructors of arena objects are not run, so New<T> takes trivially
// destructible types only. Chunks grow by doubling; Reset keeps the first one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>

namespace llmd::base {

class Arena {
 public:
  explicit Arena(size_t first_bytes = 4096) : next_bytes_(first_bytes) {}
  ~Arena() { FreeFrom(head_); }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  void* Allocate(size_t bytes, size_t align = alignof(std::max_align_t)) {
    uintptr_t p = (cursor_ + align - 1) & ~(align - 1);
    if (p + bytes > limit_) [[unlikely]] {
      Grow(bytes + align);
      p = (cursor_ + align - 1) & ~(align - 1);
    }
    cursor_ = p + bytes;
    return reinterpret_cast<void*>(p);
  }
  template <class T, class... Args>
  T* New(Args&&... args) {
    static_assert(std::is_trivially_destructible_v<T>, "the arena runs no destructors");
    return new (Allocate(sizeof(T), alignof(T))) T(std::forward<Args>(args)...);
  }
  // `n` value-initialised elements.
  template <class T>
  std::span<T> NewSpan(size_t n) {
    static_assert(std::is_trivially_destructible_v<T>, "the arena runs no destructors");
    T* p = static_cast<T*>(Allocate(n * sizeof(T), alignof(T)));
    for (size_t i = 0; i < n; ++i) new (p + i) T();
    return {p, n};
  }
  std::string_view Copy(std::string_view text) {
    char* p = static_cast<char*>(Allocate(text.size(), 1));
    if (!text.empty()) std::memcpy(p, text.data(), text.size());
    return {p, text.size()};
  }
  // Frees all but the first chunk; earlier pointers die.
  void Reset();
  size_t allocated_bytes() const { return allocated_bytes_; }

 private:
  struct Chunk {
    Chunk* previous;
    size_t bytes;
  };
  void Grow(size_t bytes_min);
  void FreeFrom(Chunk* chunk);

  Chunk* head_ = nullptr;
  uintptr_t cursor_ = 0;
  uintptr_t limit_ = 0;
  size_t next_bytes_;
  size_t allocated_bytes_ = 0;
};

}  // namespace llmd::base
