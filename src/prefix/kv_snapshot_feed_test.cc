#include "prefix/kv_snapshot_feed.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "prefix/kv_feed_testing.h"

namespace llmd::prefix {
namespace {

using testing::HasSubstr;

constexpr size_t kTokens = 64;
const KvSnapshotHeader kHeader{
    .fingerprint = 7, .tiers = {"gpu", "cpu"}, .unix_seconds = 1'800'000'000};

// Two engines that a picker hears; what each does lies between two pieces of a snapshot.
struct Pickers : testing::Test {
  Pickers() {
    for (size_t i = 0; i < 2; ++i) {
      ids[i] = picker.Add("10.0.0." + std::to_string(i) + ":8000", true);
      picker.Poll(&engines[i]);
      Store(i, i);
    }
  }
  void Store(size_t engine, uint64_t prompt) {
    engines[engine].Store(TestPrompt(prompt, kTokens));
    picker.Deliver(ids[engine], engines[engine].Step(), &engines[engine]);
  }
  uint32_t Again(size_t engine, uint64_t prompt) {
    const auto id = again.feed.Find("10.0.0." + std::to_string(engine) + ":8000", 0);
    return id ? again.Held(*id, TestPrompt(prompt, kTokens)) : 0;
  }

  TestEngine engines[2];
  TestPicker picker, again;
  PublisherId ids[2];
};

TEST_F(Pickers, GoOnAfterARestart) {
  KvSnapshotTaker taker(kHeader);
  std::string bytes;
  ASSERT_TRUE(taker.Next(picker.index, picker.feed, &bytes));
  Store(0, 10);  // after the piece of its engine
  Store(1, 11);  // before it
  ASSERT_TRUE(taker.Next(picker.index, picker.feed, &bytes));
  EXPECT_FALSE(taker.Next(picker.index, picker.feed, &bytes));

  const auto snapshot = KvSnapshot::Open(bytes);
  ASSERT_TRUE(snapshot) << snapshot.error().ToString();
  const KvRestored restored = RestoreKvSnapshot(*snapshot, &again.index, &again.feed, again.now);
  EXPECT_EQ(restored.publishers, 2u);
  EXPECT_EQ(restored.blocks, 3u * 4);
  EXPECT_EQ(restored.skipped, 0u);
  EXPECT_EQ(Again(0, 0), 4u);
  EXPECT_EQ(Again(0, 10), 0u);
  EXPECT_EQ(Again(1, 1), 4u);
  EXPECT_EQ(Again(1, 11), 4u);
  const PublisherId first = *again.feed.Find("10.0.0.0:8000", 0);
  EXPECT_EQ(again.feed.confidence(first), 1);

  // Nobody is asked before it is known where: then what was missed comes.
  EXPECT_EQ(again.feed.Poll(again.now).type, KvAction::Type::kNone);
  again.feed.OfferReplay(first);
  again.Poll(&engines[0]);
  EXPECT_EQ(Again(0, 10), 4u);
  EXPECT_EQ(again.feed.stats().restarts, 0u);
}

TEST_F(Pickers, LeaveOutWhoHasSaidNothing) {
  picker.Add("10.0.0.9:8000", false);
  KvSnapshotTaker taker(kHeader);
  std::string bytes;
  while (taker.Next(picker.index, picker.feed, &bytes)) {
  }
  EXPECT_EQ(KvSnapshot::Open(bytes)->holders().size(), 2u);
}

TEST(KvSnapshotFeed, RefusesWhatDoesNotFit) {
  const struct {
    KvSnapshotHeader taken;
    const char* message;
  } cases[] = {
      {{.chain = ChainKind::kXxh64, .fingerprint = 7, .tiers = {"gpu", "cpu"}}, "hashAlgorithm"},
      {{.fingerprint = 8, .tiers = {"gpu", "cpu"}}, "hashSeed"},
      {{.fingerprint = 7, .block_tokens = 64, .tiers = {"gpu", "cpu"}}, "blocks of 64 tokens"},
      {{.fingerprint = 7, .tiers = {"gpu"}}, "other tiers"},
      {{.fingerprint = 7, .tiers = {"gpu", "cpu"}, .unix_seconds = 1'799'996'000}, "4000 seconds"},
  };
  for (const auto& c : cases) {
    const base::Status status = FitsKvSnapshot(c.taken, kHeader);
    EXPECT_EQ(status.code(), base::StatusCode::kFailedPrecondition);
    EXPECT_THAT(status.message(), HasSubstr(c.message));
  }
  KvSnapshotHeader taken = kHeader;
  taken.unix_seconds -= kKvSnapshotAgeMaxSeconds;
  EXPECT_TRUE(FitsKvSnapshot(taken, kHeader).ok());
  taken.unix_seconds = kHeader.unix_seconds + 100;  // by a clock that goes before ours
  EXPECT_TRUE(FitsKvSnapshot(taken, kHeader).ok());
}

}  // namespace
}  // namespace llmd::prefix
