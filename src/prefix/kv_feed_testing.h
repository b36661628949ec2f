// What the tests of the KV feed share: an engine that keeps blocks and publishes what it does, and
// a picker's side that has a feed, an index, and performs replays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/random.h"
#include "base/time.h"
#include "prefix/kv_events.h"
#include "prefix/kv_feed.h"
#include "prefix/kv_index.h"
#include "prefix/token_chain.h"

namespace llmd::prefix {

inline base::TimePoint At(double seconds) {
  return base::TimePoint() + base::FromSeconds(1000 + seconds);
}

struct TestMessage {
  uint64_t number = 0;
  std::string payload;
};

// A server with a prefix cache of blocks, obviously right: a map from engine hash to what is there.
// Prompts are lists of tokens; a block's hash covers all tokens up to its end.
class TestEngine {
 public:
  struct Options {
    uint32_t block_tokens = 16;
    size_t replay_messages = 1'000'000;  // of the replay buffer
    KvEventForm form = KvEventForm::kMap;
    std::string medium = "GPU";
    uint32_t rank = 0;
  };
  explicit TestEngine(Options options) : options_(std::move(options)) {}
  TestEngine() : TestEngine(Options{}) {}

  using Tokens = std::vector<uint32_t>;

  // Stores the full blocks of `prompt` that are not there, in events of up to `blocks_max` blocks.
  void Store(const Tokens& prompt, size_t blocks_max = 1000);
  // The `index`th block of `prompt` goes.
  void Remove(const Tokens& prompt, size_t index);
  void ClearAll();
  // Known blocks of the prompt are in `medium` as well, or again in their first one.
  void StoreTier(const Tokens& prompt, const std::string& medium);
  // Ends a step: what was done since the last one is published in one message.
  TestMessage Step();
  // Another process: empty cache, numbers from 0, other hashes.
  void Restart();

  // The replay server's answer.
  std::vector<TestMessage> Replay(uint64_t from) const;
  // Blocks from the start of `prompt` that are there without a gap.
  size_t Held(const Tokens& prompt) const;
  size_t blocks() const { return blocks_.size(); }
  uint64_t next() const { return next_; }
  uint32_t block_tokens() const { return options_.block_tokens; }
  KvEventWriter& writer() { return writer_; }

  EngineKey HashOf(const Tokens& prompt, size_t index) const;

 private:
  Options options_;
  KvEventWriter writer_{options_.form};
  std::map<EngineKey, int> blocks_;  // references
  uint64_t next_ = 0;
  uint64_t life_ = 0;
  std::deque<TestMessage> sent_;
};

// Feed and index under test.
class TestPicker {
 public:
  static KvFeedOptions Defaults(uint32_t block_tokens = 16);
  explicit TestPicker(KvFeedOptions options);
  TestPicker() : TestPicker(Defaults()) {}

  PublisherId Add(std::string address, bool can_replay, uint32_t rank = 0);
  // Delivers a live message; a replay that is asked for is performed with `engine` at once if there
  // is one, else kept in asked().
  KvAction Deliver(PublisherId publisher, const TestMessage& message, const TestEngine* engine);
  void Perform(KvAction action, const TestEngine* engine);
  // Hands over a replay's messages and its end; gives what is asked for instead or afterwards.
  KvAction Answer(const KvAction& action, const std::vector<TestMessage>& messages,
                  KvReplayEnd end);
  void Poll(const TestEngine* engine);

  // What the index says that `holder` can use of the prompt.
  uint32_t Held(HolderId holder, const TestEngine::Tokens& prompt,
                const std::vector<BlockExtra>& extras = {}, std::string_view model = "m");
  float Weight(HolderId holder, const TestEngine::Tokens& prompt);

  base::TimePoint now = At(0);
  std::vector<KvAction> asked;
  KvFeedOptions options;
  KvIndex index;
  KvFeed feed;

 private:
  KvIndex::Reader reader_;
  std::vector<float> weights_;  // of the last match
};

// `count` tokens that no other seed gives.
TestEngine::Tokens TestPrompt(uint64_t seed, size_t count);
std::string SequenceFrame(uint64_t number, std::string_view incarnation = {});

}  // namespace llmd::prefix
