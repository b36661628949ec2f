#include "control/api_keys.h"

#include <gtest/gtest.h>

namespace llmd::control {
namespace {

// printf %s secret-a | sha256sum
constexpr char kSecretA[] = "c4ae35a14bfebf5fc6e0e11ca9515d836d18f85b9b12eeb3e8d70d7a38c5b8d2";

TEST(ApiKeys, ChecksBearerKeysAgainstTheirDigests) {
  // Digest of "abc", FIPS 180-2 appendix B.1.
  const auto keys = ApiKeys::Parse(
      "# who\n\nteam-a ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad # x\n"
      "b  0000000000000000000000000000000000000000000000000000000000000000\r\n",
      "keys");
  ASSERT_TRUE(keys) << keys.error().ToString();
  ASSERT_EQ(keys->size(), 2u);
  const auto found = keys->Check("Bearer abc");
  ASSERT_TRUE(found);
  EXPECT_EQ(keys->name(*found), "team-a");
  EXPECT_TRUE(keys->Check("bearer  abc "));
  for (const char* bad : {"", "Bearer", "Bearer ", "Bearer abd", "Basic abc", "abc"}) {
    EXPECT_FALSE(keys->Check(bad)) << bad;
  }
}

TEST(ApiKeys, ErrorsNameFileAndLine) {
  const std::string a = kSecretA;
  const struct {
    std::string text, want;
  } cases[] = {
      {"", "no keys"},
      {"x", "keys:1: expected `NAME SHA256HEX`"},
      {"\nx 12", "keys:2: expected"},
      {"x " + a.substr(1) + "g", "keys:1: expected"},
      {"x/y " + a, "keys:1: a key's name"},
      {"x " + a + "\nx " + a, "keys:2: the name \"x\""},
  };
  for (const auto& c : cases) {
    const auto keys = ApiKeys::Parse(c.text, "keys");
    ASSERT_FALSE(keys) << c.text;
    EXPECT_NE(keys.error().message().find(c.want), std::string_view::npos)
        << keys.error().ToString();
  }
}

TEST(ApiKeys, RefusesMoreThanTheLimit) {
  std::string text;
  for (size_t i = 0; i <= kApiKeysMax; ++i) text += "k" + std::to_string(i) + " " + kSecretA + "\n";
  EXPECT_FALSE(ApiKeys::Parse(text, "keys"));
  text.erase(text.rfind('k'));
  EXPECT_TRUE(ApiKeys::Parse(text, "keys"));
}

}  // namespace
}  // namespace llmd::control
