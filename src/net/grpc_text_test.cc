#include "net/grpc_text.h"

#include <gtest/gtest.h>

#include <string>

namespace llmd::net {
namespace {

TEST(GrpcTextTest, TimeoutsHaveUpToEightDigitsAndAUnit) {
  using namespace std::literals;
  const struct {
    std::string_view text;
    std::optional<base::Duration> timeout;
  } kCases[] = {
      {"1H", 1h},
      {"2M", 2min},
      {"10S", 10s},
      {"200m", 200ms},
      {"7u", 7us},
      {"99999999n", 99'999'999ns},
      {"0S", 0s},
      {"99999999H", 24h * 365},
      {"99999999M", 24h * 365},
      {"99999999S", 99'999'999s},
      {"", std::nullopt},
      {"S", std::nullopt},
      {"5", std::nullopt},
      {"123456789S", std::nullopt},
      {"-1S", std::nullopt},
      {"1.5S", std::nullopt},
      {"1 S", std::nullopt},
      {"1h", std::nullopt},
  };
  for (const auto& c : kCases) EXPECT_EQ(ParseGrpcTimeout(c.text), c.timeout) << c.text;
}

TEST(GrpcTextTest, MessagesAreEncodedAndCut) {
  auto encoded = [](std::string_view message, size_t bytes_max = 100) {
    std::string out;
    AppendGrpcMessage(&out, message, bytes_max);
    return out;
  };
  EXPECT_EQ(encoded("plain ~ text"), "plain ~ text");
  EXPECT_EQ(encoded("50%\n\x7f"), "50%25%0A%7F");
  EXPECT_EQ(encoded("\xc3\xa4"), "%C3%A4");
  EXPECT_EQ(encoded("abcdef", 3), "abc");
  EXPECT_EQ(encoded("a\xc3\xa4", 2), "a");  // not half a character
  EXPECT_EQ(encoded(""), "");
}

TEST(GrpcTextTest, ContentTypes) {
  for (std::string_view good : {"application/grpc", "application/grpc+proto",
                                "application/grpc;charset=utf-8", "Application/gRPC"}) {
    EXPECT_TRUE(IsGrpcContentType(good)) << good;
  }
  for (std::string_view bad : {"", "application/grp", "application/grpc-web", "text/plain"}) {
    EXPECT_FALSE(IsGrpcContentType(bad)) << bad;
  }
}

}  // namespace
}  // namespace llmd::net
