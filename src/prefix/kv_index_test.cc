#include "prefix/kv_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <numeric>
#include <vector>

#include "base/hash.h"
#include "base/random.h"
#include "base/time.h"

namespace llmd::prefix {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::Each;

constexpr Tier kGpu = 0;
constexpr Tier kCpu = 1;
constexpr std::array<float, 2> kWeights = {1.0f, 0.8f};

// Keys of a chain: each stands for everything before it.
std::vector<BlockKey> Chain(uint64_t seed, size_t blocks) {
  std::vector<BlockKey> chain(blocks);
  BlockKey key = seed;
  for (BlockKey& k : chain) k = key = base::Mix64(key, seed) | 1;
  return chain;
}
// What an engine calls them.
std::vector<EngineKey> Names(std::span<const BlockKey> chain) {
  std::vector<EngineKey> names;
  for (const BlockKey key : chain) names.push_back(~key);
  return names;
}
template <class T>
std::span<const T> Part(const std::vector<T>& all, size_t begin, size_t until) {
  return std::span(all).subspan(begin, until - begin);
}

// An index with a reader that looks at eight holders, unless told otherwise.
struct Fixture {
  explicit Fixture(const KvIndex::Options& options = {}, size_t holders = 8)
      : index(options), reader(index), blocks(holders), weighted(holders) {}

  size_t StoreAll(HolderId holder, const std::vector<BlockKey>& chain, Tier tier = kGpu,
                  Group group = 0) {
    return index.Store(holder, tier, group, nullptr, Names(chain), chain);
  }
  const std::vector<uint32_t>& Match(std::span<const BlockKey> chain, base::TimePoint now = {}) {
    reader.Match(chain, kWeights, now, blocks, weighted);
    return blocks;
  }

  KvIndex index;
  KvIndex::Reader reader;
  std::vector<uint32_t> blocks;
  std::vector<float> weighted;
};

TEST(KvIndexTest, Tutorial) {
  KvIndex index({.bytes_max = 64 << 20, .seed = 42});
  const std::vector<BlockKey> chain = Chain(1, 100);
  const std::vector<EngineKey> names = Names(chain);

  // Server 3 has computed the first 80 blocks of a prompt; its engine said so in two events. The
  // second one names its parent, under which we find where it goes on.
  index.Store(3, kGpu, 0, nullptr, Part(names, 0, 50), Part(chain, 0, 50));
  const auto parent = index.Find(3, 0, names[49]);
  ASSERT_TRUE(parent.has_value());
  EXPECT_EQ(parent->key, chain[49]);
  index.Store(3, kGpu, 0, &*parent, Part(names, 50, 80), Part(chain, 50, 80));
  // Server 5 has the first 30 blocks, and the first 10 of them in host memory only.
  index.Store(5, kCpu, 0, nullptr, Part(names, 0, 10), Part(chain, 0, 10));
  const auto tenth = index.Find(5, 0, names[9]);
  index.Store(5, kGpu, 0, &*tenth, Part(names, 10, 30), Part(chain, 10, 30));

  // A request with that prompt.
  KvIndex::Reader reader(index);
  std::array<uint32_t, 8> blocks{};
  std::array<float, 8> weighted{};
  EXPECT_EQ(reader.Match(chain, kWeights, {}, blocks, weighted), 80u);
  EXPECT_THAT(blocks, ElementsAre(0, 0, 0, 80, 0, 30, 0, 0));
  EXPECT_FLOAT_EQ(weighted[3], 80.0f);
  EXPECT_FLOAT_EQ(weighted[5], 10 * 0.8f + 20);

  // The engine evicts: what lies behind a missing block cannot be used.
  const auto removed = index.Remove(3, kGpu, 0, Part(names, 20, 21));
  EXPECT_EQ(removed.removed, 1u);
  reader.Match(chain, kWeights, {}, blocks, weighted);
  EXPECT_EQ(blocks[3], 20u);
  EXPECT_EQ(index.blocks(3), 79u);

  // The engine restarts.
  index.Clear(3);
  reader.Match(chain, kWeights, {}, blocks, weighted);
  EXPECT_THAT(blocks, ElementsAre(0, 0, 0, 0, 0, 30, 0, 0));
}

TEST(KvIndexTest, AnEmptyIndexAndAnEmptyChainMatchNothing) {
  Fixture f;
  EXPECT_THAT(f.Match(Chain(1, 10)), Each(0));
  f.StoreAll(1, Chain(1, 10));
  EXPECT_THAT(f.Match({}), Each(0));
  EXPECT_EQ(f.reader.Match(Chain(1, 10), {}, {}, {}, {}), 0u);
}

TEST(KvIndexTest, ChainsThatShareABeginningMatchUpToTheFork) {
  for (const size_t fork : {1, 3, 4, 5, 63, 64, 65, 100, 128, 199}) {
    Fixture f;
    const std::vector<BlockKey> chain = Chain(1, 200);
    std::vector<BlockKey> other(chain.begin(), chain.begin() + static_cast<long>(fork));
    for (const BlockKey key : Chain(2, 70)) other.push_back(key);
    f.StoreAll(1, chain);
    EXPECT_EQ(f.Match(other)[1], fork);
    f.StoreAll(2, other);
    EXPECT_THAT(f.Match(other), ElementsAre(0, fork, fork + 70, 0, 0, 0, 0, 0));
    EXPECT_THAT(f.Match(chain), ElementsAre(0, 200, fork, 0, 0, 0, 0, 0));
    EXPECT_EQ(f.index.stats().blocks, 270u);
    EXPECT_TRUE(f.index.CheckForTest());
    EXPECT_TRUE(f.index.IsUniqueForTest());
  }
}

TEST(KvIndexTest, AChainThatGrowsBlockByBlockLiesInFewRuns) {
  Fixture f;
  const std::vector<BlockKey> chain = Chain(1, 500);
  const std::vector<EngineKey> names = Names(chain);
  std::optional<KvIndex::BlockRef> parent;
  for (size_t i = 0; i < chain.size(); ++i) {
    ASSERT_EQ(
        f.index.Store(1, kGpu, 0, parent ? &*parent : nullptr, {&names[i], 1}, {&chain[i], 1}), 1u);
    parent = f.index.Find(1, 0, names[i]);
  }
  EXPECT_EQ(f.Match(chain)[1], 500u);
  EXPECT_LE(f.index.stats().runs, 24u);
}

TEST(KvIndexTest, AsManyReferencesAsStoresOfTheSameBlock) {
  Fixture f;
  const std::vector<BlockKey> chain = Chain(1, 10);
  const std::vector<EngineKey> names = Names(chain);
  f.StoreAll(1, chain);
  f.StoreAll(1, chain);
  auto removed = f.index.Remove(1, kGpu, 0, names);
  EXPECT_EQ(removed.still_referenced, 10u);
  EXPECT_EQ(f.Match(chain)[1], 10u);
  removed = f.index.Remove(1, kGpu, 0, names);
  EXPECT_EQ(removed.removed, 10u);
  removed = f.index.Remove(1, kGpu, 0, names);
  EXPECT_EQ(removed.unknown, 10u);
  EXPECT_THAT(f.Match(chain), Each(0));
  EXPECT_EQ(f.index.stats().runs, 0u);
}

TEST(KvIndexTest, TiersAreHeldApartAndTheBestCounts) {
  Fixture f;
  const std::vector<BlockKey> chain = Chain(1, 100);
  const std::vector<EngineKey> names = Names(chain);
  f.StoreAll(1, chain);
  // Offloaded: the same blocks are named again, without tokens.
  EXPECT_EQ(f.index.StoreTier(1, kCpu, 0, names), 100u);
  EXPECT_EQ(f.index.StoreTier(2, kCpu, 0, names), 0u);
  EXPECT_EQ(f.Match(chain)[1], 100u);
  EXPECT_FLOAT_EQ(f.weighted[1], 100.0f);
  EXPECT_EQ(f.index.Remove(1, kGpu, 0, Part(names, 40, 100)).removed, 60u);
  EXPECT_EQ(f.Match(chain)[1], 100u);
  EXPECT_NEAR(f.weighted[1], 40 + 60 * 0.8, 1e-3);
  EXPECT_EQ(f.index.Remove(1, kGpu, 0, Part(names, 40, 100)).unknown, 60u);
  EXPECT_EQ(f.index.Remove(1, kCpu, 0, Part(names, 90, 100)).removed, 10u);
  EXPECT_EQ(f.Match(chain)[1], 90u);
}

TEST(KvIndexTest, OneTierAlone) {
  Fixture f;
  const std::vector<BlockKey> chain = Chain(1, 100);
  const std::vector<EngineKey> names = Names(chain);
  const auto in = [&](Tier tier) {
    f.reader.MatchTier(chain, tier, f.blocks);
    return f.blocks;
  };
  f.StoreAll(1, chain);
  f.StoreAll(2, chain);
  f.StoreAll(3, chain, kCpu);
  f.index.StoreTier(2, kCpu, 0, Part(names, 0, 30));
  f.index.StoreTier(2, kCpu, 0, Part(names, 40, 100));
  f.index.AddSpeculative(4, chain, {}, base::TimePoint(std::chrono::hours(1)));
  EXPECT_THAT(in(kGpu), ElementsAre(0, 100, 100, 0, 0, 0, 0, 0));
  EXPECT_THAT(in(kCpu), ElementsAre(0, 0, 30, 100, 0, 0, 0, 0)) << "up to the first gap";
  EXPECT_THAT(in(2), ElementsAre(0, 0, 0, 0, 0, 0, 0, 0));
  EXPECT_THAT(in(99), ElementsAre(0, 0, 0, 0, 0, 0, 0, 0)) << "no tier at all";
  EXPECT_THAT(f.Match(chain), ElementsAre(0, 100, 100, 100, 100, 0, 0, 0)) << "as ever";
  // Hybrid holders, too, and so many holders that they are told as one.
  f.index.SetGroups(3, std::array{KvIndex::kFullAttention});
  EXPECT_EQ(in(kCpu)[3], 100u);
  EXPECT_EQ(in(kGpu)[3], 0u);
  Fixture many({}, 500);
  for (HolderId h = 0; h < 500; ++h) many.StoreAll(h, chain, h % 2 == 0 ? kGpu : kCpu);
  many.reader.MatchTier(chain, kCpu, many.blocks);
  for (HolderId h = 0; h < 500; ++h) ASSERT_EQ(many.blocks[h], h % 2 == 0 ? 0u : 100u);
}

TEST(KvIndexTest, AnEngineKeyStandsForTheBlockItWasStoredWithLast) {
  Fixture f;
  const std::vector<BlockKey> a = Chain(1, 20);
  const std::vector<BlockKey> b = Chain(2, 20);
  const std::vector<EngineKey> names = Names(a);
  f.index.Store(1, kGpu, 0, nullptr, names, a);
  f.index.Store(1, kGpu, 0, nullptr, names, b);
  EXPECT_EQ(f.Match(a)[1], 0u);
  EXPECT_EQ(f.Match(b)[1], 20u);
  EXPECT_EQ(f.index.stats().pairs, 20u);
  // And a block may have several names; it is held until the last of them is gone.
  const std::vector<EngineKey> more = Names(b);
  f.index.Store(1, kGpu, 0, nullptr, more, b);
  EXPECT_EQ(f.index.stats().pairs, 40u);
  f.index.Remove(1, kGpu, 0, names);
  EXPECT_EQ(f.Match(b)[1], 20u);
  f.index.Remove(1, kGpu, 0, more);
  EXPECT_EQ(f.Match(b)[1], 0u);
  // One name twice in one call: the later block has it.
  const std::vector<EngineKey> same(20, 7);
  f.index.Store(1, kGpu, 0, nullptr, same, a);
  EXPECT_EQ(f.index.stats().pairs, 1u);
  EXPECT_TRUE(f.index.CheckForTest());
}

TEST(KvIndexTest, AThousandHoldersOfOnePrompt) {
  Fixture f({}, 1000);
  const std::vector<BlockKey> chain = Chain(1, 600);
  const std::vector<EngineKey> names = Names(chain);
  for (HolderId h = 0; h < 1000; ++h) f.StoreAll(h, chain);
  EXPECT_THAT(f.Match(chain), Each(600));
  EXPECT_THAT(f.weighted, Each(600.0f));
  // Each has let go of as many blocks of the tail as its number says.
  for (HolderId h = 0; h < 600; ++h) f.index.Remove(h, kGpu, 0, Part(names, 600 - h, 600));
  f.Match(chain);
  for (uint32_t h = 0; h < 600; ++h) ASSERT_EQ(f.blocks[h], 600 - h);
  EXPECT_TRUE(f.index.CheckForTest());
  for (HolderId h = 0; h < 1000; ++h) f.index.Clear(h);
  EXPECT_EQ(f.index.stats().runs, 0u);
  EXPECT_EQ(f.index.stats().blocks, 0u);
}

TEST(KvIndexTest, HoldersBeyondTheReadersSpanAreLeftOut) {
  Fixture f({}, 3);
  const std::vector<BlockKey> chain = Chain(1, 10);
  for (HolderId h = 0; h < 100; ++h) f.StoreAll(h, chain);
  EXPECT_THAT(f.Match(chain), ElementsAre(10, 10, 10));
}

TEST(KvIndexTest, HybridHoldersCountWhatAllGroupsCanUse) {
  Fixture f;
  const std::vector<BlockKey> chain = Chain(1, 100);
  const std::vector<EngineKey> names = Names(chain);
  f.index.SetGroups(1, std::array{KvIndex::kFullAttention, 8u});
  f.StoreAll(1, chain);
  EXPECT_EQ(f.Match(chain)[1], 0u) << "the window group has nothing";
  f.StoreAll(1, chain, kGpu, 1);
  EXPECT_EQ(f.Match(chain)[1], 100u);
  // The engine frees what slid out of the window.
  f.index.Remove(1, kGpu, 1, Part(names, 0, 70));
  EXPECT_EQ(f.Match(chain)[1], 100u);
  EXPECT_FLOAT_EQ(f.weighted[1], 100.0f);
  EXPECT_EQ(f.Match(Part(chain, 0, 77))[1], 0u) << "seven of the eight blocks before its end";
  EXPECT_EQ(f.Match(Part(chain, 0, 78))[1], 78u);
  f.index.Remove(1, kGpu, 1, Part(names, 95, 100));
  EXPECT_EQ(f.Match(chain)[1], 95u);
  f.index.Remove(1, kGpu, 0, Part(names, 80, 81));
  EXPECT_EQ(f.Match(chain)[1], 80u);
  // Only windows: what lies before them need not be anywhere.
  f.index.Clear(1);
  f.index.SetGroups(1, std::array{4u});
  f.StoreAll(1, chain);
  f.index.Remove(1, kGpu, 0, Part(names, 0, 90));
  EXPECT_EQ(f.Match(chain)[1], 100u);
  f.index.SetGroups(1, {});
  EXPECT_EQ(f.Match(chain)[1], 0u);
}

TEST(KvIndexTest, SpeculationCountsUntilItExpires) {
  Fixture f;
  const std::vector<BlockKey> chain = Chain(1, 100);
  const base::TimePoint start{std::chrono::hours(1)};
  f.StoreAll(1, {chain.begin(), chain.begin() + 20});
  f.index.AddSpeculative(1, Part(chain, 0, 50), start, start + milliseconds(2000));
  f.index.AddSpeculative(2, chain, start, start + milliseconds(1000));
  // In steps of eight blocks, and the whole of a chain.
  EXPECT_THAT(f.Match(chain, start), ElementsAre(0, 48, 100, 0, 0, 0, 0, 0));
  EXPECT_FLOAT_EQ(f.weighted[1], 48.0f);
  EXPECT_EQ(f.Match(Part(chain, 0, 50), start)[1], 50u);
  EXPECT_THAT(f.Match(chain, start + milliseconds(1000)), ElementsAre(0, 48, 0, 0, 0, 0, 0, 0));
  f.index.Clear(1);
  EXPECT_THAT(f.Match(chain, start + milliseconds(1000)), Each(0));
}

TEST(KvIndexTest, SpeculationKeepsTheHoldersThatCameLast) {
  Fixture f({}, 20);
  const std::vector<BlockKey> chain = Chain(1, 8);
  const base::TimePoint start{};
  for (HolderId h = 0; h < 20; ++h) {
    f.index.AddSpeculative(h, chain, start, start + milliseconds(1000 + h));
  }
  f.Match(chain, start);
  EXPECT_EQ(std::accumulate(f.blocks.begin(), f.blocks.end(), 0u), 7 * 8u);
  for (size_t h = 13; h < 20; ++h) EXPECT_EQ(f.blocks[h], 8u);
}

TEST(KvIndexTest, TheBudgetHoldsAndHotPromptsStay) {
  Fixture f({.bytes_max = KvIndex::kBytesMaxSmallest});
  const std::vector<BlockKey> hot = Chain(1, 300);
  f.StoreAll(1, hot);
  size_t stored = 0;
  for (uint64_t i = 0; i < 6000; ++i) {
    stored += f.StoreAll(static_cast<HolderId>(i % 8), Chain(1000 + i, 1 + i % 300));
    if (i % 10 == 0) {
      ASSERT_EQ(f.Match(hot)[1], 300u) << i;
    }
    ASSERT_LE(f.index.stats().bytes, KvIndex::kBytesMaxSmallest);
  }
  const KvIndex::Stats stats = f.index.stats();
  EXPECT_EQ(stats.refused_blocks, 0u);
  EXPECT_EQ(stats.evicted_blocks + stats.pairs, stored + 300);
  EXPECT_GT(stats.pairs, 200'000u);
  EXPECT_TRUE(f.index.CheckForTest());
}

TEST(KvIndexTest, ABudgetFullOfSmallRunsTakesLargeOnesAgain) {
  Fixture f({.bytes_max = KvIndex::kBytesMaxSmallest});
  uint64_t seed = 0;
  for (int i = 0; i < 100'000; ++i) f.StoreAll(1, Chain(++seed, 1));
  for (int i = 0; i < 3'000; ++i) f.StoreAll(1, Chain(++seed, 256));
  EXPECT_TRUE(f.index.CheckForTest());
  EXPECT_EQ(f.index.stats().refused_blocks, 0u);
  EXPECT_GT(f.index.stats().pairs, 60'000u);
  for (int i = 0; i < 100'000; ++i) f.StoreAll(1, Chain(++seed, 1));
  EXPECT_EQ(f.index.stats().refused_blocks, 0u);
  EXPECT_LE(f.index.stats().bytes, KvIndex::kBytesMaxSmallest);
}

TEST(KvIndexTest, NumbersBeyondTheirLimitsAreRefused) {
  Fixture f;
  const std::vector<BlockKey> chain = Chain(1, 10);
  EXPECT_EQ(f.StoreAll(KvIndex::kHoldersMax, chain), 0u);
  EXPECT_EQ(f.StoreAll(1, chain, KvIndex::kTiersMax), 0u);
  EXPECT_EQ(f.StoreAll(1, chain, kGpu, KvIndex::kGroupsMax), 0u);
  EXPECT_EQ(f.index.stats().refused_blocks, 30u);
  EXPECT_EQ(f.StoreAll(KvIndex::kHoldersMax - 1, chain), 10u);
  f.index.Clear(KvIndex::kHoldersMax);
  f.index.SetGroups(KvIndex::kHoldersMax, std::array{1u});
  f.index.AddSpeculative(KvIndex::kHoldersMax, chain, {}, base::TimePoint(milliseconds(5)));
  EXPECT_EQ(f.index.Find(KvIndex::kHoldersMax, 0, 1), std::nullopt);
  EXPECT_EQ(f.index.Remove(KvIndex::kHoldersMax, 0, 0, Names(chain)).unknown, 10u);
  EXPECT_THAT(f.Match(chain), Each(0));
}

TEST(KvIndexTest, MemoryIsAnnouncedBeforeItIsUsed) {
  size_t bytes = 0;
  {
    KvIndex index({.on_memory = [&](std::span<std::byte> memory) {
      EXPECT_EQ(reinterpret_cast<uintptr_t>(memory.data()) % (2 << 20), 0u);
      bytes += memory.size();
    }});
    const std::vector<BlockKey> chain = Chain(1, 10);
    index.Store(1, kGpu, 0, nullptr, Names(chain), chain);
    EXPECT_LE(bytes, index.stats().bytes);
  }
  EXPECT_EQ(bytes, 3u * (2 << 20)) << "words, runs, extents";
}

}  // namespace
}  // namespace llmd::prefix
