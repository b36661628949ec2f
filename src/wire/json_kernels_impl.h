// The kernels written once over `Block`, 64 bytes that the including .cc loads and compares with
// its own instruction set, and `PrefixXor`. Everything is in an anonymous namespace, so that code
// for one instruction set can never be linked into a caller of another.
//
// A mask has bit i for byte i of the block. Source of the escape and in-string masks: Langdale and
// Lemire, "Parsing gigabytes of JSON per second" (2019), section 3.1.
#pragma once

#include <algorithm>
#include <bit>
#include <cstring>

#include "wire/json_kernels.h"

namespace llmd::wire::internal {
namespace {

inline Block LoadPart(const char* p, size_t n) {
  char bytes[64];
  std::memset(bytes, ' ', sizeof(bytes));
  std::memcpy(bytes, p, n);
  return Block::Load(bytes);
}

// Bits below the lowest set bit of `mask`; all bits when there is none.
inline uint64_t Below(uint64_t mask) { return mask ? (mask & (~mask + 1)) - 1 : ~uint64_t{0}; }

// The bytes that follow an odd run of backslashes. `carry` says so for the first byte of this block
// and is not changed; see CarryOut.
inline uint64_t Escaped(uint64_t backslash, bool carry) {
  if (!backslash) return carry;
  constexpr uint64_t kEven = 0x5555555555555555u;
  backslash &= ~uint64_t{carry};
  const uint64_t follows = backslash << 1 | uint64_t{carry};
  const uint64_t odd_starts = backslash & ~kEven & ~follows;
  const uint64_t even_sequences = odd_starts + backslash;
  return (kEven ^ (even_sequences << 1)) & follows;
}

// Whether the byte behind the first `n` of the block follows an odd run of backslashes.
inline bool CarryOut(uint64_t backslash, uint64_t escaped, size_t n) {
  return n > 0 && ((backslash & ~escaped) >> (n - 1) & 1);
}

const char* StringEnd(const char* p, const char* end, JsonPassage* passage) {
  bool carry = passage->escaped;
  // Where four blocks together were clean the next four are likely to be; where text is escaped
  // here and there, looking at four first would only look twice.
  int clean = 4;
  while (p < end) {
    if (clean >= 4 && end - p >= 256) {
      clean = AnySpecialInFour(p) ? 0 : 4;
      if (clean > 0) {
        carry = false;
        p += 256;
        continue;
      }
    }
    const size_t n = std::min<size_t>(64, static_cast<size_t>(end - p));
    const Block block = n == 64 ? Block::Load(p) : LoadPart(p, n);
    if (!block.AnySpecial()) {
      carry = false;
      p += n;
      ++clean;
      continue;
    }
    clean = 0;
    const uint64_t backslash = block.Eq('\\');
    const uint64_t escaped = Escaped(backslash, carry);
    const uint64_t quote = block.Eq('"') & ~escaped;
    if (block.Less(0x20) & Below(quote)) passage->bad_control = true;
    if (quote) {
      passage->escaped = false;
      return p + std::countr_zero(quote);
    }
    carry = CarryOut(backslash, escaped, n);
    p += n;
  }
  passage->escaped = carry;
  return end;
}

// Takes the brackets of one block in order. Returns the position to stop at, or nullptr.
inline const char* TakeBrackets(const char* p, uint64_t brackets, uint64_t closing,
                                JsonPassage* passage) {
  JsonNesting& nesting = *passage->nesting;
  for (; brackets; brackets &= brackets - 1) {
    const char* at = p + std::countr_zero(brackets);
    const bool object = (*at & 0x20) != 0;  // { and } have the bit, [ and ] do not
    if (!(closing & (brackets & (~brackets + 1)))) {
      if (!nesting.Push(object)) {
        passage->error = JsonError::kTooDeep;
        return at;
      }
      continue;
    }
    if (nesting.top_is_object() != object) {
      passage->error = JsonError::kUnbalanced;
      return at;
    }
    if (--nesting.depth == passage->depth_floor) return at + 1;
  }
  return nullptr;
}

const char* ContainerEnd(const char* p, const char* end, JsonPassage* passage) {
  bool carry = passage->escaped;
  uint64_t in_string = passage->in_string ? ~uint64_t{0} : 0;
  while (p < end) {
    const size_t n = std::min<size_t>(64, static_cast<size_t>(end - p));
    const Block block = n == 64 ? Block::Load(p) : LoadPart(p, n);
    if (in_string && !block.AnySpecial()) {
      carry = false;
      p += n;
      continue;
    }
    const uint64_t backslash = block.Eq('\\');
    const uint64_t escaped = Escaped(backslash, carry);
    const uint64_t inside = PrefixXor(block.Eq('"') & ~escaped) ^ in_string;
    const Block folded = block.Or20();
    const uint64_t closing = folded.Eq('}') & ~inside;
    const uint64_t brackets = (folded.Eq('{') & ~inside) | closing;
    if (brackets) {
      if (const char* stop = TakeBrackets(p, brackets, closing, passage)) {
        passage->escaped = passage->in_string = false;
        return stop;
      }
    }
    in_string = inside >> 63 ? ~uint64_t{0} : 0;
    carry = CarryOut(backslash, escaped, n);
    p += n;
  }
  passage->escaped = carry;
  passage->in_string = in_string != 0;
  return end;
}

// Numbers and commas must alternate, starting with a number: along the starts of both, the parity
// counted from the left is 1 exactly at the numbers.
const char* NumbersEnd(const char* p, const char* end, JsonPassage* passage) {
  while (p < end) {
    const size_t n = std::min<size_t>(64, static_cast<size_t>(end - p));
    const Block block = n == 64 ? Block::Load(p) : LoadPart(p, n);
    const uint64_t close = block.Eq(']');
    const uint64_t here = Below(close);
    const uint64_t digit = block.Digits() & here;
    const uint64_t comma = block.Eq(',') & here;
    const uint64_t space =
        block.Eq(' ') | block.Eq('\n') | block.Eq('\r') | block.Eq('\t');
    const uint64_t number = digit & ~(digit << 1 | uint64_t{passage->after_digit});
    const uint64_t parity =
        PrefixXor(number | comma) ^ (passage->expect_comma ? ~uint64_t{0} : 0);
    const uint64_t alien = ~(digit | comma | space) & here;
    const uint64_t misplaced = (parity & (number | comma)) ^ number;
    if (alien | misplaced) {
      const uint64_t fault = alien | misplaced;
      const bool is_alien = alien & (fault & (~fault + 1));
      passage->error = is_alien ? JsonError::kBadNumber : JsonError::kSyntax;
      return p + std::countr_zero(fault);
    }
    passage->count += static_cast<uint64_t>(std::popcount(number));
    if (close) {
      const int at = std::countr_zero(close);
      if (!(parity >> at & 1)) passage->error = JsonError::kSyntax;  // a comma before the bracket
      return p + at;
    }
    passage->after_digit = digit >> (n - 1) & 1;
    passage->expect_comma = parity >> (n - 1) & 1;
    p += n;
  }
  return end;
}

const char* LineEnd(const char* p, const char* end) {
  while (p < end) {
    const size_t n = std::min<size_t>(64, static_cast<size_t>(end - p));
    const Block block = n == 64 ? Block::Load(p) : LoadPart(p, n);
    if (const uint64_t hit = block.Eq('\n') | block.Eq('\r')) return p + std::countr_zero(hit);
    p += n;
  }
  return end;
}

const char* Find(const char* p, const char* end, std::string_view needle) {
  const size_t reach = 64 + needle.size() - 1;  // bytes that one block of candidates looks at
  if (p == end) return end;
  if (static_cast<size_t>(end - p) < reach) {
    const void* hit = memmem(p, static_cast<size_t>(end - p), needle.data(), needle.size());
    return hit ? static_cast<const char*>(hit) : end;
  }
  const char* last = end - reach;  // the last block overlaps the one before it
  for (;; p = std::min(p + 64, last)) {
    // The last byte but one and the second: the outer ones are often quotes, which are everywhere.
    uint64_t candidates = Block::Load(p + 1).Eq(needle[1]) &
                          Block::Load(p + needle.size() - 2).Eq(needle[needle.size() - 2]);
    for (; candidates; candidates &= candidates - 1) {
      const char* at = p + std::countr_zero(candidates);
      if (std::memcmp(at, needle.data(), needle.size()) == 0) return at;
    }
    if (p == last) return end;
  }
}

}  // namespace
}  // namespace llmd::wire::internal
