// (max - v) / (max - min) over the candidates; all equal: 1 for all. Two passes over one column.
#pragma once

#include <algorithm>
#include <span>

#include "plugins/scorer/column.h"

namespace llmd::plugins {

inline void ScoreLowerIsBetter(const float* column,
                               std::span<const plugin::EndpointNumber> candidates,
                               std::span<double> scores) {
  const ColumnRange range = RangeOf(column, candidates);
  if (range.low == range.high) {
    std::fill(scores.begin(), scores.end(), 1.0);
    return;
  }
  const double high = range.high;
  const double scale = 1.0 / (high - range.low);
  ScoreColumn(column, candidates, scores, [&](float v) { return (high - v) * scale; });
}

}  // namespace llmd::plugins
