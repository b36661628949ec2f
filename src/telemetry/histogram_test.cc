#include "telemetry/histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/random.h"

namespace llmd::telemetry {
namespace {

TEST(ValueHistogram, Tutorial) {
  ValueHistogram h;
  for (uint64_t ms = 1; ms <= 100; ++ms) h.Record(ms);
  EXPECT_EQ(h.count(), 100u);
  EXPECT_EQ(h.Percentile(50), 50u);  // exact below 256
  EXPECT_EQ(h.Percentile(99), 99u);
  EXPECT_EQ(h.Percentile(100), 100u);
  EXPECT_EQ(h.mean(), 50.5);
  EXPECT_NEAR(h.StandardDeviation(), 28.866, 0.001);
  EXPECT_EQ(h.CountAtOrBelow(10), 10u);
}

TEST(ValueHistogram, EmptyIsZero) {
  const ValueHistogram h;
  EXPECT_EQ(h.Percentile(50), 0u);
  EXPECT_EQ(h.min(), 0u);
  EXPECT_EQ(h.max(), 0u);
  EXPECT_EQ(h.mean(), 0);
  EXPECT_EQ(h.StandardDeviation(), 0);
}

TEST(ValueHistogram, HoldsTheWholeRange) {
  ValueHistogram h;
  h.Record(0);
  h.Record(UINT64_MAX);
  EXPECT_EQ(h.Percentile(1), 0u);
  EXPECT_EQ(h.Percentile(100), UINT64_MAX);
  EXPECT_EQ(h.CountAtOrBelow(UINT64_MAX), 2u);
  h.Reset();
  EXPECT_EQ(h.count(), 0u);
}

// Against a sorted vector: percentiles within the promised error, merge like one histogram.
TEST(ValueHistogram, AgreesWithASortedVector) {
  base::Random random(3);
  for (int round = 0; round < 20; ++round) {
    ValueHistogram parts[2], whole;
    std::vector<uint64_t> values;
    const uint64_t n = 1 + random.Below(3000);
    for (uint64_t i = 0; i < n; ++i) {
      const auto v = static_cast<uint64_t>(std::exp(random.Uniform() * 40));
      values.push_back(v);
      parts[i % 2].Record(v);
      whole.Record(v);
    }
    parts[0].Merge(parts[1]);
    std::sort(values.begin(), values.end());
    for (double percent : {0., 0.1, 1., 25., 50., 90., 99., 99.9, 100.}) {
      const auto rank = static_cast<size_t>(std::ceil(percent / 100 * static_cast<double>(n)));
      const auto exact = static_cast<double>(values[rank == 0 ? 0 : rank - 1]);
      const auto got = static_cast<double>(whole.Percentile(percent));
      EXPECT_NEAR(got, exact, exact / 200 + 0.5) << percent;
      EXPECT_EQ(parts[0].Percentile(percent), whole.Percentile(percent));
    }
    EXPECT_EQ(whole.min(), values.front());
    EXPECT_EQ(whole.max(), values.back());
  }
}

}  // namespace
}  // namespace llmd::telemetry
