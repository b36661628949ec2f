// Replaces byte ranges of a body that lies in slices, without copying what stays.
// Thread safety: pure functions; slices belong to one worker (base/buffer.h).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/buffer.h"

namespace llmd::wire {

// The bytes [begin, end) of the original become `bytes`; begin == end inserts.
struct Edit {
  uint64_t begin = 0;
  uint64_t end = 0;
  base::Slice bytes;
};

// Appends the edited body to `out` and returns its length. `edits` are in order, disjoint and
// inside the body (checked: they come from our own scan of it). Empty slices are left out.
uint64_t SpliceSlices(std::span<const base::Slice> body, std::span<const Edit> edits,
                      std::vector<base::Slice>* out);

}  // namespace llmd::wire
