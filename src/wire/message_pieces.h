// MessagePieces: one length-delimited message while it arrives, in slices cut anywhere.
//
// Thread safety: none, one per stream. Invariant: bytes are held, never copied.
// Limits: kPiecesMax and kPieceBytesMean bound the slices; the bytes are the framing layer's to
// bound.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/buffer.h"
#include "base/status.h"

namespace llmd::wire {

class MessagePieces {
 public:
  // A peer that cuts a message into single bytes makes a Slice of 24 bytes and a step out of each.
  // An honest one sends frames of 16 KiB through read buffers of 4 KiB and more; small messages may
  // trickle.
  static constexpr size_t kPiecesMax = 1024;
  static constexpr size_t kPieceBytesMean = 256;  // one piece more for each so many bytes

  // The next piece; `last` ends the message, and the piece after that begins a new one.
  // ResourceExhausted when there are too many; `what` names the message in the text.
  base::Status Feed(base::Slice piece, bool last, std::string_view what);

  std::span<const base::Slice> pieces() const { return pieces_; }
  // Appends `bytes` bytes from offset `begin` on to `out`, as far as there are any.
  void Take(uint64_t begin, uint64_t bytes, std::vector<base::Slice>* out) const;
  // Lets go of the message; the next piece begins a new one.
  void Clear();

 private:
  std::vector<base::Slice> pieces_;
  uint64_t bytes_ = 0;
  bool ended_ = false;
};

}  // namespace llmd::wire
