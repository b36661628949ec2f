// How long a prompt or an answer is: a distribution, drawn from a seeded generator.
//
// Text form: "512"; "uniform:MIN:MAX"; "normal:MEAN:STDDEV" and "lognormal:MEAN:STDDEV", both with
// ":MIN:MAX" after them at will. MEAN and STDDEV of a lognormal are those of the lengths
// themselves, not of their logarithms.
// Value type, pure. Draws are whole numbers, clamped to [min, max]; min is at least 0 and max at
// most kLengthMax.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/random.h"
#include "base/status.h"

namespace llmd::workload {

// A prompt of 16 Mi tokens is an order of magnitude above the longest context on offer.
inline constexpr uint64_t kLengthMax = 16u << 20;

enum class LengthKind : uint8_t { kFixed, kUniform, kNormal, kLognormal };

struct LengthSpec {
  LengthKind kind = LengthKind::kFixed;
  double mean = 0;
  double stddev = 0;
  uint64_t min = 0;
  uint64_t max = kLengthMax;

  static LengthSpec Fixed(uint64_t length);
  static base::Result<LengthSpec> Parse(std::string_view text);
  // Parse(ToString()) gives an equal spec.
  std::string ToString() const;

  uint64_t Draw(base::Random& random) const;
  bool operator==(const LengthSpec&) const = default;
};

}  // namespace llmd::workload
