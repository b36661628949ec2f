// Small text helpers that <string_view> lacks. All are pure and thread-safe; ASCII only where case
// matters (HTTP, YAML keys).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llmd::base {

bool EqualsIgnoreCase(std::string_view a, std::string_view b);
std::string ToLower(std::string_view text);
// Without spaces and tabs at both ends.
std::string_view Trim(std::string_view text);
// Splits at every `separator`; empty pieces are kept. "" gives one empty piece.
std::vector<std::string_view> Split(std::string_view text, char separator);
// Whole text must be a number; std::nullopt otherwise or on overflow.
std::optional<int64_t> ParseInt(std::string_view text);
std::optional<double> ParseDouble(std::string_view text);
// "1h30m", "200ms", "1.5s" in Go's syntax to nanoseconds; a bare "0" is allowed.
std::optional<int64_t> ParseGoDurationNs(std::string_view text);
// The candidate nearest to `word` by edit distance (at most a third of its length), or "".
std::string_view NearestWord(std::string_view word, std::span<const std::string_view> candidates);
// JSON string literal with quotes; invalid UTF-8 passes through byte by byte.
void AppendJsonString(std::string* out, std::string_view text);
// Pieces joined with `separator`.
std::string Join(std::span<const std::string> pieces, std::string_view separator);

template <class... Pieces>
std::string Concat(const Pieces&... pieces) {
  std::string out;
  (out.append(std::string_view(pieces)), ...);
  return out;
}

}  // namespace llmd::base
