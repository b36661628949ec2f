// Bytes on their way into a stream: Slices in order, small pieces gathered by copying.
//
// Thread safety: none.
// Invariants: 1. Bytes leave in the order of appending. 2. While the stream takes nothing, small
// Slices are copied together, so that a slow reader of many small pieces does not pin one large
// block per piece (at most four times its bytes stay in memory).
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "base/buffer.h"
#include "runtime/stream.h"

namespace llmd::net {

class OutQueue {
 public:
  explicit OutQueue(base::BufferPool& pool) : pool_(pool) {}

  void Append(base::Slice bytes);
  void AppendCopy(std::string_view bytes);
  // Writes until everything is out or the stream takes no more. kOk means empty.
  runtime::IoResult Flush(runtime::Stream& stream);
  void Clear();
  bool empty() const { return bytes_ == 0; }
  size_t bytes() const { return bytes_; }
  bool blocked() const { return blocked_; }

 private:
  void DropFront(size_t bytes);

  base::BufferPool& pool_;
  std::vector<base::Slice> pieces_;
  size_t first_ = 0;  // pieces before it are gone
  size_t bytes_ = 0;
  bool blocked_ = false;
  // Where copies go; its used part is covered by pieces_.
  base::Block* tail_ = nullptr;
  base::Slice tail_hold_;
  size_t tail_used_ = 0;
};

}  // namespace llmd::net
