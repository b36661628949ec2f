#include "plugins/scorer/column.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/random.h"
#include "plugins/scorer/min_max.h"

namespace llmd::plugins {
namespace {

// Whole fleets and fleets with gaps, of every length around the width of the loops.
TEST(Column, ReadsRunsAndGapsAlike) {
  base::Random random(1);
  for (int round = 0; round < 400; ++round) {
    std::vector<float> column(100);
    for (float& value : column) value = static_cast<float>(random.Below(50)) - 20;
    std::vector<plugin::EndpointNumber> candidates;
    const bool gaps = round % 2 == 0;
    for (uint32_t n = static_cast<uint32_t>(random.Below(50)); candidates.size() < 1 + round / 16u;
         ++n) {
      if (!gaps || random.Below(4) > 0) candidates.push_back(n);
    }
    float low = column[candidates[0]], high = low;
    for (const auto n : candidates) {
      if (column[n] < low) low = column[n];
      if (column[n] > high) high = column[n];
    }
    const ColumnRange range = RangeOf(column.data(), candidates);
    ASSERT_EQ(range.low, low);
    ASSERT_EQ(range.high, high);
    std::vector<double> scores(candidates.size());
    ScoreColumn(column.data(), candidates, scores, [](float v) { return 2 * v; });
    for (size_t i = 0; i < scores.size(); ++i) ASSERT_EQ(scores[i], 2 * column[candidates[i]]);
    ScoreLowerIsBetter(column.data(), candidates, scores);
    for (size_t i = 0; i < scores.size(); ++i) {
      const double score =
          low == high ? 1 : (double{high} - column[candidates[i]]) / (double{high} - low);
      ASSERT_NEAR(scores[i], score, 1e-12);
    }
  }
}

}  // namespace
}  // namespace llmd::plugins
