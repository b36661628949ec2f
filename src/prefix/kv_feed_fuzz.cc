// Any messages, live and replayed, with any numbers: nothing fails, books balance, the index stays
// whole, and nothing is left of a removed publisher. Input: per message a byte for what happens,
// one for the number's change, one for the payload's length, and the payload; length 0 takes a
// stored batch that is well-formed.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "prefix/kv_feed.h"

namespace {

using namespace llmd;
using namespace llmd::prefix;

std::string Batch(uint8_t shape) {
  KvEventWriter writer(shape & 1 ? KvEventForm::kMap : KvEventForm::kArray);
  const uint32_t size = shape & 2 ? 8 : shape & 4 ? 32 : 16;
  std::vector<uint32_t> tokens(2 * size, shape);
  std::vector<KvWireHash> hashes = {{.value = 1u + shape % 7}, {.value = 2u + shape % 7}};
  std::optional<KvWireHash> parent;
  if (shape & 8) parent = KvWireHash{.value = 1u + shape % 5};
  writer.Stored({.hashes = hashes, .parent = parent, .tokens = tokens, .block_size = size});
  if (shape & 16) writer.Removed(hashes, "GPU", std::nullopt);
  if (shape & 32) writer.Stored({.hashes = hashes, .medium = "CPU"});
  if (shape & 64) writer.Cleared();
  return writer.Finish(shape, std::nullopt);
}

KvFeedOptions Options() {
  KvFeedOptions options;
  options.apply.chain = std::make_shared<const TokenChain>(ChainKind::kOwn, "seed");
  options.apply.limits.parked = {.stores = 8, .bytes = 4096};
  options.apply.limits.parts = 16;
  options.limits.held_messages = 4;
  return options;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static KvIndex index({.bytes_max = KvIndex::kBytesMaxSmallest});
  static KvFeed feed(Options(), &index);
  base::TimePoint now = base::TimePoint() + std::chrono::seconds(1);
  const PublisherId id = *feed.AddPublisher({.address = "a", .can_replay = size % 2 == 0}, now);
  KvAction action;
  uint64_t number = 0;
  std::string_view left(reinterpret_cast<const char*>(data), size);
  while (left.size() >= 3) {
    const auto what = static_cast<uint8_t>(left[0]);
    number += static_cast<uint64_t>(static_cast<int8_t>(left[1]));
    const size_t length = std::min<size_t>(static_cast<uint8_t>(left[2]), left.size() - 3);
    const std::string payload = length == 0 ? Batch(what) : std::string(left.substr(3, length));
    left.remove_prefix(3 + length);
    std::string sequence;
    AppendKvSequence(number, &sequence);
    if (what & 128) sequence.append(16, static_cast<char>(what));
    const KvMessage message{.topic = "kv@a@m", .sequence = sequence, .payload = payload};
    KvAction next;
    switch (what % 8) {
      case 0: next = feed.OnReplayMessage(id, action.replay, message, now); break;
      case 1: next = feed.OnReplayEnd(id, action.replay, KvReplayEnd::kComplete, now); break;
      case 2: next = feed.OnReplayEnd(id, action.replay, KvReplayEnd::kFailed, now); break;
      case 3:
        now += std::chrono::seconds(what);
        next = feed.Poll(now);
        break;
      case 4: feed.OnConnection(id, (what & 16) != 0, now); break;
      default: next = feed.OnMessage(id, message, now);
    }
    if (next.type == KvAction::Type::kReplay) action = next;
    LLMD_CHECK(feed.confidence(id) >= 0 && feed.confidence(id) <= 1, "confidence out of range");
  }
  feed.RemovePublisher(id);
  const KvFeed::Stats stats = feed.stats();
  LLMD_CHECK(stats.held_bytes == 0 && stats.publishers == 0, "messages wait for nobody");
  LLMD_CHECK(stats.apply.parked_now == 0 && stats.apply.parked_bytes == 0, "stores are parked");
  LLMD_CHECK(stats.apply.parts_now == 0, "parts are left");
  LLMD_CHECK(index.blocks(id) == 0 && index.CheckForTest(), "the index is not whole");
  return 0;
}
