#include "director/model_restorer.h"

#include <algorithm>

namespace llmd::director {

void ModelRestorer::Begin(std::string_view piece) {
  changed_ = !window_.empty();  // held back bytes go out before the piece
  window_.append(piece);
  piece_bytes_ = piece.size();
  out_.clear();
}

std::string_view ModelRestorer::Bytes(uint64_t begin, uint64_t end) const {
  return std::string_view(window_).substr(begin - window_begin_, end - begin);
}

void ModelRestorer::PassOn(uint64_t until) {
  if (until <= cursor_) return;
  out_.append(Bytes(cursor_, until));
  cursor_ = until;
}

void ModelRestorer::Replace(uint64_t begin, uint64_t end) {
  const uint64_t window_end = window_begin_ + window_.size();
  if (begin < cursor_ || begin >= end || end > window_end || Bytes(begin, end) != from_) return;
  PassOn(begin);
  out_.append(to_);
  cursor_ = end;
  changed_ = true;
}

Forward::Splice ModelRestorer::End(uint64_t unsettled) {
  const uint64_t window_end = window_begin_ + window_.size();
  if (unsettled > kHeldBytesMax) unsettled = 0;
  const uint64_t until =
      std::max(cursor_, window_end - std::min<uint64_t>(unsettled, window_.size()));
  PassOn(until);
  window_.erase(0, until - window_begin_);
  window_begin_ = until;
  if (!changed_ && window_.empty()) return {};
  return {.begin = 0, .end = piece_bytes_, .bytes = out_};
}

std::string_view ModelRestorer::TakeHeldBack() {
  out_.swap(window_);
  window_.clear();
  window_begin_ += out_.size();
  cursor_ = window_begin_;
  return out_;
}

}  // namespace llmd::director
