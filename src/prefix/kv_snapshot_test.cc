#include "prefix/kv_snapshot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/hash.h"

namespace llmd::prefix {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const KvSnapshotHeader kHeader{.chain = ChainKind::kOwn,
                               .chain_seed = "secret",
                               .fingerprint = 99,
                               .block_tokens = 16,
                               .tiers = {"gpu", "cpu"},
                               .unix_seconds = 1'800'000'000};
const KvSnapshotHolder kFirst{.address = "10.0.0.1:8000", .rank = 1, .model = "m",
                              .state = "what the feed saved"};
const KvSnapshotHolder kSecond{.address = "10.0.0.2:8000"};

std::vector<uint64_t> Keys(uint64_t begin, size_t count) {
  std::vector<uint64_t> keys(count);
  for (size_t i = 0; i < count; ++i) keys[i] = base::Mix64(begin, i) | 1;
  return keys;
}

std::vector<uint32_t> Match(const KvIndex& index, const std::vector<uint64_t>& chain,
                            size_t holders) {
  KvIndex::Reader reader(index);
  std::vector<uint32_t> blocks(holders);
  reader.Match(chain, {}, base::TimePoint{}, blocks, {});
  return blocks;
}

// Two holders: one with 100 blocks, of which some are in the second tier too and one was stored
// twice, one with the first 10 of them.
std::string Example(const std::vector<uint64_t>& chain) {
  KvIndex index;
  const std::span keys(chain);
  index.Store(0, 0, 0, nullptr, Keys(100, 100), keys);
  index.Store(0, 1, 0, nullptr, Keys(100, 3), keys.first(3));
  index.Store(0, 0, 0, nullptr, Keys(100, 1), keys.first(1));
  index.Store(1, 0, 0, nullptr, Keys(200, 10), keys.first(10));
  KvSnapshotWriter writer(kHeader);
  writer.AddHolder(index, 0, kFirst);
  std::string bytes = writer.Take();
  writer.AddHolder(index, 1, kSecond);
  return bytes + std::move(writer).Finish();
}

TEST(KvSnapshot, PutsBackWhatWasThere) {
  const std::vector<uint64_t> chain = Keys(1, 100);
  const std::string bytes = Example(chain);
  const auto snapshot = KvSnapshot::Open(bytes);
  ASSERT_TRUE(snapshot) << snapshot.error().ToString();
  EXPECT_EQ(snapshot->header(), kHeader);
  ASSERT_EQ(snapshot->holders().size(), 2u);
  EXPECT_EQ(snapshot->holders()[0].holder, kFirst);
  EXPECT_EQ(snapshot->holders()[1].holder, kSecond);

  KvIndex index;  // under other numbers than before
  EXPECT_EQ(snapshot->Restore(snapshot->holders()[1], &index, 0), 10u);
  snapshot->Restore(snapshot->holders()[0], &index, 2);
  EXPECT_THAT(Match(index, chain, 3), ElementsAre(10, 0, 100));
  EXPECT_TRUE(index.CheckForTest());
  // References and tiers, too: the first block was stored twice in one tier and once in the other.
  const std::vector<uint64_t> first = Keys(100, 1);
  EXPECT_EQ(index.Remove(2, 0, 0, first).still_referenced, 1u);
  EXPECT_EQ(index.Remove(2, 0, 0, first).removed, 1u);
  EXPECT_THAT(Match(index, chain, 3), ElementsAre(10, 0, 100));
  EXPECT_EQ(index.Remove(2, 1, 0, first).removed, 1u);
  EXPECT_THAT(Match(index, chain, 3), ElementsAre(10, 0, 0));
}

TEST(KvSnapshot, RefusesWhatIsNotWhole) {
  const std::string bytes = Example(Keys(1, 100));
  for (size_t size = 0; size < bytes.size(); size += size < 200 ? 1 : 37) {
    EXPECT_FALSE(KvSnapshot::Open(std::string_view(bytes).substr(0, size))) << size;
  }
  EXPECT_FALSE(KvSnapshot::Open(bytes + "x")) << "something follows";
  EXPECT_THAT(KvSnapshot::Open("").error().message(), HasSubstr("not a whole snapshot"));
}

TEST(KvSnapshot, RefusesWhatWasChanged) {
  const std::string bytes = Example(Keys(1, 100));
  for (size_t at = 0; at < bytes.size(); at += at < 200 ? 1 : 37) {
    std::string changed = bytes;
    changed[at] = static_cast<char>(changed[at] ^ 1);
    EXPECT_FALSE(KvSnapshot::Open(changed)) << at;
  }
  std::string newer = bytes;
  newer[8] = 2;
  EXPECT_EQ(KvSnapshot::Open(newer).error().code(), base::StatusCode::kUnimplemented);
}

// Two snapshots of the same state, the frames of one after the head of the other.
TEST(KvSnapshot, RefusesAMixture) {
  const std::vector<uint64_t> chain = Keys(1, 100);
  const std::string one = Example(chain);
  KvSnapshotHeader other = kHeader;
  other.chain_seed = "other!";
  KvIndex index;
  KvSnapshotWriter writer(other);
  const std::string two = std::move(writer).Finish();
  const size_t header_end = 16 + 24 + 1 + 4 + 6 + 8 + 4 + 8 + 1 + 2 * (4 + 3);
  EXPECT_FALSE(KvSnapshot::Open(two.substr(0, header_end) + one.substr(header_end)));
  EXPECT_TRUE(KvSnapshot::Open(two));
}

}  // namespace
}  // namespace llmd::prefix
