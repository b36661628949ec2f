#include "prefix/prefix_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include "base/random.h"

namespace llmd::prefix {
namespace {

using Chain = std::vector<BlockHash>;

// The chain of a prompt whose blocks have these contents.
Chain ChainOf(const std::vector<int>& blocks) {
  Chain chain;
  uint64_t parent = 77;
  for (int block : blocks)
    chain.push_back(parent = base::Mix64(parent, static_cast<uint64_t>(block)));
  return chain;
}

std::vector<uint32_t> MatchOf(const PrefixIndex& index, const Chain& chain, size_t endpoints = 4) {
  std::vector<uint32_t> matched(endpoints);
  index.Match(chain, matched);
  return matched;
}

using Matched = std::vector<uint32_t>;

TEST(PrefixIndexTest, Tutorial) {
  PrefixIndex index;
  index.Record(0, 100, ChainOf({1, 2, 3, 4}));  // endpoint 0 was sent a prompt of four blocks
  index.Record(1, 100, ChainOf({1, 2, 9}));     // endpoint 1 one that begins alike

  EXPECT_EQ(MatchOf(index, ChainOf({1, 2, 3, 7})), (Matched{3, 2, 0, 0}));
  EXPECT_EQ(index.blocks(0), 4u);

  index.Forget(0);
  EXPECT_EQ(MatchOf(index, ChainOf({1, 2, 3, 7})), (Matched{0, 2, 0, 0}));
}

TEST(PrefixIndexTest, TheTailGoesFirst) {
  PrefixIndex index;
  index.Record(0, 6, ChainOf({1, 2, 3, 4}));
  index.Record(0, 6, ChainOf({5, 6, 7}));  // one block too many: 4, the end of the older prompt
  EXPECT_EQ(MatchOf(index, ChainOf({1, 2, 3, 4}))[0], 3u);
  EXPECT_EQ(MatchOf(index, ChainOf({5, 6, 7}))[0], 3u);
}

TEST(PrefixIndexTest, UseOfAPrefixKeepsThePrefixOnly) {
  PrefixIndex index;
  index.Record(0, 6, ChainOf({1, 2, 3, 4}));
  index.Record(0, 6, ChainOf({5, 6}));
  index.Record(0, 6, ChainOf({1, 2}));  // 3 and 4 are now the oldest, then 6 and 5
  index.Record(0, 6, ChainOf({7, 8, 9}));
  EXPECT_EQ(MatchOf(index, ChainOf({1, 2, 3, 4}))[0], 2u);
  EXPECT_EQ(MatchOf(index, ChainOf({5, 6}))[0], 1u);
  EXPECT_TRUE(index.CheckForTest());
}

TEST(PrefixIndexTest, AChainLongerThanTheCapacityKeepsItsHead) {
  PrefixIndex index;
  index.Record(0, 3, ChainOf({1, 2, 3, 4, 5}));
  EXPECT_EQ(MatchOf(index, ChainOf({1, 2, 3, 4, 5}))[0], 3u);
  index.Record(0, 0, ChainOf({1, 2}));
  EXPECT_EQ(index.blocks(0), 0u);
  EXPECT_EQ(index.stats().nodes, 0u);
}

TEST(PrefixIndexTest, ASmallerCapacityEvictsAtOnce) {
  PrefixIndex index;
  index.Record(2, 100, ChainOf({1, 2, 3, 4, 5}));
  index.Trim(2, 2);
  EXPECT_EQ(MatchOf(index, ChainOf({1, 2, 3})), (Matched{0, 0, 2, 0}));
  EXPECT_EQ(index.stats().evicted_blocks, 3u);
}

TEST(PrefixIndexTest, MatchesOfSeveralPromptsAddUp) {
  PrefixIndex index;
  index.Record(1, 100, ChainOf({1, 2}));
  std::vector<uint32_t> matched(2);
  index.Match(ChainOf({1, 2}), matched);
  index.Match(ChainOf({1, 5}), matched);
  EXPECT_EQ(matched, (Matched{0, 3}));
}

TEST(PrefixIndexTest, EndpointsOutsideTheArrayAndTheLimitAreIgnored) {
  PrefixIndex index;
  index.Record(PrefixIndex::kEndpointsMax, 10, ChainOf({1}));
  index.Trim(PrefixIndex::kEndpointsMax, 0);
  EXPECT_EQ(index.blocks(PrefixIndex::kEndpointsMax), 0u);
  index.Record(3, 10, ChainOf({1}));
  EXPECT_EQ(MatchOf(index, ChainOf({1}), 2), (Matched{0, 0}));
  EXPECT_EQ(MatchOf(index, {}, 4), (Matched{0, 0, 0, 0}));
}

// The obviously right twin: every endpoint has a list of blocks with the time of their last use;
// evicted is the oldest, the deepest of those used together.
class NaiveIndex {
 public:
  void Record(uint32_t endpoint, size_t capacity, const Chain& chain) {
    ++use_;
    auto& held = held_[endpoint];
    for (size_t i = 0; i < chain.size(); ++i) held[chain[i]] = {use_, i};
    Trim(endpoint, capacity);
  }
  void Trim(uint32_t endpoint, size_t capacity) {
    auto& held = held_[endpoint];
    while (held.size() > capacity) {
      held.erase(std::min_element(held.begin(), held.end(), [](const auto& a, const auto& b) {
        if (a.second.used_at != b.second.used_at) return a.second.used_at < b.second.used_at;
        return a.second.depth > b.second.depth;
      }));
    }
  }
  uint32_t Match(uint32_t endpoint, const Chain& chain) {
    const auto& held = held_[endpoint];
    uint32_t n = 0;
    while (n < chain.size() && held.contains(chain[n])) ++n;
    return n;
  }
  size_t blocks(uint32_t endpoint) { return held_[endpoint].size(); }

 private:
  struct Block {
    uint64_t used_at;
    size_t depth;
  };
  std::map<uint32_t, std::map<BlockHash, Block>> held_;
  uint64_t use_ = 0;
};

// Prompts that share beginnings: a walk down a tree with few children per block, sometimes along
// one of a few long stems.
Chain RandomChain(base::Random& random, int width, size_t length_max) {
  std::vector<int> blocks;
  if (random.Below(2) == 0) {
    const int stem = static_cast<int>(random.Below(3));
    const size_t length = random.Below(length_max);
    for (size_t i = 0; i < length; ++i) blocks.push_back(1000 + stem);
  }
  const size_t length = random.Below(length_max / 2) + 1;
  for (size_t i = 0; i < length; ++i) {
    blocks.push_back(static_cast<int>(random.Below(static_cast<uint64_t>(width))));
  }
  return ChainOf(blocks);
}

struct TwinCase {
  const char* name;
  uint32_t endpoints;
  size_t capacity;
  int width;
  size_t length_max;
  int operations;
};

class TwinTest : public testing::TestWithParam<TwinCase> {};

TEST_P(TwinTest, AgreesWithTheNaiveIndex) {
  const TwinCase& c = GetParam();
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    base::Random random(seed);
    PrefixIndex index;
    NaiveIndex naive;
    for (uint32_t e = 0; e < c.endpoints; ++e) index.Record(e, 0, {});  // makes room for them
    const size_t empty_bytes = index.stats().bytes;
    for (int i = 0; i < c.operations; ++i) {
      const auto endpoint = static_cast<uint32_t>(random.Below(c.endpoints));
      const Chain chain = RandomChain(random, c.width, c.length_max);
      const uint64_t what = random.Below(20);
      if (what == 0) {
        const size_t capacity = random.Below(c.capacity);
        index.Trim(endpoint, capacity);
        naive.Trim(endpoint, capacity);
      } else if (what == 1) {
        index.Forget(endpoint);
        naive.Trim(endpoint, 0);
      } else {
        index.Record(endpoint, c.capacity, chain);
        naive.Record(endpoint, c.capacity, chain);
      }
      const Chain probe = random.Below(2) ? chain : RandomChain(random, c.width, c.length_max);
      const auto matched = MatchOf(index, probe, c.endpoints);
      for (uint32_t e = 0; e < c.endpoints; ++e) {
        ASSERT_EQ(matched[e], naive.Match(e, probe)) << "seed " << seed << " operation " << i;
        ASSERT_EQ(index.blocks(e), naive.blocks(e)) << "seed " << seed << " operation " << i;
      }
      if (i % 64 == 0) {
        ASSERT_TRUE(index.CheckForTest()) << "seed " << seed << " operation " << i;
      }
    }
    ASSERT_TRUE(index.CheckForTest());
    for (uint32_t e = 0; e < c.endpoints; ++e) index.Forget(e);
    EXPECT_EQ(index.stats().nodes, 0u);
    EXPECT_EQ(index.stats().extents, 0u);
    EXPECT_EQ(index.stats().bytes, empty_bytes) << "something was not given back";
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, TwinTest,
                         testing::Values(TwinCase{"tight", 3, 12, 2, 10, 2000},
                                         TwinCase{"bushy", 4, 40, 3, 8, 2000},
                                         TwinCase{"roomy", 8, 500, 2, 30, 1000},
                                         TwinCase{"long", 3, 900, 2, 600, 200},
                                         TwinCase{"single", 2, 1, 2, 6, 500}),
                         [](const auto& info) { return info.param.name; });

TEST(PrefixIndexTest, BytesStayUnderTheLimit) {
  constexpr size_t kLimit = 2 << 20;
  PrefixIndex index(kLimit);
  base::Random random(3);
  for (int i = 0; i < 20000; ++i) {
    Chain chain(1 + random.Below(64));
    for (BlockHash& hash : chain) hash = random.Next();
    index.Record(static_cast<uint32_t>(random.Below(16)), 1 << 20, chain);
    ASSERT_LE(index.stats().bytes, kLimit) << i;
    if (i % 1000 == 0) {
      ASSERT_TRUE(index.CheckForTest());
    }
    // The newest is never the one to go.
    std::vector<uint32_t> matched(16);
    index.Match(chain, matched);
    ASSERT_EQ(*std::max_element(matched.begin(), matched.end()), chain.size());
  }
  EXPECT_GT(index.stats().evicted_blocks, 0u);
  EXPECT_GT(index.stats().bytes, kLimit * 9 / 10);
}

TEST(PrefixIndexTest, MemoryPressureEvictsTheLeastRecentlyUsedOfAllEndpoints) {
  PrefixIndex index(PrefixIndex::kBytesMaxSmallest);
  base::Random random(3);
  const Chain kept = ChainOf({1, 2, 3}), old = ChainOf({4, 5, 6});
  index.Record(0, 1000, old);
  for (int i = 0; i < 20000; ++i) {
    if (i % 100 == 0) index.Record(1, 1000, kept);
    index.Record(2, 1 << 20, {{random.Next()}});
  }
  EXPECT_EQ(MatchOf(index, kept)[1], 3u);
  EXPECT_EQ(MatchOf(index, old)[0], 0u);
}

// One block each, so that the least recently used are those that were recorded first.
TEST(PrefixIndexTest, MemoryPressureAmongAllEndpointsThatThereCanBe) {
  constexpr size_t kLimit = 2 << 20;
  PrefixIndex index(kLimit);
  base::Random random(5);
  std::vector<std::pair<uint32_t, BlockHash>> recorded;
  for (int i = 0; i < 60000; ++i) {
    recorded.emplace_back(random.Below(PrefixIndex::kEndpointsMax), random.Next());
    index.Record(recorded.back().first, 1 << 20, {{recorded.back().second}});
    if (i % 5000 == 0) ASSERT_LE(index.stats().bytes, kLimit) << i;
  }
  ASSERT_TRUE(index.CheckForTest());
  const size_t evicted = index.stats().evicted_blocks;
  ASSERT_GT(evicted, 10000u);
  std::vector<uint32_t> matched(PrefixIndex::kEndpointsMax);
  for (size_t i = 0; i < recorded.size(); ++i) {
    matched[recorded[i].first] = 0;
    index.Match({{recorded[i].second}}, matched);
    ASSERT_EQ(matched[recorded[i].first], i < evicted ? 0u : 1u) << i;
  }
}

TEST(PrefixIndexTest, AnIndexOfFewEndpointsHasNoRoomForMany) {
  PrefixIndex few, many;
  few.Record(9, 10, {{1}});
  many.Record(PrefixIndex::kEndpointsMax - 1, 10, {{1}});
  EXPECT_EQ(many.blocks(PrefixIndex::kEndpointsMax - 1), 1u);
  EXPECT_LT(few.stats().bytes, 8u << 10);
  EXPECT_LT(many.stats().bytes, few.stats().bytes + 40 * PrefixIndex::kEndpointsMax);
}

TEST(PrefixIndexTest, ThreadsMatchRecordAndForgetTogether) {
  PrefixIndex index(4 << 20);
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&index, t] {
      base::Random random(t);
      std::vector<uint32_t> matched(8);
      for (int i = 0; i < 1500; ++i) {
        const auto endpoint = static_cast<uint32_t>(random.Below(8));
        const Chain chain = RandomChain(random, 2, 60);
        index.Record(endpoint, 300, chain);
        std::fill(matched.begin(), matched.end(), 0);
        index.Match(chain, matched);
        for (uint32_t m : matched) ASSERT_LE(m, chain.size());
        if (random.Below(50) == 0) index.Forget(endpoint);
        ASSERT_LE(index.blocks(endpoint), 300u);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(index.CheckForTest());
}

}  // namespace
}  // namespace llmd::prefix
