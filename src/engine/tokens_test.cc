#include "engine/tokens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>
#include <string>

#include "base/random.h"

namespace llmd::engine {
namespace {

using testing::ElementsAre;

std::vector<std::string> Pieces(std::string_view text) {
  std::vector<std::string> pieces;
  while (const size_t n = NextTokenBytes(text)) {
    pieces.emplace_back(text.substr(0, n));
    text.remove_prefix(n);
  }
  return pieces;
}

TEST(TokensTest, Tutorial) {
  EXPECT_THAT(Pieces("Hello, world! "), ElementsAre("Hello", ", ", "world", "! "));
  std::vector<Token> tokens;
  Tokenize("Hello, world! ", &tokens);
  EXPECT_THAT(tokens,
              ElementsAre(TokenId("Hello"), TokenId(", "), TokenId("world"), TokenId("! ")));
  EXPECT_EQ(CountTokens("Hello, world! "), 4u);
}

TEST(TokensTest, IdsAreFnv1a32) {
  EXPECT_EQ(TokenId(""), 2166136261u);
  EXPECT_EQ(TokenId("a"), 0xe40c292cu);       // published test vectors of FNV-1a
  EXPECT_EQ(TokenId("foobar"), 0xbf9cf968u);
}

TEST(TokensTest, OddInputs) {
  EXPECT_EQ(CountTokens(""), 0u);
  EXPECT_EQ(CountTokens(" \n\t "), 0u);
  EXPECT_THAT(Pieces("  x"), ElementsAre("  x"));
  EXPECT_THAT(Pieces("_a_b"), ElementsAre("_", "a_b"));
  EXPECT_THAT(Pieces("日本 語"), ElementsAre("日", "本 ", "語"));
  EXPECT_THAT(Pieces("a`|"), ElementsAre("a", "`", "|"));
  EXPECT_EQ(CountTokens(std::string_view("\x80\xff\0a", 4)), 4u);
  std::vector<Token> with_space, without;
  Tokenize("  x", &with_space);
  Tokenize("x", &without);
  EXPECT_EQ(with_space, without);
}

// On the characters that upstream's pattern knows, the split is upstream's.
TEST(TokensTest, AgreesWithThePatternItStandsFor) {
  const std::regex pattern(
      R"((\{|\}|:|,|-|\.|\?|!|;|@|#|\$|%|\^|&|\*|\(|\)|\+|_|~|/|\\|>|<|\[|\]|=|"|'|)"
      R"([0-9A-Za-z_]+)([ \t\n\f\r]*))");
  const std::string alphabet = "abzAZ09__  \t\n{}:,-.?!;@#$%^&*()+~/\\><[]=\"'";
  base::Random random(1);
  for (int i = 0; i < 2000; ++i) {
    std::string text;
    for (uint64_t n = random.Below(40); n > 0; --n) text += alphabet[random.Below(alphabet.size())];
    std::vector<Token> expected;
    for (std::sregex_iterator it(text.begin(), text.end(), pattern), end; it != end; ++it) {
      expected.push_back(TokenId(it->str()));
    }
    std::vector<Token> actual;
    Tokenize(text, &actual);
    ASSERT_EQ(actual, expected) << text;
    ASSERT_EQ(CountTokens(text), expected.size());
  }
}

}  // namespace
}  // namespace llmd::engine
