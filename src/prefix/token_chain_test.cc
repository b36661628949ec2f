#include "prefix/token_chain.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "base/random.h"

namespace llmd::prefix {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<BlockKey> Keys(const TokenChain& chain, BlockKey parent,
                           const std::vector<uint32_t>& tokens, size_t block_tokens = 16,
                           const std::vector<BlockExtra>& extras = {}) {
  std::vector<BlockKey> keys(tokens.size() / block_tokens + 1);
  keys.resize(chain.Extend(parent, tokens, block_tokens, extras, keys));
  return keys;
}

std::vector<uint32_t> OneToSixteenTwice() {
  std::vector<uint32_t> tokens(32);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<uint32_t>(i % 16 + 1);
  return tokens;
}

std::vector<uint32_t> RandomTokens(size_t count, uint64_t seed) {
  base::Random random(seed);
  std::vector<uint32_t> tokens(count);
  for (uint32_t& token : tokens) token = static_cast<uint32_t>(random.Next());
  return tokens;
}

// Prompts that begin alike have keys that begin alike; only full blocks have keys.
TEST(TokenChain, Tutorial) {
  const TokenChain chain(ChainKind::kOwn, "seed");
  std::vector<uint32_t> a(40, 7);
  std::vector<uint32_t> b = a;
  b[20] = 8;
  const auto of_a = Keys(chain, chain.Root("model"), a);
  const auto of_b = Keys(chain, chain.Root("model"), b);
  ASSERT_EQ(of_a.size(), 2u);
  EXPECT_EQ(of_a[0], of_b[0]);
  EXPECT_NE(of_a[1], of_b[1]);
  EXPECT_NE(Keys(chain, chain.Root("adapter"), a)[0], of_a[0]);
}

struct Vector {
  ChainKind kind;
  BlockKey root, block0, block1, block0_abc;
};

// Seed "", model "m", tokens 1..16 twice.
TEST(TokenChain, UpstreamVectors) {
  const Vector vectors[] = {
      {ChainKind::kCborFnv, 0x9ddb2db69f3f452cu, 0xfccf55888d5ee3d5u, 0xd570a8c0cb961e72u,
       0x99b15164aabd8c52u},
      {ChainKind::kXxh64, 0xc90cbf5421a4994bu, 0xd51460f1ea958847u, 0xfbb0d0550ed6f39fu,
       0x6f9b6a68bc26366bu},
  };
  for (const Vector& v : vectors) {
    const TokenChain chain(v.kind, "");
    EXPECT_EQ(chain.Root("m"), v.root);
    EXPECT_THAT(Keys(chain, v.root, OneToSixteenTwice()), ElementsAre(v.block0, v.block1));
    EXPECT_EQ(Keys(chain, v.root, OneToSixteenTwice(), 16, {{0, "abc"}})[0], v.block0_abc);
  }
}

// What upstream's token_processor.go (llm-d-router ebab687) computed: blocks of 5 tokens of
// every width, seeds, and extras of every length, among them an empty one.
TEST(TokenChain, UpstreamCode) {
  const struct {
    ChainKind kind;
    std::string_view seed;
    BlockKey keys[5];
  } cases[] = {
      {ChainKind::kCborFnv, "",
       {0xdf1b8af271ac2e69u, 0xb37afd054cee179bu, 0xb02b1cea415c5a07u, 0x29d9f5d274b06a96u,
        0x3508204e3f57f10eu}},
      {ChainKind::kCborFnv, "seed-1",
       {0xcd0f605eee3f749fu, 0x7a80d7b8df3db545u, 0xc5352874ad76cfb3u, 0x6d9ce116c5a7d2e8u,
        0x8faf1e425f6af755u}},
      {ChainKind::kXxh64, "",
       {0x831df49b763078dcu, 0x55e4ff0d75b351d3u, 0x41f959d469a014a2u, 0x511fd9c2ab4f841du,
        0x84a233e95901ba6au}},
      {ChainKind::kXxh64, "seed-1",
       {0xe33752aefd84f88eu, 0x7e2cb19373828ab4u, 0x5ec8f7ae1c89a216u, 0x41650009b4ab6f34u,
        0xfade9300645da625u}},
  };
  std::vector<uint32_t> tokens;
  uint32_t x = 12345;
  for (unsigned i = 0; i < 25; ++i) {
    x = x * 1664525 + 1013904223;
    tokens.push_back(x >> (i % 29));
  }
  const std::vector<BlockExtra> extras = {
      {1, "image"}, {1, ""}, {1, "a-salt-that-is-longer-than-twenty-four-bytes"}, {4, "x"}};
  for (const auto& c : cases) {
    const TokenChain chain(c.kind, c.seed);
    EXPECT_THAT(Keys(chain, chain.Root("org/model"), tokens, 5, extras),
                testing::ElementsAreArray(c.keys));
  }
}

class EveryKind : public testing::TestWithParam<ChainKind> {};
INSTANTIATE_TEST_SUITE_P(TokenChain, EveryKind,
                         testing::Values(ChainKind::kOwn, ChainKind::kCborFnv, ChainKind::kXxh64),
                         [](const auto& info) {
                           return std::string(ChainKindName(info.param)).substr(0, 4);
                         });

TEST_P(EveryKind, IsNamed) {
  EXPECT_EQ(ParseChainKind(ChainKindName(GetParam())), GetParam());
  EXPECT_EQ(ParseChainKind("sha256"), std::nullopt);
}

TEST_P(EveryKind, PiecesGiveTheSameKeys) {
  const TokenChain chain(GetParam(), "s");
  for (const size_t block_tokens : {1, 3, 8, 16, 17, 64, 200}) {
    const auto tokens = RandomTokens(block_tokens * 9 + 5, block_tokens);
    const BlockKey root = chain.Root("m");
    const std::vector<BlockExtra> extras = {{2, "x"}, {2, "y"}, {7, "z"}};
    const auto whole = Keys(chain, root, tokens, block_tokens, extras);
    ASSERT_EQ(whole.size(), tokens.size() / block_tokens);
    BlockKey parent = root;
    for (size_t block = 0; block < whole.size(); ++block) {
      std::vector<BlockExtra> here;
      for (BlockExtra e : extras) {
        if (e.block == block) here.push_back({0, e.text});
      }
      const auto begin = tokens.begin() + static_cast<ptrdiff_t>(block * block_tokens);
      parent = Keys(chain, parent, {begin, begin + static_cast<ptrdiff_t>(block_tokens)},
                    block_tokens, here)[0];
      EXPECT_EQ(parent, whole[block]);
    }
  }
}

TEST_P(EveryKind, StopsWhenOutIsFull) {
  const TokenChain chain(GetParam(), "");
  const auto tokens = RandomTokens(64, 1);
  BlockKey keys[3] = {};
  EXPECT_EQ(chain.Extend(chain.Root("m"), tokens, 16, {}, std::span(keys, 2)), 2u);
  EXPECT_EQ(keys[2], 0u);
  EXPECT_EQ(chain.Extend(chain.Root("m"), std::span(tokens).first(15), 16, {}, keys), 0u);
}

// Every bit of a token, its place, its block, the parent, the model, the seed and each extra count.
TEST_P(EveryKind, EverythingCounts) {
  const TokenChain chain(GetParam(), "seed");
  std::vector<uint32_t> tokens(20, 0);
  std::set<BlockKey> keys;
  size_t count = 0;
  const auto add = [&](const TokenChain& c, std::string_view model,
                       const std::vector<BlockExtra>& extras = {}) {
    keys.insert(Keys(c, c.Root(model), tokens, 20, extras)[0]);
    ++count;
  };
  add(chain, "m");
  add(chain, "n");
  add(TokenChain(GetParam(), "other"), "m");
  add(chain, "m", {{0, "a"}});
  add(chain, "m", {{0, "b"}});
  add(chain, "m", {{0, "a"}, {0, "b"}});
  for (size_t at = 0; at < tokens.size(); ++at) {
    for (int bit = 0; bit < 32; ++bit) {
      tokens[at] ^= 1u << bit;
      add(chain, "m");
      tokens[at] ^= 1u << bit;
    }
  }
  EXPECT_EQ(keys.size(), count);
}

// Half the bits of the key change, whichever bit of the block does.
TEST(TokenChain, OwnSpreads) {
  const TokenChain chain(ChainKind::kOwn, "seed");
  std::vector<uint32_t> tokens(32, 0);
  const auto base_keys = Keys(chain, chain.Root("m"), tokens);
  uint64_t flipped = 0, trials = 0;
  std::vector<uint64_t> per_bit(64);
  for (size_t at = 0; at < 16; ++at) {
    for (int bit = 0; bit < 32; ++bit, ++trials) {
      tokens[at] ^= 1u << bit;
      const uint64_t change = Keys(chain, chain.Root("m"), tokens)[1] ^ base_keys[1];
      tokens[at] ^= 1u << bit;
      flipped += static_cast<uint64_t>(std::popcount(change));
      for (size_t b = 0; b < 64; ++b) per_bit[b] += change >> b & 1;
    }
  }
  EXPECT_NEAR(static_cast<double>(flipped) / static_cast<double>(trials), 32, 1);
  // 512 throws of a coin: 5 sigma are 57.
  for (const uint64_t n : per_bit) EXPECT_NEAR(static_cast<double>(n), 256, 57);
}

TEST(TokenChain, OwnExtrasAreASet) {
  const TokenChain chain(ChainKind::kOwn, "seed");
  const auto tokens = RandomTokens(16, 3);
  const auto key = [&](const std::vector<BlockExtra>& extras) {
    return Keys(chain, chain.Root("m"), tokens, 16, extras)[0];
  };
  EXPECT_EQ(key({{0, "a"}, {0, "b"}}), key({{0, "b"}, {0, "a"}, {0, "b"}}));
  EXPECT_NE(key({{0, "a"}, {0, "a"}}), key({}));
}

TEST(RequestExtras, ItemsByBlockThenSalt) {
  base::Arena arena;
  const std::vector<PlacedItem> items = {{2, 3, "a"}, {5, 13, "b"}, {31, 4, "c"}, {40, 0, "empty"}};
  EXPECT_THAT(RequestExtras(items, "salt", 8, 5, &arena),
              ElementsAre(BlockExtra{0, "a"}, BlockExtra{0, "b"}, BlockExtra{0, "salt"},
                          BlockExtra{1, "b"}, BlockExtra{2, "b"}, BlockExtra{3, "c"},
                          BlockExtra{4, "c"}));
  EXPECT_THAT(RequestExtras(items, "", 8, 0, &arena), IsEmpty());
  EXPECT_THAT(RequestExtras({}, "salt", 8, 3, &arena), ElementsAre(BlockExtra{0, "salt"}));
  EXPECT_THAT(RequestExtras({}, "", 8, 3, &arena), IsEmpty());
}

}  // namespace
}  // namespace llmd::prefix
