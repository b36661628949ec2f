#include "wire/json_splice.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace llmd::wire {

uint64_t SpliceSlices(std::span<const base::Slice> body, std::span<const Edit> edits,
                      std::vector<base::Slice>* out) {
  uint64_t length = 0;
  const auto put = [&](base::Slice slice) {
    length += slice.size();
    if (!slice.empty()) out->push_back(std::move(slice));
  };
  uint64_t at = 0;           // offset of the next byte of the body to keep or drop
  uint64_t slice_begin = 0;  // offset of the current slice
  size_t index = 0;
  // Keeps (or drops) the body up to `until`.
  const auto advance = [&](uint64_t until, bool keep) {
    while (at < until) {
      LLMD_CHECK(index < body.size(), "an edit ends behind the body");
      const base::Slice& slice = body[index];
      const uint64_t stop = std::min(until, slice_begin + slice.size());
      if (keep && stop > at) put(slice.Sub(at - slice_begin, stop - at));
      at = stop;
      if (at == slice_begin + slice.size()) {
        slice_begin = at;
        ++index;
      }
    }
  };
  for (const Edit& edit : edits) {
    LLMD_CHECK(edit.begin >= at && edit.end >= edit.begin, "edits overlap or are out of order");
    advance(edit.begin, true);
    put(edit.bytes);
    advance(edit.end, false);
  }
  uint64_t body_length = 0;
  for (const base::Slice& slice : body) body_length += slice.size();
  advance(body_length, true);
  return length;
}

}  // namespace llmd::wire
