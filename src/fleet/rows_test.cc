#include "fleet/rows.h"

#include <gtest/gtest.h>

#include <vector>

namespace llmd::fleet {
namespace {

struct Counted {
  Counted() { ++made; }
  static inline size_t made = 0;
};

TEST(Rows, AFewCostOneSegmentAndNoneEverMoves) {
  Counted::made = 0;
  Rows<Counted> rows;
  EXPECT_EQ(Counted::made, 0u);
  rows.Grow(10);
  EXPECT_EQ(Counted::made, Rows<Counted>::kSegmentRows);
  const Counted* first = &rows[0];
  rows.Grow(Rows<Counted>::kSegmentRows + 1);
  EXPECT_EQ(Counted::made, 2 * Rows<Counted>::kSegmentRows);
  rows.Grow(5);
  EXPECT_EQ(Counted::made, 2 * Rows<Counted>::kSegmentRows);
  EXPECT_EQ(&rows[0], first);
  rows.Grow(kEndpointsMax);
  EXPECT_EQ(Counted::made, kEndpointsMax);
}

TEST(Rows, RunsCoverEveryRowOnceInOrder) {
  Rows<size_t> rows;
  rows.Grow(kEndpointsMax);
  for (size_t row = 0; row < kEndpointsMax; ++row) rows[row] = row;
  for (const size_t n : {size_t{0}, size_t{1}, Rows<size_t>::kSegmentRows,
                         Rows<size_t>::kSegmentRows + 7, kEndpointsMax}) {
    std::vector<size_t> seen;
    rows.ForEachRun(n, [&](size_t begin, std::span<size_t> run) {
      ASSERT_EQ(begin, seen.size());
      seen.insert(seen.end(), run.begin(), run.end());
    });
    ASSERT_EQ(seen.size(), n);
    for (size_t row = 0; row < n; ++row) ASSERT_EQ(seen[row], row);
  }
}

}  // namespace
}  // namespace llmd::fleet
