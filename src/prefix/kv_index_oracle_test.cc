// KvIndex against its twin under random operations, and with readers beside the writer.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cmath>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "base/hash.h"
#include "base/random.h"
#include "prefix/kv_index.h"
#include "prefix/kv_index_testing.h"

namespace llmd::prefix {
namespace {

// Chains out of a tree of keys that branches now and then, so that many share their beginnings.
class Chains {
 public:
  Chains(uint64_t seed, size_t chains, size_t blocks_max) : random_(seed) {
    for (size_t i = 0; i < chains; ++i) {
      std::vector<BlockKey> chain;
      if (!chains_.empty() && random_.Below(4) != 0) {
        const auto& other = chains_[random_.Below(chains_.size())];
        chain.assign(other.begin(), other.begin() + static_cast<std::ptrdiff_t>(
                                                        random_.Below(other.size() + 1)));
      }
      const size_t blocks = std::max<size_t>(chain.size() + 1, 1 + random_.Below(blocks_max));
      while (chain.size() < blocks) {
        chain.push_back(base::Mix64(chain.empty() ? seed : chain.back(), random_.Below(1000)) | 1);
      }
      chains_.push_back(std::move(chain));
    }
  }
  const std::vector<BlockKey>& Any(base::Random& random) const {
    return chains_[random.Below(chains_.size())];
  }

 private:
  base::Random random_;
  std::vector<std::vector<BlockKey>> chains_;
};

struct Mix {
  uint32_t holders = 40;
  uint32_t tiers = 1;
  uint32_t groups = 1;
  size_t chains = 30;
  size_t blocks_max = 300;
  uint32_t odd_names = 0;  // of 100 stored blocks, how many have an unusual engine key
  size_t bytes_max = KvIndex::kBytesMaxDefault;
};

class Pair {
 public:
  Pair(const Mix& mix, uint64_t seed)
      : mix_(mix),
        random_(seed),
        chains_(seed, mix.chains, mix.blocks_max),
        index_({.bytes_max = mix.bytes_max, .seed = seed}),
        reader_(index_) {}

  void Step() {
    const auto holder = static_cast<HolderId>(random_.Below(mix_.holders));
    const auto tier = static_cast<Tier>(random_.Below(mix_.tiers));
    const auto group = static_cast<Group>(random_.Below(mix_.groups));
    const std::vector<BlockKey>& chain = chains_.Any(random_);
    const size_t from = random_.Below(2) == 0 ? 0 : random_.Below(chain.size());
    const size_t most = random_.Below(3) == 0 ? 4 : chain.size() - from;
    const size_t count = std::min<size_t>(1 + random_.Below(most), chain.size() - from);
    const std::span<const BlockKey> keys = std::span(chain).subspan(from, count);
    std::vector<EngineKey> names;
    for (const BlockKey key : keys) names.push_back(NameOf(key));
    switch (random_.Below(20)) {
      case 0: {
        EXPECT_EQ(index_.StoreTier(holder, tier, group, names),
                  twin_.StoreTier(holder, tier, group, names));
        return;
      }
      case 1:
        if (random_.Below(10) != 0) return;
        index_.Clear(holder);
        twin_.Clear(holder);
        return;
      case 2:
        if (mix_.groups > 1) SetGroups(holder);
        return;
      case 3: case 4: case 5: case 6: case 7: case 8: case 9: {
        // Engines let go of the tails first.
        if (random_.Below(2) == 0) std::reverse(names.begin(), names.end());
        const auto mine = index_.Remove(holder, tier, group, names);
        const auto other = twin_.Remove(holder, tier, group, names);
        EXPECT_EQ(mine.removed, other.removed);
        EXPECT_EQ(mine.still_referenced, other.still_referenced);
        EXPECT_EQ(mine.unknown, other.unknown);
        return;
      }
      default: {
        const auto parent = from > 0 ? index_.Find(holder, group, NameOf(chain[from - 1], false))
                                     : std::nullopt;
        if (from > 0 && (!parent || parent->key != chain[from - 1])) return;
        EXPECT_EQ(index_.Store(holder, tier, group, parent ? &*parent : nullptr, names, keys),
                  keys.size());
        twin_.Store(holder, tier, group, names, keys);
      }
    }
  }

  void Compare() {
    std::vector<BlockKey> chain = chains_.Any(random_);
    if (random_.Below(3) == 0) chain.resize(1 + random_.Below(chain.size()));
    if (random_.Below(4) == 0) {
      chain.resize(random_.Below(chain.size() + 1));
      for (int i = 0; i < 5; ++i) chain.push_back(random_.Next() | 1);
    }
    const std::array<float, 4> weights = {1, 0.8f, static_cast<float>(random_.Below(3)), 0.5f};
    std::vector<uint32_t> blocks(mix_.holders);
    std::vector<float> weighted(mix_.holders);
    const uint32_t longest = reader_.Match(chain, weights, {}, blocks, weighted);
    EXPECT_EQ(longest, *std::max_element(blocks.begin(), blocks.end()));
    for (HolderId h = 0; h < mix_.holders; ++h) {
      const auto expected = twin_.Match(h, chain, weights);
      ASSERT_EQ(blocks[h], expected.blocks) << "holder " << h;
      ASSERT_NEAR(weighted[h], expected.weight, 1e-2) << "holder " << h;
    }
  }

  // What ForEach of `index` says, in the twin's words.
  static std::map<KvTwin::Name, KvTwin::Entry> Walk(const KvIndex& index, uint32_t holders) {
    std::map<KvTwin::Name, KvTwin::Entry> entries;
    for (HolderId h = 0; h < holders; ++h) {
      index.ForEach(h, [&](const KvIndex::Stretch& s) {
        for (size_t i = 0; i < s.engine_keys.size(); ++i) {
          if (s.references[i] == 0) continue;
          auto& entry = entries[{h, s.group, s.engine_keys[i]}];
          entry.key = s.block_keys[i];
          entry.references[s.tier] = static_cast<int>(s.references[i]);
        }
      });
    }
    return entries;
  }
  void CompareAll() {
    ASSERT_TRUE(index_.CheckForTest());
    ASSERT_TRUE(index_.IsUniqueForTest());
    const auto entries = Walk(index_, mix_.holders);
    EXPECT_EQ(entries, twin_.entries());
    EXPECT_EQ(index_.stats().pairs, entries.size());
  }
  void CompareRestored() {
    KvIndex other({.seed = 7});
    for (HolderId h = 0; h < mix_.holders; ++h) {
      index_.ForEach(h, [&](const KvIndex::Stretch& s) {
        const auto held = std::count_if(s.references.begin(), s.references.end(),
                                        [](uint32_t n) { return n > 0; });
        EXPECT_EQ(other.Restore(h, s), static_cast<size_t>(held));
      });
    }
    EXPECT_TRUE(other.CheckForTest());
    EXPECT_TRUE(other.IsUniqueForTest());
    EXPECT_EQ(Walk(other, mix_.holders), twin_.entries());
  }
  void ClearAll() {
    for (HolderId h = 0; h < mix_.holders; ++h) {
      index_.Clear(h);
      twin_.Clear(h);
    }
    CompareAll();
    EXPECT_EQ(index_.stats().pairs, 0u);
    EXPECT_EQ(index_.stats().runs, 0u);
    EXPECT_EQ(index_.stats().blocks, 0u);
  }
  KvIndex& index() { return index_; }
  KvTwin& twin() { return twin_; }

 private:
  // Mostly one name per block; the same name for another block, or another name, if asked for.
  EngineKey NameOf(BlockKey key, bool may_be_odd = true) {
    if (may_be_odd && random_.Below(100) < mix_.odd_names) {
      return random_.Below(2) == 0 ? key * 3 + random_.Below(3) : random_.Below(50);
    }
    return key * 3;
  }
  void SetGroups(HolderId holder) {
    std::vector<uint32_t> windows(random_.Below(mix_.groups + 1));
    for (uint32_t& window : windows) {
      window = random_.Below(2) == 0 ? KvIndex::kFullAttention
                                     : static_cast<uint32_t>(1 + random_.Below(100));
    }
    index_.SetGroups(holder, windows);
    twin_.SetGroups(holder, windows);
  }

  const Mix mix_;
  base::Random random_;
  Chains chains_;
  KvTwin twin_;
  KvIndex index_;
  KvIndex::Reader reader_;
};

class KvIndexOracleTest : public testing::TestWithParam<Mix> {};

TEST_P(KvIndexOracleTest, AnswersAsItsTwin) {
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    SCOPED_TRACE(seed);
    Pair pair(GetParam(), seed);
    for (int step = 0; step < 3000; ++step) {
      pair.Step();
      if (step % 4 == 0) pair.Compare();
      if (step % 500 == 0) pair.CompareAll();
      if (testing::Test::HasFailure()) FAIL() << "step " << step;
    }
    pair.CompareRestored();
    pair.ClearAll();
  }
}

INSTANTIATE_TEST_SUITE_P(
    Mixes, KvIndexOracleTest,
    testing::Values(Mix{}, Mix{.holders = 3}, Mix{.holders = 200, .chains = 4, .blocks_max = 80},
                    Mix{.tiers = 4}, Mix{.holders = 3, .tiers = 2, .odd_names = 5},
                    Mix{.holders = 100, .tiers = 2, .chains = 3, .odd_names = 1},
                    Mix{.holders = 30, .tiers = 2, .groups = 3, .chains = 10},
                    Mix{.holders = 4, .tiers = 3, .groups = 8, .chains = 5, .odd_names = 2},
                    Mix{.holders = 20, .chains = 500, .blocks_max = 6}));

// The writer keeps a beginning of every chain for every holder and lets the rest come and go, while
// it grows the tables with other chains; whoever looks must see at least the beginning.
TEST(KvIndexConcurrentTest, ReadersSeeWhatIsThereThroughout) {
  constexpr uint32_t kHolders = 40;
  constexpr size_t kKept = 90;
  KvIndex index;
  std::vector<std::vector<BlockKey>> chains(6);
  for (size_t c = 0; c < chains.size(); ++c) {
    for (size_t i = 0; i < 200; ++i) {
      chains[c].push_back(base::Mix64(i == 0 ? c : chains[c].back(), 5) | 1);
    }
    for (HolderId h = 0; h < kHolders; ++h) {
      index.Store(h, 0, 0, nullptr, std::span(chains[c]).first(kKept),
                  std::span(chains[c]).first(kKept));
    }
  }
  std::atomic<bool> done{false};
  std::atomic<uint64_t> wrong{0};
  std::atomic<uint64_t> matches{0};
  const auto read = [&](uint64_t seed) {
    KvIndex::Reader reader(index);
    base::Random random(seed);
    std::vector<uint32_t> blocks(kHolders + 1);
    std::vector<float> weighted(kHolders + 1);
    while (!done.load(std::memory_order_relaxed)) {
      const auto& chain = chains[random.Below(chains.size())];
      const uint64_t failures = index.read_failures();
      reader.Match(chain, {}, {}, blocks, weighted);
      matches.fetch_add(1, std::memory_order_relaxed);
      bool right = blocks[kHolders] == 0;
      for (HolderId h = 0; h < kHolders; ++h) {
        right &= blocks[h] >= kKept && blocks[h] <= chain.size();
        right &= std::abs(weighted[h] - static_cast<float>(blocks[h])) < 1e-3f;
      }
      if (!right && index.read_failures() == failures) wrong.fetch_add(1);
    }
  };
  std::thread first(read, 1);
  std::thread second(read, 2);
  base::Random random(3);
  uint64_t other = 1000;
  for (int i = 0; i < 30'000 || matches.load() < 1000; ++i) {
    const auto& chain = chains[random.Below(chains.size())];
    const auto h = static_cast<HolderId>(random.Below(kHolders));
    const auto parent = index.Find(h, 0, chain[kKept - 1]);
    const size_t count = 1 + random.Below(chain.size() - kKept);
    const auto tail = std::span(chain).subspan(kKept, count);
    if (random.Below(2) == 0) {
      index.Store(h, 0, 0, &*parent, tail, tail);
    } else {
      index.Remove(h, 0, 0, tail);
    }
    if (other < 60'000) {
      const std::array<BlockKey, 3> keys = {other * 8 + 1, other * 8 + 3, other * 8 + 5};
      index.Store(kHolders, 0, 0, nullptr, keys, keys);
      ++other;
    }
  }
  done.store(true);
  first.join();
  second.join();
  EXPECT_EQ(wrong.load(), 0u);
  EXPECT_TRUE(index.CheckForTest());
  EXPECT_TRUE(index.IsUniqueForTest());
}

}  // namespace
}  // namespace llmd::prefix
