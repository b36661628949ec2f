// Base64 (RFC 4648, section 4) with padding. Pure; thread-safe.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace llmd::base {

std::string EncodeBase64(std::string_view bytes);
// nullopt for text that EncodeBase64 could not have made.
std::optional<std::string> DecodeBase64(std::string_view text);

}  // namespace llmd::base
