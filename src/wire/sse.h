// SseParser: server-sent events out of a stream that arrives in chunks cut anywhere.
//
//   parser.Feed(chunk);
//   for (SseEvent event; parser.Next(&event);) Use(event.name, event.data);
//
// An event that lies wholly in the current chunk is delivered as views of it. Only an event that a
// chunk border cuts is copied, into a tail buffer of at most `tail_bytes_max`; a longer one is
// passed over and counted in skipped_events().
//
// Thread safety: none, one per stream. Heap: the tail buffer, from the first cut event on.
// Invariants: 1. The events do not depend on how the stream was cut, as long as every cut event
// fits the tail. 2. pending_bytes() trailing bytes of what was fed belong to an event not yet
// delivered: who wants to edit events before passing them on holds back just these. 3. An event
// without a data line is not delivered; an unfinished event at the end of the stream is dropped.
// Format: WHATWG HTML, section 9.2 (LF, CRLF and CR; comments, id and retry are passed over; data
// lines are joined with LF; a byte order mark at the start is ignored).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "wire/json_scan.h"  // the line-end kernel

namespace llmd::wire {

struct SseEvent {
  std::string_view name;  // empty when the event has no event line
  std::string_view data;
  // Stream offset of the first byte of `data`; meaningful when `contiguous`.
  uint64_t data_begin = 0;
  // The event has one data line, so `data` is a run of bytes of the stream.
  bool contiguous = false;
  // `data` points into the chunk last fed (else into the parser's own buffer).
  bool in_chunk = false;
};

class SseParser {
 public:
  // The largest events seen, a whole Responses API reply in response.completed, are a few tens of
  // KiB.
  static constexpr size_t kTailBytesMax = 64 << 10;

  explicit SseParser(size_t tail_bytes_max = kTailBytesMax) : tail_bytes_max_(tail_bytes_max) {}

  // `chunk` must live until the next Feed; the one before must be used up (Next returned false).
  void Feed(std::string_view chunk);
  // The views die with the next call of Next or Feed, or with the chunk.
  bool Next(SseEvent* event);

  // Bytes at the end of the stream so far that belong to an unfinished event.
  uint64_t pending_bytes() const { return pending_; }
  uint64_t events() const { return events_; }
  // Events longer than the tail buffer that a chunk border cut.
  uint64_t skipped_events() const { return skipped_events_; }

 private:
  const char* EventEnd(const char* p);
  bool ParseBlock(std::string_view block, uint64_t block_begin, SseEvent* event);
  void KeepTail(std::string_view bytes);
  void SkipByteOrderMark();
  void ForgetEvent();

  const internal::JsonKernels* kernels_ = internal::BestJsonKernels();
  size_t tail_bytes_max_;
  const char* at_ = nullptr;
  const char* end_ = nullptr;
  const char* chunk_begin_ = nullptr;
  uint64_t base_ = 0;     // stream offset of chunk_begin_
  uint64_t pending_ = 0;
  uint64_t events_ = 0;
  uint64_t skipped_events_ = 0;
  bool line_empty_ = true;     // nothing read yet of the current line
  bool after_cr_ = false;      // an LF now belongs to the line end before
  bool skipping_ = false;      // the current event outgrew the tail
  bool tail_taken_ = false;    // the tail holds an event already delivered
  uint8_t bom_matched_ = 0;    // bytes of a byte order mark seen; 3 when past the start
  std::string tail_;           // the current event as far as earlier chunks held it
  std::string joined_;         // data lines of an event that has several
};

}  // namespace llmd::wire
