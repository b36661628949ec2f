// CelExpression: an expression in the Common Expression Language over a few integers, compiled once
// and evaluated many times.
//
// Semantics are those of cel-go with its standard library, without regular expressions, durations
// and timestamps. The inputs are leaves of objects, named by path ("usage.prompt_tokens"). As in a
// google.protobuf.Struct they are doubles to the expression: usage.prompt_tokens + 1.0 and
// int(usage.prompt_tokens) + 1 work, usage.prompt_tokens + 1 has no overload and fails when
// evaluated, usage.prompt_tokens > 1 is a comparison across types and works.
//
// Thread safety: immutable; one expression may be evaluated by many threads at once.
// Invariants:
//   1. What is undeclared or has no overload whatever the inputs is refused by Compile.
//   2. Compile refuses what could cost more than kCelCostMax steps, so Evaluate always ends soon.
//   3. An object is there when one of its leaves is; the first name of each path always is.
// Cost: a simple sum takes about a microsecond and allocates; not for loops over endpoints.
// Source: github.com/google/cel-spec doc/langdef.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <variant>

#include "base/status.h"

struct LlmdCelProgram;

namespace llmd::text {

// Twice the longest expression that a person would still read.
inline constexpr size_t kCelSourceBytesMax = 4096;
// Operators inside operators; deeper ones would need a stack that a worker need not have.
inline constexpr size_t kCelDepthMax = 96;
// Operators, list elements and characters touched in the worst case: under 10 ms.
inline constexpr size_t kCelCostMax = 100'000;
inline constexpr size_t kCelVariablesMax = 32;

using CelValue = std::variant<int64_t, double, bool>;

class CelExpression {
 public:
  // `paths` name the inputs; each is one identifier or several joined by dots, none is twice there
  // and none is the beginning of another (else a CHECK fails). InvalidArgument says what is wrong
  // with `source`, with line and column.
  static base::Result<CelExpression> Compile(std::string_view source,
                                             std::span<const std::string_view> paths);

  // `inputs` in the order of `paths`; nullopt is a field that is not there. FailedPrecondition when
  // the evaluation ends in an error (overflow, no such key, no overload) or in a value that is no
  // int, double or bool.
  base::Result<CelValue> Evaluate(std::span<const std::optional<int64_t>> inputs) const;

 private:
  struct Free {
    void operator()(LlmdCelProgram* program) const;
  };
  CelExpression(LlmdCelProgram* program, size_t variables)
      : program_(program), variables_(variables) {}

  std::unique_ptr<LlmdCelProgram, Free> program_;
  size_t variables_;
};

}  // namespace llmd::text
