#include "plugins/producer/image_size.h"

#include <array>
#include <string_view>

namespace llmd::plugins {
namespace {

// The URL as characters.
class UrlReader {
 public:
  explicit UrlReader(std::span<const protocol::Piece> url) : pieces_(url) {}

  // -1 at the end.
  int Next() {
    int c = NextRaw();
    return c == '\\' ? NextRaw() : c;  // "\/": other escapes cannot be in base64
  }
  bool Skip(std::string_view expected) {
    for (char c : expected) {
      if (Next() != static_cast<unsigned char>(c)) return false;
    }
    return true;
  }

 private:
  int NextRaw() {
    while (piece_ < pieces_.size() && at_ == pieces_[piece_].bytes.size()) {
      ++piece_;
      at_ = 0;
    }
    if (piece_ == pieces_.size()) return -1;
    return static_cast<unsigned char>(pieces_[piece_].bytes[at_++]);
  }

  std::span<const protocol::Piece> pieces_;
  size_t piece_ = 0, at_ = 0;
};

constexpr std::array<int8_t, 256> MakeBase64Values() {
  std::array<int8_t, 256> values{};
  for (auto& v : values) v = -1;
  constexpr std::string_view kAlphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (size_t i = 0; i < kAlphabet.size(); ++i) {
    values[static_cast<unsigned char>(kAlphabet[i])] = static_cast<int8_t>(i);
  }
  return values;
}
constexpr auto kBase64Values = MakeBase64Values();

// The image as bytes, decoded as they are asked for.
class Base64Reader {
 public:
  explicit Base64Reader(UrlReader& url) : url_(url) {}

  // -1 at the end, at padding, at what is not base64 and at the limit.
  int Next() {
    while (bits_ < 8) {
      const int c = url_.Next();
      if (c < 0 || kBase64Values[static_cast<size_t>(c)] < 0) return -1;
      buffer_ = (buffer_ << 6) | static_cast<uint32_t>(kBase64Values[static_cast<size_t>(c)]);
      bits_ += 6;
    }
    if (++read_ > kImageHeaderBytesMax) return -1;
    bits_ -= 8;
    return static_cast<int>((buffer_ >> bits_) & 0xff);
  }
  bool Skip(size_t count) {
    while (count-- > 0) {
      if (Next() < 0) return false;
    }
    return true;
  }
  bool Expect(std::string_view bytes) {
    for (char c : bytes) {
      if (Next() != static_cast<unsigned char>(c)) return false;
    }
    return true;
  }
  // Big-endian (network order) or little-endian number of `count` bytes.
  std::optional<uint32_t> Number(int count, bool big_endian = true) {
    uint32_t value = 0;
    for (int i = 0; i < count; ++i) {
      const int byte = Next();
      if (byte < 0) return std::nullopt;
      const auto b = static_cast<uint32_t>(byte);
      value = big_endian ? (value << 8) | b : value | (b << (8 * i));
    }
    return value;
  }

 private:
  UrlReader& url_;
  uint32_t buffer_ = 0;
  int bits_ = 0;
  size_t read_ = 0;
};

std::optional<ImageSize> Checked(std::optional<uint32_t> width, std::optional<uint32_t> height) {
  if (!width || !height || *width == 0 || *height == 0) return std::nullopt;
  return ImageSize{*width, *height};
}

// ISO/IEC 15948: signature, then the IHDR chunk, which begins with width and height.
std::optional<ImageSize> PngSize(Base64Reader& in) {
  if (!in.Expect("PNG\r\n\x1a\n") || !in.Skip(4) || !in.Expect("IHDR")) return std::nullopt;
  const auto width = in.Number(4);
  return Checked(width, in.Number(4));
}

// GIF89a: the logical screen's size follows the six bytes of the signature.
std::optional<ImageSize> GifSize(Base64Reader& in) {
  if (!in.Expect("IF8") || !in.Skip(2)) return std::nullopt;
  const auto width = in.Number(2, false);
  return Checked(width, in.Number(2, false));
}

// ITU T.81: segments of marker and length, until a start of frame (SOF0 to SOF15 without DHT, JPG
// and DAC), which holds height before width.
std::optional<ImageSize> JpegSize(Base64Reader& in) {
  if (in.Next() != 0xd8) return std::nullopt;
  while (true) {
    int marker = in.Next();
    if (marker != 0xff) return std::nullopt;
    while (marker == 0xff) marker = in.Next();  // fill bytes
    const auto length = in.Number(2);
    if (marker < 0xc0 || !length || *length < 2) return std::nullopt;
    const bool frame = marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
    if (frame) {
      if (!in.Skip(1)) return std::nullopt;
      const auto height = in.Number(2);
      return Checked(in.Number(2), height);
    }
    if (!in.Skip(*length - 2)) return std::nullopt;
  }
}

// Up to and with "base64,"; media types are short.
bool SkipParameters(UrlReader& reader) {
  std::string_view wanted = "base64,";
  for (int i = 0; i < 256 && !wanted.empty(); ++i) {
    const int c = reader.Next();
    if (c < 0) return false;
    if (c == wanted[0]) {
      wanted.remove_prefix(1);
    } else {
      wanted = c == 'b' ? "ase64," : "base64,";
    }
  }
  return wanted.empty();
}

}  // namespace

std::optional<ImageSize> ImageSizeOf(std::span<const protocol::Piece> text) {
  UrlReader reader(text);
  if (reader.Skip("data:image/")) {
    if (!SkipParameters(reader)) return std::nullopt;
  } else {
    reader = UrlReader(text);  // a URL of another kind ends at its colon
  }
  Base64Reader image(reader);
  switch (image.Next()) {
    case 0x89:
      return PngSize(image);
    case 'G':
      return GifSize(image);
    case 0xff:
      return JpegSize(image);
    default:
      return std::nullopt;
  }
}

}  // namespace llmd::plugins
