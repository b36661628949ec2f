#include "prefix/block_hash.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <string>
#include <unordered_set>
#include <vector>

#include "base/random.h"

namespace llmd::prefix {
namespace {

constexpr size_t kBlock = 16;  // 4 tokens

std::vector<BlockHash> Hash(const std::vector<std::string>& pieces, uint64_t seed = 1,
                            size_t block_bytes = kBlock, size_t blocks_max = 1000) {
  std::vector<BlockHash> out(blocks_max);
  std::vector<char> staging(block_bytes);
  PromptHasher hasher(seed, block_bytes, out, staging);
  for (const std::string& piece : pieces) hasher.Append(piece);
  const auto hashes = hasher.Finish();
  return {hashes.begin(), hashes.end()};
}

std::string Letters(size_t size, uint64_t seed) {
  base::Random random(seed);
  std::string out(size, ' ');
  for (char& c : out) c = static_cast<char>('a' + random.Below(26));
  return out;
}

// How the gateway uses it: seed from model and salt, pieces of the prompt as they come, one hash
// per block, and two prompts that begin alike share the hashes of what is alike.
TEST(PromptHasherTest, Tutorial) {
  std::vector<BlockHash> out(8);
  std::vector<char> staging(kBlock);
  PromptHasher hasher(ChainSeed("llama", ""), kBlock, out, staging);
  hasher.Append("user");
  hasher.Append("a question of 29 bytes length");
  const auto first = hasher.Finish();
  ASSERT_EQ(first.size(), 3u);  // 33 bytes: 16, 16 and 1

  const auto other = Hash({"user", "a question of another length"}, ChainSeed("llama", ""));
  EXPECT_EQ(first[0], other[0]);  // "usera question o"
  EXPECT_NE(first[1], other[1]);
}

TEST(PromptHasherTest, BlockCountIsOfTheBytesRoundedUp) {
  for (size_t size : {0, 1, 15, 16, 17, 31, 32, 33, 160}) {
    EXPECT_EQ(Hash({Letters(size, 3)}).size(), (size + kBlock - 1) / kBlock) << size;
  }
}

TEST(PromptHasherTest, HowBytesAreCutDoesNotMatter) {
  base::Random random(7);
  for (int round = 0; round < 2000; ++round) {
    const std::string text = Letters(random.Below(200), random.Next());
    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size();) {
      const size_t n = std::min<size_t>(random.Below(40), text.size() - at);
      pieces.push_back(text.substr(at, n));
      at += n;
    }
    ASSERT_EQ(Hash(pieces), Hash({text})) << "round " << round;
  }
}

TEST(PromptHasherTest, ChainIsTheMixOfEveryContentHash) {
  const std::string text = Letters(40, 5);
  uint64_t parent = 9;
  std::vector<BlockHash> expected;
  for (size_t at = 0; at < text.size(); at += kBlock) {
    const size_t n = std::min(kBlock, text.size() - at);
    parent = base::Mix64(parent, HashKernels()[0].content(text.data() + at, n));
    expected.push_back(parent);
  }
  EXPECT_EQ(Hash({text}, 9), expected);
}

TEST(PromptHasherTest, ModelAndSaltBothSeparate) {
  const std::vector<uint64_t> seeds = {ChainSeed("a", ""), ChainSeed("b", ""), ChainSeed("a", "x"),
                                       ChainSeed("x", "a"), ChainSeed("ax", "")};
  std::unordered_set<uint64_t> firsts;
  for (uint64_t seed : seeds) firsts.insert(Hash({"the same text"}, seed)[0]);
  EXPECT_EQ(firsts.size(), seeds.size());
}

TEST(PromptHasherTest, StopsWhenFull) {
  const std::string text = Letters(1000, 1);
  const auto all = Hash({text});
  const auto some = Hash({text}, 1, kBlock, 3);
  EXPECT_EQ(some, std::vector<BlockHash>(all.begin(), all.begin() + 3));
  EXPECT_TRUE(Hash({text}, 1, kBlock, 0).empty());
}

TEST(PromptHasherTest, TokensAreTheirLittleEndianBytes) {
  std::vector<BlockHash> out(100);
  std::vector<char> staging(kBlock);
  PromptHasher hasher(1, kBlock, out, staging);
  hasher.Append("ab");
  hasher.AlignToToken();
  hasher.AppendTokens(0x04030201, 150);
  hasher.AlignToToken();  // nothing to do
  const auto hashes = hasher.Finish();

  std::string same("ab\0\0", 4);
  for (int i = 0; i < 150; ++i) same += "\x01\x02\x03\x04";
  EXPECT_EQ(std::vector<BlockHash>(hashes.begin(), hashes.end()), Hash({same}));
}

TEST(HashKernelTest, ChainsAreTheMixOfEveryContentHash) {
  const std::string text = Letters(40 * 256, 6);
  for (const HashKernel& kernel : HashKernels()) {
    for (size_t count : {0, 1, 3, 40}) {
      uint64_t parent = 9;
      std::vector<BlockHash> expected;
      for (size_t i = 0; i < count; ++i) {
        parent = base::Mix64(parent, kernel.content(text.data() + i * 256, 256));
        expected.push_back(parent);
      }
      std::vector<BlockHash> out(count);
      EXPECT_EQ(kernel.chain(9, text.data(), 256, count, out.data()), parent) << kernel.name;
      EXPECT_EQ(out, expected) << kernel.name;
    }
  }
}

TEST(HashKernelTest, BothWithAesRoundsGiveTheSameValues) {
  const auto kernels = HashKernels();
  if (kernels[0].name != "vaes") GTEST_SKIP() << "this processor has no VAES";
  ASSERT_EQ(kernels[1].name, "aes");
  const std::string text = Letters(1000, 8);
  for (size_t size = 0; size <= text.size(); ++size) {
    ASSERT_EQ(kernels[0].content(text.data(), size), kernels[1].content(text.data(), size)) << size;
  }
}

TEST(HashContentTest, LengthCountsAndZeroTailsDiffer) {
  const std::string zeros(300, '\0');
  for (const HashKernel& kernel : HashKernels()) {
    std::unordered_set<uint64_t> seen;
    for (size_t size = 0; size <= zeros.size(); ++size) {
      EXPECT_TRUE(seen.insert(kernel.content(zeros.data(), size)).second) << kernel.name << size;
    }
  }
}

TEST(HashContentTest, ReadsNothingBeyondItsBytes) {
  for (const HashKernel& kernel : HashKernels()) {
    std::string a = Letters(200, 1), b = a;
    for (size_t size = 0; size < 200; ++size) {
      std::fill(b.begin() + static_cast<ptrdiff_t>(size), b.end(), '#');
      EXPECT_EQ(kernel.content(a.data(), size), kernel.content(b.data(), size))
          << kernel.name << size;
      b = a;
    }
  }
}

// Every output bit answers to every input bit about half of the time. Over 8 texts of 256 bytes the
// share of one output bit is a mean of 16,384 coin flips: 0.5 +- 0.004.
TEST(HashContentTest, Avalanche) {
  for (const HashKernel& kernel : HashKernels()) {
    std::vector<int> flips(64);
    int total = 0, fewest = 64;
    for (uint64_t seed = 0; seed < 8; ++seed) {
      std::string text = Letters(256, seed);
      const uint64_t before = kernel.content(text.data(), text.size());
      for (size_t bit = 0; bit < text.size() * 8; ++bit, ++total) {
        text[bit / 8] = static_cast<char>(text[bit / 8] ^ (1 << (bit % 8)));
        const uint64_t change = before ^ kernel.content(text.data(), text.size());
        text[bit / 8] = static_cast<char>(text[bit / 8] ^ (1 << (bit % 8)));
        fewest = std::min(fewest, std::popcount(change));
        for (int i = 0; i < 64; ++i) flips[static_cast<size_t>(i)] += (change >> i) & 1;
      }
    }
    for (int count : flips)
      EXPECT_NEAR(static_cast<double>(count) / total, 0.5, 0.02) << kernel.name;
    EXPECT_GE(fewest, 8) << kernel.name;
  }
}

// What prompts look like: the same text with one or two bytes changed, counters, repeats. Half
// a million of them must not meet in 64 bits, and in 32 bits about as often as chance has it (the
// birthday bound gives n * n / 2 / 2^32).
TEST(HashContentTest, StructuredInputsDoNotCollide) {
  for (const HashKernel& kernel : HashKernels()) {
    std::vector<uint64_t> hashes;
    auto add = [&](const std::string& s) { hashes.push_back(kernel.content(s.data(), s.size())); };
    std::string text = Letters(256, 42);
    for (size_t at = 0; at < text.size(); ++at) {
      const char kept = text[at];
      for (char c = '0'; c <= 'Z'; ++c) {
        text[at] = c;
        add(text);
        for (size_t gap : {1, 16, 64, 65}) {  // neighbours, lanes and stripes
          const size_t other = (at + gap) % text.size();
          const char also = text[other];
          for (char d = '0'; d < '8'; ++d) {
            text[other] = d;
            add(text);
          }
          text[other] = also;
        }
      }
      text[at] = kept;
    }
    for (int i = 0; i < 200000; ++i) add("request number " + std::to_string(i));
    for (size_t n = 1; n < 2000; ++n) add(std::string(n, 'x'));

    std::sort(hashes.begin(), hashes.end());
    hashes.erase(std::unique(hashes.begin(), hashes.end()), hashes.end());
    const double n = static_cast<double>(hashes.size());
    // 256 positions x 43 letters, each alone and with 4 neighbours x 8 digits. Of a pair of digits
    // both orders come up, once from either position: no more than a fifth of them are the same.
    EXPECT_GE(n, 256 * 43 * (1 + 4 * 8) * 0.8 + 200000 + 1999) << kernel.name;
    for (int shift : {0, 32}) {
      std::unordered_set<uint32_t> halves;
      for (uint64_t h : hashes) halves.insert(static_cast<uint32_t>(h >> shift));
      const double met = n - static_cast<double>(halves.size());
      const double expected = n * n / 2 / 4294967296.0;
      EXPECT_NEAR(met, expected, 6 * std::sqrt(expected)) << kernel.name << " bits " << shift;
    }
  }
}

}  // namespace
}  // namespace llmd::prefix
