#include "prefix/kv_index_arena.h"

#include <new>
#include <utility>

namespace llmd::prefix {
namespace {

constexpr uint32_t kNoChunk = ~uint32_t{0};

uint64_t Link(KvArena::Ref next, KvArena::Ref previous) {
  return next | uint64_t{previous} << 32;
}
KvArena::Ref NextOf(uint64_t link) { return static_cast<uint32_t>(link); }
KvArena::Ref PreviousOf(uint64_t link) { return static_cast<uint32_t>(link >> 32); }

}  // namespace

KvArena::KvArena(size_t bytes_max, Budget* budget,
                 std::function<void(std::span<std::byte>)> on_memory)
    : budget_(budget),
      on_memory_(std::move(on_memory)),
      chunks_max_(static_cast<uint32_t>(bytes_max / kChunkBytes)),
      chunks_(std::make_unique<std::atomic<Word*>[]>(chunks_max_)) {
  budget_->Take(chunks_max_ * sizeof(chunks_[0]));
  Allocate(kOrderMin);  // the block with reference 0
}

KvArena::~KvArena() {
  for (uint32_t i = 0; i < chunk_count_; ++i) {
    ::operator delete(chunks_[i].load(), std::align_val_t(kChunkBytes));
  }
}

bool KvArena::CanGrow() const {
  return chunk_count_ < chunks_max_ && budget_->Fits(kChunkBytes + sizeof(FreeBits));
}

uint32_t KvArena::AddChunk() {
  if (!CanGrow()) return kNoChunk;
  budget_->Take(kChunkBytes);
  void* memory = ::operator new(kChunkBytes, std::align_val_t(kChunkBytes));
  if (on_memory_) on_memory_({static_cast<std::byte*>(memory), kChunkBytes});
  chunks_[chunk_count_].store(static_cast<Word*>(memory), std::memory_order_release);
  free_bits_.push_back(nullptr);
  return chunk_count_++;
}

KvArena::Ref KvArena::TakeChunk() {
  const uint32_t chunk = AddChunk();
  return chunk == kNoChunk ? 0 : chunk << kOrderMax;
}

KvArena::Ref KvArena::Allocate(uint32_t order) {
  uint32_t enough = free_orders_ & (~uint32_t{0} << order);
  if (enough == 0) {
    const uint32_t chunk = AddChunk();
    if (chunk == kNoChunk) return 0;
    budget_->Take(sizeof(FreeBits));
    free_bits_[chunk] = std::make_unique<FreeBits>();
    Push(chunk << kOrderMax, kOrderMax);
    free_words_ += kChunkWords;
    enough = uint32_t{1} << kOrderMax;
  }
  uint32_t at = static_cast<uint32_t>(std::countr_zero(enough));
  const Ref ref = free_[at];
  Unlink(ref, at);
  while (at > order) {
    --at;
    Push(ref + (uint32_t{1} << at), at);
  }
  free_words_ -= size_t{1} << order;
  return ref;
}

void KvArena::Free(Ref ref, uint32_t order) {
  free_words_ += size_t{1} << order;
  for (; order < kOrderMax; ++order) {
    const Ref buddy = ref ^ (uint32_t{1} << order);
    if (!IsFree(buddy, order)) break;
    Unlink(buddy, order);
    ref &= ~(uint32_t{1} << order);
  }
  Push(ref, order);
}

bool KvArena::IsFree(Ref ref, uint32_t order) const {
  const size_t bit = BitOf(ref, order);
  return ((*free_bits_[ref >> kOrderMax])[bit / 64] >> (bit % 64) & 1) != 0;
}

// Reference 0 ends a list; the very first block would be named so, but it is never freed, only
// passed through here while the first chunk is cut.
void KvArena::Push(Ref ref, uint32_t order) {
  const size_t bit = BitOf(ref, order);
  (*free_bits_[ref >> kOrderMax])[bit / 64] |= uint64_t{1} << (bit % 64);
  const Ref head = (free_orders_ >> order & 1) != 0 ? free_[order] : 0;
  At(ref)->Set(Link(head, 0));
  if (head != 0) At(head)->Set(Link(NextOf(At(head)->Get()), ref));
  free_[order] = ref;
  free_orders_ |= uint32_t{1} << order;
}

void KvArena::Unlink(Ref ref, uint32_t order) {
  const size_t bit = BitOf(ref, order);
  (*free_bits_[ref >> kOrderMax])[bit / 64] &= ~(uint64_t{1} << (bit % 64));
  const uint64_t link = At(ref)->Get();
  const Ref next = NextOf(link);
  const Ref previous = PreviousOf(link);
  if (next != 0) At(next)->Set(Link(NextOf(At(next)->Get()), previous));
  if (previous != 0) {
    At(previous)->Set(Link(next, PreviousOf(At(previous)->Get())));
  } else {
    free_[order] = next;
    if (next == 0) free_orders_ &= ~(uint32_t{1} << order);
  }
}

bool KvArena::CheckForTest() const {
  size_t words = 0;
  size_t listed = 0;
  for (uint32_t order = kOrderMin; order <= kOrderMax; ++order) {
    if ((free_orders_ >> order & 1) == 0) continue;
    Ref previous = 0;
    for (Ref ref = free_[order]; ref != 0; ref = NextOf(At(ref)->Get())) {
      if (!IsFree(ref, order) || PreviousOf(At(ref)->Get()) != previous) return false;
      if (order < kOrderMax && IsFree(ref ^ (uint32_t{1} << order), order)) return false;
      words += size_t{1} << order;
      ++listed;
      previous = ref;
    }
  }
  size_t bits = 0;
  for (const auto& free : free_bits_) {
    if (!free) continue;
    for (const uint64_t word : *free) bits += static_cast<size_t>(std::popcount(word));
  }
  return words == free_words_ && bits == listed;
}

}  // namespace llmd::prefix
