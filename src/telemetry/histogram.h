// A histogram of latencies and sizes with a bounded relative error: log-linear buckets, 128 per
// power of two, so a value is known to 1/256 (0.4 %) over all of uint64.
//
// Thread safety: none; give each thread its own and Merge.
// Limits: 58 * 128 buckets of 8 bytes (59 KiB), allocated once. Counts saturate nowhere in practice
// (uint64). Units: the caller's (the load generator records nanoseconds).
// Source of the idea: HdrHistogram (Gil Tene).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace llmd::telemetry {

class ValueHistogram {
 public:
  ValueHistogram();

  void Record(uint64_t value, uint64_t times = 1);
  void Merge(const ValueHistogram& other);
  void Reset();

  uint64_t count() const { return count_; }
  uint64_t min() const { return count_ ? min_ : 0; }  // exact
  uint64_t max() const { return max_; }               // exact
  double mean() const;                                // exact up to double rounding
  double StandardDeviation() const;                   // from bucket middles
  // The smallest recorded value (within the error) such that at least `percent` of all values are
  // not above it; 0 when empty. Percent is clamped to [0, 100]; 0 gives min(), 100 gives max().
  uint64_t Percentile(double percent) const;
  // Number of values <= `value`, to bucket accuracy.
  uint64_t CountAtOrBelow(uint64_t value) const;

 private:
  static constexpr int kSubBits = 7;
  static size_t IndexOf(uint64_t value);
  static uint64_t MiddleOf(size_t index);

  std::vector<uint64_t> counts_;
  uint64_t count_ = 0;
  uint64_t min_ = UINT64_MAX;
  uint64_t max_ = 0;
  double sum_ = 0;
};

}  // namespace llmd::telemetry
