#include "engine/block_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/random.h"

namespace llmd::engine {
namespace {

using testing::ElementsAre;

std::vector<BlockId> Take(BlockPool* pool, uint32_t n) {
  std::vector<BlockId> blocks;
  pool->Allocate(n, &blocks);
  return blocks;
}

TEST(BlockPoolTest, Tutorial) {
  BlockPool pool(4);
  const std::vector<BlockId> sequence = Take(&pool, 3);
  pool.Register(sequence[0], 100);
  pool.Register(sequence[1], 101);
  EXPECT_EQ(pool.free_count(), 1u);

  // A second sequence shares the first block.
  EXPECT_EQ(pool.Find(100), sequence[0]);
  pool.Hold(sequence[0]);
  EXPECT_EQ(pool.references(sequence[0]), 2u);

  // Given back, the content stays until the memory is needed.
  pool.Release(sequence);
  EXPECT_EQ(pool.free_count(), 3u);
  EXPECT_EQ(pool.Find(101), sequence[1]);
  Take(&pool, 3);
  EXPECT_EQ(pool.Find(101), kNoBlock);
  EXPECT_EQ(pool.Find(100), sequence[0]);  // still held
  EXPECT_EQ(pool.evictions(), 1u);
  pool.VerifyForTest();
}

TEST(BlockPoolTest, TailOfASequenceIsEvictedFirst) {
  BlockPool pool(3);
  const auto sequence = Take(&pool, 3);
  for (uint32_t i = 0; i < 3; ++i) pool.Register(sequence[i], i);
  pool.Release(sequence);
  EXPECT_THAT(Take(&pool, 3), ElementsAre(sequence[2], sequence[1], sequence[0]));
}

TEST(BlockPoolTest, HoldingAFreeBlockSavesItFromEviction) {
  BlockPool pool(2);
  const auto both = Take(&pool, 2);
  pool.Register(both[1], 7);
  pool.Release(both);
  pool.Hold(both[1]);
  EXPECT_THAT(Take(&pool, 1), ElementsAre(both[0]));
  EXPECT_EQ(pool.free_count(), 0u);
  EXPECT_EQ(pool.Find(7), both[1]);
}

TEST(BlockPoolTest, BlocksOfEqualContentAreFoundInOrderOfRegistration) {
  BlockPool pool(3);
  const auto blocks = Take(&pool, 3);
  pool.Register(blocks[0], 9);
  pool.Register(blocks[2], 9);
  EXPECT_EQ(pool.Find(9), blocks[0]);
  pool.Release({{blocks[0]}});
  Take(&pool, 1);
  EXPECT_EQ(pool.Find(9), blocks[2]);
  pool.VerifyForTest();
}

// Random holds, releases and allocations keep the invariants; content is found while and only while
// a model says so.
TEST(BlockPoolTest, RandomOperationsKeepInvariants) {
  base::Random random(5);
  for (int round = 0; round < 20; ++round) {
    const uint32_t size = 1 + random.Below(40);
    BlockPool pool(size);
    std::vector<std::vector<BlockId>> sequences;
    std::map<BlockId, uint64_t> content;
    for (int i = 0; i < 500; ++i) {
      if (random.Below(2) == 0 && pool.free_count() > 0) {
        auto blocks = Take(&pool, 1 + random.Below(pool.free_count()));
        for (BlockId b : blocks) {
          content.erase(b);
          if (random.Below(3) == 0) continue;
          content[b] = random.Below(30);
          pool.Register(b, content[b]);
        }
        if (const uint64_t wanted = random.Below(30); pool.Find(wanted) != kNoBlock) {
          const BlockId b = pool.Find(wanted);
          ASSERT_EQ(content.at(b), wanted);
          pool.Hold(b);
          blocks.push_back(b);
        }
        sequences.push_back(blocks);
      } else if (!sequences.empty()) {
        const size_t victim = random.Below(sequences.size());
        pool.Release(sequences[victim]);
        sequences.erase(sequences.begin() + static_cast<ptrdiff_t>(victim));
      }
      pool.VerifyForTest();
      for (const auto& [block, hash] : content) ASSERT_NE(pool.Find(hash), kNoBlock);
    }
  }
}

}  // namespace
}  // namespace llmd::engine
