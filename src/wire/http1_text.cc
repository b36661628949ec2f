// Writing heads, and the words that belong to statuses and errors.
#include <charconv>
#include <cstring>

#include "wire/http1.h"

namespace llmd::wire {

void HeadWriter::Raw(std::string_view bytes) {
  if (bytes.size() > static_cast<size_t>(limit_ - out_)) {
    ok_ = false;
    limit_ = out_;
    return;
  }
  if (!bytes.empty()) std::memcpy(out_, bytes.data(), bytes.size());
  out_ += bytes.size();
}

void HeadWriter::RequestLine(std::string_view method, std::string_view target) {
  Raw(method);
  Raw(" ");
  Raw(target);
  Raw(" HTTP/1.1\r\n");
}

void HeadWriter::StatusLine(int status, std::string_view reason) {
  char number[8];
  const char* end = std::to_chars(number, number + sizeof(number), status).ptr;
  Raw("HTTP/1.1 ");
  Raw({number, static_cast<size_t>(end - number)});
  Raw(" ");
  Raw(reason.empty() ? HttpReason(status) : reason);
  Raw("\r\n");
}

void HeadWriter::Field(std::string_view name, std::string_view value) {
  Raw(name);
  Raw(": ");
  Raw(value);
  Raw("\r\n");
}

void HeadWriter::Field(std::string_view name, uint64_t value) {
  char number[20];
  const char* end = std::to_chars(number, number + sizeof(number), value).ptr;
  Field(name, std::string_view(number, static_cast<size_t>(end - number)));
}

size_t WriteChunkSize(uint64_t size, char* out) {
  char* end = std::to_chars(out, out + 16, size, 16).ptr;
  *end++ = '\r';
  *end++ = '\n';
  return static_cast<size_t>(end - out);
}

namespace {

struct ErrorInfo {
  HttpError error;
  int status;
  std::string_view name;
  std::string_view text;
};
constexpr ErrorInfo kErrors[] = {
    {HttpError::kNone, 0, "none", ""},
    {HttpError::kBadRequestLine, 400, "bad-request-line", "The request line is malformed."},
    {HttpError::kBadStatusLine, 502, "bad-status-line", "The status line is malformed."},
    {HttpError::kBadTarget, 400, "bad-target", "The request target is malformed."},
    {HttpError::kTargetTooLong, 414, "target-too-long", "The request target is too long."},
    {HttpError::kUnsupportedVersion, 505, "unsupported-version", "Only HTTP/1.x is served here."},
    {HttpError::kBareLf, 400, "bare-lf", "A line ends with LF instead of CRLF."},
    {HttpError::kObsFold, 400, "obs-fold", "A field is continued on a second line."},
    {HttpError::kBadFieldName, 400, "bad-field-name", "A field name is malformed."},
    {HttpError::kBadFieldValue, 400, "bad-field-value", "A field value is malformed."},
    {HttpError::kHeadTooLarge, 431, "head-too-large", "The request head is too large."},
    {HttpError::kTooManyFields, 431, "too-many-fields", "The request head has too many fields."},
    {HttpError::kBadContentLength, 400, "bad-content-length",
     "Content-Length is repeated or not a number."},
    {HttpError::kLengthAndTransferEncoding, 400, "length-and-transfer-encoding",
     "Content-Length and Transfer-Encoding exclude each other."},
    {HttpError::kUnsupportedTransferEncoding, 501, "unsupported-transfer-encoding",
     "The only transfer coding served here is chunked."},
    {HttpError::kMissingHost, 400, "missing-host", "The Host field is missing."},
    {HttpError::kRepeatedHost, 400, "repeated-host", "The Host field is repeated."},
    {HttpError::kUnsupportedExpectation, 417, "unsupported-expectation",
     "The only expectation served here is 100-continue."},
    {HttpError::kBadChunk, 400, "bad-chunk", "The chunked framing of the body is broken."},
    {HttpError::kTrailersTooLarge, 431, "trailers-too-large", "The trailers are too large."},
};
const ErrorInfo& InfoOf(HttpError error) { return kErrors[static_cast<size_t>(error)]; }
static_assert(kErrors[static_cast<size_t>(HttpError::kTrailersTooLarge)].error ==
              HttpError::kTrailersTooLarge);

}  // namespace

int HttpStatusOf(HttpError error) { return InfoOf(error).status; }
std::string_view HttpErrorName(HttpError error) { return InfoOf(error).name; }
std::string_view HttpErrorText(HttpError error) { return InfoOf(error).text; }

namespace {

struct Reason {
  int status;
  std::string_view text;
};
constexpr Reason kReasons[] = {
    {100, "Continue"},
    {101, "Switching Protocols"},
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {203, "Non-Authoritative Information"},
    {204, "No Content"},
    {205, "Reset Content"},
    {206, "Partial Content"},
    {300, "Multiple Choices"},
    {301, "Moved Permanently"},
    {302, "Found"},
    {303, "See Other"},
    {304, "Not Modified"},
    {307, "Temporary Redirect"},
    {308, "Permanent Redirect"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {402, "Payment Required"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {406, "Not Acceptable"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {410, "Gone"},
    {411, "Length Required"},
    {412, "Precondition Failed"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {417, "Expectation Failed"},
    {421, "Misdirected Request"},
    {422, "Unprocessable Content"},
    {424, "Failed Dependency"},
    {425, "Too Early"},
    {426, "Upgrade Required"},
    {428, "Precondition Required"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {451, "Unavailable For Legal Reasons"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
    {507, "Insufficient Storage"},
};

}  // namespace

std::string_view HttpReason(int status) {
  for (const Reason& reason : kReasons) {
    if (reason.status == status) return reason.text;
  }
  return "";
}

}  // namespace llmd::wire
