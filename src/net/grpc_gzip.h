// Inflates compressed gRPC messages, piece by piece into pooled blocks.
//
// Thread safety: none. Limits: the `bytes_max` of Begin; blocks of kPieceBytes.
// Format: RFC 1952, one member per message.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "base/buffer.h"

struct z_stream_s;

namespace llmd::net {

class GzipReader {
 public:
  static constexpr size_t kPieceBytes = 32 << 10;

  enum class Step : uint8_t {
    kMore,  // call again: there is more to come out
    kNeedInput,
    kEnd,  // of the message
    kTooLarge,
    kError,  // not gzip, or bytes behind its end
  };

  explicit GzipReader(base::BufferPool& pool);
  ~GzipReader();

  // The next message, of at most `bytes_max` bytes inflated.
  void Begin(uint32_t bytes_max);
  // Takes from `input`; what came out is in `piece` (perhaps empty).
  Step Next(std::string_view& input, base::Slice& piece);

 private:
  base::BufferPool& pool_;
  std::unique_ptr<z_stream_s> stream_;
  uint32_t bytes_left_ = 0;
  bool ended_ = false;
};

}  // namespace llmd::net
