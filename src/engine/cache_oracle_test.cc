#include "engine/cache_oracle.h"

#include <gtest/gtest.h>

namespace llmd::engine {
namespace {

std::vector<Token> Prompt(Token group, uint32_t shared, Token question, uint32_t own) {
  std::vector<Token> tokens(shared, group);
  tokens.resize(shared + own, question);
  return tokens;
}

TEST(CacheOracleTest, Tutorial) {
  CacheOracle oracle(/*blocks_max=*/100, /*block_tokens=*/4);
  EXPECT_EQ(oracle.Access(Prompt(1, 8, 10, 4)), 0u);
  EXPECT_EQ(oracle.Access(Prompt(1, 8, 11, 4)), 8u);    // the shared part
  EXPECT_EQ(oracle.Access(Prompt(1, 8, 11, 5)), 12u);   // all full blocks
  EXPECT_EQ(oracle.Access(Prompt(1, 8, 11, 4)), 8u);    // never the last token
  EXPECT_EQ(oracle.queried_tokens(), 49u);
  EXPECT_EQ(oracle.hit_tokens(), 28u);
  EXPECT_DOUBLE_EQ(oracle.hit_ratio(), 28.0 / 49.0);
}

TEST(CacheOracleTest, EvictsTheColdestPrefixTailFirst) {
  CacheOracle oracle(4, 4);
  oracle.Access(Prompt(1, 8, 9, 1));                    // two blocks
  oracle.Access(Prompt(2, 8, 9, 1));                    // two more: full
  oracle.Access(Prompt(3, 4, 9, 1));                    // takes the tail of 1
  EXPECT_EQ(oracle.Access(Prompt(1, 8, 9, 1)), 4u);     // and its return takes the tail of 2
  EXPECT_EQ(oracle.Access(Prompt(2, 8, 9, 1)), 4u);
}

TEST(CacheOracleTest, APromptLargerThanTheCacheKeepsItsHead) {
  CacheOracle oracle(2, 4);
  oracle.Access(Prompt(1, 16, 9, 1));
  EXPECT_EQ(oracle.Access(Prompt(1, 16, 9, 1)), 8u);
}

}  // namespace
}  // namespace llmd::engine
