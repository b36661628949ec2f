// Reading one column of the fleet for all candidates.
//
// Candidates without a gap between them, as a whole fleet is, are read as one run, which the
// compiler vectorises; others are gathered. Candidates are ascending and not empty.
#pragma once

#include <algorithm>
#include <span>

#include "plugin/plugin.h"

namespace llmd::plugins {

inline bool Gapless(std::span<const plugin::EndpointNumber> candidates) {
  return candidates.back() - candidates.front() == candidates.size() - 1;
}

// scores[i] = score(column[candidates[i]]).
template <class T, class ScoreOf>
void ScoreColumn(const T* column, std::span<const plugin::EndpointNumber> candidates,
                 std::span<double> scores, ScoreOf score) {
  const size_t n = candidates.size();
  if (Gapless(candidates)) {
    const T* run = column + candidates.front();
    for (size_t i = 0; i < n; ++i) scores[i] = score(run[i]);
  } else {
    for (size_t i = 0; i < n; ++i) scores[i] = score(column[candidates[i]]);
  }
}

struct ColumnRange {
  float low, high;
};

// Several chains of comparisons: each waits only for its own last one.
template <class ValueOf>
ColumnRange RangeOf(size_t n, ValueOf value) {
  constexpr size_t kLanes = 8;
  float low[kLanes], high[kLanes];
  std::fill_n(low, kLanes, value(0));
  std::fill_n(high, kLanes, value(0));
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      low[lane] = std::min(low[lane], value(i + lane));
      high[lane] = std::max(high[lane], value(i + lane));
    }
  }
  for (; i < n; ++i) {
    low[0] = std::min(low[0], value(i));
    high[0] = std::max(high[0], value(i));
  }
  return {*std::min_element(low, low + kLanes), *std::max_element(high, high + kLanes)};
}

inline ColumnRange RangeOf(const float* column,
                           std::span<const plugin::EndpointNumber> candidates) {
  if (Gapless(candidates)) {
    const float* run = column + candidates.front();
    return RangeOf(candidates.size(), [run](size_t i) { return run[i]; });
  }
  return RangeOf(candidates.size(), [&](size_t i) { return column[candidates[i]]; });
}

}  // namespace llmd::plugins
