// The memory of a KvIndex: 2 MiB chunks that are never given back while the index lives, cut by a
// buddy system into blocks of 4 to 2^18 words and named by 32-bit numbers of words.
//
// Readers hold no references that keep a block from being reused; they notice afterwards that what
// they read was not what they meant (the versions of runs). For that, memory stays mapped, and all
// words of blocks are read and written as relaxed atomics, which cost the same as plain ones.
//
// Thread safety: the writer allocates and frees; At is for all threads, with references that were
// read with acquire order from where the writer stored them with release order.
// Invariants: 1. No two free buddies stand side by side: they are merged at once. 2. Reference 0
// names no block. 3. What is allocated is taken from the Budget first.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

namespace llmd::prefix {

// Bytes that an index may still allocate.
class Budget {
 public:
  explicit Budget(size_t bytes_max) : bytes_max_(bytes_max) {}
  bool Fits(size_t bytes) const { return used_ + bytes <= bytes_max_; }
  bool Take(size_t bytes) {
    if (!Fits(bytes)) return false;
    used_ += bytes;
    return true;
  }
  void TakeAnyway(size_t bytes) { used_ += bytes; }
  void GiveBack(size_t bytes) { used_ -= bytes; }
  size_t used() const { return used_; }

 private:
  size_t bytes_max_;
  size_t used_ = 0;
};

class Word {
 public:
  uint64_t Get() const { return value_.load(std::memory_order_relaxed); }
  void Set(uint64_t value) { value_.store(value, std::memory_order_relaxed); }
  // For words with references to what was written before.
  uint64_t GetAcquire() const { return value_.load(std::memory_order_acquire); }
  void SetRelease(uint64_t value) { value_.store(value, std::memory_order_release); }

 private:
  std::atomic<uint64_t> value_;
};
static_assert(sizeof(Word) == 8);

class KvArena {
 public:
  using Ref = uint32_t;
  static constexpr uint32_t kOrderMin = 2;
  static constexpr uint32_t kOrderMax = 18;  // a chunk
  static constexpr size_t kChunkWords = size_t{1} << kOrderMax;
  static constexpr size_t kChunkBytes = kChunkWords * sizeof(Word);

  // `budget` outlives the arena.
  KvArena(size_t bytes_max, Budget* budget, std::function<void(std::span<std::byte>)> on_memory);
  ~KvArena();
  KvArena(const KvArena&) = delete;
  KvArena& operator=(const KvArena&) = delete;

  // The smallest order of a block that holds `words`.
  static uint32_t OrderFor(size_t words) {
    return words <= 4 ? kOrderMin : static_cast<uint32_t>(std::bit_width(words - 1));
  }

  Word* At(Ref ref) const {
    return chunks_[ref >> kOrderMax].load(std::memory_order_relaxed) + (ref & (kChunkWords - 1));
  }
  // 2^order words, contents undefined; 0 if there is no such block and no budget for a chunk.
  Ref Allocate(uint32_t order);
  void Free(Ref ref, uint32_t order);
  // A whole chunk that never comes back, for a pool of things of one type; 0 if out of budget.
  Ref TakeChunk();

  size_t free_words() const { return free_words_; }
  bool CanGrow() const;
  // Whether the free lists, the free bits and free_words() agree.
  bool CheckForTest() const;

 private:
  // Bit 2^(kOrderMax - order) + (offset >> order): the block of that order at that offset is free.
  using FreeBits = std::array<uint64_t, (size_t{1} << (kOrderMax - kOrderMin + 1)) / 64>;

  static size_t BitOf(Ref ref, uint32_t order) {
    return (size_t{1} << (kOrderMax - order)) + ((ref & (kChunkWords - 1)) >> order);
  }
  uint32_t AddChunk();  // its number, or ~0
  bool IsFree(Ref ref, uint32_t order) const;
  void Push(Ref ref, uint32_t order);
  void Unlink(Ref ref, uint32_t order);

  Budget* const budget_;
  const std::function<void(std::span<std::byte>)> on_memory_;
  const uint32_t chunks_max_;
  std::unique_ptr<std::atomic<Word*>[]> chunks_;
  uint32_t chunk_count_ = 0;
  std::vector<std::unique_ptr<FreeBits>> free_bits_;  // by chunk; null for those of pools
  std::array<Ref, kOrderMax + 1> free_{};             // heads of lists; links lie in the first word
  uint32_t free_orders_ = 0;                          // bit per order with a list that is not empty
  size_t free_words_ = 0;
};

}  // namespace llmd::prefix
