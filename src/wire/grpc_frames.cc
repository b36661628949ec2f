#include "wire/grpc_frames.h"

#include <algorithm>

namespace llmd::wire {

GrpcFrames::Event GrpcFrames::Next() {
  if (prefix_bytes_ < kGrpcPrefixBytes) {
    while (at_ < end_ && prefix_bytes_ < kGrpcPrefixBytes) prefix_[prefix_bytes_++] = *at_++;
    if (prefix_bytes_ < kGrpcPrefixBytes) return Event::kMore;
    length_ = 0;
    for (size_t i = 1; i < kGrpcPrefixBytes; ++i) {
      length_ = length_ << 8 | static_cast<uint8_t>(prefix_[i]);
    }
    left_ = length_;
    return Event::kMessage;
  }
  const size_t size = std::min<size_t>(static_cast<size_t>(end_ - at_), left_);
  if (size == 0 && left_ > 0) return Event::kMore;
  part_ = {at_, size};
  at_ += size;
  left_ -= static_cast<uint32_t>(size);
  if (left_ == 0) prefix_bytes_ = 0;
  return Event::kPart;
}

}  // namespace llmd::wire
