// Who may use a door over HTTP: bearer keys, kept only as SHA-256 digests.
//
// File format, one key per line: `NAME SHA256HEX`, `#` starts a comment. A digest is made with
// `printf %s "$KEY" | sha256sum`. NAME labels the key's counters and may not repeat.
//
// Thread safety: immutable after Parse. Every check looks at every digest, and compares in constant
// time, so that timing tells nothing about which keys exist. Limits: kApiKeysMax keys,
// kNameBytesMax per name, names of [A-Za-z0-9._-].
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace llmd::control {

// A check is one pass of 32-byte compares, about 2 ns each: 1,000 keep it below the cost of a read.
inline constexpr size_t kApiKeysMax = 1000;
inline constexpr size_t kApiKeyNameBytesMax = 64;

class ApiKeys {
 public:
  // `filename` is for messages, which carry file:line.
  static base::Result<ApiKeys> Parse(std::string_view text, std::string_view filename);

  // Index of the key in an `Authorization: Bearer KEY` value, or nullopt.
  std::optional<size_t> Check(std::string_view authorization) const;
  const std::string& name(size_t index) const { return names_[index]; }
  size_t size() const { return names_.size(); }

 private:
  using Digest = std::array<uint8_t, 32>;
  std::vector<std::string> names_;
  std::vector<Digest> digests_;
};

}  // namespace llmd::control
