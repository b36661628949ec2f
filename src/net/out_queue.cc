#include "net/out_queue.h"

#include <algorithm>
#include <cstring>

namespace llmd::net {
namespace {

// A Slice below this size costs more as an entry of its own than as a copy behind what is queued.
constexpr size_t kAlwaysCopyBytes = 512;
// While the stream is blocked: a quarter of the smallest block.
constexpr size_t kBlockedCopyBytes = base::BufferPool::kSmallestBytes / 4;
constexpr size_t kPiecesKept = 32;

}  // namespace

void OutQueue::Append(base::Slice bytes) {
  if (bytes.empty()) return;
  if (bytes.size() < kAlwaysCopyBytes || (blocked_ && bytes.size() < kBlockedCopyBytes)) {
    AppendCopy(bytes.view());
    return;
  }
  bytes_ += bytes.size();
  pieces_.push_back(std::move(bytes));
}

void OutQueue::AppendCopy(std::string_view bytes) {
  bytes_ += bytes.size();
  while (!bytes.empty()) {
    if (!tail_ || tail_used_ == tail_->capacity()) {
      tail_ = pool_.Get(std::min(bytes.size(), base::BufferPool::kLargestPooledBytes));
      tail_hold_ = base::Slice(tail_, tail_->data(), tail_->capacity());
      tail_used_ = 0;
    }
    const size_t size = std::min(bytes.size(), tail_->capacity() - tail_used_);
    char* at = tail_->data() + tail_used_;
    std::memcpy(at, bytes.data(), size);
    if (tail_used_ > 0 && first_ < pieces_.size() &&
        pieces_.back().data() + pieces_.back().size() == at) {
      pieces_.back() = base::Slice(tail_, pieces_.back().data(), pieces_.back().size() + size);
    } else {
      pieces_.push_back(base::Slice(tail_, at, size));
    }
    tail_used_ += size;
    bytes.remove_prefix(size);
  }
}

runtime::IoResult OutQueue::Flush(runtime::Stream& stream) {
  runtime::IoResult total;
  while (bytes_ > 0) {
    iovec parts[runtime::Stream::kWritePartsMax];
    const size_t count = std::min(pieces_.size() - first_, runtime::Stream::kWritePartsMax);
    for (size_t i = 0; i < count; ++i) {
      const base::Slice& piece = pieces_[first_ + i];
      parts[i] = {const_cast<char*>(piece.data()), piece.size()};
    }
    const runtime::IoResult result = stream.Write({parts, count});
    total.bytes += result.bytes;
    DropFront(result.bytes);
    blocked_ = result.status == runtime::IoStatus::kDrained;
    if (result.status != runtime::IoStatus::kOk) {
      total.status = result.status;
      return total;
    }
  }
  blocked_ = false;
  return total;
}

void OutQueue::DropFront(size_t bytes) {
  bytes_ -= bytes;
  if (bytes_ == 0) {
    Clear();
    return;
  }
  while (bytes > 0) {
    base::Slice& piece = pieces_[first_];
    if (bytes < piece.size()) {
      piece.RemovePrefix(bytes);
      break;
    }
    bytes -= piece.size();
    piece = base::Slice();
    ++first_;
  }
  // Amortised: the dead front is moved out once it outweighs the rest.
  if (first_ > kPiecesKept && first_ * 2 > pieces_.size()) {
    pieces_.erase(pieces_.begin(), pieces_.begin() + static_cast<ptrdiff_t>(first_));
    first_ = 0;
  }
}

void OutQueue::Clear() {
  pieces_.clear();
  if (pieces_.capacity() > kPiecesKept) pieces_.shrink_to_fit();
  first_ = 0;
  bytes_ = 0;
  tail_ = nullptr;
  tail_hold_ = base::Slice();
  tail_used_ = 0;
}

}  // namespace llmd::net
