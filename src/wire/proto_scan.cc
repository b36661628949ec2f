#include "wire/proto_scan.h"

#include <algorithm>

#include "base/check.h"

namespace llmd::wire {
namespace {

constexpr size_t kVarintBytesMax = 10;
constexpr size_t kTagBytesMax = 5;

}  // namespace

void ProtoScanner::Begin(uint64_t bytes) {
  *this = {};
  ends_[0] = bytes;
}

void ProtoScanner::Feed(std::string_view chunk) {
  at_ = chunk.data();
  end_ = at_ + chunk.size();
}

ProtoEvent ProtoScanner::Next() {
  for (;;) {
    switch (state_) {
      case State::kTag: {
        const ProtoEvent event = Tag();
        if (event != ProtoEvent::kVarint) return event;
        break;  // the tag is read, its value comes
      }
      case State::kNumber:
        if (!ReadVarint(kVarintBytesMax)) return Stopped();
        value_ = number_;
        state_ = State::kTag;
        return ProtoEvent::kVarint;
      case State::kSize:
        if (!ReadVarint(kVarintBytesMax)) return Stopped();
        value_ = number_;
        if (value_ > left_in_message()) return Fail(ProtoError::kTruncated);
        mode_ = Mode::kSkip;
        state_ = State::kContent;
        return ProtoEvent::kLength;
      case State::kContent: BeginContent(); break;
      case State::kTaken: return Taken();
      case State::kSkipped:
        if (!Skipped()) return ProtoEvent::kMore;
        break;
      case State::kDone: return ProtoEvent::kEnd;
      case State::kFailed: return ProtoEvent::kError;
    }
  }
}

// Why ReadVarint has none.
ProtoEvent ProtoScanner::Stopped() const {
  return state_ == State::kFailed ? ProtoEvent::kError : ProtoEvent::kMore;
}

// kVarint when a tag was read and what it announces is to be read now.
ProtoEvent ProtoScanner::Tag() {
  if (number_bytes_ == 0 && left_in_message() == 0) {
    if (depth_ == 0) {
      state_ = State::kDone;
      return ProtoEvent::kEnd;
    }
    --depth_;
    return ProtoEvent::kLeave;
  }
  if (!ReadVarint(kTagBytesMax)) return Stopped();
  field_ = static_cast<uint32_t>(number_ >> 3);
  if (field_ == 0 || number_ > UINT32_MAX) return Fail(ProtoError::kBadTag);
  switch (static_cast<ProtoWire>(number_ & 7)) {
    case ProtoWire::kVarint: state_ = State::kNumber; return ProtoEvent::kVarint;
    case ProtoWire::kBytes: state_ = State::kSize; return ProtoEvent::kVarint;
    case ProtoWire::kFixed64: return Pass(8) ? ProtoEvent::kVarint : ProtoEvent::kError;
    case ProtoWire::kFixed32: return Pass(4) ? ProtoEvent::kVarint : ProtoEvent::kError;
  }
  return Fail(ProtoError::kBadTag);
}

bool ProtoScanner::Pass(uint64_t bytes) {
  if (bytes > left_in_message()) {
    Fail(ProtoError::kTruncated);
    return false;
  }
  left_ = bytes;
  state_ = State::kSkipped;
  return true;
}

// Begins what the caller chose.
void ProtoScanner::BeginContent() {
  left_ = value_;
  switch (mode_) {
    case Mode::kTake: state_ = State::kTaken; break;
    case Mode::kSkip: state_ = State::kSkipped; break;
    case Mode::kEnter:
      LLMD_CHECK(depth() < kProtoScanDepthMax, "no message that we read is that deep");
      ends_[++depth_] = offset_ + value_;
      state_ = State::kTag;
      break;
  }
}

ProtoEvent ProtoScanner::Taken() {
  const auto have = static_cast<uint64_t>(end_ - at_);
  if (have == 0 && left_ > 0) return ProtoEvent::kMore;
  const uint64_t size = std::min(have, left_);
  part_ = {at_, size};
  at_ += size;
  offset_ += size;
  left_ -= size;
  last_ = left_ == 0;
  if (last_) state_ = State::kTag;
  return ProtoEvent::kBytes;
}

bool ProtoScanner::Skipped() {
  const uint64_t size = std::min(static_cast<uint64_t>(end_ - at_), left_);
  at_ += size;
  offset_ += size;
  left_ -= size;
  if (left_ > 0) return false;
  state_ = State::kTag;
  return true;
}

bool ProtoScanner::ReadVarint(size_t bytes_max) {
  if (number_bytes_ == 0) number_ = 0;
  while (at_ < end_) {
    if (left_in_message() == 0) {
      Fail(ProtoError::kTruncated);
      return false;
    }
    const auto byte = static_cast<uint8_t>(*at_++);
    ++offset_;
    // The tenth byte has room for one bit; what is beyond is dropped, as everywhere.
    number_ |= uint64_t{byte & 0x7fu} << (7 * number_bytes_);
    if (byte < 0x80) {
      number_bytes_ = 0;
      return true;
    }
    if (++number_bytes_ == bytes_max) {
      Fail(ProtoError::kVarintTooLong);
      return false;
    }
  }
  if (left_in_message() == 0) Fail(ProtoError::kTruncated);
  return false;
}

ProtoEvent ProtoScanner::Fail(ProtoError error) {
  error_ = error;
  state_ = State::kFailed;
  return ProtoEvent::kError;
}

bool PackedVarints::Feed(std::string_view part) {
  for (const char c : part) {
    if (static_cast<uint8_t>(c) >= 0x80) {
      if (++run_ == kVarintBytesMax) return false;
    } else {
      run_ = 0;
      ++count_;
    }
  }
  return run_ < kVarintBytesMax;
}

}  // namespace llmd::wire
