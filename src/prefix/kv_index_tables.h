// The two hash tables of a KvIndex. Both are cut into segments by the top bits of the hash, and a
// segment grows by itself, so that no insertion ever moves more than a thousandth of the entries.
// Both have buckets of one cache line that count how many entries had to go further, so that a
// search ends without tombstones and a removal clears one slot.
//
// EngineTable finds the place of an engine key: 5 bytes per entry (a tag of 8 bits and a reference)
// at a load of .69 to .87; the key itself lies where the reference leads. Only the writer uses it.
//
// RunTable finds runs by their first block key: 8 bytes per entry, a tag of 32 bits and a
// reference. The writer changes it while readers look: entries never move within an array, and the
// arrays that a segment has grown out of are handed to the caller, who frees them when no reader
// can see them any more.
//
// Hashes must be well mixed in all bits. References are not 0.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "base/hash.h"
#include "prefix/kv_index_arena.h"

namespace llmd::prefix {

class EngineTable {
 public:
  using Ref = uint32_t;
  static constexpr uint32_t kSegmentBits = 10;
  static constexpr size_t kSegments = size_t{1} << kSegmentBits;

  explicit EngineTable(Budget* budget);

  void Prefetch(uint64_t hash) const { __builtin_prefetch(&Home(hash)); }

  // The first reference under `hash` that `is_it(Ref)` accepts, or 0.
  template <class IsIt>
  Ref Find(uint64_t hash, IsIt&& is_it) const {
    const Segment& segment = segments_[hash >> (64 - kSegmentBits)];
    uint32_t at = HomeIndex(segment, hash);
    for (uint32_t step = 0; step < segment.bucket_count; ++step) {
      const Bucket& bucket = segment.buckets[at];
      for (uint32_t slots = SlotsWith(bucket, TagOf(hash)); slots != 0; slots &= slots - 1) {
        const Ref ref = bucket.refs[__builtin_ctz(slots)];
        if (is_it(ref)) return ref;
      }
      if (bucket.went_on == 0) break;
      if (++at == segment.bucket_count) at = 0;
    }
    return 0;
  }
  // All references whose entries look like `hash`, for prefetching.
  template <class Visit>
  void ForCandidates(uint64_t hash, Visit&& visit) const {
    const Bucket& bucket = Home(hash);
    for (uint32_t slots = SlotsWith(bucket, TagOf(hash)); slots != 0; slots &= slots - 1) {
      visit(bucket.refs[__builtin_ctz(slots)]);
    }
  }

  // `hash_of(Ref)` gives the hash of an entry, for growing. False: out of budget and full.
  template <class HashOf>
  bool Insert(uint64_t hash, Ref ref, HashOf&& hash_of) {
    Segment& segment = segments_[hash >> (64 - kSegmentBits)];
    if (segment.count >= segment.grow_at && !Grow(segment, hash_of) &&
        segment.count == segment.bucket_count * kSlots) {
      return false;
    }
    Place(segment, hash, ref);
    ++segment.count;
    ++size_;
    return true;
  }
  // The entry must be there.
  void Erase(uint64_t hash, Ref ref);

  size_t size() const { return size_; }
  size_t capacity() const { return capacity_; }
  // Whether one more segment may grow as things are.
  bool CanGrow() const { return budget_->Fits(2 * (capacity_ / kSegments + kSlots) * 8); }

 private:
  static constexpr uint32_t kSlots = 12;
  struct alignas(64) Bucket {
    std::array<uint8_t, kSlots> tags{};  // 0: empty
    uint8_t went_on = 0;                 // entries that found this bucket full; stays at 255
    std::array<uint8_t, 3> unused{};
    std::array<Ref, kSlots> refs{};
  };
  static_assert(sizeof(Bucket) == 64);
  struct Segment {
    std::unique_ptr<Bucket[]> buckets;
    uint32_t bucket_count = 0;
    uint32_t count = 0;
    uint32_t grow_at = 0;
  };

  static uint8_t TagOf(uint64_t hash) { return static_cast<uint8_t>(hash % 255 + 1); }
  static uint32_t HomeIndex(const Segment& segment, uint64_t hash) {
    const uint64_t middle = static_cast<uint32_t>(hash >> (32 - kSegmentBits));
    return static_cast<uint32_t>(middle * segment.bucket_count >> 32);
  }
  const Bucket& Home(uint64_t hash) const {
    const Segment& segment = segments_[hash >> (64 - kSegmentBits)];
    return segment.buckets[HomeIndex(segment, hash)];
  }
  // Bit per slot that may have the tag; a false one costs a comparison of keys.
  static uint32_t SlotsWith(const Bucket& bucket, uint8_t tag) {
    uint64_t low;
    uint32_t high;
    std::memcpy(&low, bucket.tags.data(), sizeof(low));
    std::memcpy(&high, bucket.tags.data() + sizeof(low), sizeof(high));
    constexpr uint64_t kOnes = 0x0101010101010101u;
    return Zeros(low ^ kOnes * tag) | (Zeros(high ^ (kOnes * tag & 0xffffffffu)) & 0xf) << 8;
  }
  // Bit i: byte i of `word` is 0. Exact.
  static uint32_t Zeros(uint64_t word) {
    constexpr uint64_t kLow = 0x7f7f7f7f7f7f7f7fu;
    const uint64_t high_bits = ~(((word & kLow) + kLow) | word | kLow);  // 0x80 where zero
    return static_cast<uint32_t>((high_bits >> 7) * 0x0102040810204080u >> 56);
  }

  void Place(Segment& segment, uint64_t hash, Ref ref);
  // What a segment that outgrew `buckets` gets, at least a quarter more. The rest is different for
  // each so that segments, which fill evenly, do not all grow in the same moment.
  uint32_t Larger(const Segment& segment) const;

  template <class HashOf>
  bool Grow(Segment& segment, HashOf&& hash_of) {
    const uint32_t larger = Larger(segment);
    if (!budget_->Take(larger * sizeof(Bucket))) return false;
    Segment old = Resize(segment, larger);
    // Two passes over a handful of buckets at a time: the first fetches what the hashes are made
    // of.
    for (uint32_t begin = 0; begin < old.bucket_count; begin += kBatch) {
      const uint32_t end = std::min(begin + kBatch, old.bucket_count);
      for (uint32_t pass = 0; pass < 3; ++pass) {
        for (uint32_t b = begin; b < end; ++b) {
          for (uint32_t slot = 0; slot < kSlots; ++slot) {
            if (old.buckets[b].tags[slot] == 0) continue;
            const Ref ref = old.buckets[b].refs[slot];
            if (pass < 2) {
              hash_of.Prefetch(ref, pass);
            } else {
              Place(segment, hash_of(ref), ref);
            }
          }
        }
      }
    }
    budget_->GiveBack(old.bucket_count * sizeof(Bucket));
    return true;
  }
  // Gives `segment` an empty array and returns the one it had.
  Segment Resize(Segment& segment, uint32_t bucket_count);
  static constexpr uint32_t kBatch = 4;

  Budget* const budget_;
  std::array<Segment, kSegments> segments_;
  size_t size_ = 0;
  size_t capacity_ = 0;
};

class RunTable {
 public:
  using Ref = uint32_t;
  static constexpr uint32_t kSegmentBits = 8;
  static constexpr size_t kSegments = size_t{1} << kSegmentBits;

  struct alignas(64) Bucket {
    static constexpr uint32_t kSlots = 7;
    std::array<std::atomic<uint64_t>, kSlots> entries{};  // tag << 32 | reference; 0: empty
    std::atomic<uint64_t> went_on{0};                     // entries that found this bucket full
  };
  static_assert(sizeof(Bucket) == 64);
  using Array = std::unique_ptr<Bucket[]>;
  struct Retired {
    Array array;
    size_t bytes = 0;
  };

  explicit RunTable(Budget* budget);

  void Prefetch(uint64_t hash) const { __builtin_prefetch(&Look(hash).home()); }

  // For all threads. The first reference under `hash` that `is_it(Ref)` accepts, or 0. An entry
  // that is there throughout is found.
  template <class IsIt>
  Ref Find(uint64_t hash, IsIt&& is_it) const {
    const View view = Look(hash);
    const uint64_t tag = hash << 32;
    for (uint64_t step = 0; step <= view.mask; ++step) {
      const Bucket& bucket = view.buckets[(view.at + step) & view.mask];
      for (const auto& slot : bucket.entries) {
        const uint64_t entry = slot.load(std::memory_order_acquire);
        if (entry == 0 || (entry & kTagMask) != tag) continue;
        const Ref ref = static_cast<uint32_t>(entry);
        if (is_it(ref)) return ref;
      }
      if (bucket.went_on.load(std::memory_order_acquire) == 0) break;
    }
    return 0;
  }

  // False: out of budget and full. `hash_of(Ref)` is used for growing; what is grown out of is
  // appended to `retired` and still counts against the budget.
  template <class HashOf>
  bool Insert(uint64_t hash, Ref ref, HashOf&& hash_of, std::vector<Retired>* retired) {
    const size_t segment = hash >> (64 - kSegmentBits);
    const size_t slots = SlotsOf(segment);
    // 7/8 in the mean fill buckets of seven well enough.
    if (counts_[segment] >= slots - slots / 8) Grow(segment, hash_of, retired);
    if (counts_[segment] >= SlotsOf(segment)) return false;
    Place(Look(hash), hash, ref);
    ++counts_[segment];
    return true;
  }
  // The entry must be there.
  void Erase(uint64_t hash, Ref ref);

 private:
  static constexpr uint64_t kTagMask = ~uint64_t{0} << 32;
  static constexpr uintptr_t kSizeMask = 63;
  struct View {
    Bucket* buckets;
    uint64_t mask;
    uint64_t at;
    const Bucket& home() const { return buckets[at]; }
  };

  View Look(uint64_t hash) const {
    // The low bits of the aligned address say the binary logarithm of the size.
    const uintptr_t packed = arrays_[hash >> (64 - kSegmentBits)].load(std::memory_order_acquire);
    const uint64_t mask = (uint64_t{1} << (packed & kSizeMask)) - 1;
    return {reinterpret_cast<Bucket*>(packed & ~kSizeMask), mask, hash >> 24 & mask};
  }
  size_t SlotsOf(size_t segment) const {
    const uintptr_t packed = arrays_[segment].load(std::memory_order_relaxed);
    return Bucket::kSlots << (packed & kSizeMask);
  }
  static void Place(const View& view, uint64_t hash, Ref ref);
  // Publishes `array` of 2^log2_size buckets.
  void Publish(size_t segment, Array array, uint32_t log2_size, std::vector<Retired>* retired);

  template <class HashOf>
  void Grow(size_t segment, HashOf&& hash_of, std::vector<Retired>* retired) {
    const uintptr_t packed = arrays_[segment].load(std::memory_order_relaxed);
    const uint32_t log2_size = static_cast<uint32_t>(packed & kSizeMask) + 1;
    const size_t bytes = sizeof(Bucket) << log2_size;
    if (!budget_->Take(bytes)) return;
    Array array = std::make_unique<Bucket[]>(size_t{1} << log2_size);
    const uint64_t mask = (uint64_t{1} << log2_size) - 1;
    const Bucket* old = reinterpret_cast<const Bucket*>(packed & ~kSizeMask);
    for (size_t b = 0; b < size_t{1} << (log2_size - 1); ++b) {
      for (const auto& slot : old[b].entries) {
        const Ref ref = static_cast<uint32_t>(slot.load(std::memory_order_relaxed));
        if (ref == 0) continue;
        const uint64_t hash = hash_of(ref);
        Place({array.get(), mask, hash >> 24 & mask}, hash, ref);
      }
    }
    Publish(segment, std::move(array), log2_size, retired);
  }

  Budget* const budget_;
  std::array<std::atomic<uintptr_t>, kSegments> arrays_{};
  std::array<Array, kSegments> owned_;
  std::array<size_t, kSegments> counts_{};
};

}  // namespace llmd::prefix
