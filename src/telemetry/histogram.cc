#include "telemetry/histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace llmd::telemetry {
namespace {

constexpr uint64_t kSub = 128;

}  // namespace

// Values below 128 have buckets of their own (octave 0); octave k >= 1 holds [2^(k+6), 2^(k+7)) in
// 128 equal steps.
size_t ValueHistogram::IndexOf(uint64_t value) {
  static_assert(kSub == uint64_t{1} << kSubBits);
  if (value < kSub) return value;
  const int shift = std::bit_width(value) - 1 - kSubBits;
  return (static_cast<size_t>(shift) + 1) * kSub + ((value >> shift) - kSub);
}

uint64_t ValueHistogram::MiddleOf(size_t index) {
  if (index < kSub) return index;
  const size_t shift = index / kSub - 1;
  const uint64_t low = (kSub + index % kSub) << shift;
  return low + ((uint64_t{1} << shift) >> 1);
}

ValueHistogram::ValueHistogram() : counts_(IndexOf(UINT64_MAX) + 1) {}

void ValueHistogram::Record(uint64_t value, uint64_t times) {
  if (times == 0) return;
  counts_[IndexOf(value)] += times;
  count_ += times;
  min_ = std::min(min_, value);
  max_ = std::max(max_, value);
  sum_ += static_cast<double>(value) * static_cast<double>(times);
}

void ValueHistogram::Merge(const ValueHistogram& other) {
  for (size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
  count_ += other.count_;
  min_ = std::min(min_, other.min_);
  max_ = std::max(max_, other.max_);
  sum_ += other.sum_;
}

void ValueHistogram::Reset() { *this = ValueHistogram(); }

double ValueHistogram::mean() const { return count_ ? sum_ / static_cast<double>(count_) : 0; }

double ValueHistogram::StandardDeviation() const {
  if (count_ == 0) return 0;
  double squares = 0;
  for (size_t i = 0; i < counts_.size(); ++i) {
    if (counts_[i] == 0) continue;
    const double distance = static_cast<double>(MiddleOf(i)) - mean();
    squares += distance * distance * static_cast<double>(counts_[i]);
  }
  return std::sqrt(squares / static_cast<double>(count_));
}

uint64_t ValueHistogram::Percentile(double percent) const {
  if (count_ == 0) return 0;
  if (!(percent > 0)) return min();
  if (percent >= 100) return max_;
  const auto rank = static_cast<uint64_t>(std::ceil(percent / 100 * static_cast<double>(count_)));
  uint64_t below = 0;
  for (size_t i = 0; i < counts_.size(); ++i) {
    below += counts_[i];
    // The middle may lie outside of what was seen when few values are in the outermost bucket.
    if (below >= rank) return std::clamp(MiddleOf(i), min_, max_);
  }
  return max_;
}

uint64_t ValueHistogram::CountAtOrBelow(uint64_t value) const {
  uint64_t below = 0;
  const size_t last = IndexOf(value);
  for (size_t i = 0; i <= last; ++i) below += counts_[i];
  return below;
}

}  // namespace llmd::telemetry
