#include "wire/protobuf.h"

#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/strings.h"

namespace llmd::wire {
namespace {

constexpr size_t kVarintBytesMax = 10;
constexpr size_t kTagBytesMax = 5;
constexpr uint64_t kFieldNumberMax = (1u << 29) - 1;

// Splits a tag; false when no field of proto3 can have it.
bool SplitTag(uint64_t tag, ProtoField* field) {
  const uint64_t number = tag >> 3;
  field->number = static_cast<uint32_t>(number);
  field->wire = static_cast<ProtoWire>(tag & 7);
  constexpr uint32_t kKnownWires = 1u << 0 | 1u << 1 | 1u << 2 | 1u << 5;
  return number - 1 < kFieldNumberMax && (kKnownWires >> (tag & 7) & 1) != 0;
}

}  // namespace

std::string_view ProtoErrorText(ProtoError error) {
  switch (error) {
    case ProtoError::kNone: return "no error";
    case ProtoError::kTruncated: return "a field ends behind the end of its message";
    case ProtoError::kVarintTooLong: return "a varint has too many bytes";
    case ProtoError::kBadTag: return "a tag has a field number or wire type that does not exist";
    case ProtoError::kWrongWireType: return "a known field has the wire type of another";
  }
  return "unknown";
}

base::Status ProtoStatus(ProtoError error, std::string_view where) {
  if (error == ProtoError::kNone) return base::OkStatus();
  return base::InvalidArgument(base::Concat("malformed ", where, ": ", ProtoErrorText(error)));
}

// --- ProtoPieceReader ---------------------------------------------------------------------------

ProtoPieceReader::ProtoPieceReader(std::span<const base::Slice> pieces) {
  for (const base::Slice& piece : pieces) end_offset_ += piece.size();
  if (pieces.empty()) return;
  piece_ = pieces.data();
  begin_ = at_ = piece_->data();
  SetRun();
}

void ProtoPieceReader::SetRun() {
  const uint64_t left = end_offset_ - content_begin();
  const uint64_t here = piece_->size() - static_cast<uint64_t>(at_ - begin_);
  run_end_ = at_ + std::min(left, here);
}

// Steps to the next byte of the message when the run is used up; false at the end of the message.
bool ProtoPieceReader::NextPiece() {
  while (at_ == run_end_) {
    if (content_begin() == end_offset_) return false;
    begin_offset_ += piece_->size();
    ++piece_;
    begin_ = at_ = piece_->data();
    SetRun();
  }
  return true;
}

void ProtoPieceReader::Skip(uint64_t bytes) {
  while (bytes > static_cast<uint64_t>(run_end_ - at_)) {
    bytes -= static_cast<uint64_t>(run_end_ - at_);
    at_ = run_end_;
    if (!NextPiece()) return;  // lengths are checked when they are read
  }
  at_ += bytes;
}

bool ProtoPieceReader::Byte(uint8_t* byte) {
  if (at_ == run_end_ && !NextPiece()) [[unlikely]] return Fail(ProtoError::kTruncated);
  *byte = static_cast<uint8_t>(*at_++);
  return true;
}

bool ProtoPieceReader::Varint(size_t bytes_max, uint64_t* value) {
  uint8_t byte;
  if (!Byte(&byte)) return false;
  uint64_t result = byte & 0x7f;
  for (size_t i = 1; byte >= 0x80; ++i) {
    if (i == bytes_max) return Fail(ProtoError::kVarintTooLong);
    if (!Byte(&byte)) return false;
    result |= static_cast<uint64_t>(byte & 0x7f) << (7 * i);
  }
  *value = result;
  return true;
}

bool ProtoPieceReader::Fixed(size_t bytes, uint64_t* value) {
  *value = 0;
  for (size_t i = 0; i < bytes; ++i) {
    uint8_t byte;
    if (!Byte(&byte)) return false;
    *value |= uint64_t{byte} << (8 * i);
  }
  return true;
}

bool ProtoPieceReader::Next(ProtoField* field) {
  if (error_ != ProtoError::kNone) return false;
  if (content_bytes_ > 0) Skip(std::exchange(content_bytes_, 0));
  if (at_ == run_end_ && !NextPiece()) return false;
  uint64_t tag;
  if (!Varint(kTagBytesMax, &tag)) return false;
  if (!SplitTag(tag, field)) return Fail(ProtoError::kBadTag);
  switch (field->wire) {
    case ProtoWire::kVarint: return Varint(kVarintBytesMax, &field->value);
    case ProtoWire::kFixed64: return Fixed(8, &field->value);
    case ProtoWire::kFixed32: return Fixed(4, &field->value);
    case ProtoWire::kBytes: break;
  }
  if (!Varint(kVarintBytesMax, &field->value)) return false;
  if (field->value > end_offset_ - content_begin()) return Fail(ProtoError::kTruncated);
  content_bytes_ = field->value;
  return true;
}

ProtoPieceReader ProtoPieceReader::Enter() const {
  ProtoPieceReader inner = *this;
  inner.end_offset_ = content_begin() + content_bytes_;
  inner.content_bytes_ = 0;
  if (piece_) inner.SetRun();
  return inner;
}

void ProtoPieceReader::CopyContent(char* out) const {
  ProtoPieceReader inner = Enter();
  while (inner.at_ < inner.run_end_ || inner.NextPiece()) {
    const size_t bytes = static_cast<size_t>(inner.run_end_ - inner.at_);
    std::memcpy(out, inner.at_, bytes);
    out += bytes;
    inner.at_ = inner.run_end_;
  }
}

// --- ProtoReader --------------------------------------------------------------------------------

bool ProtoReader::Varint(size_t bytes_max, uint64_t* value) {
  if (at_ < end_ && static_cast<uint8_t>(*at_) < 0x80) [[likely]] {
    *value = static_cast<uint8_t>(*at_++);
    return true;
  }
  uint64_t result = 0;
  for (size_t i = 0; i < bytes_max; ++i) {
    if (at_ == end_) return Fail(ProtoError::kTruncated);
    const auto byte = static_cast<uint8_t>(*at_++);
    result |= static_cast<uint64_t>(byte & 0x7f) << (7 * i);
    if (byte < 0x80) {
      *value = result;
      return true;
    }
  }
  return Fail(ProtoError::kVarintTooLong);
}

bool ProtoReader::Fixed(size_t bytes, uint64_t* value) {
  if (static_cast<size_t>(end_ - at_) < bytes) return Fail(ProtoError::kTruncated);
  *value = 0;
  std::memcpy(value, at_, bytes);
  if constexpr (std::endian::native == std::endian::big) {
    *value = __builtin_bswap64(*value);
  }
  at_ += bytes;
  return true;
}

bool ProtoReader::Next(ProtoField* field) {
  if (error_ != ProtoError::kNone || at_ == end_) return false;
  uint64_t tag;
  if (!Varint(kTagBytesMax, &tag)) return false;
  if (!SplitTag(tag, field)) return Fail(ProtoError::kBadTag);
  switch (field->wire) {
    case ProtoWire::kVarint: return Varint(kVarintBytesMax, &field->value);
    case ProtoWire::kFixed64: return Fixed(8, &field->value);
    case ProtoWire::kFixed32: return Fixed(4, &field->value);
    case ProtoWire::kBytes: break;
  }
  if (!Varint(kVarintBytesMax, &field->value)) return false;
  if (field->value > static_cast<uint64_t>(end_ - at_)) return Fail(ProtoError::kTruncated);
  field->bytes = {at_, static_cast<size_t>(field->value)};
  at_ += field->value;
  return true;
}

// --- ProtoWriter --------------------------------------------------------------------------------

void ProtoWriter::RawVarint(uint64_t value) {
  Reserve(kVarintBytesMax);
  if (value < 0x80) [[likely]] {
    *--at_ = static_cast<char>(value);
    return;
  }
  const size_t bytes = (static_cast<size_t>(std::bit_width(value)) + 6) / 7;
  at_ -= bytes;
  for (size_t i = 0; i + 1 < bytes; ++i, value >>= 7) at_[i] = static_cast<char>(value | 0x80);
  at_[bytes - 1] = static_cast<char>(value);
}

void ProtoWriter::Fixed64(uint32_t number, uint64_t value) {
  Reserve(sizeof(value));
  at_ -= sizeof(value);
  for (size_t i = 0; i < sizeof(value); ++i) at_[i] = static_cast<char>(value >> (8 * i));
  Tag(number, ProtoWire::kFixed64);
}

void ProtoWriter::Bytes(uint32_t number, std::string_view bytes) {
  Reserve(bytes.size());
  at_ -= bytes.size();
  if (!bytes.empty()) std::memcpy(at_, bytes.data(), bytes.size());
  RawVarint(bytes.size());
  Tag(number, ProtoWire::kBytes);
}

base::Slice ProtoWriter::Gap(size_t bytes) {
  LLMD_DCHECK(gap_bytes_ == 0, "a message has one gap");
  const base::Slice rest(raw_, at_, static_cast<size_t>(end_ - at_));
  gap_bytes_ = rest.size() + bytes;
  end_ = at_;
  return rest;
}

base::Slice ProtoWriter::Take() {
  base::Slice message(raw_, at_, static_cast<size_t>(end_ - at_));
  end_ = at_;
  gap_bytes_ = 0;
  return message;
}

void ProtoWriter::Grow(size_t bytes) {
  const size_t written = static_cast<size_t>(end_ - at_);
  base::Block* block = pool_->Get(std::max(kBlockBytes, (written + bytes) * 2));
  char* const end = block->data() + block->capacity();
  if (written > 0) std::memcpy(end - written, at_, written);
  raw_ = block;
  block_ = base::Slice(block, block->data(), 0);
  begin_ = block->data();
  end_ = end;
  at_ = end - written;
}

}  // namespace llmd::wire
