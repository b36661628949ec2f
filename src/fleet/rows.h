// Rows: one column by EndpointNumber. It grows by whole segments that never move, so that any
// thread may use a row while another adds more, and a small fleet pays for a small column.
//
// Thread safety: one Grow at a time. A row may be used by whoever learned of its endpoint from a
// member set that was published after the Grow; what T allows to do there at once is T's business.
// Limits: kEndpointsMax rows.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>

#include "fleet/endpoint.h"

namespace llmd::fleet {

template <class T>
class Rows {
 public:
  static constexpr size_t kSegmentRows = 1024;

  // At least `rows` rows; new ones are as T() makes them.
  void Grow(size_t rows) {
    for (size_t s = 0; s * kSegmentRows < rows; ++s) {
      if (!segments_[s]) segments_[s] = std::make_unique<T[]>(kSegmentRows);
    }
  }
  T& operator[](size_t row) const { return segments_[row / kSegmentRows][row % kSegmentRows]; }

  // Calls visit(first row, span of rows) for each segment's part of the first `rows` rows.
  template <class Visit>
  void ForEachRun(size_t rows, Visit visit) const {
    for (size_t begin = 0; begin < rows; begin += kSegmentRows) {
      visit(begin, std::span<T>(segments_[begin / kSegmentRows].get(),
                                std::min(kSegmentRows, rows - begin)));
    }
  }

 private:
  std::unique_ptr<T[]> segments_[kEndpointsMax / kSegmentRows];
};

}  // namespace llmd::fleet
