// The profiles against the measurements they were fitted from, by running the engine: closed loops
// of b clients that each send a prompt of 1,024 tokens and take 1,024 tokens.
#include <gtest/gtest.h>

#include "base/random.h"
#include "engine/profile.h"

namespace llmd::engine {
namespace {

struct LoopResult {
  double ttft_ms = 0;
  double tpot_ms = 0;
};

// Mean over requests that began after every client had finished one; first outputs have random
// lengths so that the clients do not march in step.
LoopResult ClosedLoop(const Profile& profile, uint32_t clients, uint32_t input, uint32_t output) {
  auto engine = *Engine::Create(profile.Config());
  base::Random random(clients);
  auto submit = [&](uint64_t client, uint32_t tokens, base::TimePoint now) {
    ASSERT_TRUE(engine->Submit(
        {.prompt_tokens = input, .output_tokens = tokens, .tag = client}, now));
  };
  for (uint32_t c = 0; c < clients; ++c) {
    submit(c, 1 + static_cast<uint32_t>(random.Below(output)), base::TimePoint{});
  }
  std::vector<uint32_t> rounds(clients);
  LoopResult sum;
  uint32_t counted = 0;
  while (counted < 4 * clients) {
    const StepResult step = engine->Step();
    const std::vector<RequestReport> finished(step.finished.begin(), step.finished.end());
    for (const RequestReport& r : finished) {
      if (++rounds[r.tag] > 2 && counted < 4 * clients) {
        ++counted;
        sum.ttft_ms += base::ToSeconds(r.first_token_at - r.arrived_at) * 1e3;
        sum.tpot_ms += base::ToSeconds(r.finished_at - r.first_token_at) * 1e3 / (output - 1);
      }
      submit(r.tag, output, r.finished_at);
    }
  }
  return {sum.ttft_ms / counted, sum.tpot_ms / counted};
}

TEST(CalibrationTest, EveryProfileMakesAnEngine) {
  for (const Profile& profile : Profiles()) {
    const auto engine = Engine::Create(profile.Config());
    EXPECT_TRUE(engine.has_value()) << profile.name << ": " << engine.error().ToString();
    EXPECT_EQ(FindProfile(profile.name), &profile);
  }
  EXPECT_EQ(FindProfile("qwen3"), nullptr);
}

// Measured on two H100 with vLLM, 1,024 tokens in and out (aiconfigurator's silicon table).
TEST(CalibrationTest, Qwen32OnTwoH100) {
  struct Row {
    uint32_t clients;
    double ttft_ms, tpot_ms;
  };
  const Profile& profile = *FindProfile("qwen3-32b-h100-tp2");
  for (const Row& row : {Row{8, 154, 15.9}, Row{16, 187, 17.4}, Row{32, 237, 20.1},
                         Row{64, 381, 26.1}, Row{128, 652, 37.8}}) {
    const LoopResult loop = ClosedLoop(profile, row.clients, 1024, 1024);
    EXPECT_NEAR(loop.tpot_ms / row.tpot_ms, 1, 0.03) << row.clients << " clients";
    printf("%3u clients: TPOT %5.1f ms (measured %5.1f), TTFT %4.0f ms (measured %4.0f)\n",
           row.clients, loop.tpot_ms, row.tpot_ms, loop.ttft_ms, row.ttft_ms);
  }
}

TEST(CalibrationTest, StepsReproduceTheRegressionOfEveryRow) {
  for (const Profile& profile : Profiles()) {
    const auto* cost = std::get_if<StepCost>(&profile.timing);
    if (cost == nullptr) continue;
    for (const double b : {8.0, 64.0}) {
      const double expected_ns = cost->base_ns + b * cost->sequence_ns +
                                 b * (1024 + 512) * cost->context_token_ns +
                                 (b - 1) * cost->prefill_token_ns;
      const LoopResult loop = ClosedLoop(profile, static_cast<uint32_t>(b), 1024, 1024);
      EXPECT_NEAR(loop.tpot_ms * 1e6 / expected_ns, 1, 0.015) << profile.name << " b=" << b;
    }
  }
}

}  // namespace
}  // namespace llmd::engine
