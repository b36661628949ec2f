#include "wire/json_scan.h"

#include <bit>
#include <cstring>
#include <span>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "base/check.h"
#include "wire/json_kernels.h"

namespace llmd::wire {
namespace internal {
namespace {

constexpr const JsonKernels* kAllKernels[] = {
#if defined(__x86_64__)
    &kAvx512JsonKernels,
    &kAvx2JsonKernels,
#endif
    &kSse2JsonKernels,
};

// Those of kAllKernels that this processor has not come first.
size_t Missing() {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("bmi2") ||
      !__builtin_cpu_supports("pclmul")) {
    return 2;
  }
  return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") ? 0 : 1;
#else
  return 0;
#endif
}

}  // namespace

const JsonKernels* JsonKernelsNamed(std::string_view name) {
  for (const JsonKernels* kernels : std::span(kAllKernels).subspan(Missing())) {
    if (kernels->name == name) return kernels;
  }
  return nullptr;
}

const JsonKernels* BestJsonKernels() {
  static const JsonKernels* const best = kAllKernels[Missing()];
  return best;
}

}  // namespace internal

namespace {

// Step and its helpers: no event yet, go on.
constexpr JsonEvent kGoOn = static_cast<JsonEvent>(0xff);

enum : uint8_t { kSpace = 1, kLiteral = 2, kDelimiter = 4 };

struct CharTable {
  uint8_t kind[256] = {};
  constexpr CharTable() {
    for (const char c : {' ', '\t', '\n', '\r'})
      kind[static_cast<uint8_t>(c)] = kSpace | kDelimiter;
    for (const char c : {',', ':', ']', '}', '[', '{', '"'}) {
      kind[static_cast<uint8_t>(c)] = kDelimiter;
    }
    for (int c = '0'; c <= '9'; ++c) kind[c] = kLiteral;
    for (int c = 'a'; c <= 'z'; ++c) kind[c] = kind[c - 32] = kLiteral;
    for (const char c : {'+', '-', '.'}) kind[static_cast<uint8_t>(c)] = kLiteral;
  }
};
constexpr CharTable kChars;

bool Is(char c, uint8_t kind) { return kChars.kind[static_cast<uint8_t>(c)] & kind; }
bool IsDigit(char c) { return static_cast<uint8_t>(c - '0') <= 9; }

// The closing quote of a short string without escapes and control characters, else nullptr.
inline const char* QuickStringEnd(const char* p, const char* end) {
#if defined(__SSE2__)
  for (int i = 0; i < 2 && end - p >= 16; ++i, p += 16) {
    const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    const __m128i text = _mm_or_si128(_mm_cmpeq_epi8(x, _mm_set1_epi8('"')),
                                      _mm_cmpeq_epi8(x, _mm_set1_epi8('\\')));
    const __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(x, _mm_set1_epi8(0x1f)), x);
    const auto mask = static_cast<uint32_t>(_mm_movemask_epi8(_mm_or_si128(text, control)));
    if (mask) {
      p += std::countr_zero(mask);
      return *p == '"' ? p : nullptr;
    }
  }
#endif
  for (int i = 0; i < 16 && p < end; ++i, ++p) {
    if (*p == '"') return p;
    if (*p == '\\' || static_cast<uint8_t>(*p) < 0x20) return nullptr;
  }
  return nullptr;
}

bool ValidNumber(std::string_view text) {
  size_t i = 0;
  const auto digits = [&] {
    const size_t begin = i;
    while (i < text.size() && IsDigit(text[i])) ++i;
    return i - begin;
  };
  if (i < text.size() && text[i] == '-') ++i;
  const size_t whole_begin = i;
  const size_t whole = digits();
  if (whole == 0 || (whole > 1 && text[whole_begin] == '0')) return false;
  if (i < text.size() && text[i] == '.') {
    ++i;
    if (!digits()) return false;
  }
  if (i < text.size() && (text[i] == 'e' || text[i] == 'E')) {
    ++i;
    if (i < text.size() && (text[i] == '+' || text[i] == '-')) ++i;
    if (!digits()) return false;
  }
  return i == text.size();
}

}  // namespace

std::string_view JsonErrorText(JsonError error) {
  switch (error) {
    case JsonError::kNone: return "no error";
    case JsonError::kTruncated: return "truncated JSON";
    case JsonError::kNotAnObject: return "not a JSON object";
    case JsonError::kSyntax: return "malformed JSON";
    case JsonError::kUnbalanced: return "unbalanced brackets";
    case JsonError::kTooDeep: return "nested too deeply";
    case JsonError::kBadLiteral: return "malformed JSON literal";
    case JsonError::kBadNumber: return "malformed number";
    case JsonError::kBadString: return "malformed JSON string";
    case JsonError::kTrailingBytes: return "data after the end of the JSON object";
  }
  return "unknown error";
}

void JsonScanner::Feed(std::string_view chunk) {
  LLMD_DCHECK(at_ == end_ || state_ == State::kFailed, "the chunk before is not used up");
  base_ = offset();
  chunk_begin_ = at_ = chunk.data();
  end_ = at_ + chunk.size();
}

JsonError JsonScanner::Finish() const {
  if (state_ == State::kFailed) return error_;
  return state_ == State::kDone ? JsonError::kNone : JsonError::kTruncated;
}

// The common way is one Step per event; a value that a chunk border cuts is taken up by Resume.
JsonEvent JsonScanner::Next() {
  for (;;) {
    JsonEvent event;
    if (state_ <= State::kCommaOrEnd) [[likely]] {
      if (!SkipSpace()) return JsonEvent::kMore;
      event = Step(*at_);
    } else {
      event = Resume();
    }
    if (event != kGoOn) return event;
  }
}

JsonEvent JsonScanner::Resume() {
  switch (state_) {
    case State::kInKey: return InKey();
    case State::kInString: return InString();
    case State::kInScalar: return InScalar();
    case State::kInSkippedString: return InSkippedString();
    case State::kInSkippedScalar: return InSkippedScalar();
    case State::kInContainer: return InContainer();
    case State::kArrayFirst: return ArrayFirst();
    case State::kInNumbers: return InNumbers();
    case State::kDone: return SkipSpace() ? Fail(JsonError::kTrailingBytes, at_) : JsonEvent::kEnd;
    default: return JsonEvent::kError;
  }
}

bool JsonScanner::SkipSpace() {
  while (at_ < end_ && Is(*at_, kSpace)) ++at_;
  return at_ < end_;
}

// One token between values; at_ is at `c`.
JsonEvent JsonScanner::Step(char c) {
  switch (state_) {
    case State::kTop:
      if (c != '{') return Fail(JsonError::kNotAnObject, at_);
      return Open(true);
    case State::kKeyOrEnd:
      if (c == '}') return Close(c);
      [[fallthrough]];
    case State::kKey:
      if (c != '"') return Fail(JsonError::kSyntax, at_);
      value_begin_ = offset();
      ++at_;
      stash_size_ = 0;
      stash_full_ = false;
      passage_.escaped = passage_.bad_control = false;
      state_ = State::kInKey;
      return InKey();
    case State::kColon:
      if (c != ':') return Fail(JsonError::kSyntax, at_);
      ++at_;
      state_ = State::kValue;
      return kGoOn;
    case State::kValueOrEnd:
      if (c == ']') return Close(c);
      [[fallthrough]];
    case State::kValue: return BeginValue(c);
    case State::kCommaOrEnd:
      if (c == '}' || c == ']') return Close(c);
      if (c != ',') return Fail(JsonError::kSyntax, at_);
      ++at_;
      state_ = nesting_.top_is_object() ? State::kKey : State::kValue;
      return kGoOn;
    default: break;
  }
  LLMD_BUG("a state inside a value reached Step");
  return Fail(JsonError::kSyntax, at_);
}

JsonEvent JsonScanner::BeginValue(char c) {
  value_begin_ = offset();
  if (mode_ == Mode::kSkip || mode_ == Mode::kRaw) return BeginSkipped(c);
  switch (c) {
    case '"':
      ++at_;
      passage_.escaped = passage_.bad_control = false;
      mode_ = Mode::kWalk;
      state_ = State::kInString;
      return InString();
    case '{': mode_ = Mode::kWalk; return Open(true);
    case '[':
      if (mode_ == Mode::kWalk) return Open(false);
      mode_ = Mode::kWalk;
      if (!nesting_.Push(false)) return Fail(JsonError::kTooDeep, at_);
      ++at_;
      state_ = State::kArrayFirst;
      return kGoOn;
    default:
      if (!Is(c, kLiteral)) return Fail(JsonError::kSyntax, at_);
      mode_ = Mode::kWalk;
      stash_size_ = 0;
      stash_full_ = false;
      state_ = State::kInScalar;
      return InScalar();
  }
}

// A colon or comma that follows at once, as it nearly always does, is taken on the spot.
inline void JsonScanner::AfterKey() {
  const bool here = at_ < end_ && *at_ == ':';
  at_ += here;
  state_ = here ? State::kValue : State::kColon;
}

inline void JsonScanner::AfterValue() {
  if (at_ == end_ || *at_ != ',') {
    state_ = State::kCommaOrEnd;
    return;
  }
  ++at_;
  state_ = nesting_.top_is_object() ? State::kKey : State::kValue;
}

JsonEvent JsonScanner::BeginSkipped(char c) {
  raw_ = mode_ == Mode::kRaw;
  mode_ = Mode::kWalk;
  passage_.escaped = passage_.bad_control = passage_.in_string = false;
  // The first byte belongs to the value but means something else inside it, so it is passed here; a
  // raw part still begins with it.
  if (c == '"') {
    state_ = State::kInSkippedString;
  } else if (c == '{' || c == '[') {
    passage_.depth_floor = nesting_.depth;
    passage_.error = JsonError::kNone;
    state_ = State::kInContainer;
  } else if (Is(c, kDelimiter)) {
    return Fail(JsonError::kSyntax, at_);
  } else {
    state_ = State::kInSkippedScalar;
  }
  return kGoOn;
}

JsonEvent JsonScanner::Open(bool object) {
  value_begin_ = offset();
  if (!nesting_.Push(object)) return Fail(JsonError::kTooDeep, at_);
  ++at_;
  state_ = object ? State::kKeyOrEnd : State::kValueOrEnd;
  return object ? JsonEvent::kObject : JsonEvent::kArray;
}

JsonEvent JsonScanner::Close(char c) {
  const bool object = c == '}';
  if (nesting_.top_is_object() != object) return Fail(JsonError::kUnbalanced, at_);
  ++at_;
  value_end_ = offset();
  mode_ = Mode::kWalk;
  if (--nesting_.depth == 0) {
    state_ = State::kDone;
  } else {
    AfterValue();
  }
  return object ? JsonEvent::kEndObject : JsonEvent::kEndArray;
}

JsonEvent JsonScanner::InKey() {
  if (at_ == end_) return JsonEvent::kMore;
  if (stash_size_ == 0 && !passage_.escaped) {
    if (const char* quote = QuickStringEnd(at_, end_)) {
      text_ = {at_, static_cast<size_t>(quote - at_)};
      if (stash_full_ || text_.size() > kJsonKeyBytesMax) text_ = {};
      at_ = quote + 1;
      AfterKey();
      return JsonEvent::kKey;
    }
  }
  const char* quote = kernels_->string_end(at_, end_, &passage_);
  if (passage_.bad_control) return Fail(JsonError::kBadString, at_);
  const bool fits = Stash({at_, static_cast<size_t>(quote - at_)});
  at_ = quote;
  if (quote == end_) return JsonEvent::kMore;
  ++at_;
  AfterKey();
  text_ = {};
  if (!fits) return JsonEvent::kKey;
  const std::optional<size_t> size = JsonUnescapeInto({stash_, stash_size_}, stash_);
  if (!size) return Fail(JsonError::kBadString, quote);
  text_ = {stash_, *size};
  return JsonEvent::kKey;
}

// Keeps the bytes of a key or scalar that may go on in the next chunk; false when it is too long.
bool JsonScanner::Stash(std::string_view bytes) {
  if (stash_full_ || bytes.size() > sizeof(stash_) - stash_size_) {
    stash_full_ = true;
    return false;
  }
  std::memcpy(stash_ + stash_size_, bytes.data(), bytes.size());
  stash_size_ = static_cast<uint8_t>(stash_size_ + bytes.size());
  return true;
}

JsonEvent JsonScanner::EndPart(const char* end, bool done, JsonEvent event) {
  text_ = {at_, static_cast<size_t>(end - at_)};
  last_ = done;
  at_ = end;
  return event;
}

JsonEvent JsonScanner::InString() {
  if (at_ == end_) return JsonEvent::kMore;
  const char* quote = passage_.escaped ? nullptr : QuickStringEnd(at_, end_);
  if (!quote) {
    quote = kernels_->string_end(at_, end_, &passage_);
    if (passage_.bad_control) return Fail(JsonError::kBadString, at_);
    if (quote == end_) return EndPart(end_, false, JsonEvent::kString);
  }
  EndPart(quote, true, JsonEvent::kString);
  ++at_;
  value_end_ = offset();
  AfterValue();
  return JsonEvent::kString;
}

JsonEvent JsonScanner::InScalar() {
  if (at_ == end_) return JsonEvent::kMore;
  const char* p = at_;
  while (p < end_ && Is(*p, kLiteral)) ++p;
  const std::string_view bytes(at_, static_cast<size_t>(p - at_));
  const bool whole = p < end_ && stash_size_ == 0 && !stash_full_;
  const bool fits = whole ? bytes.size() <= kJsonNumberBytesMax : Stash(bytes);
  at_ = p;
  if (p == end_) return JsonEvent::kMore;
  value_end_ = offset();
  if (!fits) return Fail(JsonError::kBadNumber, at_);
  return EndScalar(whole ? bytes : std::string_view(stash_, stash_size_));
}

JsonEvent JsonScanner::EndScalar(std::string_view literal) {
  text_ = literal;
  const char* const end = at_;
  AfterValue();
  if (literal[0] == '-' || IsDigit(literal[0])) {
    return ValidNumber(literal) ? JsonEvent::kNumber : Fail(JsonError::kBadNumber, end);
  }
  if (literal == "true") return JsonEvent::kTrue;
  if (literal == "false") return JsonEvent::kFalse;
  if (literal == "null") return JsonEvent::kNull;
  return Fail(JsonError::kBadLiteral, end);
}

JsonEvent JsonScanner::InSkippedString() {
  if (at_ == end_) return JsonEvent::kMore;
  const char* from = at_ + (offset() == value_begin_);
  const char* quote = passage_.escaped ? nullptr : QuickStringEnd(from, end_);
  if (!quote) quote = kernels_->string_end(from, end_, &passage_);
  const bool done = quote != end_;
  EndPart(quote + done, done, JsonEvent::kRaw);
  if (done) {
    value_end_ = offset();
    AfterValue();
  }
  return raw_ ? JsonEvent::kRaw : kGoOn;
}

JsonEvent JsonScanner::InSkippedScalar() {
  if (at_ == end_) return JsonEvent::kMore;
  const char* p = at_;
  while (p < end_ && !Is(*p, kDelimiter)) ++p;
  const bool done = p != end_;
  EndPart(p, done, JsonEvent::kRaw);
  if (done) {
    value_end_ = offset();
    AfterValue();
  }
  return raw_ ? JsonEvent::kRaw : kGoOn;
}

JsonEvent JsonScanner::InContainer() {
  if (at_ == end_) return JsonEvent::kMore;
  const char* p = kernels_->container_end(at_, end_, WithNesting());
  if (passage_.error != JsonError::kNone) return Fail(passage_.error, p);
  // The position may be the end of the chunk either way; the depth tells.
  const bool done = nesting_.depth == passage_.depth_floor;
  EndPart(p, done, JsonEvent::kRaw);
  if (done) {
    value_end_ = offset();
    AfterValue();
  }
  return raw_ ? JsonEvent::kRaw : kGoOn;
}

internal::JsonPassage* JsonScanner::WithNesting() {
  passage_.nesting = &nesting_;  // set here, so that a scanner may be copied
  return &passage_;
}

// Behind the opening bracket of an array that may hold numbers only.
JsonEvent JsonScanner::ArrayFirst() {
  if (!SkipSpace()) return JsonEvent::kMore;
  if (*at_ == '-') return Fail(JsonError::kBadNumber, at_);
  if (!IsDigit(*at_)) {
    state_ = State::kValueOrEnd;
    return JsonEvent::kArray;
  }
  passage_ = {};
  state_ = State::kInNumbers;
  return kGoOn;
}

JsonEvent JsonScanner::InNumbers() {
  if (at_ == end_) return JsonEvent::kMore;
  const char* p = kernels_->numbers_end(at_, end_, &passage_);
  if (passage_.error != JsonError::kNone) return Fail(passage_.error, p);
  if (p == end_) return EndPart(end_, false, JsonEvent::kNumbers);
  EndPart(p, true, JsonEvent::kNumbers);
  ++at_;
  --nesting_.depth;
  value_end_ = offset();
  AfterValue();
  return JsonEvent::kNumbers;
}

JsonEvent JsonScanner::Fail(JsonError error, const char* at) {
  at_ = at;
  error_ = error;
  state_ = State::kFailed;
  return JsonEvent::kError;
}

}  // namespace llmd::wire
