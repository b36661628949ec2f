// What a copy of the index is told (KvApplySink).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "prefix/kv_feed_testing.h"

namespace llmd::prefix {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// One line per call: "stored 0 tier 0: 10 11 -> 2 blocks".
struct Told final : KvApplySink {
  static std::string Keys(std::span<const EngineKey> keys) {
    std::string out;
    for (const EngineKey key : keys) out += " " + std::to_string(key);
    return out;
  }
  void OnStored(HolderId, Tier tier, std::optional<uint32_t> group,
                std::span<const EngineKey> engine_keys, std::span<const BlockKey> b) override {
    lines.push_back("stored " + std::to_string(tier) +
                    (group ? " g" + std::to_string(*group) : "") + ":" + Keys(engine_keys) +
                    " -> " + std::to_string(b.size()));
    blocks.insert(blocks.end(), b.begin(), b.end());
  }
  void OnRemoved(HolderId, Tier tier, std::optional<uint32_t>,
                 std::span<const EngineKey> engine_keys) override {
    lines.push_back("removed " + std::to_string(tier) + ":" + Keys(engine_keys));
  }
  void OnCleared(HolderId) override { lines.push_back("cleared"); }
  std::vector<std::string> Take() { return std::exchange(lines, {}); }

  std::vector<std::string> lines;
  std::vector<BlockKey> blocks;
};

struct KvApplySinkTest : testing::Test {
  KvFeedOptions Options() {
    KvFeedOptions options = TestPicker::Defaults();
    options.apply.sink = &told;
    return options;
  }
  void Store(const std::vector<uint32_t>& tokens, std::vector<EngineKey> keys, uint32_t size,
             KvStoredFields fields = {}) {
    std::vector<KvWireHash> hashes;
    for (const EngineKey key : keys) hashes.push_back({.value = key});
    fields.hashes = hashes;
    fields.tokens = tokens;
    fields.block_size = size;
    writer.Stored(fields);
    Send();
  }
  void Remove(EngineKey key, std::string_view medium = "GPU") {
    const KvWireHash hash{.value = key};
    writer.Removed({&hash, 1}, medium, std::nullopt);
  }
  void Send() {
    picker.Deliver(id, {number, writer.Finish(static_cast<double>(number) + 1, 0)}, nullptr);
    ++number;
  }

  Told told;
  TestPicker picker{Options()};
  PublisherId id = picker.Add("a:1", false);
  KvEventWriter writer{KvEventForm::kMap};
  uint64_t number = 0;
};

TEST_F(KvApplySinkTest, StoresTiersAndRemovals) {
  const auto prompt = TestPrompt(1, 32);
  Store(prompt, {10, 11}, 16, {.medium = "GPU"});
  EXPECT_THAT(told.Take(), ElementsAre("stored 0: 10 11 -> 2"));
  std::vector<BlockKey> expected(2);
  const TokenChain& chain = *picker.options.apply.chain;
  chain.Extend(chain.Root("m"), prompt, 16, {}, expected);
  EXPECT_EQ(told.blocks, expected);

  Store({}, {10, 11, 12}, 16, {.medium = "CPU"});
  EXPECT_THAT(told.Take(), ElementsAre("stored 1: -> 2")) << "of known blocks";
  EXPECT_EQ(told.blocks[2], expected[0]);

  Store(prompt, {10, 11}, 16, {.medium = "GPU"});
  told.Take();
  Remove(10);
  Remove(99);
  Send();
  EXPECT_THAT(told.Take(), ElementsAre("removed 0: 99")) << "10 was stored twice";
  Remove(10);
  Remove(11, "CPU");
  Send();
  EXPECT_THAT(told.Take(), ElementsAre("removed 0: 10", "removed 1: 11"));
  writer.Cleared();
  Send();
  EXPECT_THAT(told.Take(), ElementsAre("cleared"));
}

TEST_F(KvApplySinkTest, LargeEngineBlocksKeepTheirKeys) {
  Store(TestPrompt(1, 64), {10, 11}, 32);
  EXPECT_THAT(told.Take(), ElementsAre("stored 0: 10 11 -> 4"));
  Remove(11);
  Send();
  EXPECT_THAT(told.Take(), ElementsAre("removed 0: 11"));
}

TEST_F(KvApplySinkTest, SmallEngineBlocksAreToldWhenTheyFillOne) {
  Store(TestPrompt(1, 24), {10, 11, 12}, 8);
  EXPECT_THAT(told.Take(), ElementsAre("stored 0: 11 -> 1"));
  Remove(10);
  Send();
  EXPECT_THAT(told.Take(), ElementsAre("removed 0: 11"));
}

TEST_F(KvApplySinkTest, WindowedGroupsAreNotShared) {
  Store(TestPrompt(1, 16), {10}, 16, {.group = 0, .kind = KvCacheKind::kFullAttention});
  Store(TestPrompt(1, 16), {20}, 16,
        {.group = 1, .kind = KvCacheKind::kSlidingWindow, .sliding_window = 32});
  EXPECT_THAT(told.Take(), ElementsAre("stored 0 g0: 10 -> 1"));
}

TEST_F(KvApplySinkTest, WhatIsHeldCanBeToldAgain) {
  const auto prompt = TestPrompt(1, 48);
  Store(prompt, {10, 11, 12}, 16);
  Store({}, {10, 12}, 16, {.medium = "CPU"});
  Remove(11);
  Send();
  const std::vector<BlockKey> blocks = told.blocks;
  told.Take();
  told.blocks.clear();
  picker.feed.TellAgain(id);
  EXPECT_THAT(told.Take(), testing::UnorderedElementsAre("stored 0: 10 -> 1", "stored 0: 12 -> 1",
                                                         "stored 1: 10 -> 1", "stored 1: 12 -> 1"));
  EXPECT_THAT(told.blocks, testing::UnorderedElementsAre(blocks[0], blocks[0], blocks[2],
                                                         blocks[2]));
}

TEST_F(KvApplySinkTest, LargeAndSmallEngineBlocksAreToldAgainByTheirKeys) {
  Store(TestPrompt(1, 64), {10, 11}, 32);
  const std::vector<BlockKey> blocks = told.blocks;
  told.Take();
  told.blocks.clear();
  picker.feed.TellAgain(id);
  EXPECT_THAT(told.Take(), ElementsAre("stored 0: 10 -> 2", "stored 0: 11 -> 2"));
  EXPECT_EQ(told.blocks, blocks);

  id = picker.Add("a:2", false);
  number = 0;
  Store(TestPrompt(1, 32), {10, 11, 12, 13}, 8);
  told.Take();
  picker.feed.TellAgain(id);
  EXPECT_THAT(told.Take(), ElementsAre("stored 0: 11 13 -> 2"));
}

TEST_F(KvApplySinkTest, WhoIsNotKnownYetIsNotCleared) {
  number = 7;  // the picker joins late
  Store(TestPrompt(1, 16), {10}, 16);
  EXPECT_THAT(told.Take(), ElementsAre("stored 0: 10 -> 1"));
  number = 20;  // a gap that cannot be replayed
  Store(TestPrompt(2, 16), {30}, 16);
  EXPECT_THAT(told.Take(), ElementsAre("cleared", "stored 0: 30 -> 1"));
  picker.feed.RemovePublisher(id);
  EXPECT_THAT(told.Take(), ElementsAre("cleared"));
  EXPECT_THAT(told.Take(), IsEmpty());
}

}  // namespace
}  // namespace llmd::prefix
