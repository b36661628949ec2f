#include "prefix/kv_index_tables.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace llmd::prefix {

EngineTable::EngineTable(Budget* budget) : budget_(budget) {
  budget_->Take(kSegments * sizeof(Bucket));
  for (Segment& segment : segments_) Resize(segment, 1);
}

EngineTable::Segment EngineTable::Resize(Segment& segment, uint32_t bucket_count) {
  Segment old = std::move(segment);
  segment = {.buckets = std::make_unique<Bucket[]>(bucket_count),
             .bucket_count = bucket_count,
             .count = old.count,
             .grow_at = bucket_count * kSlots * 7 / 8};
  capacity_ += size_t{kSlots} * bucket_count - size_t{kSlots} * old.bucket_count;
  return old;
}

uint32_t EngineTable::Larger(const Segment& segment) const {
  const uint32_t quarter = segment.bucket_count / 4;
  const uint64_t which = static_cast<uint64_t>(&segment - segments_.data());
  const uint64_t chance = base::Mix64(which, segment.bucket_count) >> 32;
  return segment.bucket_count + quarter + 1 + static_cast<uint32_t>(chance * quarter >> 33);
}

void EngineTable::Place(Segment& segment, uint64_t hash, Ref ref) {
  const uint8_t tag = TagOf(hash);
  for (uint32_t at = HomeIndex(segment, hash);;) {
    Bucket& bucket = segment.buckets[at];
    if (const uint32_t free = SlotsWith(bucket, 0); free != 0) {
      const int slot = __builtin_ctz(free);
      bucket.tags[slot] = tag;
      bucket.refs[slot] = ref;
      return;
    }
    if (bucket.went_on < 255) ++bucket.went_on;
    if (++at == segment.bucket_count) at = 0;
  }
}

void EngineTable::Erase(uint64_t hash, Ref ref) {
  Segment& segment = segments_[hash >> (64 - kSegmentBits)];
  const uint8_t tag = TagOf(hash);
  uint32_t at = HomeIndex(segment, hash);
  for (uint32_t step = 0; step < segment.bucket_count; ++step) {
    Bucket& bucket = segment.buckets[at];
    for (uint32_t slots = SlotsWith(bucket, tag); slots != 0; slots &= slots - 1) {
      const int slot = __builtin_ctz(slots);
      if (bucket.refs[slot] != ref) continue;
      bucket.tags[slot] = 0;
      --segment.count;
      --size_;
      return;
    }
    if (bucket.went_on < 255) --bucket.went_on;
    if (++at == segment.bucket_count) at = 0;
  }
  LLMD_BUG("erased an engine key that was not there");
}

RunTable::RunTable(Budget* budget) : budget_(budget) {
  budget_->Take(kSegments * sizeof(Bucket));
  for (size_t i = 0; i < kSegments; ++i) {
    Publish(i, std::make_unique<Bucket[]>(1), 0, nullptr);
  }
}

void RunTable::Publish(size_t segment, Array array, uint32_t log2_size,
                       std::vector<Retired>* retired) {
  const uintptr_t packed = reinterpret_cast<uintptr_t>(array.get()) | log2_size;
  arrays_[segment].store(packed, std::memory_order_release);
  owned_[segment].swap(array);
  if (array) retired->push_back({std::move(array), sizeof(Bucket) << (log2_size - 1)});
}

void RunTable::Place(const View& view, uint64_t hash, Ref ref) {
  const uint64_t entry = (hash << 32) | ref;
  uint64_t at = view.at;
  const auto free_slot = [&](uint64_t bucket) -> std::atomic<uint64_t>* {
    for (auto& slot : view.buckets[bucket].entries) {
      if (slot.load(std::memory_order_relaxed) == 0) return &slot;
    }
    return nullptr;
  };
  std::atomic<uint64_t>* slot;
  for (; (slot = free_slot(at)) == nullptr; at = (at + 1) & view.mask) {
    view.buckets[at].went_on.fetch_add(1, std::memory_order_relaxed);
  }
  // After the counts: whoever could see the entry is led to it.
  slot->store(entry, std::memory_order_release);
}

void RunTable::Erase(uint64_t hash, Ref ref) {
  const View view = Look(hash);
  const uint64_t entry = (hash << 32) | ref;
  for (uint64_t step = 0; step <= view.mask; ++step) {
    Bucket& bucket = view.buckets[(view.at + step) & view.mask];
    for (auto& slot : bucket.entries) {
      if (slot.load(std::memory_order_relaxed) != entry) continue;
      slot.store(0, std::memory_order_release);
      --counts_[hash >> (64 - kSegmentBits)];
      return;
    }
    bucket.went_on.fetch_sub(1, std::memory_order_release);
  }
  LLMD_BUG("erased a run that was not there");
}

}  // namespace llmd::prefix
