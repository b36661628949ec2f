// Each point at which an index of KV events is easily wrong, as a test of its own.
#include "prefix/kv_feed_apply.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "prefix/kv_feed_testing.h"

namespace llmd::prefix {
namespace {

using testing::ElementsAre;

// One publisher whose events are written by hand.
struct Apply : testing::Test {
  explicit Apply(KvFeedOptions options = TestPicker::Defaults()) : picker(options) {
    id = picker.Add("a:1", false);
  }
  void Send() {
    picker.Deliver(id, {number, writer.Finish(static_cast<double>(number) + 1, 0)}, nullptr);
    ++number;
  }
  // Stores blocks of `prompt` under hashes base + index, in blocks of `size` tokens.
  void Store(const TestEngine::Tokens& prompt, EngineKey base, size_t from, size_t until,
             uint32_t size = 16, KvStoredFields fields = {}) {
    std::vector<KvWireHash> hashes;
    for (size_t i = from; i < until; ++i) hashes.push_back({.value = base + i});
    fields.hashes = hashes;
    if (from > 0) fields.parent = KvWireHash{.value = base + from - 1};
    fields.tokens = std::span(prompt).subspan(from * size, (until - from) * size);
    fields.block_size = size;
    if (fields.medium.empty()) fields.medium = "GPU";
    writer.Stored(fields);
  }
  void Remove(std::vector<EngineKey> keys, std::string_view medium = "GPU",
              std::optional<uint32_t> group = std::nullopt) {
    std::vector<KvWireHash> hashes;
    for (const EngineKey key : keys) hashes.push_back({.value = key});
    writer.Removed(hashes, medium, group);
  }
  KvApplyStats stats() const { return picker.feed.stats().apply; }
  uint64_t StoresSkipped(KvCacheKind kind, KvSkip skip) const {
    return stats().stores_skipped[static_cast<size_t>(kind)][static_cast<size_t>(skip)];
  }
  uint64_t RemovalsSkipped(KvCacheKind kind, KvSkip skip) const {
    return stats().removals_skipped[static_cast<size_t>(kind)][static_cast<size_t>(skip)];
  }

  TestPicker picker;
  PublisherId id = 0;
  KvEventWriter writer{KvEventForm::kMap};
  uint64_t number = 0;
};

// Point 1: the adapter's name is the chain's model, and as a first extra key it is no image.
TEST_F(Apply, Point1LoraNameIsTheModelAndNoItem) {
  const auto prompt = TestPrompt(1, 32);
  const std::vector<KvExtra> extras = {{0, "adapter"}, {0, "image"}, {1, "adapter"}};
  Store(prompt, 10, 0, 2, 16, {.lora_name = "adapter", .extras = extras});
  Send();
  EXPECT_EQ(picker.Held(id, prompt, {{0, "image"}}, "adapter"), 2u);
  EXPECT_EQ(picker.Held(id, prompt, {{0, "image"}}, "m"), 0u);
  EXPECT_EQ(picker.Held(id, prompt, {}, "adapter"), 0u);
}

// Point 2 is the feed's: Ordering.GoingBackwardsIsARestart, with and without replay.

// Point 3: children before their parents wait for them, over generations and removals.
TEST_F(Apply, Point3UnknownParentIsParkedAndResolved) {
  const auto prompt = TestPrompt(1, 96);
  Store(prompt, 10, 4, 6);
  Store(prompt, 10, 2, 4);
  Send();
  EXPECT_EQ(picker.Held(id, prompt), 0u);
  EXPECT_EQ(stats().parked_now, 2u);
  EXPECT_GT(stats().parked_bytes, 0u);
  Remove({15});  // of a block that is parked
  Send();
  Store(prompt, 10, 0, 2);
  Send();
  EXPECT_EQ(picker.Held(id, prompt), 5u);
  EXPECT_EQ(stats().parked_now, 0u);
  EXPECT_EQ(stats().parked_bytes, 0u);
  EXPECT_EQ(stats().parked_resolved, 2u);
}

TEST_F(Apply, ParkedStoresAgeAndAreForgottenByAClear) {
  const auto prompt = TestPrompt(1, 96);
  Store(prompt, 10, 2, 4);
  Send();
  picker.now += KvApplyLimits{}.parked_age;
  picker.Poll(nullptr);
  EXPECT_EQ(stats().parked_now, 1u);
  picker.now += std::chrono::nanoseconds(1);
  picker.Poll(nullptr);
  EXPECT_EQ(stats().parked_now, 0u);
  EXPECT_EQ(stats().parked_dropped, 1u);
  Store(prompt, 10, 4, 6);
  writer.Cleared();
  Store(prompt, 10, 0, 4);
  Send();
  EXPECT_EQ(stats().parked_dropped, 2u);
  EXPECT_EQ(picker.Held(id, prompt), 4u);
}

struct FewParked : Apply {
  static KvFeedOptions Options() {
    KvFeedOptions options = TestPicker::Defaults();
    options.apply.limits.parked = {.stores = 3, .bytes = 4000};
    return options;
  }
  FewParked() : Apply(Options()) {}
};

TEST_F(FewParked, OldestGoFirst) {
  for (uint64_t i = 0; i < 10; ++i) {
    Store(TestPrompt(i, 48), i * 100 + 10, 1, 3);
    Send();
    EXPECT_LE(stats().parked_now, 3u);
    EXPECT_LE(stats().parked_bytes, 4000u);
  }
  EXPECT_EQ(stats().parked_dropped, 7u);
  Store(TestPrompt(11, 16 * 200), 5000, 1, 200);  // larger than all the room
  Send();
  EXPECT_EQ(stats().parked_dropped, 8u);
  Store(TestPrompt(9, 48), 910, 0, 1);
  Send();
  EXPECT_EQ(picker.Held(id, TestPrompt(9, 48)), 3u);
}

struct Canonical64 : Apply {
  Canonical64() : Apply(TestPicker::Defaults(64)) {}
};

// Point 4: engine blocks that are smaller are gathered, also one by one during generation.
TEST_F(Canonical64, Point4SmallerBlocksAreGathered) {
  const auto prompt = TestPrompt(1, 192);
  Store(prompt, 10, 0, 6);  // one and a half
  Send();
  EXPECT_EQ(picker.Held(id, prompt), 1u);
  for (size_t i = 6; i < 12; ++i) {
    Store(prompt, 10, i, i + 1);
    Send();
    EXPECT_EQ(picker.Held(id, prompt), (i + 1) / 4);
  }
  EXPECT_EQ(stats().parts_now, 12u);
  // A second prompt shares the first half of the second block.
  auto other = prompt;
  for (size_t i = 96; i < other.size(); ++i) other[i] += 1;
  std::vector<KvWireHash> hashes = {{.value = 50}, {.value = 51}};
  writer.Stored({.hashes = hashes,
                 .parent = KvWireHash{.value = 15},
                 .tokens = std::span(other).subspan(96, 32),
                 .block_size = 16,
                 .medium = "GPU"});
  Send();
  EXPECT_EQ(picker.Held(id, other), 2u);
  // Losing the shared part loses both; getting it back gives both back.
  Remove({14});
  Send();
  EXPECT_EQ(picker.Held(id, prompt), 1u);
  EXPECT_EQ(picker.Held(id, other), 1u);
  Store(prompt, 10, 4, 5);
  Send();
  EXPECT_EQ(picker.Held(id, prompt), 3u);
  EXPECT_EQ(picker.Held(id, other), 2u);
  // The last part alone goes.
  Remove({51});
  Send();
  EXPECT_EQ(picker.Held(id, prompt), 3u);
  EXPECT_EQ(picker.Held(id, other), 1u);
  Remove({21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 50, 99});
  Send();
  EXPECT_EQ(picker.Held(id, prompt), 0u);
  EXPECT_EQ(stats().parts_now, 0u);
  EXPECT_EQ(stats().removes_unknown, 1u);
}

// The index has no place for it: what it follows is not there.
TEST_F(Canonical64, ABlockBehindALostOneIsNotStored) {
  const auto prompt = TestPrompt(1, 192);
  Store(prompt, 10, 0, 12);
  Remove({14, 20});
  Store(prompt, 10, 10, 11);
  Send();
  EXPECT_EQ(picker.Held(id, prompt), 1u);
  EXPECT_EQ(picker.index.blocks(id), 1u);
  EXPECT_TRUE(picker.index.CheckForTest());
}

TEST_F(Canonical64, SmallerBlocksHaveTiersExtrasAndParents) {
  const auto prompt = TestPrompt(1, 128);
  Store(prompt, 10, 4, 8);  // its parent is missing
  Send();
  EXPECT_EQ(stats().parked_now, 1u);
  const std::vector<KvExtra> extras = {{0, "image", 5}, {1, "image", -11}, {3, "salt"}};
  Store(prompt, 10, 0, 4, 16, {.extras = extras});
  Send();
  const std::vector<BlockExtra> wanted = {{0, "image"}, {0, "salt"}};
  EXPECT_EQ(picker.Held(id, prompt, wanted), 2u);
  EXPECT_EQ(picker.Held(id, prompt), 0u);
  // The block is in the CPU tier only when all of its parts are.
  std::vector<KvWireHash> hashes = {{.value = 10}, {.value = 11}, {.value = 12}};
  writer.Stored({.hashes = hashes, .medium = "CPU", .has_extra_keys = false});
  Remove({10});
  Send();
  EXPECT_EQ(picker.Held(id, prompt, wanted), 0u);
  hashes = {{.value = 13}};
  writer.Stored({.hashes = hashes, .medium = "CPU", .has_extra_keys = false});
  Send();
  EXPECT_EQ(picker.Held(id, prompt, wanted), 2u);
  writer.Cleared();
  Store(prompt, 10, 0, 8);
  Send();
  EXPECT_EQ(picker.Held(id, prompt), 2u);
}

struct FewParts : Apply {
  static KvFeedOptions Options() {
    KvFeedOptions options = TestPicker::Defaults(64);
    options.apply.limits.parts = 6;
    return options;
  }
  FewParts() : Apply(Options()) {}
};

TEST_F(FewParts, AreLimited) {
  const auto prompt = TestPrompt(1, 192);
  Store(prompt, 10, 0, 12);
  Send();
  EXPECT_EQ(stats().parts_now, 6u);
  EXPECT_EQ(picker.Held(id, prompt), 1u);
  EXPECT_EQ(StoresSkipped(KvCacheKind::kFullAttention, KvSkip::kPartsFull), 1u);
  picker.feed.RemovePublisher(id);
  EXPECT_EQ(stats().parts_now, 0u);
}

// Point 4, the other way: a larger block is several canonical ones, which come and go together.
TEST_F(Apply, Point4LargerBlocksAreSeveral) {
  const auto prompt = TestPrompt(1, 192);
  Store(prompt, 10, 0, 2, 64);
  Store(prompt, 10, 2, 3, 64);
  Send();
  EXPECT_EQ(picker.Held(id, prompt), 12u);
  Remove({11});
  Send();
  EXPECT_EQ(picker.Held(id, prompt), 4u);
  EXPECT_EQ(stats().blocks_removed, 1u);
  Store(prompt, 10, 1, 2, 64);
  Send();
  EXPECT_EQ(picker.Held(id, prompt), 12u);
  // The salt stands for the first canonical block; an item for those from its start on.
  const auto salted = TestPrompt(2, 128);
  const std::vector<KvExtra> extras = {{0, "image", 20}, {0, "salt"}, {1, "image", -44}};
  Store(salted, 50, 0, 2, 64, {.extras = extras});
  Send();
  const std::vector<BlockExtra> wanted = {{0, "salt"},  {1, "image"}, {2, "image"}, {3, "image"},
                                          {4, "image"}, {5, "image"}, {6, "image"}, {7, "image"}};
  EXPECT_EQ(picker.Held(id, salted, wanted), 8u);
}

struct FewExtras : Apply {
  static KvFeedOptions Options() {
    KvFeedOptions options = TestPicker::Defaults();
    options.apply.limits.extras = 8;
    return options;
  }
  FewExtras() : Apply(Options()) {}
};

TEST_F(FewExtras, AreCountedByCanonicalBlock) {
  const std::vector<KvExtra> extras = {{0, "a"}, {1, "a"}, {1, "b"}};
  Store(TestPrompt(1, 128), 10, 0, 2, 64, {.extras = extras});
  Send();
  EXPECT_EQ(StoresSkipped(KvCacheKind::kNone, KvSkip::kTooManyExtras), 1u);
  Store(TestPrompt(1, 128), 10, 0, 2, 64, {.extras = std::span(extras).first(2)});
  Send();
  EXPECT_EQ(stats().blocks_stored, 2u);
}

TEST_F(Apply, BlockSizesThatDoNotFitAreSkipped) {
  Store(TestPrompt(1, 96), 10, 0, 4, 24);
  Send();
  EXPECT_EQ(StoresSkipped(KvCacheKind::kNone, KvSkip::kInvalidBlockSize), 1u);
  Store(TestPrompt(1, 96), 10, 0, 4, 16);
  Store(TestPrompt(2, 96), 20, 0, 3, 32);  // another size than before
  Send();
  EXPECT_EQ(StoresSkipped(KvCacheKind::kNone, KvSkip::kInvalidBlockSize), 2u);
  EXPECT_EQ(picker.Held(id, TestPrompt(1, 96)), 4u);
}

// Point 5: any number of servers may hold a block.
TEST_F(Apply, Point5NoCapOnHolders) {
  const auto prompt = TestPrompt(1, 48);
  std::vector<PublisherId> ids;
  for (int i = 0; i < 300; ++i) ids.push_back(picker.Add("b:" + std::to_string(i), false));
  for (const PublisherId holder : ids) {
    TestEngine engine;
    engine.Store(prompt);
    picker.Deliver(holder, engine.Step(), nullptr);
  }
  for (const PublisherId holder : ids) EXPECT_EQ(picker.Held(holder, prompt), 3u);
}

// Point 6: two engines may name different blocks alike.
TEST_F(Apply, Point6EngineKeysArePerSource) {
  const PublisherId other = picker.Add("b:1", false);
  const auto mine = TestPrompt(1, 48), theirs = TestPrompt(2, 48);
  Store(mine, 10, 0, 3);
  Send();
  Store(theirs, 10, 0, 3);
  picker.Deliver(other, {0, writer.Finish(1, 0)}, nullptr);
  Remove({12});
  Send();
  EXPECT_EQ(picker.Held(id, mine), 2u);
  EXPECT_EQ(picker.Held(other, theirs), 3u);
  EXPECT_EQ(picker.Held(other, mine), 0u);
}

// Point 7 is the feed's: KvFeedPublishers.RanksAreHoldersOfTheirOwn.

// Point 8: a sliding window's group needs its last blocks only, and without them all are worth
// nothing.
TEST_F(Apply, Point8HybridGroupsCountTheUsablePrefix) {
  const auto prompt = TestPrompt(1, 16 * 8);
  const auto store = [&](uint32_t group, KvCacheKind kind, uint32_t window) {
    Store(prompt, 10, 0, 8, 16, {.group = group, .kind = kind, .sliding_window = window});
  };
  store(1, KvCacheKind::kSlidingWindow, 33);  // reaches back 32 tokens: two blocks
  Send();
  store(0, KvCacheKind::kFullAttention, 0);
  Send();
  EXPECT_EQ(picker.Held(id, prompt), 8u);
  Remove({10, 11, 12, 13, 14}, "GPU", 1);  // out of the window, as engines do
  Send();
  EXPECT_EQ(picker.Held(id, prompt), 8u);
  Remove({17}, "GPU", 1);
  Send();
  EXPECT_EQ(picker.Held(id, prompt), 7u);
  Remove({16}, "GPU", 1);
  Send();
  EXPECT_EQ(picker.Held(id, prompt), 0u);  // no place has two blocks before it
  Remove({10, 11, 12, 13, 14, 15, 16, 17}, "GPU", 0);
  Send();
  EXPECT_EQ(stats().blocks_removed, 15u);
}

TEST_F(Apply, GroupsAreLearnedAndKeptOverAClear) {
  const auto prompt = TestPrompt(1, 32);
  Store(prompt, 10, 0, 2, 16, {.group = 3});  // nobody said what group 3 is
  Send();
  EXPECT_EQ(StoresSkipped(KvCacheKind::kNone, KvSkip::kUnsupportedCacheKind), 1u);
  Store(prompt, 10, 0, 1, 16, {.group = 3, .kind = KvCacheKind::kMlaAttention});
  writer.Cleared();
  Store(prompt, 10, 0, 2, 16, {.group = 3});
  Send();
  EXPECT_EQ(picker.Held(id, prompt), 2u);
}

TEST_F(Apply, KindsThatAreNotIndexedAreSkippedWithAReason) {
  const auto prompt = TestPrompt(1, 32);
  Store(prompt, 10, 0, 2, 16, {.group = 0, .kind = KvCacheKind::kFullAttention});
  Store(prompt, 10, 0, 2, 16, {.group = 1, .kind = KvCacheKind::kCrossAttention});
  Store(prompt, 10, 0, 2, 16, {.group = 2, .kind = KvCacheKind::kSlidingWindow});  // no window
  Remove({10}, "GPU", 1);
  Remove({10}, "GPU", 7);
  Send();
  EXPECT_EQ(picker.Held(id, prompt), 2u);
  EXPECT_EQ(StoresSkipped(KvCacheKind::kCrossAttention, KvSkip::kUnsupportedCacheKind), 1u);
  EXPECT_EQ(StoresSkipped(KvCacheKind::kSlidingWindow, KvSkip::kUnsupportedCacheKind), 1u);
  EXPECT_EQ(RemovalsSkipped(KvCacheKind::kCrossAttention, KvSkip::kUnsupportedCacheKind), 1u);
  EXPECT_EQ(RemovalsSkipped(KvCacheKind::kNone, KvSkip::kUnknownGroup), 1u);
}

TEST_F(Apply, StoresThatAreNotDenseAreSkipped) {
  const auto prompt = TestPrompt(1, 64);
  const std::vector<KvWireHash> hashes = {{.value = 10}};
  writer.Stored({.hashes = hashes,
                 .tokens = prompt,
                 .block_size = 16,
                 .group = 0,
                 .kind = KvCacheKind::kMamba});
  Send();
  EXPECT_EQ(StoresSkipped(KvCacheKind::kMamba, KvSkip::kNonDenseBlockSpan), 1u);
}

TEST_F(Apply, GroupsAreLimited) {
  const auto prompt = TestPrompt(1, 32);
  for (uint32_t group = 0; group < 10; ++group) {
    Store(prompt, 10, 0, 2, 16, {.group = group, .kind = KvCacheKind::kFullAttention});
  }
  Send();
  EXPECT_EQ(StoresSkipped(KvCacheKind::kFullAttention, KvSkip::kTooManyGroups), 2u);
  EXPECT_EQ(picker.Held(id, prompt), 2u);
}

// Point 9: an unknown tier weighs no more than the least known one, sums are not cut to integers.
TEST_F(Apply, Point9TiersAndTheirWeights) {
  const auto prompt = TestPrompt(1, 48);
  Store(prompt, 10, 0, 3, 16, {.medium = "CPU_PINNED"});
  Send();
  EXPECT_FLOAT_EQ(picker.Weight(id, prompt), 2.4f);
  // A tier update names no tokens.
  std::vector<KvWireHash> hashes = {{.value = 10}, {.value = 99}};
  writer.Stored({.hashes = hashes, .medium = "gpu", .has_extra_keys = false});
  Send();
  EXPECT_FLOAT_EQ(picker.Weight(id, prompt), 2.6f);
  EXPECT_EQ(stats().tier_unknown, 1u);
  Remove({10}, "CPU_PINNED");
  Send();
  EXPECT_FLOAT_EQ(picker.Weight(id, prompt), 2.6f);
  const auto other = TestPrompt(2, 16);
  Store(other, 50, 0, 1, 16, {.medium = "Tape"});
  Send();
  EXPECT_FLOAT_EQ(picker.Weight(id, other), 0.8f);
}

// Point 9: one bad event does not take its batch along.
TEST_F(Apply, Point9OneBadEventIsSkipped) {
  const auto prompt = TestPrompt(1, 48);
  Store(prompt, 10, 0, 1);
  const std::string good = writer.Finish(1, 0);
  const std::string event = good.substr(11, good.size() - 12);  // behind [ts, [ and before rank
  std::string batch =
      good.substr(0, 10) + "\x93\xa3" + "bad" + event + "\x05" + std::string(1, '\0');
  picker.Deliver(id, {0, batch}, nullptr);
  EXPECT_EQ(picker.Held(id, prompt), 1u);
  EXPECT_EQ(stats().malformed, 2u);
  EXPECT_EQ(stats().events, 1u);
}

// What is stored twice must be removed twice.
TEST_F(Apply, RemovalsAreCounted) {
  const auto prompt = TestPrompt(1, 32);
  Store(prompt, 10, 0, 2);
  Store(prompt, 10, 0, 2);
  Send();
  Remove({11});
  Remove({10});
  Send();
  EXPECT_EQ(picker.Held(id, prompt), 2u);
  EXPECT_EQ(stats().removes_counted, 2u);
  Remove({11, 11, 12});
  Send();
  EXPECT_EQ(picker.Held(id, prompt), 1u);
  EXPECT_EQ(stats().blocks_removed, 1u);
  EXPECT_EQ(stats().removes_unknown, 2u);
}

TEST_F(Apply, SaltsOfSglangAndModelsOfMooncake) {
  const auto prompt = TestPrompt(1, 32);
  const std::string tokens = [&] {
    std::string list;
    for (const uint32_t token : prompt) list += (list.empty() ? "" : ",") + std::to_string(token);
    return "[" + list + "]";
  }();
  const std::string common = R"(,"block_size":16,"token_ids":)" + tokens + "}";
  picker.Deliver(id,
                 {0, R"([1,[{"type":"BlockStored","block_hashes":[1,2],)"
                     R"("metadata":{"cache_salt":"s"})" + common + "]]"},
                 nullptr);
  EXPECT_EQ(picker.Held(id, prompt, {{0, "s"}}), 2u);
  EXPECT_EQ(picker.Held(id, prompt), 0u);
  picker.Deliver(id,
                 {1, R"([2,[{"event_type":"stored","seq_hashes":[3,4],"model_name":"x")" + common +
                         "]]"},
                 nullptr);
  EXPECT_EQ(picker.Held(id, prompt, {}, "x"), 2u);
}

struct EngineKeys : Apply {
  static KvFeedOptions Options() {
    KvFeedOptions options = TestPicker::Defaults();
    options.apply.engine_keys = true;
    return options;
  }
  EngineKeys() : Apply(Options()) {}
};

TEST_F(EngineKeys, AreTakenAsTheyAre) {
  Store(TestPrompt(1, 48), 10, 0, 3);
  Send();
  KvIndex::Reader reader(picker.index);
  uint32_t held = 0;
  const std::vector<BlockKey> keys = {10, 11, 12, 13};
  reader.Match(keys, {}, picker.now, {&held, 1}, {});
  EXPECT_EQ(held, 3u);
}

TEST(KvTiers, AreNumberedByWeight) {
  const KvTierWeight listed[] = {
      {"gpu", 1}, {"cpu", .8}, {"Storage", .5}, {"shared_storage", .5}, {"tape", .1}};
  const auto tiers = KvTiers::Create(listed);
  ASSERT_TRUE(tiers);
  EXPECT_THAT(tiers->weights(), ElementsAre(1.f, .8f, .5f, .1f));
  EXPECT_EQ(tiers->Number(""), 0);
  EXPECT_EQ(tiers->Number("GPU"), 0);
  EXPECT_EQ(tiers->Number("Cpu"), 1);
  EXPECT_EQ(tiers->Number("STORAGE"), 2);
  EXPECT_EQ(tiers->Number("SHARED_STORAGE"), 2);
  EXPECT_EQ(tiers->Number("OBJECT_STORE"), 3);
  EXPECT_EQ(tiers->name(2), "storage");
}

TEST(KvTiers, RefuseWhatMakesNoSense) {
  using List = std::vector<KvTierWeight>;
  for (const List& list : {List{}, List{{"", 1}}, List{{"a", 1}, {"A", .5}}, List{{"a", 1.5}},
                           List{{"a", -1}},
                           List{{"a", 1}, {"b", .9}, {"c", .8}, {"d", .7}, {"e", .6}}}) {
    EXPECT_FALSE(KvTiers::Create(list));
  }
}

}  // namespace
}  // namespace llmd::prefix
