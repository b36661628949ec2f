// MultipartModelScanner: the `model` field of a multipart/form-data body (image edits, audio
// transcriptions), read while the upload arrives.
//
// Thread safety: none, one per upload. Heap: one header line and the model, both bounded.
// Limits: the caller stops feeding at its own bound (the gateway's is 64 KiB) and routes without a
// model. Format: RFC 7578 over RFC 2046, section 5.1.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace llmd::protocol {

// The boundary parameter of a multipart/form-data Content-Type, quotes removed; std::nullopt when
// it is another type or the boundary is missing or malformed (1 to 70 bytes).
std::optional<std::string> MultipartBoundary(std::string_view content_type);

class MultipartModelScanner {
 public:
  static constexpr size_t kPartHeaderBytesMax = 4096;  // real part headers are under 300 bytes
  static constexpr size_t kModelBytesMax = 1024;       // as in request.h

  enum class State : uint8_t {
    kMore,      // not read yet
    kFound,     // model(), model_begin(), model_end()
    kAbsent,    // the body ended without it
    kMalformed  // no multipart body, or a limit was passed
  };

  explicit MultipartModelScanner(std::string_view boundary);

  // Returns the state after `chunk`; anything but kMore is final.
  State Feed(std::string_view chunk);
  State state() const { return state_; }
  std::string_view model() const { return value_; }
  // The field's bytes in the body, for a splice.
  uint64_t model_begin() const { return model_begin_; }
  uint64_t model_end() const { return model_begin_ + value_.size(); }

 private:
  enum class Place : uint8_t { kPreamble, kAfterDelimiter, kHeaders, kContent };

  void OnByte(char c);
  void OnContent(char c);
  void OnHeader(std::string_view line);

  std::string delimiter_;  // CR LF - - boundary
  State state_ = State::kMore;
  Place place_ = Place::kPreamble;
  size_t matched_;         // bytes of the delimiter that the last bytes of content are
  bool in_model_ = false;
  uint64_t offset_ = 0;
  uint64_t model_begin_ = 0;
  std::string line_;       // a header line being read
  size_t header_bytes_ = 0;
  std::string value_;
};

}  // namespace llmd::protocol
