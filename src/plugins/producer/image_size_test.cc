#include "plugins/producer/image_size.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/random.h"

namespace llmd::plugins {
namespace {

std::string Base64(std::string_view bytes) {
  constexpr char kAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t v = 0;
    const size_t n = std::min<size_t>(3, bytes.size() - i);
    for (size_t j = 0; j < 3; ++j) {
      v = v << 8 | (j < n ? static_cast<unsigned char>(bytes[i + j]) : 0u);
    }
    for (size_t j = 0; j < 4; ++j) out += j <= n ? kAlphabet[v >> (18 - 6 * j) & 63] : '=';
  }
  return out;
}

std::string Png(char width_high, char width_low) {
  std::string s("\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0", 18);
  return s + width_high + width_low + std::string("\0\0\x02\x00\x08\x06\0\0\0", 9);
}
std::string Gif() { return std::string("GIF89a\x40\x01\xc8\x00\xf7", 11); }
// `filler` bytes of metadata come before the frame header (300 x 1000).
std::string Jpeg(size_t filler) {
  std::string s("\xff\xd8", 2);
  while (filler > 0) {
    const size_t n = std::min<size_t>(filler, 65000);
    s += std::string("\xff\xe1", 2) + static_cast<char>((n + 2) >> 8) + static_cast<char>(n + 2);
    s += std::string(n, 'm');
    filler -= n;
  }
  return s + std::string("\xff\xc4\x00\x03\x00\xff\xff\xc2\x00\x11\x08\x03\xe8\x01\x2c\x03", 16);
}

std::optional<ImageSize> SizeOf(const std::string& url) {
  const protocol::Piece piece{.bytes = url, .kind = protocol::PieceKind::kImage};
  return ImageSizeOf({&piece, 1});
}

TEST(ImageSize, ReadsTheHeadersOfPngGifAndJpeg) {
  EXPECT_EQ(SizeOf("data:image/png;base64," + Base64(Png(1, 0))), (ImageSize{256, 512}));
  EXPECT_EQ(SizeOf("data:image/gif;base64," + Base64(Gif())), (ImageSize{320, 200}));
  EXPECT_EQ(SizeOf("data:image/jpeg;base64," + Base64(Jpeg(0))), (ImageSize{300, 1000}));
  EXPECT_EQ(SizeOf("data:image/jpeg;base64," + Base64(Jpeg(140000))), (ImageSize{300, 1000}));
}

TEST(ImageSize, ReadsPlainBase64) {
  EXPECT_EQ(SizeOf(Base64(Png(1, 0))), (ImageSize{256, 512}));
  EXPECT_EQ(SizeOf(Base64(Jpeg(0))), (ImageSize{300, 1000}));
  EXPECT_EQ(SizeOf("https://example.com/iVBORw0KGgo"), std::nullopt);
  EXPECT_EQ(SizeOf("iVBORw0K"), std::nullopt);
}

TEST(ImageSize, UnderstandsParametersAndEscapedSlashes) {
  EXPECT_EQ(SizeOf("data:image/png;x=b;bbase64," + Base64(Png(1, 0))), (ImageSize{256, 512}));
  std::string url;
  for (char c : "data:image/jpeg;base64," + Base64(Jpeg(0)))
    url += c == '/' ? "\\/" : std::string(1, c);
  EXPECT_EQ(SizeOf(url), (ImageSize{300, 1000}));
}

TEST(ImageSize, HowTheUrlIsCutDoesNotMatter) {
  const std::string url = "data:image/jpeg;base64," + Base64(Jpeg(90));
  base::Random random(3);
  for (int round = 0; round < 200; ++round) {
    std::vector<protocol::Piece> pieces;
    std::string_view rest = url;
    while (!rest.empty()) {
      const size_t n = std::min<size_t>(random.Below(20), rest.size());
      pieces.push_back({.bytes = rest.substr(0, n), .continued = !pieces.empty()});
      rest.remove_prefix(n);
    }
    ASSERT_EQ(ImageSizeOf(pieces), (ImageSize{300, 1000}));
  }
}

TEST(ImageSize, WhatIsNotAnImageHasNone) {
  for (const std::string& url :
       {std::string(), std::string("https://example.com/a.png"), std::string("data:image/png,abc"),
        std::string("data:image/png;base64,"), std::string("data:image/png;base64,!!!!"),
        "data:image/png;base64," + Base64(Png(0, 0)),
        "data:image/png;base64," + Base64(Png(1, 0)).substr(0, 24),
        "data:image/webp;base64," + Base64("RIFF....WEBP"),
        "data:image/jpeg;base64," + Base64(std::string("\xff\xd8\xff\xe1\x00\x01zz", 8)),
        "data:image/jpeg;base64," + Base64(Jpeg(kImageHeaderBytesMax)),
        "data:text/plain;base64," + Base64(Png(1, 0))}) {
    EXPECT_EQ(SizeOf(url), std::nullopt) << url.substr(0, 60);
  }
}

}  // namespace
}  // namespace llmd::plugins
