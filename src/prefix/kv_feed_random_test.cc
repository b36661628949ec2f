// Lost, late, doubled and reordered messages, restarts of engines and of the picker: once
// everything has been delivered and replayed, the index says what the engines' own books say.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "prefix/kv_feed_testing.h"

namespace llmd::prefix {
namespace {

struct World {
  struct Server {
    TestEngine engine;
    PublisherId id = 0;
    bool can_replay = false;
    std::vector<TestMessage> on_the_way;
  };

  World(uint64_t seed, uint32_t block_tokens, uint32_t engine_tokens)
      : random(seed), picker(TestPicker::Defaults(block_tokens)) {
    for (uint64_t i = 0; i < 12; ++i) {
      // Trees of prompts: each goes on from a part of an earlier one.
      TestEngine::Tokens prompt = TestPrompt(seed * 100 + i, 16 * (4 + random.Below(12)));
      if (i >= 3) {
        const TestEngine::Tokens& before = prompts[random.Below(i)];
        const size_t shared = std::min(random.Below(before.size()), prompt.size());
        std::copy_n(before.begin(), shared, prompt.begin());
      }
      prompts.push_back(prompt);
    }
    for (size_t i = 0; i < 3; ++i) {
      auto server = std::make_unique<Server>();
      server->engine = TestEngine({.block_tokens = engine_tokens,
                                   .replay_messages = i == 1 ? 8 : size_t{1'000'000},
                                   .form = i == 2 ? KvEventForm::kArray : KvEventForm::kMap});
      server->can_replay = i != 2;
      server->id = picker.Add("s:" + std::to_string(i), server->can_replay);
      servers.push_back(std::move(server));
    }
  }

  TestEngine* EngineOf(PublisherId id) {
    for (auto& server : servers) {
      if (server->id == id) return &server->engine;
    }
    return nullptr;
  }

  void Work(Server& server) {
    for (uint64_t n = 1 + random.Below(3); n > 0; --n) {
      const TestEngine::Tokens& prompt = prompts[random.Below(prompts.size())];
      const uint64_t what = random.Below(100);
      if (what < 45) {
        server.engine.Store(prompt, 1 + random.Below(5));
      } else if (what < 90) {
        const size_t held = server.engine.Held(prompt);
        if (held > 0)
          server.engine.Remove(prompt, held - 1 - random.Below(std::min<size_t>(held, 2)));
      } else if (what < 96) {
        const size_t held = server.engine.Held(prompt);
        const auto tokens = static_cast<ptrdiff_t>(held * server.engine.block_tokens());
        if (held > 0) server.engine.StoreTier({prompt.begin(), prompt.begin() + tokens}, "GPU");
      } else if (what < 97) {
        server.engine.ClearAll();
      }
    }
    server.on_the_way.push_back(server.engine.Step());
  }

  // Replays are answered late, in part, or not at all.
  void Answer(bool calm) {
    std::vector<KvAction> asked;
    asked.swap(picker.asked);
    for (const KvAction& action : asked) {
      TestEngine* engine = EngineOf(action.publisher);
      if (engine == nullptr) continue;
      const uint64_t how = calm ? 0 : random.Below(4);
      if (how == 3) {
        picker.asked.push_back(action);  // not yet
        continue;
      }
      std::vector<TestMessage> messages = engine->Replay(action.from);
      if (how == 2) messages.resize(random.Below(messages.size() + 1));
      const KvReplayEnd end = how == 2 ? KvReplayEnd::kFailed : KvReplayEnd::kComplete;
      picker.Perform(picker.Answer(action, messages, end), nullptr);
    }
  }

  void Deliver(Server& server) {
    if (server.on_the_way.empty()) return;
    size_t at = 0;
    if (random.Below(10) == 0) at = random.Below(server.on_the_way.size());  // overtakes
    const TestMessage message = server.on_the_way[at];
    if (random.Below(15) != 0) {  // else it comes again later
      server.on_the_way.erase(server.on_the_way.begin() + static_cast<ptrdiff_t>(at));
    }
    if (random.Below(12) == 0) return;  // lost
    picker.Deliver(server.id, message, nullptr);
  }

  void Storm() {
    for (int step = 0; step < 300; ++step) {
      picker.now += std::chrono::milliseconds(random.Below(200));
      Server& server = *servers[random.Below(servers.size())];
      if (random.Below(3) > 0) Work(server);
      if (random.Below(3) > 0) Deliver(server);
      if (random.Below(100) == 0) {  // killed
        server.engine.Restart();
        server.on_the_way.clear();
        picker.feed.OnConnection(server.id, false, picker.now);
        picker.feed.OnConnection(server.id, true, picker.now);
      }
      if (random.Below(150) == 0) {  // leaves and comes back
        picker.feed.RemovePublisher(server.id);
        server.id = picker.Add("s:" + std::to_string(step) + "'", server.can_replay);
      }
      picker.Poll(nullptr);
      Answer(false);
      CheckNoFalseResidency();
    }
  }

  // Everything comes through, and the engines go on for long enough that whatever an engine's
  // replay buffer no longer has is replaced: the one without replay is cleared.
  void Calm() {
    for (int round = 0; round < 200; ++round) {
      picker.now += std::chrono::seconds(1);
      for (auto& server : servers) {
        while (!server->on_the_way.empty()) {
          const TestMessage message = server->on_the_way.front();
          server->on_the_way.erase(server->on_the_way.begin());
          picker.Deliver(server->id, message, nullptr);
        }
        if (round < 100) {
          Work(*server);
        } else if (round == 100 && server != servers[0]) {
          server->engine.ClearAll();
          server->on_the_way.push_back(server->engine.Step());
        } else if (round < 150) {
          Work(*server);
        }
      }
      picker.Poll(nullptr);
      Answer(true);
    }
  }

  // In quiet moments of the storm: what is said to be held is held. A server without replay may be
  // another process without the picker knowing.
  void CheckNoFalseResidency() {
    for (auto& server : servers) {
      const auto stats = picker.feed.publisher_stats(server->id, picker.now);
      if (!server->can_replay || stats.replaying || stats.applied != server->engine.next())
        continue;
      for (const auto& prompt : prompts) {
        ASSERT_LE(Held(*server, prompt), Expected(*server, prompt));
      }
    }
  }

  // Whole blocks of the engine: of a larger one it shares only all of it, while the index may know
  // its first canonical blocks from another prompt.
  uint32_t Held(const Server& server, const TestEngine::Tokens& prompt) {
    const uint32_t per_block =
        std::max(1u, server.engine.block_tokens() / picker.options.apply.block_tokens);
    return picker.Held(server.id, prompt) / per_block * per_block;
  }

  uint32_t Expected(const Server& server, const TestEngine::Tokens& prompt) const {
    return static_cast<uint32_t>(server.engine.Held(prompt) * server.engine.block_tokens() /
                                 picker.options.apply.block_tokens);
  }

  base::Random random;
  std::vector<TestEngine::Tokens> prompts;
  TestPicker picker;
  std::vector<std::unique_ptr<Server>> servers;
};

struct Sizes {
  uint32_t canonical;
  uint32_t engine;
};

class Convergence : public testing::TestWithParam<Sizes> {};
INSTANTIATE_TEST_SUITE_P(KvFeed, Convergence,
                         testing::Values(Sizes{16, 16}, Sizes{16, 64}, Sizes{64, 16}, Sizes{16, 4}),
                         [](const auto& info) {
                           return std::to_string(info.param.canonical) + "of" +
                                  std::to_string(info.param.engine);
                         });

TEST_P(Convergence, AfterAnyStorm) {
  uint64_t replays = 0, restarts = 0, cleared = 0, held_prompts = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    World world(seed, GetParam().canonical, GetParam().engine);
    world.Storm();
    if (HasFatalFailure()) return;
    world.Calm();
    for (auto& server : world.servers) {
      EXPECT_EQ(world.picker.feed.applied(server->id), server->engine.next());
      EXPECT_EQ(world.picker.feed.confidence(server->id), 1);
      for (const auto& prompt : world.prompts) {
        const uint32_t expected = world.Expected(*server, prompt);
        ASSERT_EQ(world.Held(*server, prompt), expected);
        held_prompts += expected > 0;
      }
    }
    EXPECT_TRUE(world.picker.index.CheckForTest());
    const KvFeed::Stats stats = world.picker.feed.stats();
    EXPECT_EQ(stats.held_bytes, 0u);
    EXPECT_EQ(stats.apply.malformed, 0u);
    replays += stats.replays;
    restarts += stats.restarts;
    cleared += stats.clears_cold;
  }
  // The storms reached what they are meant to reach.
  EXPECT_GT(replays, 150u);
  EXPECT_GT(restarts, 15u);
  EXPECT_GT(cleared, 60u);
  EXPECT_GT(held_prompts, 150u);
}

}  // namespace
}  // namespace llmd::prefix
