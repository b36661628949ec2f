#include "workload/length.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "base/strings.h"

namespace llmd::workload {
namespace {

base::Status Malformed(std::string_view text, std::string_view why) {
  return base::InvalidArgument(
      base::Concat("length \"", text, "\": ", why,
                   "; allowed are N, uniform:MIN:MAX, normal:MEAN:STDDEV[:MIN:MAX], "
                   "lognormal:MEAN:STDDEV[:MIN:MAX], numbers from 0 to ",
                   std::to_string(kLengthMax)));
}

// Box and Muller: one standard normal number out of two uniform ones.
double StandardNormal(base::Random& random) {
  double radius = std::sqrt(-2.0 * std::log1p(-random.Uniform()));
  return radius * std::cos(2.0 * std::numbers::pi * random.Uniform());
}

std::string Number(double value) {
  auto text = std::to_string(value);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.ends_with('.')) text.pop_back();
  return text;
}

base::Result<LengthSpec> ParseDistribution(std::string_view text) {
  const auto fields = base::Split(text, ':');
  std::vector<double> numbers;
  for (size_t i = 1; i < fields.size(); ++i) {
    const auto number = base::ParseDouble(fields[i]);
    if (!number || !(*number >= 0) || *number > static_cast<double>(kLengthMax)) {
      return std::unexpected(Malformed(text, base::Concat("\"", fields[i], "\" is no length")));
    }
    numbers.push_back(*number);
  }
  LengthSpec spec;
  size_t range_at = 2;  // where MIN stands in `numbers`
  if (fields[0] == "uniform") {
    spec.kind = LengthKind::kUniform;
    range_at = 0;
  } else if (fields[0] == "normal") {
    spec.kind = LengthKind::kNormal;
  } else if (fields[0] == "lognormal") {
    spec.kind = LengthKind::kLognormal;
  } else {
    return std::unexpected(Malformed(text, base::Concat("unknown kind \"", fields[0], "\"")));
  }
  const bool has_range = numbers.size() == range_at + 2;
  if (!has_range && (numbers.size() != 2 || range_at == 0)) {
    return std::unexpected(Malformed(text, "wrong count of numbers"));
  }
  if (range_at == 2) {
    spec.mean = numbers[0];
    spec.stddev = numbers[1];
  }
  if (has_range) {
    spec.min = static_cast<uint64_t>(numbers[range_at]);
    spec.max = static_cast<uint64_t>(numbers[range_at + 1]);
  }
  if (spec.min > spec.max) return std::unexpected(Malformed(text, "MIN is above MAX"));
  if (spec.kind == LengthKind::kLognormal && spec.mean <= 0) {
    return std::unexpected(Malformed(text, "a lognormal needs a MEAN above 0"));
  }
  return spec;
}

}  // namespace

LengthSpec LengthSpec::Fixed(uint64_t length) {
  LengthSpec spec;
  spec.mean = static_cast<double>(std::min(length, kLengthMax));
  spec.min = spec.max = std::min(length, kLengthMax);
  return spec;
}

base::Result<LengthSpec> LengthSpec::Parse(std::string_view text) {
  if (text.find(':') != std::string_view::npos) return ParseDistribution(text);
  const auto length = base::ParseInt(text);
  if (!length || *length < 0 || *length > static_cast<int64_t>(kLengthMax)) {
    return std::unexpected(Malformed(text, "not a length"));
  }
  return Fixed(static_cast<uint64_t>(*length));
}

std::string LengthSpec::ToString() const {
  const std::string range = base::Concat(":", std::to_string(min), ":", std::to_string(max));
  switch (kind) {
    case LengthKind::kFixed:
      return std::to_string(min);
    case LengthKind::kUniform:
      return "uniform" + range;
    case LengthKind::kNormal:
      return base::Concat("normal:", Number(mean), ":", Number(stddev), range);
    case LengthKind::kLognormal:
      return base::Concat("lognormal:", Number(mean), ":", Number(stddev), range);
  }
  return "";
}

uint64_t LengthSpec::Draw(base::Random& random) const {
  double value = 0;
  switch (kind) {
    case LengthKind::kFixed:
      return min;
    case LengthKind::kUniform:
      return min + random.Below(max - min + 1);
    case LengthKind::kNormal:
      value = mean + stddev * StandardNormal(random);
      break;
    case LengthKind::kLognormal: {
      // exp(mu + sigma z) with mu and sigma such that mean and deviation are those asked for.
      const double sigma2 = std::log1p(stddev * stddev / (mean * mean));
      value = std::exp(std::log(mean) - sigma2 / 2 + std::sqrt(sigma2) * StandardNormal(random));
      break;
    }
  }
  value = std::clamp(std::round(value), static_cast<double>(min), static_cast<double>(max));
  return static_cast<uint64_t>(value);
}

}  // namespace llmd::workload
