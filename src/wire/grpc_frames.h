// GrpcFrames: the messages of a gRPC stream, part by part; WriteGrpcPrefix begins one.
//
//   GrpcFrames frames;
//   frames.Feed(chunk);
//   for (GrpcFrames::Event e; (e = frames.Next()) != GrpcFrames::Event::kMore;) {
//     if (e == GrpcFrames::Event::kPart) Take(frames.part(), frames.last());
//   }
//
// Thread safety: none; a plain value, one per stream and direction, no heap.
// Invariants: 1. What comes does not depend on how the stream was cut, except that a message comes
// in as many parts as chunks it lies in. 2. Parts are empty only where a message is. 3. Nothing is
// judged: lengths and flags are for the caller to refuse.
// Format: github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md, "Length-Prefixed-Message": a flag and a
// big-endian length in five bytes, then the message.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace llmd::wire {

inline constexpr size_t kGrpcPrefixBytes = 5;

// The prefix of a message that is not compressed; `message_bytes` is at most 2^32 - 1.
inline void WriteGrpcPrefix(size_t message_bytes, char (&prefix)[kGrpcPrefixBytes]) {
  prefix[0] = 0;
  for (size_t i = 1; i < kGrpcPrefixBytes; ++i) {
    prefix[i] = static_cast<char>(message_bytes >> 8 * (kGrpcPrefixBytes - 1 - i));
  }
}

class GrpcFrames {
 public:
  enum class Event : uint8_t {
    kMore,     // the chunk is used up
    kMessage,  // a message begins: length(), flag()
    kPart,     // part() of it; last() on the final part
  };

  // `chunk` must live until the next Feed; the one before is used up.
  void Feed(std::string_view chunk) {
    at_ = chunk.data();
    end_ = at_ + chunk.size();
  }
  Event Next();

  uint32_t length() const { return length_; }
  // 0 or 1 where the sender keeps to the format.
  uint8_t flag() const { return static_cast<uint8_t>(prefix_[0]); }
  bool compressed() const { return prefix_[0] != 0; }
  std::string_view part() const { return part_; }
  bool last() const { return left_ == 0; }
  // Bytes of the current prefix read so far; kGrpcPrefixBytes inside a message.
  size_t prefix_bytes() const { return prefix_bytes_; }
  // Bytes of the current message that are yet to come.
  uint32_t left() const { return left_; }
  // Whether the stream may not end here: a message is begun and not whole.
  bool inside() const { return prefix_bytes_ > 0; }

 private:
  const char* at_ = nullptr;
  const char* end_ = nullptr;
  std::string_view part_;
  uint32_t length_ = 0;
  uint32_t left_ = 0;
  uint8_t prefix_bytes_ = 0;
  char prefix_[kGrpcPrefixBytes] = {};
};

}  // namespace llmd::wire
