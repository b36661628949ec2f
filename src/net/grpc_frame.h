// The five bytes before every gRPC message on a stream: a flag and a big-endian length
// (github.com/grpc/grpc: doc/PROTOCOL-HTTP2.md, "Length-Prefixed-Message"). Pure.
#pragma once

#include <cstddef>
#include <cstdint>

namespace llmd::net {

inline constexpr size_t kGrpcPrefixBytes = 5;

struct GrpcPrefix {
  bool compressed = false;
  uint32_t message_bytes = 0;
};

inline GrpcPrefix ReadGrpcPrefix(const char (&prefix)[kGrpcPrefixBytes]) {
  GrpcPrefix out{.compressed = prefix[0] != 0};
  for (size_t i = 1; i < kGrpcPrefixBytes; ++i) {
    out.message_bytes = out.message_bytes << 8 | static_cast<uint8_t>(prefix[i]);
  }
  return out;
}

// `message_bytes` is at most 2^32 - 1.
inline void WriteGrpcPrefix(size_t message_bytes, char (&prefix)[kGrpcPrefixBytes]) {
  prefix[0] = 0;
  for (size_t i = 1; i < kGrpcPrefixBytes; ++i) {
    prefix[i] = static_cast<char>(message_bytes >> 8 * (kGrpcPrefixBytes - 1 - i));
  }
}

}  // namespace llmd::net
