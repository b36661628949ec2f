// Width and height of an image in a data URL, or in plain base64 as Anthropic's API has it, from
// the first bytes of its PNG, JPEG or GIF header.
//
// The text is the raw content of a JSON string in one or more pieces; "\/" for a slash is
// understood. Reads at most kImageHeaderBytesMax decoded bytes (the photographs' embedded
// thumbnails come before the size in a JPEG and are at most 64 KiB); what is not found by then is
// unknown.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "protocol/request.h"

namespace llmd::plugins {

inline constexpr size_t kImageHeaderBytesMax = 160 << 10;

struct ImageSize {
  uint32_t width = 0;
  uint32_t height = 0;
  friend bool operator==(const ImageSize&, const ImageSize&) = default;
};

std::optional<ImageSize> ImageSizeOf(std::span<const protocol::Piece> text);

}  // namespace llmd::plugins
