#include "sim/length.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace llmd::sim {
namespace {

constexpr uint32_t kBuckets = 5;
constexpr double kUpTo[kBuckets] = {.2, .5, .7, .75, .85};  // cumulative; the rest is `most` itself
constexpr uint32_t kWide = 20;
constexpr uint32_t kStretched = 3;
constexpr double kMean = 40;
constexpr double kDeviation = 20;

uint32_t Between(uint32_t first, uint32_t last, base::Random* random) {
  return last <= first ? first : first + static_cast<uint32_t>(random->Below(last - first + 1));
}

}  // namespace

uint32_t RandomLengthUpTo(uint32_t most, base::Random* random) {
  if (most <= 1) return most;
  if (most <= kBuckets + 1) return Between(1, most, random);
  const double draw = random->Uniform();
  const uint32_t bucket =
      static_cast<uint32_t>(std::lower_bound(kUpTo, kUpTo + kBuckets, draw) - kUpTo);
  if (bucket == kBuckets) return most;
  uint32_t first, last;
  if (most <= kWide * kBuckets + 1) {
    const double width = static_cast<double>(most - 1) / kBuckets;
    first = static_cast<uint32_t>(width * bucket) + 1;
    last = static_cast<uint32_t>(width * (bucket + 1));
  } else {
    // What the stretched bucket adds moves the one behind it.
    const uint32_t added = most - 1 - kWide * kBuckets;
    first = kWide * bucket + 1 + (bucket > kStretched ? added : 0);
    last = kWide * (bucket + 1) + (bucket >= kStretched ? added : 0);
  }
  return Between(first, std::min(last, most - 1), random);
}

uint32_t RandomLength(uint32_t most, base::Random* random) {
  if (most < kMean - kDeviation) return Between(1, std::max(most, 1u), random);
  while (true) {
    // Box and Muller; about one draw in forty is outside and drawn again.
    const double radius = std::sqrt(-2 * std::log1p(-random->Uniform()));
    const double normal = radius * std::cos(2 * std::numbers::pi * random->Uniform());
    const double length = std::round(kMean + kDeviation * normal);
    if (length >= 1 && length <= most) return static_cast<uint32_t>(length);
  }
}

}  // namespace llmd::sim
