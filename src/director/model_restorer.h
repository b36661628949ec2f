// ModelRestorer: puts the model name that a client asked for back into a reply that names the one
// it was rewritten to, while the reply streams through in pieces cut anywhere.
//
//   restorer.Begin(piece);                       // the next bytes of the reply
//   restorer.Replace(begin, end);                // places found, ascending, offsets in the reply
//   Forward::Splice s = restorer.End(unsettled); // the edit of `piece`
//
// Thread safety: none, one per reply. Used only for rewritten requests; allocates.
// Invariants: 1. What all splices leave, plus TakeHeldBack at the end, is the reply with the
// replaced places changed and nothing else. 2. A place is changed only if its bytes are the
// expected literal. Limits: at most kHeldBytesMax bytes are held back; beyond, they go on
// unchanged.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "director/session.h"

namespace llmd::director {

class ModelRestorer {
 public:
  static constexpr uint64_t kHeldBytesMax = 64 << 10;

  // JSON string literals, quotes included.
  ModelRestorer(std::string from, std::string to) : from_(std::move(from)), to_(std::move(to)) {}

  void Begin(std::string_view piece);
  void Replace(uint64_t begin, uint64_t end);
  // `unsettled`: bytes at the end of the reply so far that may hold part of a place. The splice is
  // valid until the next Begin.
  Forward::Splice End(uint64_t unsettled);
  // Valid until the next call.
  std::string_view TakeHeldBack();

  const std::string& from() const { return from_; }

 private:
  // Appends the reply's bytes [cursor_, until).
  void PassOn(uint64_t until);
  std::string_view Bytes(uint64_t begin, uint64_t end) const;

  std::string from_, to_;
  std::string window_;        // held back bytes, then the piece
  uint64_t window_begin_ = 0;  // offset of window_ in the reply
  size_t piece_bytes_ = 0;
  uint64_t cursor_ = 0;       // passed on up to here
  bool changed_ = false;
  std::string out_;
};

}  // namespace llmd::director
