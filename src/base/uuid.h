// Random UUIDs (RFC 9562, version 4) as text. Pure; thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace llmd::base {

inline constexpr size_t kUuidBytes = 36;

// "xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx" of 122 of the random bits given.
std::string_view WriteUuid(uint64_t high, uint64_t low, std::span<char, kUuidBytes> out);

}  // namespace llmd::base
