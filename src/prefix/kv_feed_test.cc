#include "prefix/kv_feed.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "prefix/kv_feed_testing.h"

namespace llmd::prefix {
namespace {

using testing::ElementsAre;

constexpr size_t kTokens = 64;  // of a prompt: four blocks

// An engine publishes what it caches; the index answers for it.
TEST(KvFeed, Tutorial) {
  TestPicker picker;
  TestEngine engine;
  const PublisherId id = picker.Add("10.0.0.1:8000", /*can_replay=*/false);
  const auto prompt = TestPrompt(1, kTokens);

  engine.Store(prompt);
  picker.Deliver(id, engine.Step(), nullptr);
  EXPECT_EQ(picker.Held(id, prompt), 4u);
  EXPECT_EQ(picker.feed.confidence(id), 1);  // its history is known from message 0

  engine.Remove(prompt, 3);
  picker.Deliver(id, engine.Step(), nullptr);
  EXPECT_EQ(picker.Held(id, prompt), 3u);
  EXPECT_EQ(picker.feed.applied(id), 2u);
  EXPECT_EQ(picker.feed.heard_ns(id), picker.now.time_since_epoch().count());
}

// A picker and an engine in the middle of their lives, with four prompts stored by messages 0 to 3.
struct Ordering : testing::Test {
  void Begin(bool can_replay, TestEngine::Options options = {}) {
    engine = std::make_unique<TestEngine>(options);
    id = picker.Add("10.0.0.1:8000", can_replay);
    if (can_replay) picker.Poll(engine.get());
    for (uint64_t i = 0; i < 4; ++i) picker.Deliver(id, Next(i), engine.get());
  }
  TestMessage Next(uint64_t prompt) {
    engine->Store(TestPrompt(prompt, kTokens));
    return engine->Step();
  }
  // Prompts of which the index knows all blocks.
  std::vector<uint64_t> Known(uint64_t prompts = 12) {
    std::vector<uint64_t> known;
    for (uint64_t i = 0; i < prompts; ++i) {
      const uint32_t held = picker.Held(id, TestPrompt(i, kTokens));
      EXPECT_TRUE(held == 0 || held == 4) << i;
      if (held == 4) known.push_back(i);
    }
    return known;
  }
  KvFeed::Stats stats() const { return picker.feed.stats(); }

  TestPicker picker;
  std::unique_ptr<TestEngine> engine;
  PublisherId id = 0;
};

TEST_F(Ordering, GapIsReplayedFromTheLastOne) {
  Begin(true);
  Next(4);
  Next(5);
  const KvAction action = picker.Deliver(id, Next(6), nullptr);
  ASSERT_EQ(action.type, KvAction::Type::kReplay);
  EXPECT_EQ(action.publisher, id);
  EXPECT_EQ(action.from, 4u);
  EXPECT_TRUE(picker.feed.publisher_stats(id, picker.now).replaying);
  EXPECT_THAT(Known(), ElementsAre(0, 1, 2, 3));  // nothing is applied out of order
  picker.Perform(action, engine.get());
  EXPECT_THAT(Known(), ElementsAre(0, 1, 2, 3, 4, 5, 6));
  EXPECT_EQ(stats().gaps, 1u);
  EXPECT_EQ(stats().clears_cold, 0u);
  EXPECT_EQ(stats().held_bytes, 0u);
  EXPECT_EQ(picker.feed.confidence(id), 1);
  EXPECT_FALSE(picker.feed.publisher_stats(id, picker.now).replaying);
}

TEST_F(Ordering, LiveMessagesWaitForTheReplay) {
  Begin(true);
  Next(4);
  const KvAction action = picker.Deliver(id, Next(5), nullptr);
  const std::vector<TestMessage> replay = engine->Replay(action.from);
  picker.Deliver(id, Next(6), nullptr);
  picker.Deliver(id, Next(7), nullptr);
  EXPECT_EQ(picker.feed.publisher_stats(id, picker.now).held, 3u);
  for (const TestMessage& m : replay) {
    const std::string sequence = SequenceFrame(m.number);
    picker.feed.OnReplayMessage(id, action.replay, {"", sequence, m.payload}, picker.now);
  }
  const KvAction end =
      picker.feed.OnReplayEnd(id, action.replay, KvReplayEnd::kComplete, picker.now);
  EXPECT_EQ(end.type, KvAction::Type::kNone);
  EXPECT_THAT(Known(), ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
  EXPECT_EQ(stats().duplicates, 1u);  // message 5 came both ways
  EXPECT_EQ(stats().replayed, 2u);
}

// vLLM's end mark, and SGLang's.
TEST_F(Ordering, EndMarksEndAReplay) {
  for (const bool is_vllm : {true, false}) {
    picker.feed.RemovePublisher(id);
    Begin(true);
    Next(4);
    const KvAction action = picker.Deliver(id, Next(5), nullptr);
    for (const TestMessage& m : engine->Replay(4)) {
      const std::string sequence = SequenceFrame(m.number);
      picker.feed.OnReplayMessage(id, action.replay, {"", sequence, m.payload}, picker.now);
    }
    const std::string end = SequenceFrame(is_vllm ? ~uint64_t{0} : 6);
    picker.feed.OnReplayMessage(id, action.replay, {"", end, ""}, picker.now);
    EXPECT_FALSE(picker.feed.publisher_stats(id, picker.now).replaying);
    EXPECT_THAT(Known(), ElementsAre(0, 1, 2, 3, 4, 5));
  }
}

TEST_F(Ordering, ReplayThatEndsShortIsAskedForAgain) {
  Begin(true);
  Next(4);
  const KvAction action = picker.Deliver(id, Next(5), nullptr);
  Next(6);
  picker.Deliver(id, Next(7), nullptr);  // 6 is missing too, and the replay was answered before it
  for (const TestMessage& m : engine->Replay(4)) {
    if (m.number > 5) continue;
    const std::string sequence = SequenceFrame(m.number);
    picker.feed.OnReplayMessage(id, action.replay, {"", sequence, m.payload}, picker.now);
  }
  const KvAction again =
      picker.feed.OnReplayEnd(id, action.replay, KvReplayEnd::kComplete, picker.now);
  ASSERT_EQ(again.type, KvAction::Type::kReplay);
  EXPECT_EQ(again.from, 6u);
  picker.Perform(again, engine.get());
  EXPECT_THAT(Known(), ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
}

TEST_F(Ordering, ReplayThatNoLongerHasItClearsThePublisher) {
  Begin(true, {.replay_messages = 2});
  for (uint64_t i = 4; i < 8; ++i) Next(i);
  picker.Deliver(id, Next(8), engine.get());
  EXPECT_THAT(Known(), ElementsAre(7, 8));
  EXPECT_EQ(stats().clears_cold, 1u);
  EXPECT_EQ(stats().cold, 1u);
  EXPECT_EQ(picker.feed.confidence(id), 0);
}

TEST_F(Ordering, WithoutReplayAGapClearsThePublisher) {
  Begin(false);
  Next(4);
  EXPECT_EQ(picker.Deliver(id, Next(5), nullptr).type, KvAction::Type::kNone);
  EXPECT_THAT(Known(), ElementsAre(5));
  EXPECT_EQ(stats().clears_cold, 1u);
  EXPECT_EQ(picker.feed.confidence(id), 0);
  picker.Deliver(id, Next(6), nullptr);
  EXPECT_THAT(Known(), ElementsAre(5, 6));
}

TEST_F(Ordering, FailedReplayIsTriedAgainThenGivenUp) {
  Begin(true);
  Next(4);
  KvAction action = picker.Deliver(id, Next(5), nullptr);
  for (uint32_t attempt = 1; attempt < KvFeedLimits{}.replay_attempts; ++attempt) {
    EXPECT_EQ(picker.feed.OnReplayEnd(id, action.replay, KvReplayEnd::kFailed, picker.now).type,
              KvAction::Type::kNone);
    EXPECT_EQ(picker.feed.Poll(picker.now).type, KvAction::Type::kNone);  // not yet
    EXPECT_THAT(Known(), ElementsAre(0, 1, 2, 3));
    picker.now += std::chrono::milliseconds(100 << (attempt - 1));
    action = picker.feed.Poll(picker.now);
    ASSERT_EQ(action.type, KvAction::Type::kReplay);
    EXPECT_EQ(action.from, 4u);
  }
  picker.feed.OnReplayEnd(id, action.replay, KvReplayEnd::kFailed, picker.now);
  EXPECT_THAT(Known(), ElementsAre(5));
  EXPECT_EQ(stats().replays_failed, 3u);
  EXPECT_EQ(stats().clears_cold, 1u);
  // During the cool-down nothing is asked for and nothing is lost.
  picker.Deliver(id, Next(6), nullptr);
  EXPECT_THAT(Known(), ElementsAre(5, 6));
  EXPECT_EQ(picker.feed.Poll(picker.now).type, KvAction::Type::kNone);
  // Then everything is asked for anew; what is there stays until an answer comes.
  picker.now += KvFeedLimits{}.replay_cooldown;
  action = picker.feed.Poll(picker.now);
  ASSERT_EQ(action.type, KvAction::Type::kReplay);
  EXPECT_EQ(action.from, 0u);
  EXPECT_THAT(Known(), ElementsAre(5, 6));
  picker.Perform(action, engine.get());
  EXPECT_THAT(Known(), ElementsAre(0, 1, 2, 3, 4, 5, 6));
  EXPECT_EQ(picker.feed.confidence(id), 1);
}

TEST_F(Ordering, GoingBackwardsIsARestart) {
  Begin(true);
  engine->Restart();
  engine->Store(TestPrompt(9, kTokens));
  picker.Deliver(id, engine->Step(), nullptr);  // message 0 of another process
  EXPECT_THAT(Known(), ElementsAre(9));
  EXPECT_EQ(stats().restarts, 1u);
  EXPECT_TRUE(picker.asked.empty());  // 0 is all there is
  EXPECT_EQ(picker.feed.confidence(id), 1);
  picker.Deliver(id, Next(10), engine.get());
  EXPECT_THAT(Known(), ElementsAre(9, 10));
}

TEST_F(Ordering, RestartThatIsNoticedLateIsReplayedFromZero) {
  Begin(true);
  engine->Restart();
  Next(7);
  Next(8);
  const KvAction action = picker.Deliver(id, Next(9), nullptr);
  ASSERT_EQ(action.type, KvAction::Type::kReplay);
  EXPECT_EQ(action.from, 0u);
  EXPECT_THAT(Known(), ElementsAre());
  picker.Perform(action, engine.get());
  EXPECT_THAT(Known(), ElementsAre(7, 8, 9));
  EXPECT_EQ(picker.feed.confidence(id), 1);
}

TEST_F(Ordering, RestartWithoutReplay) {
  Begin(false);
  engine->Restart();
  Next(7);
  picker.Deliver(id, Next(8), nullptr);
  EXPECT_THAT(Known(), ElementsAre(8));
  EXPECT_EQ(stats().restarts, 1u);
  EXPECT_EQ(picker.feed.confidence(id), 0);
}

TEST_F(Ordering, RestartDuringAReplay) {
  Begin(true);
  Next(4);
  const KvAction old = picker.Deliver(id, Next(5), nullptr);
  const std::vector<TestMessage> old_replay = engine->Replay(old.from);
  engine->Restart();
  Next(7);
  const KvAction action = picker.Deliver(id, Next(8), nullptr);  // 1, and 4 is expected
  ASSERT_EQ(action.type, KvAction::Type::kReplay);
  EXPECT_EQ(action.from, 0u);
  for (const TestMessage& m : old_replay) {  // of the abandoned one
    const std::string sequence = SequenceFrame(m.number);
    picker.feed.OnReplayMessage(id, old.replay, {"", sequence, m.payload}, picker.now);
  }
  picker.feed.OnReplayEnd(id, old.replay, KvReplayEnd::kComplete, picker.now);
  EXPECT_THAT(Known(), ElementsAre());
  picker.Perform(action, engine.get());
  EXPECT_THAT(Known(), ElementsAre(7, 8));
}

TEST_F(Ordering, IncarnationInTheFrameTellsARestart) {
  Begin(false);
  const auto deliver = [&](uint64_t number, std::string_view incarnation, const TestMessage& m) {
    const std::string sequence = SequenceFrame(number, incarnation);
    picker.feed.OnMessage(id, {"", sequence, m.payload}, picker.now);
  };
  deliver(4, "0123456789abcdef", Next(4));
  EXPECT_THAT(Known(), ElementsAre(0, 1, 2, 3, 4));
  deliver(5, "fedcba9876543210", Next(5));  // the number alone would have passed
  EXPECT_THAT(Known(), ElementsAre(5));
  EXPECT_EQ(stats().restarts, 1u);
}

// After a connection came back, the last applied message is compared with the process's own.
TEST_F(Ordering, ReconnectToAnotherProcessIsNoticed) {
  for (const bool is_longer : {false, true}) {
    picker.feed.RemovePublisher(id);
    Begin(true);
    engine->Restart();
    for (uint64_t i = 5; i < (is_longer ? 12u : 7u); ++i) Next(i);
    picker.feed.OnConnection(id, false, picker.now);
    picker.feed.OnConnection(id, true, picker.now);
    picker.Poll(engine.get());
    EXPECT_EQ(Known(5), std::vector<uint64_t>());
    EXPECT_EQ(Known().size(), is_longer ? 7u : 2u);
    EXPECT_EQ(picker.feed.confidence(id), 1);
  }
  EXPECT_EQ(stats().restarts, 2u);
  // The same process: nothing happens.
  picker.feed.OnConnection(id, false, picker.now);
  picker.feed.OnConnection(id, true, picker.now);
  picker.Poll(engine.get());
  EXPECT_EQ(stats().restarts, 2u);
  EXPECT_EQ(Known().size(), 7u);
}

TEST_F(Ordering, ReconnectWithoutAnAnswerWaitsForAMessage) {
  Begin(true);
  picker.feed.OnConnection(id, false, picker.now);
  picker.feed.OnConnection(id, true, picker.now);
  for (uint32_t attempt = 0; attempt < KvFeedLimits{}.replay_attempts; ++attempt) {
    picker.Poll(nullptr);
    ASSERT_EQ(picker.asked.size(), 1u);
    EXPECT_EQ(picker.asked[0].from, 3u);
    picker.feed.OnReplayEnd(id, picker.asked[0].replay, KvReplayEnd::kFailed, picker.now);
    picker.asked.clear();
    picker.now += std::chrono::seconds(1);
  }
  EXPECT_EQ(picker.feed.Poll(picker.now).type, KvAction::Type::kNone);
  EXPECT_THAT(Known(), ElementsAre(0, 1, 2, 3));
  EXPECT_LT(picker.feed.confidence(id), 0.9f);
  picker.Deliver(id, Next(4), nullptr);
  EXPECT_THAT(Known(), ElementsAre(0, 1, 2, 3, 4));
  EXPECT_EQ(picker.feed.confidence(id), 1);
}

TEST_F(Ordering, LateJoinAsksForEverything) {
  engine = std::make_unique<TestEngine>();
  for (uint64_t i = 0; i < 4; ++i) Next(i);
  id = picker.Add("10.0.0.1:8000", true);
  EXPECT_EQ(picker.feed.confidence(id), 0);
  const KvAction action = picker.feed.Poll(picker.now);  // without waiting for a message
  ASSERT_EQ(action.type, KvAction::Type::kReplay);
  EXPECT_EQ(action.from, 0u);
  EXPECT_EQ(picker.feed.Poll(picker.now).type, KvAction::Type::kNone);
  picker.Perform(action, engine.get());
  EXPECT_THAT(Known(), ElementsAre(0, 1, 2, 3));
  EXPECT_EQ(picker.feed.confidence(id), 1);
}

TEST_F(Ordering, LateJoinToAnIdleEngine) {
  engine = std::make_unique<TestEngine>();
  id = picker.Add("10.0.0.1:8000", true);
  picker.Poll(engine.get());
  EXPECT_EQ(picker.feed.confidence(id), 1);  // nothing is all there is
}

TEST_F(Ordering, LateJoinWithoutReplay) {
  engine = std::make_unique<TestEngine>();
  Next(0);
  id = picker.Add("10.0.0.1:8000", false);
  picker.Deliver(id, Next(1), nullptr);
  EXPECT_THAT(Known(), ElementsAre(1));
  EXPECT_EQ(picker.feed.confidence(id), 0);
  EXPECT_EQ(stats().gaps, 0u);
  EXPECT_EQ(stats().clears_cold, 0u);
}

TEST_F(Ordering, ReorderedMessagesArePutInOrder) {
  Begin(true);
  const TestMessage a = Next(4), b = Next(5), c = Next(6);
  const KvAction action = picker.Deliver(id, b, nullptr);
  EXPECT_EQ(action.from, 4u);
  picker.Deliver(id, a, nullptr);
  picker.Deliver(id, c, nullptr);
  picker.feed.OnReplayEnd(id, action.replay, KvReplayEnd::kComplete, picker.now);
  EXPECT_THAT(Known(), ElementsAre(0, 1, 2, 3, 4, 5, 6));
  EXPECT_EQ(stats().restarts, 0u);
}

TEST_F(Ordering, DuplicatesAreIgnored) {
  Begin(false);
  const TestMessage once = Next(4);
  picker.Deliver(id, once, nullptr);
  picker.Deliver(id, once, nullptr);
  EXPECT_EQ(stats().duplicates, 1u);
  EXPECT_EQ(stats().restarts, 0u);
  engine->Remove(TestPrompt(4, kTokens), 3);  // stored once, so gone now
  picker.Deliver(id, engine->Step(), nullptr);
  EXPECT_EQ(picker.Held(id, TestPrompt(4, kTokens)), 3u);
}

// A replay runs ahead of a long queue of live messages, which then come one by one.
TEST_F(Ordering, LateDuplicatesBehindAReplayAreNoRestart) {
  Begin(true);
  std::vector<TestMessage> live;
  for (uint64_t i = 0; i < 300; ++i) live.push_back(Next(100 + i));
  picker.Deliver(id, live[1], engine.get());
  EXPECT_EQ(picker.feed.applied(id), 304u);
  for (const TestMessage& m : live) picker.Deliver(id, m, engine.get());
  EXPECT_EQ(stats().restarts, 0u);
  EXPECT_EQ(picker.feed.applied(id), 304u);
  EXPECT_EQ(picker.feed.confidence(id), 1);
}

TEST_F(Ordering, HeartbeatsShowWhatIsMissing) {
  Begin(true);
  picker.Deliver(id, {3, ""}, nullptr);
  EXPECT_TRUE(picker.asked.empty());
  Next(4);
  const KvAction action = picker.Deliver(id, {4, ""}, nullptr);
  ASSERT_EQ(action.type, KvAction::Type::kReplay);
  EXPECT_EQ(action.from, 4u);
  picker.Perform(action, engine.get());
  EXPECT_THAT(Known(), ElementsAre(0, 1, 2, 3, 4));
}

TEST_F(Ordering, AllBlocksClearedMakesColdComplete) {
  Begin(false);
  Next(4);
  picker.Deliver(id, Next(5), nullptr);
  EXPECT_EQ(stats().cold, 1u);
  engine->ClearAll();
  engine->Store(TestPrompt(6, kTokens));
  picker.Deliver(id, engine->Step(), nullptr);
  EXPECT_THAT(Known(), ElementsAre(6));
  EXPECT_EQ(stats().cold, 0u);
  EXPECT_EQ(picker.feed.confidence(id), 1);
}

// --- several publishers --------------------------------------------------------------------------

TEST(KvFeedPublishers, ClearAndRemovalAreTheirOwn) {
  TestPicker picker;
  TestEngine a, b;
  const PublisherId id_a = picker.Add("a:1", false), id_b = picker.Add("b:1", false);
  const auto prompt = TestPrompt(1, kTokens);
  for (const auto& [id, engine] : {std::pair(id_a, &a), std::pair(id_b, &b)}) {
    engine->Store(prompt);
    picker.Deliver(id, engine->Step(), nullptr);
  }
  a.ClearAll();
  picker.Deliver(id_a, a.Step(), nullptr);
  EXPECT_EQ(picker.Held(id_a, prompt), 0u);
  EXPECT_EQ(picker.Held(id_b, prompt), 4u);
  picker.feed.RemovePublisher(id_b);
  EXPECT_EQ(picker.Held(id_b, prompt), 0u);
  EXPECT_EQ(picker.feed.confidence(id_b), 0);
  EXPECT_EQ(picker.feed.stats().publishers, 1u);
}

// Ranks behind one address are told apart by their connection, or on a shared socket by the batch.
TEST(KvFeedPublishers, RanksAreHoldersOfTheirOwn) {
  TestPicker picker;
  TestEngine rank0({.rank = 0}), rank1({.rank = 1});
  const auto prompt = TestPrompt(1, kTokens);
  for (TestEngine* engine : {&rank0, &rank1}) {
    engine->Store(prompt);
    const TestMessage m = engine->Step();
    const std::string sequence = SequenceFrame(m.number);
    picker.feed.OnTopicMessage({"kv@10.0.0.1:8000@m", sequence, m.payload}, picker.now);
  }
  const auto id0 = picker.feed.Find("10.0.0.1:8000", 0), id1 = picker.feed.Find("10.0.0.1:8000", 1);
  ASSERT_TRUE(id0 && id1);
  const auto holders = picker.feed.holders().Current();
  EXPECT_EQ((*holders)[*id1].address, "10.0.0.1:8000");
  EXPECT_EQ((*holders)[*id1].rank, 1u);
  rank1.Remove(prompt, 0);
  const TestMessage m = rank1.Step();
  const std::string sequence = SequenceFrame(m.number);
  picker.feed.OnTopicMessage({"kv@10.0.0.1:8000@m", sequence, m.payload}, picker.now);
  EXPECT_EQ(picker.Held(*id0, prompt), 4u);
  EXPECT_EQ(picker.Held(*id1, prompt), 0u);
  picker.feed.RemoveEndpoint("10.0.0.1:8000");
  EXPECT_EQ(picker.feed.stats().publishers, 0u);
  EXPECT_EQ(picker.Held(*id0, prompt), 0u);
}

TEST(KvFeedPublishers, DiscoveryCanBeTurnedOff) {
  KvFeedOptions options = TestPicker::Defaults();
  options.discover = false;
  TestPicker picker(options);
  TestEngine engine;
  engine.Store(TestPrompt(1, kTokens));
  const TestMessage m = engine.Step();
  const std::string sequence = SequenceFrame(0);
  picker.feed.OnTopicMessage({"kv@a:1@m", sequence, m.payload}, picker.now);
  EXPECT_EQ(picker.feed.stats().unknown_publishers, 1u);
  const PublisherId id = picker.Add("a:1", false);
  picker.feed.OnTopicMessage({"kv@a:1@m", sequence, m.payload}, picker.now);
  EXPECT_EQ(picker.Held(id, TestPrompt(1, kTokens)), 4u);
}

TEST(KvFeedPublishers, NumbersAreUsedAgainAndLimited) {
  KvFeedOptions options = TestPicker::Defaults();
  options.limits.publishers = 2;
  TestPicker picker(options);
  EXPECT_EQ(picker.Add("a:1", false), 0);
  EXPECT_EQ(picker.Add("a:2", false), 1);
  EXPECT_FALSE(picker.feed.AddPublisher({.address = "a:3"}, picker.now));
  EXPECT_FALSE(picker.feed.AddPublisher({.address = "a:2"}, picker.now));
  const std::string sequence = SequenceFrame(0);
  picker.feed.OnTopicMessage({"kv@a:4@m", sequence, ""}, picker.now);
  EXPECT_EQ(picker.feed.stats().unknown_publishers, 1u);
  picker.feed.RemovePublisher(0);
  picker.feed.RemovePublisher(0);
  EXPECT_EQ(picker.Add("a:3", false), 0);
  EXPECT_EQ(picker.feed.confidence(60000), 0);
  EXPECT_EQ(picker.feed.OnMessage(7, {}, picker.now).type, KvAction::Type::kNone);
}

// --- a picker that restarts ----------------------------------------------------------------------

// What a snapshot carries over: the feed's state and the holder's blocks.
struct Restarted : Ordering {
  void Restart(bool can_replay) {
    saved = *picker.feed.Save(id);
    again.now = picker.now + std::chrono::seconds(5);
    again_id = again.Add("10.0.0.1:8000", can_replay);
    ASSERT_TRUE(again.feed.Resume(again_id, saved, again.now));
    picker.index.ForEach(
        id, [&](const KvIndex::Stretch& stretch) { again.index.Restore(again_id, stretch); });
  }
  std::vector<uint64_t> KnownAgain() {
    std::vector<uint64_t> known;
    for (uint64_t i = 0; i < 12; ++i) {
      if (again.Held(again_id, TestPrompt(i, kTokens)) == 4) known.push_back(i);
    }
    return known;
  }

  std::string saved;
  TestPicker again;
  PublisherId again_id = 0;
};

TEST_F(Restarted, GoesOnAndReplaysWhatItMissed) {
  Begin(true);
  Restart(true);
  EXPECT_THAT(KnownAgain(), ElementsAre(0, 1, 2, 3));
  EXPECT_EQ(again.feed.confidence(again_id), 1);
  Next(4);
  engine->Remove(TestPrompt(0, kTokens), 0);
  engine->Step();
  const KvAction action = again.feed.Poll(again.now);
  ASSERT_EQ(action.type, KvAction::Type::kReplay);
  EXPECT_EQ(action.from, 3u);  // the last applied one, to compare
  again.Perform(action, engine.get());
  EXPECT_THAT(KnownAgain(), ElementsAre(1, 2, 3, 4));
  EXPECT_EQ(again.feed.stats().restarts, 0u);
  EXPECT_EQ(again.feed.confidence(again_id), 1);
  again.now += std::chrono::minutes(1);
  again.Poll(engine.get());
  EXPECT_EQ(again.feed.confidence(again_id), 1);
}

TEST_F(Restarted, NoticesThatTheEngineRestartedToo) {
  Begin(true);
  Restart(true);
  engine->Restart();
  for (uint64_t i = 6; i < 11; ++i) Next(i);
  again.Poll(engine.get());
  EXPECT_THAT(KnownAgain(), ElementsAre(6, 7, 8, 9, 10));
  EXPECT_EQ(again.feed.stats().restarts, 1u);
}

TEST_F(Restarted, WithoutReplayTheNextMessageTells) {
  Begin(false);
  Restart(false);
  again.now += KvFeed::kFreshnessHalfLife;
  again.Poll(nullptr);
  EXPECT_NEAR(again.feed.confidence(again_id), 0.5, 1e-6);  // nobody knows yet
  again.Deliver(again_id, Next(4), nullptr);
  EXPECT_THAT(KnownAgain(), ElementsAre(0, 1, 2, 3, 4));
  EXPECT_EQ(again.feed.confidence(again_id), 1);
  Next(5);
  again.Deliver(again_id, Next(6), nullptr);
  EXPECT_THAT(KnownAgain(), ElementsAre(6));
}

TEST_F(Restarted, GroupsAndBlockSizesAreRemembered) {
  id = picker.Add("10.0.0.1:8000", false);
  const auto prompt = TestPrompt(1, kTokens);
  const std::vector<KvWireHash> hashes = {{.value = 10}, {.value = 11}};
  KvEventWriter writer(KvEventForm::kMap);
  writer.Stored({.hashes = hashes,
                 .tokens = prompt,
                 .block_size = 32,
                 .group = 2,
                 .kind = KvCacheKind::kFullAttention});
  picker.Deliver(id, {0, writer.Finish(1, 0)}, nullptr);
  Restart(false);
  EXPECT_EQ(again.Held(again_id, prompt), 4u);
  writer.Removed({&hashes[1], 1}, "GPU", 2);
  again.Deliver(again_id, {1, writer.Finish(2, 0)}, nullptr);
  EXPECT_EQ(again.Held(again_id, prompt), 2u);
  EXPECT_EQ(again.feed.stats().apply.removals_skipped,
            KvApplyStats{}.removals_skipped);
}

TEST_F(Restarted, OnlyWhatWasSavedIsResumed) {
  Begin(false);
  const std::string whole = *picker.feed.Save(id);
  for (size_t cut = 0; cut < whole.size(); ++cut) {
    again_id = again.Add("10.0.0.1:8000", false);
    ASSERT_FALSE(again.feed.Resume(again_id, whole.substr(0, cut), again.now));
    EXPECT_EQ(again.feed.applied(again_id), 0u);
    again.feed.RemovePublisher(again_id);
  }
  EXPECT_FALSE(again.feed.Resume(7, whole, again.now));
  EXPECT_FALSE(picker.feed.Resume(id, whole, picker.now));  // it has begun
  EXPECT_EQ(again.feed.Save(again.Add("b:1", false)), std::nullopt);
  // Parts are not in the index.
  TestPicker coarse(TestPicker::Defaults(64));
  const PublisherId other = coarse.Add("a:1", false);
  TestEngine fine;
  fine.Store(TestPrompt(1, kTokens));
  coarse.Deliver(other, fine.Step(), nullptr);
  EXPECT_EQ(coarse.feed.Save(other), std::nullopt);
}

// --- limits --------------------------------------------------------------------------------------

// What does not fit into the queue is dropped, counted, and replayed afterwards.
TEST(KvFeedLimits, FullQueueEndsInAnotherReplay) {
  for (const int kind : {0, 1, 2}) {
    KvFeedOptions options = TestPicker::Defaults();
    if (kind == 0) options.limits.held_messages = 3;
    if (kind == 1) options.limits.held_bytes = 1500;
    if (kind == 2) options.limits.held_bytes_total = 1500;
    TestPicker picker(options);
    TestEngine engine;
    const PublisherId id = picker.Add("a:1", true);
    picker.Poll(&engine);
    engine.Step();
    KvAction action;
    for (uint64_t i = 0; i < 20; ++i) {
      engine.Store(TestPrompt(i, kTokens));
      const KvAction asked = picker.Deliver(id, engine.Step(), nullptr);
      if (asked.type == KvAction::Type::kReplay) action = asked;
    }
    EXPECT_GT(picker.feed.stats().held_dropped, 10u);
    EXPECT_LE(picker.feed.stats().held_bytes, 32u << 20);
    if (kind > 0) EXPECT_LE(picker.feed.stats().held_bytes, 1500u);
    // The replay answers with what there was when it was asked for.
    for (const TestMessage& m : engine.Replay(0)) {
      if (m.number > 1) break;
      const std::string sequence = SequenceFrame(m.number);
      picker.feed.OnReplayMessage(id, action.replay, {"", sequence, m.payload}, picker.now);
    }
    picker.Perform(picker.feed.OnReplayEnd(id, action.replay, KvReplayEnd::kComplete, picker.now),
                   &engine);
    engine.Store(TestPrompt(20, kTokens));
    picker.Deliver(id, engine.Step(), &engine);
    for (uint64_t i = 0; i < 21; ++i) EXPECT_EQ(picker.Held(id, TestPrompt(i, kTokens)), 4u);
    EXPECT_EQ(picker.feed.stats().held_bytes, 0u);
  }
}

TEST(KvFeedLimits, BadFramesAndPayloadsAreCounted) {
  TestPicker picker;
  const PublisherId id = picker.Add("a:1", false);
  for (const std::string& sequence :
       {std::string(), std::string(7, '\0'), std::string(8, '\xff')}) {
    picker.feed.OnMessage(id, {"", sequence, "x"}, picker.now);
  }
  EXPECT_EQ(picker.feed.stats().bad_frames, 3u);
  picker.Deliver(id, {0, "no msgpack"}, nullptr);
  EXPECT_EQ(picker.feed.stats().apply.malformed, 1u);
  TestEngine engine;
  engine.Step();
  engine.Store(TestPrompt(1, kTokens));
  picker.Deliver(id, engine.Step(), nullptr);  // the sequence went on
  EXPECT_EQ(picker.Held(id, TestPrompt(1, kTokens)), 4u);
}

// --- confidence ----------------------------------------------------------------------------------

TEST(KvFeedConfidence, ColdEarnsTrust) {
  TestPicker picker;
  TestEngine engine;
  for (uint64_t i = 0; i < 500; ++i) engine.Store(TestPrompt(i, kTokens));
  engine.Step();
  const PublisherId id = picker.Add("a:1", false);
  // Old blocks make room for new ones: first all removals are of unknown blocks, then none.
  float last = 0;
  for (uint64_t i = 0; i < 1500; ++i) {
    for (size_t block = 4; block-- > 0;) engine.Remove(TestPrompt(i, kTokens), block);
    engine.Store(TestPrompt(i + 500, kTokens));
    picker.Deliver(id, engine.Step(), nullptr);
    const float confidence = picker.feed.confidence(id);
    if (i < 490) EXPECT_EQ(confidence, 0) << i;
    if (i > 510) EXPECT_GT(confidence, last) << i;
    last = confidence;
  }
  EXPECT_GT(last, 0.95f);
  EXPECT_EQ(picker.feed.stats().cold, 1u);
}

TEST(KvFeedConfidence, FallsWhileMessagesAreMissing) {
  TestPicker picker;
  TestEngine engine;
  const PublisherId id = picker.Add("a:1", true);
  picker.Poll(&engine);
  EXPECT_EQ(picker.feed.confidence(id), 1);
  engine.Step();
  const KvAction action = picker.Deliver(id, engine.Step(), nullptr);
  EXPECT_EQ(picker.feed.confidence(id), 1);
  picker.now += KvFeed::kFreshnessHalfLife;
  picker.feed.Poll(picker.now);
  EXPECT_NEAR(picker.feed.confidence(id), 0.5, 1e-6);
  picker.now += KvFeed::kFreshnessHalfLife;
  picker.feed.Poll(picker.now);
  EXPECT_NEAR(picker.feed.confidence(id), 0.25, 1e-6);
  picker.Perform(action, &engine);
  EXPECT_EQ(picker.feed.confidence(id), 1);
}

TEST(KvFeedConfidence, FallsWhileTheConnectionIsDown) {
  TestPicker picker;
  TestEngine engine;
  const PublisherId id = picker.Add("a:1", true);
  picker.Poll(&engine);
  picker.feed.OnConnection(id, false, picker.now);
  picker.now += KvFeed::kFreshnessHalfLife;
  picker.Poll(&engine);
  EXPECT_NEAR(picker.feed.confidence(id), 0.5, 1e-6);
  engine.Store(TestPrompt(1, kTokens));
  engine.Step();  // nobody hears it
  picker.feed.OnConnection(id, true, picker.now);
  picker.Poll(&engine);  // asks whether anything was missed
  EXPECT_EQ(picker.Held(id, TestPrompt(1, kTokens)), 4u);
  EXPECT_EQ(picker.feed.confidence(id), 1);
}

TEST(KvFeedConfidence, AgeIsReported) {
  TestPicker picker;
  TestEngine engine;
  const PublisherId id = picker.Add("a:1", false);
  EXPECT_EQ(picker.feed.publisher_stats(id, picker.now).age, base::Duration{});
  picker.Deliver(id, engine.Step(), nullptr);
  picker.now += std::chrono::seconds(7);
  EXPECT_EQ(picker.feed.publisher_stats(id, picker.now).age, std::chrono::seconds(7));
  EXPECT_EQ(picker.feed.publisher_stats(id, picker.now).messages, 1u);
}

}  // namespace
}  // namespace llmd::prefix
