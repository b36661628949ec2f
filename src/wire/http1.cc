#include "wire/http1.h"

#include <algorithm>
#include <cstring>
#include <utility>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "base/strings.h"

namespace llmd::wire {
namespace {

// Names listed in one head's Connection fields; more than any real client sends, and it bounds the
// work of finding the fields that they name.
constexpr size_t kConnectionNamesMax = 32;

constexpr std::array<bool, 256> MakeTokenTable() {
  std::array<bool, 256> table{};
  for (unsigned c = '0'; c <= '9'; ++c) table[c] = true;
  for (unsigned c = 'a'; c <= 'z'; ++c) table[c] = table[c - 32] = true;
  for (unsigned char c : std::string_view("!#$%&'*+-.^_`|~")) table[c] = true;
  return table;
}
constexpr std::array<bool, 256> kToken = MakeTokenTable();

bool IsToken(char c) { return kToken[static_cast<unsigned char>(c)]; }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsBlank(char c) { return c == ' ' || c == '\t'; }
// Control bytes end a value; tab is the one that may stand inside.
bool IsControl(char c) { return (static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f; }

// The first byte in [p, end) that cannot stand in a field value, or `end`.
const char* FindControl(const char* p, const char* end) {
#ifdef __SSE2__
  const __m128i space = _mm_set1_epi8(0x20);
  const __m128i del = _mm_set1_epi8(0x7f);
  while (end - p >= 16) {
    const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    const __m128i at_least_space = _mm_cmpeq_epi8(_mm_max_epu8(v, space), v);
    const __m128i bad =
        _mm_or_si128(_mm_andnot_si128(at_least_space, _mm_set1_epi8(-1)), _mm_cmpeq_epi8(v, del));
    const unsigned mask = static_cast<unsigned>(_mm_movemask_epi8(bad));
    if (mask == 0) {
      p += 16;
      continue;
    }
    p += __builtin_ctz(mask);
    if (*p != '\t') return p;
    ++p;
  }
#endif
  while (p < end && !IsControl(*p)) ++p;
  return p;
}

// Both are tokens or lower-case constants, for which setting bit 5 folds the case and nothing else.
bool SameToken(std::string_view token, std::string_view lower) {
  if (token.size() != lower.size()) return false;
  for (size_t i = 0; i < lower.size(); ++i) {
    if ((token[i] | 0x20) != lower[i]) return false;
  }
  return true;
}

struct KnownField {
  std::string_view name;
  HttpFieldId id;
  bool hop_by_hop = false;
};
constexpr KnownField kKnownFields[] = {
    {"te", HttpFieldId::kTe, true},
    {"via", HttpFieldId::kVia},
    {"date", HttpFieldId::kDate},
    {"host", HttpFieldId::kHost},
    {"expect", HttpFieldId::kExpect},
    {"server", HttpFieldId::kServer},
    {"trailer", HttpFieldId::kTrailer, true},
    {"upgrade", HttpFieldId::kUpgrade, true},
    {"connection", HttpFieldId::kConnection, true},
    {"keep-alive", HttpFieldId::kKeepAlive, true},
    {"retry-after", HttpFieldId::kRetryAfter},
    {"traceparent", HttpFieldId::kTraceparent},
    {"content-type", HttpFieldId::kContentType},
    {"x-request-id", HttpFieldId::kXRequestId},
    {"authorization", HttpFieldId::kAuthorization},
    {"content-length", HttpFieldId::kContentLength},
    {"accept-encoding", HttpFieldId::kAcceptEncoding},
    {"x-forwarded-for", HttpFieldId::kXForwardedFor},
    {"content-encoding", HttpFieldId::kContentEncoding},
    {"proxy-connection", HttpFieldId::kProxyConnection, true},
    {"transfer-encoding", HttpFieldId::kTransferEncoding, true},
    {"x-forwarded-proto", HttpFieldId::kXForwardedProto},
    {"proxy-authenticate", HttpFieldId::kProxyAuthenticate, true},
    {"proxy-authorization", HttpFieldId::kProxyAuthorization, true},
};

// kKnownFields is sorted by length: the entries of length n are [kByLength[n], kByLength[n + 1]).
constexpr size_t kKnownLengthMax = 19;
constexpr std::array<uint8_t, kKnownLengthMax + 2> MakeByLength() {
  std::array<uint8_t, kKnownLengthMax + 2> table{};
  for (size_t n = 0; n < table.size(); ++n) {
    uint8_t i = 0;
    while (i < std::size(kKnownFields) && kKnownFields[i].name.size() < n) ++i;
    table[n] = i;
  }
  return table;
}
constexpr std::array<uint8_t, kKnownLengthMax + 2> kByLength = MakeByLength();

const KnownField* FindKnown(std::string_view name) {
  if (name.size() > kKnownLengthMax) return nullptr;
  for (size_t i = kByLength[name.size()]; i < kByLength[name.size() + 1]; ++i) {
    if (SameToken(name, kKnownFields[i].name)) return &kKnownFields[i];
  }
  return nullptr;
}

HttpMethod MethodOf(std::string_view name) {
  constexpr std::pair<std::string_view, HttpMethod> kMethods[] = {
      {"POST", HttpMethod::kPost},     {"GET", HttpMethod::kGet},
      {"HEAD", HttpMethod::kHead},     {"PUT", HttpMethod::kPut},
      {"DELETE", HttpMethod::kDelete}, {"OPTIONS", HttpMethod::kOptions},
      {"PATCH", HttpMethod::kPatch},   {"CONNECT", HttpMethod::kConnect},
      {"TRACE", HttpMethod::kTrace},
  };
  for (const auto& [text, method] : kMethods) {
    if (name == text) return method;
  }
  return HttpMethod::kOther;
}

// RFC 3986 host and port characters; what it names is not checked.
bool IsAuthority(std::string_view text) {
  for (char c : text) {
    const bool letter = ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || IsDigit(c);
    if (!letter && std::string_view("-._~%!$&'()*+;=:[]").find(c) == std::string_view::npos) {
      return false;
    }
  }
  return true;
}

// Calls fn(token) for the elements of a comma-separated list, empty ones left out; stops on false.
template <class Fn>
bool ForEachListed(std::string_view value, Fn fn) {
  while (!value.empty()) {
    const size_t comma = value.find(',');
    const std::string_view token = base::Trim(value.substr(0, comma));
    if (!token.empty() && !fn(token)) return false;
    if (comma == std::string_view::npos) break;
    value.remove_prefix(comma + 1);
  }
  return true;
}

bool IsTargetChar(char c) {
  const unsigned char u = static_cast<unsigned char>(c);
  return u > 0x20 && u < 0x7f;
}

}  // namespace

// One pass over a head that may be incomplete.
class HttpHeadReader {
 public:
  HttpHeadReader(std::string_view bytes, const HttpLimits& limits)
      : begin_(bytes.data()), p_(begin_), end_(begin_ + bytes.size()), limits_(limits) {}

  ParseState ReadRequest(RequestHead& head);
  ParseState ReadResponse(ResponseHead& head, bool to_head_request);
  HttpError error() const { return error_; }

 private:
  ParseState Fail(HttpError error) {
    error_ = error;
    return ParseState::kError;
  }
  // The input ends here; what it holds so far is fine.
  ParseState Incomplete(HttpError too_large) {
    if (static_cast<size_t>(end_ - begin_) >= limits_.head_bytes_max) return Fail(too_large);
    return ParseState::kNeedMore;
  }
  ParseState ReadRequestLine(RequestHead& head);
  ParseState ReadStatusLine(ResponseHead& head);
  ParseState ReadVersion(HttpHead& head, HttpError malformed);
  ParseState ReadLineEnd(HttpError malformed);
  HttpError SplitTarget(RequestHead& head);
  ParseState ReadFields(HttpHead& head);
  ParseState ReadField(HttpHead& head);
  HttpError NoteField(HttpHead& head, const HttpField& field);
  HttpError NoteContentLength(HttpHead& head, std::string_view value);
  HttpError NoteConnection(std::string_view value);
  void MarkListedFields(HttpHead& head);
  HttpError FinishRequest(RequestHead& head);
  HttpError FinishResponse(ResponseHead& head, bool to_head_request);

  const char* begin_;
  const char* p_;
  const char* end_;
  const HttpLimits& limits_;
  HttpError error_ = HttpError::kNone;

  bool has_length_ = false;
  bool is_chunked_ = false;
  bool closes_ = false;
  bool keeps_alive_ = false;
  bool lists_upgrade_ = false;
  const HttpField* host_ = nullptr;
  const HttpField* upgrade_ = nullptr;
  const HttpField* expect_ = nullptr;
  size_t listed_count_ = 0;
  std::array<std::string_view, kConnectionNamesMax> listed_;
};

ParseState HttpHeadReader::ReadLineEnd(HttpError malformed) {
  if (p_ == end_) return Incomplete(HttpError::kHeadTooLarge);
  if (*p_ == '\n') return Fail(HttpError::kBareLf);
  if (*p_ != '\r') return Fail(malformed);
  if (p_ + 1 == end_) return Incomplete(HttpError::kHeadTooLarge);
  if (p_[1] != '\n') return Fail(malformed);
  p_ += 2;
  return ParseState::kDone;
}

// "HTTP/1.<digit>".
ParseState HttpHeadReader::ReadVersion(HttpHead& head, HttpError malformed) {
  constexpr std::string_view kName = "HTTP/";
  for (size_t i = 0; i < 8; ++i) {
    if (p_ + i == end_) return Incomplete(HttpError::kHeadTooLarge);
    const char c = p_[i];
    const bool good = i < 5 ? c == kName[i] : (i == 6 ? c == '.' : IsDigit(c));
    if (!good) return Fail(c == '\n' ? HttpError::kBareLf : malformed);
  }
  if (p_[5] != '1') return Fail(HttpError::kUnsupportedVersion);
  head.version_minor = p_[7] == '0' ? 0 : 1;
  p_ += 8;
  return ParseState::kDone;
}

ParseState HttpHeadReader::ReadRequestLine(RequestHead& head) {
  const char* start = p_;
  while (p_ < end_ && IsToken(*p_)) ++p_;
  if (p_ == end_) return Incomplete(HttpError::kTargetTooLong);
  if (*p_ != ' ' || p_ == start) {
    return Fail(*p_ == '\n' ? HttpError::kBareLf : HttpError::kBadRequestLine);
  }
  head.method_name = {start, static_cast<size_t>(p_ - start)};
  head.method = MethodOf(head.method_name);
  start = ++p_;
  while (p_ < end_ && IsTargetChar(*p_)) ++p_;
  head.target = {start, static_cast<size_t>(p_ - start)};
  if (head.target.size() > limits_.target_bytes_max) return Fail(HttpError::kTargetTooLong);
  if (p_ == end_) return Incomplete(HttpError::kTargetTooLong);
  if (*p_ != ' ' || head.target.empty()) {
    return Fail(*p_ == '\n' ? HttpError::kBareLf : HttpError::kBadRequestLine);
  }
  ++p_;
  if (ParseState s = ReadVersion(head, HttpError::kBadRequestLine); s != ParseState::kDone)
    return s;
  if (ParseState s = ReadLineEnd(HttpError::kBadRequestLine); s != ParseState::kDone) return s;
  if (HttpError error = SplitTarget(head); error != HttpError::kNone) return Fail(error);
  return ParseState::kDone;
}

HttpError HttpHeadReader::SplitTarget(RequestHead& head) {
  std::string_view rest = head.target;
  head.path = head.query = head.authority = {};
  if (rest.find('#') != std::string_view::npos) return HttpError::kBadTarget;
  if (head.method == HttpMethod::kConnect) {
    head.authority = rest;
    return IsAuthority(rest) && rest.find(':') != std::string_view::npos ? HttpError::kNone
                                                                         : HttpError::kBadTarget;
  }
  if (rest == "*") {
    head.path = rest;
    return head.method == HttpMethod::kOptions ? HttpError::kNone : HttpError::kBadTarget;
  }
  if (rest[0] != '/') {
    const size_t colon = rest.find("://");
    if (colon == std::string_view::npos) return HttpError::kBadTarget;
    const std::string_view scheme = rest.substr(0, colon);
    if (!SameToken(scheme, "http") && !SameToken(scheme, "https")) return HttpError::kBadTarget;
    rest.remove_prefix(colon + 3);
    const size_t authority_end = std::min(rest.find_first_of("/?"), rest.size());
    head.authority = rest.substr(0, authority_end);
    if (head.authority.empty() || !IsAuthority(head.authority)) return HttpError::kBadTarget;
    rest.remove_prefix(authority_end);
  }
  const size_t question = rest.find('?');
  head.path = rest.substr(0, question);
  if (question != std::string_view::npos) head.query = rest.substr(question + 1);
  if (head.path.empty()) head.path = "/";
  return HttpError::kNone;
}

ParseState HttpHeadReader::ReadStatusLine(ResponseHead& head) {
  if (ParseState s = ReadVersion(head, HttpError::kBadStatusLine); s != ParseState::kDone) return s;
  if (end_ - p_ < 4) {
    return std::string_view(p_, static_cast<size_t>(end_ - p_)).find('\n') == std::string_view::npos
               ? Incomplete(HttpError::kHeadTooLarge)
               : Fail(HttpError::kBadStatusLine);
  }
  if (*p_ != ' ' || !IsDigit(p_[1]) || !IsDigit(p_[2]) || !IsDigit(p_[3]) || p_[1] == '0') {
    return Fail(HttpError::kBadStatusLine);
  }
  head.status = (p_[1] - '0') * 100 + (p_[2] - '0') * 10 + (p_[3] - '0');
  p_ += 4;
  head.reason = {};
  if (p_ < end_ && *p_ == ' ') {
    const char* start = p_ + 1;
    p_ = FindControl(start, end_);
    head.reason = {start, static_cast<size_t>(p_ - start)};
  }
  return ReadLineEnd(HttpError::kBadStatusLine);
}

ParseState HttpHeadReader::ReadFields(HttpHead& head) {
  head.fields.count_ = 0;
  while (true) {
    if (p_ == end_) return Incomplete(HttpError::kHeadTooLarge);
    if (*p_ == '\r' || *p_ == '\n') return ReadLineEnd(HttpError::kBadFieldName);
    if (ParseState s = ReadField(head); s != ParseState::kDone) return s;
  }
}

ParseState HttpHeadReader::ReadField(HttpHead& head) {
  if (IsBlank(*p_)) return Fail(HttpError::kObsFold);
  const char* name = p_;
  while (p_ < end_ && IsToken(*p_)) ++p_;
  const char* name_end = p_;
  if (p_ == end_) return Incomplete(HttpError::kHeadTooLarge);
  if (*p_ != ':' || name == name_end) {
    return Fail(*p_ == '\n' ? HttpError::kBareLf : HttpError::kBadFieldName);
  }
  ++p_;
  while (p_ < end_ && IsBlank(*p_)) ++p_;
  const char* value = p_;
  p_ = FindControl(p_, end_);
  const char* value_end = p_;
  while (value_end > value && IsBlank(value_end[-1])) --value_end;
  if (ParseState s = ReadLineEnd(HttpError::kBadFieldValue); s != ParseState::kDone) return s;
  if (head.fields.count_ == std::min(limits_.fields_max, kHttpFieldsMax)) {
    return Fail(HttpError::kTooManyFields);
  }
  HttpField& field = head.fields.fields_[head.fields.count_++];
  field.name = {name, static_cast<size_t>(name_end - name)};
  field.value = {value, static_cast<size_t>(value_end - value)};
  const KnownField* known = FindKnown(field.name);
  field.id = known ? known->id : HttpFieldId::kOther;
  field.hop_by_hop = known && known->hop_by_hop;
  if (!known) return ParseState::kDone;
  if (HttpError error = NoteField(head, field); error != HttpError::kNone) return Fail(error);
  return ParseState::kDone;
}

HttpError HttpHeadReader::NoteField(HttpHead& head, const HttpField& field) {
  switch (field.id) {
    case HttpFieldId::kContentLength:
      return NoteContentLength(head, field.value);
    case HttpFieldId::kTransferEncoding:
      if (is_chunked_ || head.version_minor == 0 || !SameToken(field.value, "chunked")) {
        return HttpError::kUnsupportedTransferEncoding;
      }
      is_chunked_ = true;
      return HttpError::kNone;
    case HttpFieldId::kConnection:
      return NoteConnection(field.value);
    case HttpFieldId::kHost:
      if (host_) return HttpError::kRepeatedHost;
      host_ = &field;
      return HttpError::kNone;
    case HttpFieldId::kUpgrade:
      upgrade_ = &field;
      return HttpError::kNone;
    case HttpFieldId::kExpect:
      expect_ = &field;
      return HttpError::kNone;
    default:
      return HttpError::kNone;
  }
}

HttpError HttpHeadReader::NoteContentLength(HttpHead& head, std::string_view value) {
  // 18 digits stay below 2^63 and above any body.
  if (has_length_ || value.empty() || value.size() > 18) return HttpError::kBadContentLength;
  uint64_t length = 0;
  for (char c : value) {
    if (!IsDigit(c)) return HttpError::kBadContentLength;
    length = length * 10 + static_cast<uint64_t>(c - '0');
  }
  has_length_ = true;
  head.content_length = length;
  return HttpError::kNone;
}

HttpError HttpHeadReader::NoteConnection(std::string_view value) {
  const bool good = ForEachListed(value, [&](std::string_view name) {
    if (SameToken(name, "close")) {
      closes_ = true;
    } else if (SameToken(name, "keep-alive")) {
      keeps_alive_ = true;
    } else {
      if (SameToken(name, "upgrade")) lists_upgrade_ = true;
      if (listed_count_ == listed_.size()) return false;
      listed_[listed_count_++] = name;
    }
    return true;
  });
  return good ? HttpError::kNone : HttpError::kBadFieldValue;
}

void HttpHeadReader::MarkListedFields(HttpHead& head) {
  for (size_t i = 0; i < listed_count_; ++i) {
    for (size_t f = 0; f < head.fields.count_; ++f) {
      HttpField& field = head.fields.fields_[f];
      if (base::EqualsIgnoreCase(field.name, listed_[i])) field.hop_by_hop = true;
    }
  }
}

HttpError HttpHeadReader::FinishRequest(RequestHead& head) {
  if (is_chunked_ && has_length_) return HttpError::kLengthAndTransferEncoding;
  head.framing = is_chunked_ ? HttpFraming::kChunked
                             : (has_length_ && head.content_length > 0 ? HttpFraming::kLength
                                                                       : HttpFraming::kNone);
  if (!has_length_) head.content_length = 0;
  head.keep_alive = !closes_ && (head.version_minor >= 1 || keeps_alive_);
  if (!host_ && head.version_minor >= 1) return HttpError::kMissingHost;
  if (host_ && !IsAuthority(host_->value)) return HttpError::kBadFieldValue;
  if (host_ && head.authority.empty()) head.authority = host_->value;
  head.wants_upgrade = (upgrade_ && lists_upgrade_) || head.method == HttpMethod::kConnect;
  head.expects_continue = false;
  if (expect_ && head.version_minor >= 1) {
    if (!SameToken(expect_->value, "100-continue")) return HttpError::kUnsupportedExpectation;
    head.expects_continue = true;
  }
  return HttpError::kNone;
}

HttpError HttpHeadReader::FinishResponse(ResponseHead& head, bool to_head_request) {
  if (is_chunked_ && has_length_) return HttpError::kLengthAndTransferEncoding;
  if (!has_length_) head.content_length = 0;
  head.keep_alive = !closes_ && (head.version_minor >= 1 || keeps_alive_);
  const bool no_body =
      to_head_request || head.status < 200 || head.status == 204 || head.status == 304;
  if (no_body) {
    head.framing = HttpFraming::kNone;
  } else if (is_chunked_) {
    head.framing = HttpFraming::kChunked;
  } else if (has_length_) {
    head.framing = head.content_length > 0 ? HttpFraming::kLength : HttpFraming::kNone;
  } else {
    head.framing = HttpFraming::kUntilClose;
    head.keep_alive = false;
  }
  return HttpError::kNone;
}

ParseState HttpHeadReader::ReadRequest(RequestHead& head) {
  if (end_ - p_ >= 2 && p_[0] == '\r' && p_[1] == '\n') p_ += 2;
  if (end_ - p_ == 1 && *p_ == '\r') return ParseState::kNeedMore;
  if (ParseState s = ReadRequestLine(head); s != ParseState::kDone) return s;
  if (ParseState s = ReadFields(head); s != ParseState::kDone) return s;
  head.head_bytes = static_cast<size_t>(p_ - begin_);
  if (head.head_bytes > limits_.head_bytes_max) return Fail(HttpError::kHeadTooLarge);
  if (HttpError error = FinishRequest(head); error != HttpError::kNone) return Fail(error);
  MarkListedFields(head);
  return ParseState::kDone;
}

ParseState HttpHeadReader::ReadResponse(ResponseHead& head, bool to_head_request) {
  if (ParseState s = ReadStatusLine(head); s != ParseState::kDone) return s;
  if (ParseState s = ReadFields(head); s != ParseState::kDone) return s;
  head.head_bytes = static_cast<size_t>(p_ - begin_);
  if (head.head_bytes > limits_.head_bytes_max) return Fail(HttpError::kHeadTooLarge);
  if (HttpError error = FinishResponse(head, to_head_request); error != HttpError::kNone) {
    return Fail(error);
  }
  MarkListedFields(head);
  return ParseState::kDone;
}

// False while a head that was incomplete surely still is; keeps slow senders linear.
bool HeadParser::MayBeComplete(std::string_view bytes) {
  if (looked_ == 0 || bytes.size() >= limits_.head_bytes_max) return true;
  size_t from = looked_;
  while (from < bytes.size()) {
    const void* found = std::memchr(bytes.data() + from, '\n', bytes.size() - from);
    if (!found) break;
    const size_t at = static_cast<size_t>(static_cast<const char*>(found) - bytes.data());
    if (at == 0 || bytes[at - 1] != '\r') return true;  // a bare LF is refused at once
    if (at >= 3 && bytes[at - 2] == '\n' && bytes[at - 3] == '\r') return true;
    from = at + 1;
  }
  looked_ = bytes.size();
  return false;
}

ParseState HeadParser::ParseRequest(std::string_view bytes, RequestHead& head) {
  if (!MayBeComplete(bytes)) return ParseState::kNeedMore;
  HttpHeadReader reader(bytes, limits_);
  const ParseState state = reader.ReadRequest(head);
  error_ = reader.error();
  looked_ = bytes.size();
  return state;
}

ParseState HeadParser::ParseResponse(std::string_view bytes, ResponseHead& head,
                                     bool to_head_request) {
  if (!MayBeComplete(bytes)) return ParseState::kNeedMore;
  HttpHeadReader reader(bytes, limits_);
  const ParseState state = reader.ReadResponse(head, to_head_request);
  error_ = reader.error();
  looked_ = bytes.size();
  return state;
}

HttpFieldId HttpFieldIdOf(std::string_view name) {
  const KnownField* known = FindKnown(name);
  return known ? known->id : HttpFieldId::kOther;
}

const HttpField* HttpFields::Find(HttpFieldId id) const {
  for (const HttpField& field : *this) {
    if (field.id == id) return &field;
  }
  return nullptr;
}

const HttpField* HttpFields::Find(std::string_view name) const {
  for (const HttpField& field : *this) {
    if (base::EqualsIgnoreCase(field.name, name)) return &field;
  }
  return nullptr;
}

std::string_view HttpFields::Get(HttpFieldId id) const {
  const HttpField* field = Find(id);
  return field ? field->value : std::string_view();
}

std::string_view HttpFields::Get(std::string_view name) const {
  const HttpField* field = Find(name);
  return field ? field->value : std::string_view();
}

bool HttpListHas(std::string_view value, std::string_view token) {
  return !ForEachListed(
      value, [&](std::string_view listed) { return !base::EqualsIgnoreCase(listed, token); });
}

bool IsHttpToken(std::string_view text) {
  for (char c : text) {
    if (!IsToken(c)) return false;
  }
  return !text.empty();
}

bool IsHttpFieldValue(std::string_view text) {
  return FindControl(text.data(), text.data() + text.size()) == text.data() + text.size();
}

}  // namespace llmd::wire
