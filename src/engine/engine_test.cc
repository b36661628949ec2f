#include "engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "base/random.h"

namespace llmd::engine {
namespace {

using base::TimePoint;
using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr TimePoint At(int64_t ms) { return TimePoint(milliseconds(ms)); }

// A step takes 10 ms, plus 1 ms per prefill token.
EngineConfig SmallConfig() {
  EngineConfig config;
  config.block_tokens = 4;
  config.kv_blocks = 16;
  config.model_tokens_max = 64;
  config.timing = StepCost{.base_ns = 10e6, .prefill_token_ns = 1e6};
  return config;
}

std::unique_ptr<Engine> Make(const EngineConfig& config) {
  auto engine = Engine::Create(config);
  EXPECT_TRUE(engine.has_value()) << engine.error().ToString();
  return *std::move(engine);
}

std::vector<Token> Tokens(uint32_t n, Token first = 0) {
  std::vector<Token> tokens(n);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

RequestSpec Spec(const std::vector<Token>& prompt, uint32_t output, uint64_t tag) {
  return {.prompt = prompt, .output_tokens = output, .tag = tag};
}

// Runs until idle; gives the reports in order of completion.
std::vector<RequestReport> Drain(Engine* engine) {
  std::vector<RequestReport> reports;
  while (engine->next_step_at() != Engine::kNever) {
    const StepResult result = engine->Step();
    reports.insert(reports.end(), result.finished.begin(), result.finished.end());
    engine->VerifyForTest();
  }
  return reports;
}

TEST(EngineTest, Tutorial) {
  auto engine = Make(SmallConfig());
  EXPECT_EQ(engine->next_step_at(), Engine::kNever);

  const std::vector<Token> prompt = Tokens(6);
  ASSERT_TRUE(engine->Submit(Spec(prompt, 3, /*tag=*/77), At(100)));
  EXPECT_EQ(engine->next_step_at(), At(100));
  StepResult step = engine->Step();  // the prefill begins
  EXPECT_THAT(step.scheduled_tags, ElementsAre(77u));
  EXPECT_TRUE(step.tokens.empty());
  EXPECT_EQ(engine->next_step_at(), At(116));  // 10 + 6 tokens

  step = engine->Step();  // it ends with the first token
  ASSERT_EQ(step.tokens.size(), 1u);
  EXPECT_EQ(step.tokens[0].tag, 77u);
  EXPECT_EQ(step.tokens[0].index, 0u);
  EXPECT_EQ(step.computed_tokens, 6u);
  EXPECT_EQ(engine->next_step_at(), At(126));

  const auto reports = Drain(engine.get());
  ASSERT_EQ(reports.size(), 1u);
  EXPECT_EQ(reports[0].first_token_at, At(116));
  EXPECT_EQ(reports[0].finished_at, At(136));
  EXPECT_EQ(reports[0].output_tokens, 3u);
  EXPECT_EQ(engine->stats().kv_blocks_used, 0u);
}

TEST(EngineTest, DecodesGoOnWhileALongPromptIsComputedInChunks) {
  EngineConfig config = SmallConfig();
  config.batched_tokens_max = 5;
  auto engine = Make(config);
  const auto first = Tokens(4), second = Tokens(10, 100);
  ASSERT_TRUE(engine->Submit(Spec(first, 5, 1), At(0)));
  engine->Step();
  ASSERT_TRUE(engine->Submit(Spec(second, 1, 2), At(1)));
  std::vector<size_t> tokens_per_step;
  std::vector<uint64_t> computed;
  while (engine->next_step_at() != Engine::kNever) {
    const StepResult step = engine->Step();
    tokens_per_step.push_back(step.tokens.size());
    computed.push_back(step.computed_tokens);
  }
  // 4 of the first, then one decode beside 4, 4 and 2 of the second.
  EXPECT_THAT(computed, ElementsAre(4u, 5u, 5u, 3u, 1u));
  EXPECT_THAT(tokens_per_step, ElementsAre(1u, 1u, 1u, 2u, 1u));
}

TEST(EngineTest, CachedPrefixIsNotComputedAgainButTheLastTokenIs) {
  auto engine = Make(SmallConfig());
  const auto prompt = Tokens(8);
  ASSERT_TRUE(engine->Submit(Spec(prompt, 1, 1), At(0)));
  EXPECT_EQ(Drain(engine.get()).at(0).cached_tokens, 0u);
  ASSERT_TRUE(engine->Submit(Spec(prompt, 1, 2), At(1000)));
  const auto reports = Drain(engine.get());
  EXPECT_EQ(reports.at(0).cached_tokens, 4u);  // not 8: the second block holds the last token
  EXPECT_EQ(reports.at(0).first_token_at, At(1014));
  EXPECT_EQ(engine->stats().prefix_queried_tokens, 16u);
  EXPECT_EQ(engine->stats().prefix_hit_tokens, 4u);
}

TEST(EngineTest, GeneratedTokensAreCachedForTheNextTurn) {
  auto engine = Make(SmallConfig());
  const auto prompt = Tokens(6), reply = Tokens(11, 500);
  RequestSpec spec = Spec(prompt, 11, 1);
  spec.output_cycle = reply;
  ASSERT_TRUE(engine->Submit(spec, At(0)));
  Drain(engine.get());
  std::vector<Token> next_turn = prompt;
  next_turn.insert(next_turn.end(), reply.begin(), reply.end());
  next_turn.push_back(9);
  ASSERT_TRUE(engine->Submit(Spec(next_turn, 1, 2), At(5000)));
  // 6 + 11 tokens, of which the last generated one was never computed: 16 in KV, four blocks.
  EXPECT_EQ(Drain(engine.get()).at(0).cached_tokens, 16u);
}

TEST(EngineTest, CacheSaltKeepsTenantsApart) {
  auto engine = Make(SmallConfig());
  const auto prompt = Tokens(9);
  for (const char* salt : {"a", "b", "a"}) {
    RequestSpec spec = Spec(prompt, 1, 0);
    spec.cache_salt = salt;
    ASSERT_TRUE(engine->Submit(spec, At(1000)));
    Drain(engine.get());
  }
  EXPECT_EQ(engine->stats().prefix_hit_tokens, 8u);
}

TEST(EngineTest, OffloadedPrefixesAreLoadedInsteadOfComputed) {
  EngineConfig config = SmallConfig();
  config.kv_blocks = 4;
  config.model_tokens_max = 16;
  config.offload_blocks = 8;
  config.offload_load_token = std::chrono::microseconds(250);
  auto engine = Make(config);
  const auto a = Tokens(13), b = Tokens(13, 100);
  ASSERT_TRUE(engine->Submit(Spec(a, 1, 1), At(0)));
  ASSERT_TRUE(engine->Submit(Spec(b, 1, 2), At(0)));  // takes all blocks of the first
  Drain(engine.get());
  ASSERT_TRUE(engine->Submit(Spec(a, 1, 3), At(1000)));
  const RequestReport report = Drain(engine.get()).at(0);
  EXPECT_EQ(report.cached_tokens, 12u);
  EXPECT_EQ(report.offload_tokens, 12u);
  EXPECT_EQ(report.finished_at, At(1000 + 10 + 3));  // one token to compute is a decode
  EXPECT_EQ(engine->stats().offload_hit_tokens, 12u);
  EXPECT_EQ(engine->stats().prefix_hit_tokens, 0u);
}

TEST(EngineTest, TellsWhatItCaches) {
  EngineConfig config = SmallConfig();
  config.kv_blocks = 4;
  config.model_tokens_max = 16;
  config.cache_changes = true;
  auto engine = Make(config);
  const auto a = Tokens(9), b = Tokens(13, 100);
  ASSERT_TRUE(engine->Submit(Spec(a, 1, 1), At(0)));
  const StepResult first = engine->Step();
  ASSERT_EQ(first.cache_changes.size(), 1u);
  const CacheChange& stored = first.cache_changes[0];
  EXPECT_EQ(stored.kind, CacheChange::Kind::kStored);
  EXPECT_EQ(stored.tier, CacheTier::kGpu);
  EXPECT_EQ(stored.hashes.size(), 2u);
  EXPECT_FALSE(stored.has_parent);
  EXPECT_THAT(stored.tokens, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
  const std::vector<uint64_t> hashes(stored.hashes.begin(), stored.hashes.end());
  EXPECT_FALSE(engine->ResetPrefixCache(false));  // blocks are in use
  Drain(engine.get());

  ASSERT_TRUE(engine->Submit(Spec(b, 1, 2), At(1000)));
  const StepResult second = engine->Step();  // four blocks of four: the tail goes first
  ASSERT_EQ(second.cache_changes.size(), 3u);
  EXPECT_EQ(second.cache_changes[0].kind, CacheChange::Kind::kRemoved);
  EXPECT_THAT(second.cache_changes[0].hashes, ElementsAre(hashes[1]));
  EXPECT_THAT(second.cache_changes[1].hashes, ElementsAre(hashes[0]));
  EXPECT_EQ(second.cache_changes[2].kind, CacheChange::Kind::kStored);
  Drain(engine.get());

  EXPECT_TRUE(engine->ResetPrefixCache(false));
  ASSERT_TRUE(engine->Submit(Spec(b, 1, 3), At(2000)));
  const StepResult third = engine->Step();
  ASSERT_EQ(third.cache_changes.size(), 2u);
  EXPECT_EQ(third.cache_changes[0].kind, CacheChange::Kind::kCleared);
  EXPECT_EQ(engine->stats().prefix_hit_tokens, 0u);
}

TEST(EngineTest, FullMemoryPushesTheLatestArrivalBack) {
  EngineConfig config = SmallConfig();
  config.kv_blocks = 4;
  config.model_tokens_max = 16;
  auto engine = Make(config);
  const auto a = Tokens(7), b = Tokens(7, 100);
  ASSERT_TRUE(engine->Submit(Spec(a, 8, 1), At(0)));
  ASSERT_TRUE(engine->Submit(Spec(b, 8, 2), At(0)));
  std::vector<uint64_t> preempted;
  std::vector<RequestReport> reports;
  while (engine->next_step_at() != Engine::kNever) {
    const StepResult step = engine->Step();
    engine->VerifyForTest();
    preempted.insert(preempted.end(), step.preempted_tags.begin(), step.preempted_tags.end());
    reports.insert(reports.end(), step.finished.begin(), step.finished.end());
  }
  EXPECT_THAT(preempted, ElementsAre(2u));
  ASSERT_EQ(reports.size(), 2u);
  EXPECT_EQ(reports[0].tag, 1u);
  EXPECT_EQ(reports[1].preemptions, 1u);
  EXPECT_EQ(reports[1].output_tokens, 8u);
  EXPECT_EQ(engine->stats().generated_tokens, 16u);
}

TEST(EngineTest, WaitingWhenSeatsAreTakenAndRefusedWhenTheQueueIsFull) {
  EngineConfig config = SmallConfig();
  config.sequences_max = 1;
  config.waiting_max = 1;
  auto engine = Make(config);
  const auto prompt = Tokens(3);
  ASSERT_TRUE(engine->Submit(Spec(prompt, 2, 1), At(0)));
  ASSERT_TRUE(engine->Submit(Spec(prompt, 2, 2), At(0)));
  const auto refused = engine->Submit(Spec(prompt, 2, 3), At(0));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), base::StatusCode::kResourceExhausted);
  engine->Step();
  EXPECT_EQ(engine->stats().running, 1u);
  EXPECT_EQ(engine->stats().waiting, 1u);
  const auto reports = Drain(engine.get());
  ASSERT_EQ(reports.size(), 2u);
  EXPECT_EQ(reports[1].scheduled_at, reports[0].finished_at);
}

TEST(EngineTest, RefusesWhatCannotBe) {
  auto engine = Make(SmallConfig());
  const auto prompt = Tokens(60);
  EXPECT_FALSE(engine->Submit(Spec({}, 1, 0), At(0)));
  EXPECT_FALSE(engine->Submit(Spec(prompt, 0, 0), At(0)));
  EXPECT_TRUE(engine->Submit(Spec(prompt, 4, 0), At(0)));
  EXPECT_FALSE(engine->Submit(Spec(prompt, 5, 0), At(0)));
  EXPECT_FALSE(engine->Submit(Spec(prompt, UINT32_MAX, 0), At(0)));

  EngineConfig config = SmallConfig();
  config.model_tokens_max = 65;
  const auto refused = Engine::Create(config);
  ASSERT_FALSE(refused);
  EXPECT_THAT(std::string(refused.error().message()), HasSubstr("16 blocks of 4"));
}

TEST(EngineTest, AbortFreesSeatAndMemoryWhereverTheRequestIs) {
  EngineConfig config = SmallConfig();
  config.sequences_max = 1;
  config.frontend_delay = milliseconds(5);
  auto engine = Make(config);
  const auto prompt = Tokens(5);
  const auto running = *engine->Submit(Spec(prompt, 9, 1), At(0));
  engine->Step();
  const auto waiting = *engine->Submit(Spec(prompt, 9, 2), At(5));
  const auto last = *engine->Submit(Spec(prompt, 1, 3), At(6));
  const auto arriving = *engine->Submit(Spec(prompt, 9, 4), At(7));
  EXPECT_TRUE(engine->Abort(arriving, At(8)));
  engine->Step();
  EXPECT_TRUE(engine->Abort(waiting, At(21)));
  EXPECT_TRUE(engine->Abort(running, At(21)));
  EXPECT_FALSE(engine->Abort(running, At(21)));
  EXPECT_EQ(engine->stats().kv_blocks_used, 0u);
  const auto reports = Drain(engine.get());
  ASSERT_EQ(reports.size(), 1u);
  EXPECT_EQ(reports[0].id, last);
  EXPECT_EQ(reports[0].scheduled_at, At(30));  // the step in flight ran to its end
  EXPECT_EQ(engine->stats().aborted, 3u);
  EXPECT_FALSE(engine->Abort(last, At(100)));
  EXPECT_FALSE(engine->Abort(RequestId{12345678}, At(100)));
}

TEST(EngineTest, PaceGivesEachSequenceItsOwnClock) {
  EngineConfig config = SmallConfig();
  config.timing = Pace{.prefill_overhead = milliseconds(50),
                       .prefill_token = milliseconds(1),
                       .inter_token = milliseconds(7)};
  auto engine = Make(config);
  const auto a = Tokens(9), b = Tokens(20, 100);
  ASSERT_TRUE(engine->Submit(Spec(a, 3, 1), At(0)));
  engine->Step();
  ASSERT_TRUE(engine->Submit(Spec(b, 2, 2), At(3)));
  const auto reports = Drain(engine.get());
  ASSERT_EQ(reports.size(), 2u);
  EXPECT_EQ(reports[0].first_token_at, At(59));
  EXPECT_EQ(reports[0].finished_at, At(73));
  EXPECT_EQ(reports[1].scheduled_at, At(3));
  EXPECT_EQ(reports[1].first_token_at, At(73));
  EXPECT_EQ(reports[1].finished_at, At(80));

  ASSERT_TRUE(engine->Submit(Spec(a, 1, 3), At(1000)));
  EXPECT_EQ(Drain(engine.get()).at(0).first_token_at, At(1051));  // one token not cached
}

TEST(EngineTest, WithoutTimeARequestIsDoneTheMomentItComes) {
  EngineConfig config = SmallConfig();
  config.timing = Pace{};
  auto engine = Make(config);
  const auto prompt = Tokens(9);
  for (uint64_t tag = 0; tag < 20; ++tag) ASSERT_TRUE(engine->Submit(Spec(prompt, 8, tag), At(5)));
  const auto reports = Drain(engine.get());
  ASSERT_EQ(reports.size(), 20u);
  for (const RequestReport& report : reports) EXPECT_EQ(report.finished_at, At(5));
}

TEST(EngineTest, PromptKnownByLengthOnlyIsNeverCached) {
  auto engine = Make(SmallConfig());
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(engine->Submit({.prompt_tokens = 20, .output_tokens = 4}, At(1000 * i)));
    Drain(engine.get());
  }
  EXPECT_EQ(engine->stats().prefix_hit_tokens, 0u);
  EXPECT_EQ(engine->stats().prompt_tokens, 40u);
}

}  // namespace
}  // namespace llmd::engine
