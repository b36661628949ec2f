// The protobuf wire format without schemas: fields out of a view or of slices cut anywhere, and a
// writer that works from the back. Messages that need a schema of more than a screen use the
// library; these are for the few hot ones (ext_proc.h) and the tiny ones (gRPC health).
//
//   ProtoReader in(message);
//   for (ProtoField f; in.Next(&f);) {
//     if (f.number == 1 && in.Expect(f, ProtoWire::kBytes)) name = f.bytes;
//   }
//   if (in.error() != ProtoError::kNone) return ProtoStatus(in.error(), "HealthCheckRequest");
//
// Thread safety: none; readers are plain values over bytes that must outlive them.
// Invariants: 1. Next returns false for good at the end and at the first error, which stays.
// 2. Fields that nobody looks at are stepped over unread. 3. No recursion: reading any bytes takes
// time linear in their number and constant memory.
// Limits: tags of 5 bytes, varints of 10, lengths inside their message. Groups (wire types 3 and 4)
// are refused: proto3 has none.
// Format: protobuf.dev/programming-guides/encoding.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/arena.h"
#include "base/buffer.h"
#include "base/status.h"

namespace llmd::wire {

enum class ProtoWire : uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

enum class ProtoError : uint8_t {
  kNone,
  kTruncated,      // a field ends behind its message
  kVarintTooLong,  // more than 10 bytes, a tag more than 5
  kBadTag,         // field number 0 or too large, wire type 3, 4, 6 or 7
  kWrongWireType,  // a known field with the wire type of another
};
// One clause for a log line.
std::string_view ProtoErrorText(ProtoError error);
// InvalidArgument "malformed `where`: ..."; OK for kNone.
base::Status ProtoStatus(ProtoError error, std::string_view where);

struct ProtoField {
  uint32_t number = 0;
  ProtoWire wire = ProtoWire::kVarint;
  uint64_t value = 0;      // the number, the bits of a fixed one, or the length of kBytes
  std::string_view bytes;  // content of kBytes; only ProtoReader sets it

  bool flag() const { return value != 0; }
  double number64() const { return std::bit_cast<double>(value); }
};

// Fields of a message that lies in slices. kBytes content is entered, copied or left alone.
class ProtoPieceReader {
 public:
  explicit ProtoPieceReader(std::span<const base::Slice> pieces);

  bool Next(ProtoField* field);
  // Whether `field` has that wire type; sets kWrongWireType if not.
  bool Expect(const ProtoField& field, ProtoWire wire) {
    if (field.wire == wire) [[likely]] return true;
    error_ = ProtoError::kWrongWireType;
    return false;
  }
  // The three below are for the kBytes field that Next gave last.
  // A reader of the message in it.
  ProtoPieceReader Enter() const;
  // Offset of its content in the whole of `pieces`.
  uint64_t content_begin() const { return begin_offset_ + static_cast<uint64_t>(at_ - begin_); }
  // Copies its content to `out`, which has room for it.
  void CopyContent(char* out) const;

  ProtoError error() const { return error_; }
  // Takes over the error of a reader of the content.
  void Adopt(ProtoError inner) {
    if (inner != ProtoError::kNone) error_ = inner;
  }

 private:
  bool NextPiece();
  void Skip(uint64_t bytes);
  bool Byte(uint8_t* byte);
  bool Varint(size_t bytes_max, uint64_t* value);
  bool Fixed(size_t bytes, uint64_t* value);
  void SetRun();
  bool Fail(ProtoError error) {
    error_ = error;
    return false;
  }

  const base::Slice* piece_ = nullptr;
  const char* begin_ = nullptr;    // of the piece
  const char* at_ = nullptr;
  const char* run_end_ = nullptr;  // of the piece or of the message, whichever is first
  uint64_t begin_offset_ = 0;      // of the piece in the whole
  uint64_t end_offset_ = 0;        // of the message in the whole
  uint64_t content_bytes_ = 0;     // of the current field, not stepped over yet
  ProtoError error_ = ProtoError::kNone;
};

// Fields of a message that lies in one run of bytes; `bytes` of a field are views of it.
class ProtoReader {
 public:
  explicit ProtoReader(std::string_view message)
      : at_(message.data()), end_(message.data() + message.size()) {}

  bool Next(ProtoField* field);
  bool Expect(const ProtoField& field, ProtoWire wire) {
    if (field.wire == wire) [[likely]] return true;
    error_ = ProtoError::kWrongWireType;
    return false;
  }
  ProtoError error() const { return error_; }
  // Takes over the error of a reader of `bytes`.
  void Adopt(ProtoError inner) {
    if (inner != ProtoError::kNone) error_ = inner;
  }

 private:
  bool Varint(size_t bytes_max, uint64_t* value);
  bool Fixed(size_t bytes, uint64_t* value);
  bool Fail(ProtoError error) {
    error_ = error;
    return false;
  }

  const char* at_;
  const char* end_;
  ProtoError error_ = ProtoError::kNone;
};

// Writes a message from its last field to its first, so that the length of an embedded message is
// known when its tag is written and nothing is measured beforehand:
//
//   const size_t mark = out.size();
//   out.Bytes(3, value);
//   out.Bytes(1, name);
//   out.Wrap(1, mark);               // field 1 = the message {1: name, 3: value}
//   base::Slice message = out.Take();
//
// Messages are put one before the other into blocks of `pool`, which must outlive the writer; a
// Slice keeps its block alive. Thread safety: none, one per worker.
class ProtoWriter {
 public:
  // A header reply takes 1-2 KiB, the frame around a body chunk some 20 bytes.
  static constexpr size_t kBlockBytes = 8 << 10;

  explicit ProtoWriter(base::BufferPool* pool) : pool_(pool) {}

  // Bytes of the message so far.
  size_t size() const { return static_cast<size_t>(end_ - at_) + gap_bytes_; }

  void Varint(uint32_t number, uint64_t value) {
    RawVarint(value);
    Tag(number, ProtoWire::kVarint);
  }
  void Fixed64(uint32_t number, uint64_t value);
  void Double(uint32_t number, double value) { Fixed64(number, std::bit_cast<uint64_t>(value)); }
  void Bytes(uint32_t number, std::string_view bytes);
  // Leaves an empty one out, which is the same for a field that is not repeated or in a oneof.
  void BytesIfAny(uint32_t number, std::string_view bytes) {
    if (!bytes.empty()) Bytes(number, bytes);
  }
  // What was written since size() was `mark` becomes the embedded message `number`.
  void Wrap(uint32_t number, size_t mark) {
    RawVarint(size() - mark);
    Tag(number, ProtoWire::kBytes);
  }
  // Counts `bytes` as written that the caller sends itself, between the Slice returned here (what
  // follows them) and the one that Take returns (what precedes them). Once per message.
  base::Slice Gap(size_t bytes);
  // The message (or what precedes its gap); the next one begins.
  base::Slice Take();

  void RawVarint(uint64_t value);
  void Tag(uint32_t number, ProtoWire wire) {
    RawVarint(uint64_t{number} << 3 | static_cast<uint64_t>(wire));
  }

 private:
  // Makes room for `bytes` before `at_`.
  void Reserve(size_t bytes) {
    if (static_cast<size_t>(at_ - begin_) < bytes) [[unlikely]] Grow(bytes);
  }
  void Grow(size_t bytes);

  base::BufferPool* pool_;
  base::Slice block_;          // keeps the block alive
  base::Block* raw_ = nullptr;
  char* begin_ = nullptr;      // of the free room
  char* at_ = nullptr;         // first byte written
  char* end_ = nullptr;        // of the message, or of what precedes its gap
  size_t gap_bytes_ = 0;       // the gap and what follows it
};

}  // namespace llmd::wire
