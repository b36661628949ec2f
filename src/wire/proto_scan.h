// ProtoScanner: pull events from a protobuf message that arrives in chunks cut anywhere; the
// sibling of JsonScanner for bodies, where protobuf.h reads messages that are wholly there. What a
// gRPC body holds is grpc_frames.h's business.
//
//   ProtoScanner scan;
//   scan.Begin(message_bytes);
//   scan.Feed(chunk);
//   for (ProtoEvent e; (e = scan.Next()) != ProtoEvent::kMore;) {
//     if (e == ProtoEvent::kLength && scan.field() == 2) scan.Enter();   // else it is passed over
//     ...                       // kError and kEnd repeat for ever: leave the loop there
//   }
//
// Thread safety: none; plain values, one per message or body, no heap.
// Invariants: 1. The events do not depend on how the message was cut, except that taken content
// comes in as many parts as chunks it lies in (parts may be empty, one has last()). 2. After kError
// nothing else comes. 3. Fixed-size fields are passed over: nothing that we scan has one to read.
// Limits: as protobuf.h; kProtoScanDepthMax messages inside each other.
// Format: protobuf.dev/programming-guides/encoding.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "wire/protobuf.h"

namespace llmd::wire {

enum class ProtoEvent : uint8_t {
  kMore,    // the chunk is used up: Feed the next one
  kVarint,  // field(), value()
  kLength,  // field(), value(): the length of what follows; Enter, Take, or nothing to pass it over
  kBytes,   // field(), part() of content asked for with Take; last() on the final part
  kLeave,   // the end of a message that was entered
  kEnd,     // the message is complete
  kError,   // error(), offset()
};

// Generate request, its media inputs, a placeholder in them; room for one more.
inline constexpr size_t kProtoScanDepthMax = 4;

class ProtoScanner {
 public:
  // A message of `bytes` bytes comes.
  void Begin(uint64_t bytes);
  // `chunk` is of this message only, and must live until the next Feed; the one before is used up.
  void Feed(std::string_view chunk);
  ProtoEvent Next();

  // After kLength and before Next: how to take what follows. Enter needs depth() below the limit.
  void Enter() { mode_ = Mode::kEnter; }
  void Take() { mode_ = Mode::kTake; }

  uint32_t field() const { return field_; }
  uint64_t value() const { return value_; }
  std::string_view part() const { return part_; }
  bool last() const { return last_; }
  ProtoError error() const { return error_; }
  // Messages open at the moment; 1 outside of all that were entered.
  size_t depth() const { return size_t{depth_} + 1; }
  // Of the next byte in the message.
  uint64_t offset() const { return offset_; }

 private:
  enum class Mode : uint8_t { kSkip, kEnter, kTake };
  enum class State : uint8_t { kTag, kNumber, kSize, kContent, kTaken, kSkipped, kDone, kFailed };

  ProtoEvent Tag();
  ProtoEvent Stopped() const;
  void BeginContent();
  ProtoEvent Taken();
  bool Skipped();
  // False when the chunk ended first or the number is malformed (then the state is kFailed).
  bool ReadVarint(size_t bytes_max);
  bool Pass(uint64_t bytes);
  ProtoEvent Fail(ProtoError error);
  uint64_t left_in_message() const { return ends_[depth_] - offset_; }

  const char* at_ = nullptr;
  const char* end_ = nullptr;
  uint64_t offset_ = 0;
  uint64_t ends_[kProtoScanDepthMax] = {};  // offsets at which the open messages end
  uint64_t number_ = 0;                     // a varint being read
  uint64_t value_ = 0;
  uint64_t left_ = 0;                       // of content being taken or passed over
  std::string_view part_;
  uint32_t field_ = 0;
  uint8_t depth_ = 0;
  uint8_t number_bytes_ = 0;
  State state_ = State::kTag;
  Mode mode_ = Mode::kSkip;
  ProtoError error_ = ProtoError::kNone;
  bool last_ = false;
};

// Counts and checks packed varints that arrive in parts.
class PackedVarints {
 public:
  // False once a number has more than 10 bytes.
  bool Feed(std::string_view part);
  // The parts end between two numbers.
  bool complete() const { return run_ == 0; }
  uint64_t count() const { return count_; }

 private:
  uint64_t count_ = 0;
  uint32_t run_ = 0;  // bytes of an unfinished number
};

}  // namespace llmd::wire
