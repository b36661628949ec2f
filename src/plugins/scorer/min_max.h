// (max - v) / (max - min) over the candidates; all equal: 1 for all. Two passes over one column.
#pragma once

#include <algorithm>
#include <span>

#include "plugin/plugin.h"

namespace llmd::plugins {

inline void ScoreLowerIsBetter(const float* column,
                               std::span<const plugin::EndpointNumber> candidates,
                               std::span<double> scores) {
  float low = column[candidates[0]], high = low;
  for (plugin::EndpointNumber n : candidates) {
    low = std::min(low, column[n]);
    high = std::max(high, column[n]);
  }
  if (low == high) {
    std::fill(scores.begin(), scores.end(), 1.0);
    return;
  }
  const double scale = 1.0 / (static_cast<double>(high) - low);
  for (size_t i = 0; i < candidates.size(); ++i) {
    scores[i] = (static_cast<double>(high) - column[candidates[i]]) * scale;
  }
}

}  // namespace llmd::plugins
