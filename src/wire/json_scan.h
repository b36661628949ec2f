// JsonScanner: pull events from a JSON object that arrives in chunks cut anywhere.
//
//   JsonScanner scan;
//   scan.Feed(chunk);
//   for (JsonEvent e; (e = scan.Next()) != JsonEvent::kMore;) {
//     if (e == JsonEvent::kKey && scan.text() != "model") scan.SkipValue();
//     ...                       // kError and kEnd repeat for ever: leave the loop there
//   }
//   ... Feed the next chunk; after the last one: scan.Finish()
//
// The state survives any chunk border and earlier bytes are never needed again. Strings and skipped
// values are passed over 64 bytes at a time (AVX2 where the CPU has it, SSE2 else), escapes
// included: text full of escapes costs no call per escape.
//
// Thread safety: none; a plain value, one per document, about 350 bytes, no heap.
// Invariants: 1. The events of a document do not depend on how it was cut, except that a string,
// raw or numbers value comes in as many parts as chunks it lies in (parts may be empty, one has
// last()). 2. Offsets are global: 0 is the first byte of the first chunk. 3. After kError nothing
// else comes.
// Checked always: an object at the top, brackets balanced by kind, strings closed, nesting at most
// kJsonDepthMax, nothing but white space after the end. Checked where the caller walks:
// commas, colons, literals, numbers, raw control characters in strings, escapes in keys up to the
// limit. Not checked: the inside of skipped and raw values beyond brackets and strings, escapes in
// string values (JsonUnescape checks those it is given), UTF-8.
// Grammar: RFC 8259.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "base/arena.h"

namespace llmd::wire {

// Python's json module, which engines read bodies with, gives up near its recursion limit of 1000.
inline constexpr uint32_t kJsonDepthMax = 1024;
// The longest key anybody looks for is under 32 bytes ("max_completion_tokens"); room for twice
// that.
inline constexpr size_t kJsonKeyBytesMax = 64;
// A shortest round-trip double needs 24 bytes; more digits than this is not a number we read.
inline constexpr size_t kJsonNumberBytesMax = 64;

enum class JsonEvent : uint8_t {
  kMore,       // the chunk is used up: Feed the next one or Finish
  kKey,        // text(): the key unescaped; empty when it is longer than kJsonKeyBytesMax
  kString,     // part(): raw bytes between the quotes, escapes untouched; last() on the final part
  kRaw,        // part(): raw bytes of a value asked for with RawValue; last() on the final part
  kNumbers,    // part(): raw bytes between an array's brackets, see ExpectNumbers; last(), count()
  kNumber,     // text(): the literal
  kTrue,
  kFalse,
  kNull,
  kObject,     // value_begin() is known
  kEndObject,  // value_end() is known
  kArray,
  kEndArray,
  kEnd,        // the document is complete
  kError,      // error(), offset()
};

enum class JsonError : uint8_t {
  kNone,
  kTruncated,     // the input ends inside the document
  kNotAnObject,   // the top-level value is something else
  kSyntax,        // a comma, colon, quote or value missing or misplaced
  kUnbalanced,    // a bracket closed by the other kind
  kTooDeep,       // more than kJsonDepthMax brackets open
  kBadLiteral,    // not true, false or null
  kBadNumber,     // not a number, or longer than kJsonNumberBytesMax
  kBadString,     // a raw control character, or a malformed escape in a key
  kTrailingBytes  // something after the end of the document
};
// "truncated JSON" and so on, for an error message.
std::string_view JsonErrorText(JsonError error);

namespace internal {
struct JsonKernels;
// For tests and benchmarks: the named set ("avx512", "avx2", "sse2"), or nullptr where the CPU
// lacks it.
const JsonKernels* JsonKernelsNamed(std::string_view name);
const JsonKernels* BestJsonKernels();

// Brackets open at the moment, one bit each: 1 for '{', 0 for '['.
struct JsonNesting {
  uint64_t bits[kJsonDepthMax / 64] = {};
  uint32_t depth = 0;

  bool Push(bool object) {
    if (depth == kJsonDepthMax) return false;
    const uint64_t bit = uint64_t{1} << (depth % 64);
    uint64_t& word = bits[depth / 64];
    word = object ? word | bit : word & ~bit;
    ++depth;
    return true;
  }
  bool top_is_object() const {
    return depth > 0 && (bits[(depth - 1) / 64] >> ((depth - 1) % 64) & 1);
  }
};

// What the passage over a container or a run of numbers carries across blocks and chunks.
struct JsonPassage {
  JsonNesting* nesting = nullptr;
  uint32_t depth_floor = 0;  // the passage ends when the depth falls to this
  bool in_string = false;
  bool escaped = false;      // the next byte follows an odd run of backslashes
  bool bad_control = false;
  bool after_digit = false;
  bool expect_comma = false;
  uint64_t count = 0;
  JsonError error = JsonError::kNone;
};
}  // namespace internal

class JsonScanner {
 public:
  JsonScanner() : JsonScanner(internal::BestJsonKernels()) {}
  explicit JsonScanner(const internal::JsonKernels* kernels) : kernels_(kernels) {}

  // `chunk` must live until the next Feed; the one before must be used up (Next returned kMore,
  // kEnd or kError).
  void Feed(std::string_view chunk);
  JsonEvent Next();

  // Valid after kKey, kArray or a value inside an array, and before Next: how to take the value
  // that comes next in this container. Without a call the value is walked.
  // No event at all; the next event is what follows the value.
  void SkipValue() { mode_ = Mode::kSkip; }
  // kRaw parts, whatever the value is.
  void RawValue() { mode_ = Mode::kRaw; }
  // An array that starts with a number comes as kNumbers parts and must hold non-negative whole
  // numbers only (else kBadNumber); any other value is walked.
  void ExpectNumbers() { mode_ = Mode::kNumbers; }

  // kNone when the document is complete.
  JsonError Finish() const;

  std::string_view text() const { return text_; }
  std::string_view part() const { return text_; }
  bool last() const { return last_; }
  uint64_t count() const { return passage_.count; }
  // Offset of the first byte of the value (a string's opening quote); on kKey that of the key.
  uint64_t value_begin() const { return value_begin_; }
  // Offset behind the last byte of the value; set on the event that completes it.
  uint64_t value_end() const { return value_end_; }
  // Offset of the next byte to read, which may be a separator past the event's own bytes; on kError
  // that of the byte at fault.
  uint64_t offset() const { return base_ + static_cast<uint64_t>(at_ - chunk_begin_); }
  // Open brackets: 1 inside the top-level object.
  uint32_t depth() const { return nesting_.depth; }
  JsonError error() const { return error_; }

 private:
  enum class Mode : uint8_t { kWalk, kSkip, kRaw, kNumbers };
  enum class State : uint8_t {
    kTop, kValue, kValueOrEnd, kKeyOrEnd, kKey, kColon, kCommaOrEnd,  // between tokens
    kInKey, kInString, kInScalar, kInSkippedString, kInSkippedScalar, kInContainer,
    kArrayFirst, kInNumbers,  // inside a value
    kDone, kFailed,
  };

  JsonEvent Resume();
  JsonEvent Step(char c);
  JsonEvent BeginValue(char c);
  JsonEvent BeginSkipped(char c);
  JsonEvent Open(bool object);
  JsonEvent Close(char c);
  JsonEvent InKey();
  JsonEvent InString();
  JsonEvent InScalar();
  JsonEvent InSkippedString();
  JsonEvent InSkippedScalar();
  JsonEvent InContainer();
  JsonEvent ArrayFirst();
  JsonEvent InNumbers();
  internal::JsonPassage* WithNesting();
  JsonEvent EndScalar(std::string_view literal);
  JsonEvent EndPart(const char* end, bool done, JsonEvent event);
  JsonEvent Fail(JsonError error, const char* at);
  bool Stash(std::string_view bytes);
  bool SkipSpace();
  void AfterKey();
  void AfterValue();

  const internal::JsonKernels* kernels_;
  const char* at_ = nullptr;
  const char* end_ = nullptr;
  const char* chunk_begin_ = nullptr;
  uint64_t base_ = 0;  // offset of chunk_begin_
  uint64_t value_begin_ = 0;
  uint64_t value_end_ = 0;
  std::string_view text_;
  State state_ = State::kTop;
  Mode mode_ = Mode::kWalk;
  JsonError error_ = JsonError::kNone;
  bool last_ = false;
  bool raw_ = false;        // the value being passed over is delivered
  bool stash_full_ = false;
  uint8_t stash_size_ = 0;
  internal::JsonPassage passage_;
  internal::JsonNesting nesting_;
  char stash_[kJsonKeyBytesMax];  // a key or scalar that a chunk border cuts
};

// The text of the raw bytes between the quotes of a JSON string: a view of `raw` itself when it
// holds no escape, else a copy in `arena`. std::nullopt on a malformed escape, a lone surrogate or
// a raw control character.
std::optional<std::string_view> JsonUnescape(std::string_view raw, base::Arena& arena);
// The same into `out`, which has room for raw.size() bytes; returns the length.
std::optional<size_t> JsonUnescapeInto(std::string_view raw, char* out);

// Where `needle` (2 bytes or more) first stands in `text`, or npos.
size_t FindBytes(std::string_view text, std::string_view needle);

// `text` as a JSON number literal that is whole (1, 1.0, 1e3) and fits; std::nullopt otherwise.
std::optional<int64_t> JsonWholeNumber(std::string_view text);

}  // namespace llmd::wire
