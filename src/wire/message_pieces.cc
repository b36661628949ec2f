#include "wire/message_pieces.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/strings.h"

namespace llmd::wire {

base::Status MessagePieces::Feed(base::Slice piece, bool last, std::string_view what) {
  if (ended_) Clear();
  if (!piece.empty()) {
    bytes_ += piece.size();
    if (pieces_.size() == kPiecesMax + bytes_ / kPieceBytesMean) {
      const std::string bytes = std::to_string(bytes_);
      const std::string count = std::to_string(pieces_.size());
      Clear();
      return base::ResourceExhausted(
          base::Concat(what, ": ", bytes, " bytes came in more than ", count, " pieces"));
    }
    pieces_.push_back(std::move(piece));
  }
  ended_ = last;
  return base::OkStatus();
}

void MessagePieces::Take(uint64_t begin, uint64_t bytes, std::vector<base::Slice>* out) const {
  for (const base::Slice& piece : pieces_) {
    if (bytes == 0) return;
    if (begin >= piece.size()) {
      begin -= piece.size();
      continue;
    }
    const size_t here = std::min<uint64_t>(bytes, piece.size() - begin);
    out->push_back(piece.Sub(begin, here));
    bytes -= here;
    begin = 0;
  }
}

void MessagePieces::Clear() {
  pieces_.clear();
  bytes_ = 0;
  ended_ = false;
}

}  // namespace llmd::wire
