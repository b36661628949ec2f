#include <algorithm>

#include "wire/http1.h"

namespace llmd::wire {
namespace {

bool IsFieldByte(unsigned char c) { return (c >= 0x20 && c != 0x7f) || c == '\t'; }

}  // namespace

ChunkedDecoder::Step ChunkedDecoder::Fail(HttpError error) {
  error_ = error;
  state_ = State::kFailed;
  return Step::kError;
}

ChunkedDecoder::Step ChunkedDecoder::Next(std::string_view& input, std::string_view& piece) {
  if (state_ == State::kFailed) return Step::kError;
  while (state_ != State::kDone) {
    if (input.empty()) return Step::kNeedMore;
    if (state_ == State::kData) {
      const size_t size = static_cast<size_t>(std::min<uint64_t>(left_, input.size()));
      piece = input.substr(0, size);
      input.remove_prefix(size);
      left_ -= size;
      if (left_ == 0) state_ = State::kDataCr;
      return Step::kData;
    }
    const bool good = TakeFramingByte(static_cast<unsigned char>(input[0]));
    if (!good) return Fail(error_ == HttpError::kNone ? HttpError::kBadChunk : error_);
    input.remove_prefix(1);
  }
  return Step::kEnd;
}

// Everything that is not chunk data, byte by byte. False when `c` cannot stand here.
bool ChunkedDecoder::TakeFramingByte(unsigned char c) {
  auto expect = [&](unsigned char wanted, State next) {
    if (c != wanted) return false;
    state_ = next;
    return true;
  };
  switch (state_) {
    case State::kSize: {
      const int value = c >= '0' && c <= '9'                       ? c - '0'
                        : ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') ? (c | 0x20) - 'a' + 10
                                                                   : -1;
      if (value >= 0) {
        // 15 digits stay below 2^60.
        if (++digits_ > 15) return false;
        left_ = left_ * 16 + static_cast<uint64_t>(value);
        return true;
      }
      if (digits_ == 0) return false;
      state_ = c == ';' ? State::kExtension : State::kSizeLf;
      return c == ';' || c == '\r';
    }
    case State::kExtension:
      if (++extension_bytes_ > kExtensionBytesMax) return false;
      if (c == '\r') state_ = State::kSizeLf;
      return c == '\r' || IsFieldByte(c);
    case State::kSizeLf:
      digits_ = 0;
      return expect('\n', left_ > 0 ? State::kData : State::kTrailerStart);
    case State::kDataCr:
      return expect('\r', State::kDataLf);
    case State::kDataLf:
      return expect('\n', State::kSize);
    case State::kTrailerStart:
      if (c == '\r') return expect('\r', State::kEndLf);
      colon_seen_ = false;
      state_ = State::kTrailer;
      if (!IsHttpToken({reinterpret_cast<const char*>(&c), 1})) return false;
      [[fallthrough]];
    case State::kTrailer:
      if (++trailer_bytes_ > trailer_bytes_max_) {
        error_ = HttpError::kTrailersTooLarge;
        return false;
      }
      if (c == '\r') return colon_seen_ && expect('\r', State::kTrailerLf);
      if (c == ':') colon_seen_ = true;
      return colon_seen_ ? IsFieldByte(c) : IsHttpToken({reinterpret_cast<const char*>(&c), 1});
    case State::kTrailerLf:
      return expect('\n', State::kTrailerStart);
    case State::kEndLf:
      return expect('\n', State::kDone);
    case State::kData:
    case State::kDone:
    case State::kFailed:
      break;
  }
  return false;
}

}  // namespace llmd::wire
