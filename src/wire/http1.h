// HTTP/1.1 message heads and chunked bodies (RFC 9110, RFC 9112): strict, zero-copy, no I/O.
//
// A head is parsed once all of it lies in one run of bytes; names and values are views into that
// run. What a proxy must not guess about is refused rather than repaired: bare LF, obs-fold, white
// space before a colon, control bytes, Content-Length beside Transfer-Encoding, repeated or odd
// lengths, codings other than exactly "chunked".
//
// Thread safety: plain values and pure functions.
// Invariants: 1. A head that parses has exactly one framing. 2. Parsing any bytes is memory-safe
// and linear in their number, also when they arrive one by one (HeadParser remembers where it
// looked). Limits: HttpLimits; each has its own error and status.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace llmd::wire {

enum class HttpError : uint8_t {
  kNone,
  kBadRequestLine,
  kBadStatusLine,
  kBadTarget,
  kTargetTooLong,
  kUnsupportedVersion,
  kBareLf,
  kObsFold,
  kBadFieldName,
  kBadFieldValue,
  kHeadTooLarge,
  kTooManyFields,
  kBadContentLength,
  kLengthAndTransferEncoding,
  kUnsupportedTransferEncoding,
  kMissingHost,
  kRepeatedHost,
  kUnsupportedExpectation,
  kBadChunk,
  kTrailersTooLarge,
};
// The status to answer a request with: 400, 414, 417, 431, 501 or 505. 0 for kNone.
int HttpStatusOf(HttpError error);
// "bare-lf" and so on: a metric label.
std::string_view HttpErrorName(HttpError error);
// One sentence for the client.
std::string_view HttpErrorText(HttpError error);
// "OK", "Not Found"; "" for codes nobody registered.
std::string_view HttpReason(int status);

struct HttpLimits {
  size_t head_bytes_max = 64 << 10;
  size_t target_bytes_max = 16 << 10;
  size_t fields_max = 128;  // at most kHttpFieldsMax
  size_t trailer_bytes_max = 8 << 10;
};
constexpr size_t kHttpFieldsMax = 128;

// Fields that the proxy itself looks at, recognised while parsing.
enum class HttpFieldId : uint8_t {
  kOther,
  kAcceptEncoding,
  kAuthorization,
  kConnection,
  kContentEncoding,
  kContentLength,
  kContentType,
  kDate,
  kExpect,
  kHost,
  kKeepAlive,
  kProxyAuthenticate,
  kProxyAuthorization,
  kProxyConnection,
  kRetryAfter,
  kServer,
  kTe,
  kTraceparent,
  kTrailer,
  kTransferEncoding,
  kUpgrade,
  kVia,
  kXForwardedFor,
  kXForwardedProto,
  kXRequestId,
};
HttpFieldId HttpFieldIdOf(std::string_view name);

struct HttpField {
  std::string_view name;   // as sent
  std::string_view value;  // without surrounding white space
  HttpFieldId id = HttpFieldId::kOther;
  // Belongs to this connection only and is not forwarded: the fixed set of RFC 9110 7.6.1 and every
  // name listed in Connection.
  bool hop_by_hop = false;
};

class HttpFields {
 public:
  const HttpField* begin() const { return fields_.data(); }
  const HttpField* end() const { return fields_.data() + count_; }
  size_t size() const { return count_; }
  const HttpField& operator[](size_t i) const { return fields_[i]; }
  // First field of that name, nullptr when there is none. The second form compares without case.
  const HttpField* Find(HttpFieldId id) const;
  const HttpField* Find(std::string_view name) const;
  // Value of the first field or "".
  std::string_view Get(HttpFieldId id) const;
  std::string_view Get(std::string_view name) const;

 private:
  friend class HttpHeadReader;
  size_t count_ = 0;
  std::array<HttpField, kHttpFieldsMax> fields_;
};

enum class HttpMethod : uint8_t {
  kOther,
  kGet,
  kHead,
  kPost,
  kPut,
  kDelete,
  kOptions,
  kPatch,
  kConnect,
  kTrace
};

enum class HttpFraming : uint8_t {
  kNone,    // no body
  kLength,  // content_length bytes
  kChunked,
  kUntilClose,  // responses only
};

struct HttpHead {
  uint8_t version_minor = 1;  // HTTP/1.x; 1 for anything above
  bool keep_alive = true;     // the connection may be used again, by version and Connection
  HttpFraming framing = HttpFraming::kNone;
  uint64_t content_length = 0;  // with kLength; a HEAD or 304 reply may have one with kNone
  size_t head_bytes = 0;        // up to and including the empty line
  HttpFields fields;
};

struct RequestHead : HttpHead {
  HttpMethod method = HttpMethod::kOther;
  std::string_view method_name;
  std::string_view target;     // as sent
  std::string_view path;       // of the target, "/" when absolute-form has none, "*" for "*"
  std::string_view query;      // without "?"
  std::string_view authority;  // of an absolute-form or authority-form target, else the Host value
  bool expects_continue = false;
  bool wants_upgrade = false;  // an Upgrade field listed in Connection, or CONNECT
};

struct ResponseHead : HttpHead {
  int status = 0;
  std::string_view reason;
};

enum class ParseState : uint8_t { kNeedMore, kDone, kError };

// Parses heads that may arrive in pieces. `bytes` always starts at the first byte of the message
// and holds all that came so far (it may have moved in memory). One empty line before a request is
// skipped and counted in head_bytes.
class HeadParser {
 public:
  explicit HeadParser(const HttpLimits& limits = {}) : limits_(limits) {}

  ParseState ParseRequest(std::string_view bytes, RequestHead& head);
  // `to_head_request`: the reply belongs to a HEAD request and has no body whatever it says.
  ParseState ParseResponse(std::string_view bytes, ResponseHead& head, bool to_head_request);
  HttpError error() const { return error_; }
  // Forgets everything, for the next message.
  void Reset() {
    looked_ = 0;
    error_ = HttpError::kNone;
  }

 private:
  bool MayBeComplete(std::string_view bytes);

  HttpLimits limits_;
  size_t looked_ = 0;
  HttpError error_ = HttpError::kNone;
};

// Walks through a chunked body that arrives in pieces, without copying: data comes as views of the
// input, and the caller can relay the same input untouched up to where the body ends. Extensions
// and trailers are checked for their characters and otherwise skipped; extensions of one body are
// limited to kExtensionBytesMax in total, so that framing cannot outweigh data without bound.
class ChunkedDecoder {
 public:
  static constexpr size_t kExtensionBytesMax = 64 << 10;
  enum class Step : uint8_t {
    kData,      // `piece` is the next part of the body
    kNeedMore,  // the input is used up
    kEnd,       // the body and its trailers are over; what is left of the input is not ours
    kError,     // see error()
  };
  explicit ChunkedDecoder(size_t trailer_bytes_max = 8 << 10)
      : trailer_bytes_max_(trailer_bytes_max) {}

  // Takes bytes from the front of `input` (which is shortened) up to the next step. Call it until
  // it gives kNeedMore, kEnd or kError.
  Step Next(std::string_view& input, std::string_view& piece);
  HttpError error() const { return error_; }
  // Bytes of the present chunk that are still to come, a lower bound for the rest of the body.
  uint64_t chunk_bytes_left() const { return left_; }

 private:
  enum class State : uint8_t {
    kSize,       // hex digits
    kExtension,  // after ";" up to CR
    kSizeLf,     // LF of the size line
    kData,
    kDataCr,
    kDataLf,
    kTrailerStart,  // first byte of a trailer line or of the final empty line
    kTrailer,
    kTrailerLf,
    kEndLf,
    kDone,
    kFailed,
  };
  Step Fail(HttpError error);
  bool TakeFramingByte(unsigned char c);

  State state_ = State::kSize;
  HttpError error_ = HttpError::kNone;
  uint8_t digits_ = 0;
  bool colon_seen_ = false;  // in the present trailer line
  uint64_t left_ = 0;
  size_t extension_bytes_ = 0;  // of the whole body
  size_t trailer_bytes_ = 0;
  size_t trailer_bytes_max_;
};

// Appends a head to a fixed buffer. Nothing is checked but the room: names and values come from our
// own code or from a parsed head. After an overflow nothing more is written and ok() is false.
class HeadWriter {
 public:
  explicit HeadWriter(std::span<char> room)
      : out_(room.data()), limit_(out_ + room.size()), begin_(out_) {}

  void Raw(std::string_view bytes);
  void RequestLine(std::string_view method, std::string_view target);
  void StatusLine(int status, std::string_view reason);  // reason "" gives the registered one
  void Field(std::string_view name, std::string_view value);
  void Field(std::string_view name, uint64_t value);
  void EndOfHead() { Raw("\r\n"); }

  bool ok() const { return ok_; }
  size_t size() const { return static_cast<size_t>(out_ - begin_); }
  std::string_view view() const { return {begin_, size()}; }

 private:
  char* out_;
  char* limit_;
  char* begin_;
  bool ok_ = true;
};

// "1f4\r\n" into `out` (at least 18 bytes); the number of bytes written.
size_t WriteChunkSize(uint64_t size, char* out);
// True when `value` (a Connection-like list) names `token`, without case.
bool HttpListHas(std::string_view value, std::string_view token);
// True when `text` is a non-empty RFC 9110 token.
bool IsHttpToken(std::string_view text);
// True when `text` may stand in a field value (no control bytes but tab).
bool IsHttpFieldValue(std::string_view text);

}  // namespace llmd::wire
