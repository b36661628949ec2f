#include "prefix/kv_feed_testing.h"

#include <algorithm>

#include "base/hash.h"

namespace llmd::prefix {

EngineKey TestEngine::HashOf(const Tokens& prompt, size_t index) const {
  EngineKey hash = life_ + 1;
  for (size_t i = 0; i < (index + 1) * options_.block_tokens; ++i)
    hash = base::Mix64(hash, prompt[i]);
  return hash;
}

void TestEngine::Store(const Tokens& prompt, size_t blocks_max) {
  const size_t count = prompt.size() / options_.block_tokens;
  size_t first = 0;
  while (first < count && blocks_.contains(HashOf(prompt, first))) ++first;
  while (first < count) {
    const size_t n = std::min(blocks_max, count - first);
    std::vector<KvWireHash> hashes;
    for (size_t i = first; i < first + n; ++i) {
      hashes.push_back({.value = HashOf(prompt, i)});
      ++blocks_[hashes.back().value];
    }
    std::optional<KvWireHash> parent;
    if (first > 0) parent = KvWireHash{.value = HashOf(prompt, first - 1)};
    writer_.Stored({.hashes = hashes,
                    .parent = parent,
                    .tokens = std::span(prompt).subspan(first * options_.block_tokens,
                                                        n * options_.block_tokens),
                    .block_size = options_.block_tokens,
                    .medium = options_.medium});
    first += n;
  }
}

void TestEngine::Remove(const Tokens& prompt, size_t index) {
  const KvWireHash hash{.value = HashOf(prompt, index)};
  const auto it = blocks_.find(hash.value);
  if (it == blocks_.end()) return;
  if (--it->second == 0) blocks_.erase(it);
  writer_.Removed({&hash, 1}, options_.medium, std::nullopt);
}

void TestEngine::ClearAll() {
  blocks_.clear();
  writer_.Cleared();
}

void TestEngine::StoreTier(const Tokens& prompt, const std::string& medium) {
  std::vector<KvWireHash> hashes;
  for (size_t i = 0; i < prompt.size() / options_.block_tokens; ++i) {
    hashes.push_back({.value = HashOf(prompt, i)});
    if (medium == options_.medium) ++blocks_[hashes.back().value];
  }
  writer_.Stored({.hashes = hashes, .medium = medium, .has_extra_keys = false});
}

TestMessage TestEngine::Step() {
  const double timestamp = static_cast<double>(life_) * 1e6 + static_cast<double>(next_);
  TestMessage message{next_++, writer_.Finish(timestamp, options_.rank)};
  sent_.push_back(message);
  if (sent_.size() > options_.replay_messages) sent_.pop_front();
  return message;
}

void TestEngine::Restart() {
  writer_ = KvEventWriter(options_.form);
  blocks_.clear();
  sent_.clear();
  next_ = 0;
  ++life_;
}

std::vector<TestMessage> TestEngine::Replay(uint64_t from) const {
  std::vector<TestMessage> out;
  for (const TestMessage& message : sent_) {
    if (message.number >= from) out.push_back(message);
  }
  return out;
}

size_t TestEngine::Held(const Tokens& prompt) const {
  size_t held = 0;
  while (held < prompt.size() / options_.block_tokens && blocks_.contains(HashOf(prompt, held))) {
    ++held;
  }
  return held;
}

KvFeedOptions TestPicker::Defaults(uint32_t block_tokens) {
  KvFeedOptions options;
  options.apply.chain = std::make_shared<const TokenChain>(ChainKind::kOwn, "seed");
  options.apply.block_tokens = block_tokens;
  return options;
}

TestPicker::TestPicker(KvFeedOptions with)
    : options(std::move(with)), feed(options, &index), reader_(index) {}

PublisherId TestPicker::Add(std::string address, bool can_replay, uint32_t rank) {
  const auto id = feed.AddPublisher(
      {.address = std::move(address), .rank = rank, .model = "m", .can_replay = can_replay}, now);
  return id ? *id : PublisherId{9999};
}

KvAction TestPicker::Deliver(PublisherId publisher, const TestMessage& message,
                             const TestEngine* engine) {
  const std::string sequence = SequenceFrame(message.number);
  const KvAction action = feed.OnMessage(
      publisher, {.topic = "kv@pod@m", .sequence = sequence, .payload = message.payload}, now);
  Perform(action, engine);
  return action;
}

void TestPicker::Perform(KvAction action, const TestEngine* engine) {
  while (action.type == KvAction::Type::kReplay) {
    if (engine == nullptr) {
      asked.push_back(action);
      return;
    }
    action = Answer(action, engine->Replay(action.from), KvReplayEnd::kComplete);
  }
}

KvAction TestPicker::Answer(const KvAction& action, const std::vector<TestMessage>& messages,
                            KvReplayEnd end) {
  for (const TestMessage& message : messages) {
    const std::string sequence = SequenceFrame(message.number);
    const KvAction another = feed.OnReplayMessage(
        action.publisher, action.replay,
        {.topic = "kv@pod@m", .sequence = sequence, .payload = message.payload}, now);
    if (another.type != KvAction::Type::kNone) return another;
  }
  return feed.OnReplayEnd(action.publisher, action.replay, end, now);
}

void TestPicker::Poll(const TestEngine* engine) {
  for (KvAction action; (action = feed.Poll(now)).type != KvAction::Type::kNone;) {
    Perform(action, engine);
  }
}

uint32_t TestPicker::Held(HolderId holder, const TestEngine::Tokens& prompt,
                          const std::vector<BlockExtra>& extras, std::string_view model) {
  const TokenChain& chain = *options.apply.chain;
  std::vector<BlockKey> keys(prompt.size() / options.apply.block_tokens);
  chain.Extend(chain.Root(model), prompt, options.apply.block_tokens, extras, keys);
  std::vector<uint32_t> blocks(holder + size_t{1});
  weights_.assign(holder + size_t{1}, 0);
  reader_.Match(keys, options.apply.tiers.weights(), now, blocks, weights_);
  return blocks[holder];
}

float TestPicker::Weight(HolderId holder, const TestEngine::Tokens& prompt) {
  Held(holder, prompt);
  return weights_[holder];
}

TestEngine::Tokens TestPrompt(uint64_t seed, size_t count) {
  base::Random random(seed * 1000003 + 7);
  TestEngine::Tokens tokens(count);
  for (uint32_t& token : tokens) token = static_cast<uint32_t>(random.Below(100'000));
  return tokens;
}

std::string SequenceFrame(uint64_t number, std::string_view incarnation) {
  std::string frame;
  AppendKvSequence(number, &frame);
  frame.append(incarnation);
  return frame;
}

}  // namespace llmd::prefix
