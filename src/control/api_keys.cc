#include "control/api_keys.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>

#include "base/strings.h"

namespace llmd::control {
namespace {

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool ParseHex(std::string_view hex, std::array<uint8_t, 32>* out) {
  if (hex.size() != 64) return false;
  for (size_t i = 0; i < 32; ++i) {
    const int high = HexValue(hex[2 * i]);
    const int low = HexValue(hex[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    (*out)[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return true;
}

bool IsName(std::string_view name) {
  return !name.empty() && name.size() <= kApiKeyNameBytesMax &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '.' || c == '_' || c == '-';
         });
}

}  // namespace

base::Result<ApiKeys> ApiKeys::Parse(std::string_view text, std::string_view filename) {
  ApiKeys keys;
  size_t line_number = 0;
  auto error = [&](std::string_view what) {
    return std::unexpected(base::InvalidArgument(
        base::Concat(filename, ":", std::to_string(line_number), ": ", what)));
  };
  for (std::string_view line : base::Split(text, '\n')) {
    ++line_number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    line = base::Trim(line.substr(0, line.find('#')));
    if (line.empty()) continue;
    const size_t gap = line.find_first_of(" \t");
    const std::string_view name = line.substr(0, gap);
    const std::string_view hex =
        gap == std::string_view::npos ? std::string_view() : base::Trim(line.substr(gap));
    Digest digest;
    if (!IsName(name)) return error("a key's name is 1 to 64 of letters, digits, '.', '_' and '-'");
    if (!ParseHex(hex, &digest)) {
      return error(
          "expected `NAME SHA256HEX`; make the digest with: printf %s \"$KEY\" | sha256sum");
    }
    if (std::ranges::find(keys.names_, name) != keys.names_.end()) {
      return error(base::Concat("the name \"", name, "\" stands on an earlier line too"));
    }
    if (keys.size() == kApiKeysMax) {
      return error(base::Concat("more than ", std::to_string(kApiKeysMax), " keys"));
    }
    keys.names_.emplace_back(name);
    keys.digests_.push_back(digest);
  }
  if (keys.size() == 0) return error("no keys: nobody could use the gateway");
  return keys;
}

std::optional<size_t> ApiKeys::Check(std::string_view authorization) const {
  constexpr std::string_view kScheme = "bearer ";
  if (authorization.size() <= kScheme.size() ||
      !base::EqualsIgnoreCase(authorization.substr(0, kScheme.size()), kScheme)) {
    return std::nullopt;
  }
  const std::string_view key = base::Trim(authorization.substr(kScheme.size()));
  Digest digest;
  SHA256(reinterpret_cast<const uint8_t*>(key.data()), key.size(), digest.data());
  std::optional<size_t> found;
  for (size_t i = 0; i < digests_.size(); ++i) {
    if (CRYPTO_memcmp(digest.data(), digests_[i].data(), digest.size()) == 0) found = i;
  }
  return found;
}

}  // namespace llmd::control
