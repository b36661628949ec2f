// The obviously right twin of PageScanner for tests and fuzzing: splits the page into lines, reads
// each line with plain string code, knows no filter and no early stop.
#pragma once

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "wire/prometheus.h"

namespace llmd::wire {

struct TwinSample {
  uint32_t spec;
  double value;
  std::string labels;
  std::string rest;
};

struct TwinResult {
  std::vector<TwinSample> samples;
  ScanError error = ScanError::kNone;
};

namespace twin_internal {

inline std::string StripLeft(std::string s) {
  return s.substr(std::min(s.find_first_not_of(" \t"), s.size()));
}

// The labels of a block, first one of a name wins; stops at the first pair that it cannot read.
inline std::map<std::string, std::string> Labels(std::string block) {
  std::map<std::string, std::string> out;
  while (true) {
    block = StripLeft(block);
    const size_t equals = block.find('=');
    if (equals == std::string::npos) return out;
    std::string name = StripLeft(block.substr(0, equals));
    name.erase(name.find_last_not_of(" \t") + 1);
    block = StripLeft(block.substr(equals + 1));
    if (block.empty() || block[0] != '"') return out;
    std::string value;
    size_t i = 1;
    for (; i < block.size() && block[i] != '"'; ++i) {
      if (block[i] == '\\') {
        if (++i >= block.size()) break;
        value += block[i] == 'n' ? '\n' : block[i];
      } else {
        value += block[i];
      }
    }
    if (i >= block.size()) return out;
    out.emplace(name, value);
    block = StripLeft(block.substr(i + 1));
    if (!block.empty() && block[0] == ',') block = block.substr(1);
  }
}

inline std::optional<double> Number(std::string text) {
  if (text.starts_with("+") && !text.starts_with("+-")) text = text.substr(1);
  if (text.empty() || text.ends_with(")")) return std::nullopt;
  double value;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace twin_internal

inline TwinResult ScanSlowly(const std::vector<MetricSpec>& specs, const std::string& page) {
  TwinResult result;
  std::string rest_of_page = page;
  for (size_t newline; (newline = rest_of_page.find('\n')) != std::string::npos;) {
    std::string line = rest_of_page.substr(0, newline);
    rest_of_page = rest_of_page.substr(newline + 1);
    const bool has_cr = line.ends_with("\r");
    const std::string name = line.substr(0, line.find_first_of("{ \t"));
    if (name.size() == line.size()) continue;
    if (std::none_of(specs.begin(), specs.end(), [&](auto& s) { return s.name == name; })) continue;
    if (has_cr) line.pop_back();
    line = twin_internal::StripLeft(line.substr(name.size()));
    std::string labels;
    if (line.starts_with("{")) {
      bool quoted = false;
      size_t i = 1;
      while (i < line.size() && (quoted || line[i] != '}')) {
        if (line[i] == '"') quoted = !quoted;
        i += quoted && line[i] == '\\' ? 2 : 1;
      }
      if (i >= line.size()) {
        result.error = ScanError::kMalformed;
        continue;
      }
      labels = line.substr(1, i - 1);
      line = twin_internal::StripLeft(line.substr(i + 1));
    }
    const std::string token = line.substr(0, line.find_first_of(" \t"));
    const auto value = twin_internal::Number(token);
    if (!value) {
      result.error = ScanError::kMalformed;
      continue;
    }
    const auto parsed = twin_internal::Labels(labels);
    for (uint32_t i = 0; i < specs.size(); ++i) {
      const bool matches =
          specs[i].name == name &&
          std::all_of(specs[i].labels.begin(), specs[i].labels.end(), [&](const auto& wanted) {
            const auto at = parsed.find(wanted.first);
            return at != parsed.end() && at->second == wanted.second;
          });
      if (matches) {
        result.samples.push_back(
            {i, *value, labels, twin_internal::StripLeft(line.substr(token.size()))});
      }
    }
  }
  if (!rest_of_page.empty() && result.error == ScanError::kNone) {
    result.error = ScanError::kTruncated;
  }
  return result;
}

}  // namespace llmd::wire
