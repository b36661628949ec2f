// KvFeed: between what model servers publish about their caches and the KvIndex. It watches every
// publisher's sequence, asks for what was missed, and says how far each publisher's part of the
// index can be trusted.
//
//   KvFeed feed(options, &index);
//   auto id = feed.AddPublisher({.address = "10.0.0.7:8000", .can_replay = true}, now);
//   Perform(feed.OnMessage(*id, {topic, sequence, payload}, now));   // frames as they came
//   for (KvAction a; (a = feed.Poll(now)).type != KvAction::Type::kNone;) Perform(a);
//
// A publisher is one data-parallel rank of one endpoint, and one holder of the index: ranks behind
// one address never touch each other's blocks.
//
// Sequences. Numbers are contiguous from 0 for the life of an engine process.
//   gap         what is missing is asked for (kReplay from last + 1); live messages wait meanwhile
//   no replay   (none offered, or it no longer has the first missing message): all of this
//               publisher is cleared and it is cold; what follows is applied
//   backwards   the engine restarted: cleared, and replayed from 0. So does a changed incarnation
//               in a 24-byte sequence frame. An equal message that comes again is a duplicate.
//   late join   a publisher that can replay is asked for everything when it is added
//   reconnect   the replay begins with the last applied message, so that it can be compared:
//   another
//               one, or none, means another process
//   queue full  messages beyond the bounds are dropped and counted; the gap they leave is replayed
//   heartbeat   a live message without payload that tells the last number: shows what is missing
// A publisher whose history is known from its message 0, or from an AllBlocksCleared on, is
// complete; any other is cold.
//
// Confidence of a holder, in [0, 1]: coverage x freshness.
//   coverage   1 when complete. Cold: 1 - u, where u is the moving share (over the last 1,024) of
//              references to blocks, by parents and removals, that were to unknown blocks; u starts
//              at 1 when the publisher becomes cold, so trust is earned.
//   freshness  1 when up to date. Else 1/2 to the power of t / kFreshnessHalfLife, where t is the
//              time since messages are known to be missing or the connection is down.
// Whether predictions come true is for others to find out; they multiply.
//
// Thread safety: one ingest thread calls everything but confidence(), applied(), heard_ns() and
// holders(), which any thread may call.
// Invariants: 1. No call waits or performs I/O. 2. A malformed event or message is counted and
// stepped over. 3. What is in the index under a holder came from messages of its publisher since
// the last clear, applied in order, each once. 4. A replay's messages count only while it is the
// publisher's current one.
// Limits: KvFeedLimits; behaviour at each is written there.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/hash.h"
#include "base/snapshot.h"
#include "base/status.h"
#include "base/time.h"
#include "prefix/kv_events.h"
#include "prefix/kv_feed_apply.h"
#include "prefix/kv_index.h"
#include "prefix/token_chain.h"

namespace llmd::prefix {

// A publisher's number is its holder number in the index. Numbers of removed ones are used again.
using PublisherId = HolderId;

struct KvFeedLimits {
  // More are refused.
  uint32_t publishers = 8192;
  // Live messages that wait for one publisher's replay. An engine publishes one per step, 10 to 100
  // a second; replays take seconds.
  uint32_t held_messages = 4096;
  size_t held_bytes = 32u << 20;
  // Of all publishers together.
  size_t held_bytes_total = 256u << 20;
  // A replay that brought nothing is asked for again after `replay_backoff`, then twice that and so
  // on; the last one of this many tells that it is impossible. From then on the publisher is cold,
  // and while it has not earned trust, everything is asked for anew after each `replay_cooldown`.
  uint32_t replay_attempts = 3;
  base::Duration replay_backoff = std::chrono::milliseconds(100);
  base::Duration replay_cooldown = std::chrono::seconds(30);
};

struct KvFeedOptions {
  KvApplyOptions apply;
  KvDialect dialect = KvDialect::kVllm;
  KvFeedLimits limits;
  // Whether OnTopicMessage makes publishers for pods that nobody added.
  bool discover = true;
};

struct KvPublisherSpec {
  std::string address;  // of the endpoint: "ip:port" of its API
  uint32_t rank = 0;
  std::string model;  // for messages whose topic names none
  bool can_replay = false;
};

// The frames of one message.
struct KvMessage {
  std::string_view topic;
  std::string_view sequence;
  std::string_view payload;
};

struct KvAction {
  enum class Type : uint8_t { kNone, kReplay };
  Type type = Type::kNone;
  PublisherId publisher = 0;
  // Handed back with the replay's messages and its end, so that an abandoned one does no harm. A
  // new one takes the place of the publisher's last.
  uint32_t replay = 0;
  uint64_t from = 0;  // first message wanted
};

enum class KvReplayEnd : uint8_t {
  kComplete,  // the server's end mark came
  kFailed,    // connection, timeout
};

// Who is behind each holder number.
struct KvHolder {
  std::string address;  // empty: number not in use
  uint32_t rank = 0;
};
using KvHolders = std::vector<KvHolder>;

class KvFeed {
 public:
  static constexpr base::Duration kFreshnessHalfLife = std::chrono::seconds(10);

  // `index` outlives the feed.
  KvFeed(const KvFeedOptions& options, KvIndex* index);
  ~KvFeed();
  KvFeed(const KvFeed&) = delete;
  KvFeed& operator=(const KvFeed&) = delete;

  // ResourceExhausted at the limit; AlreadyExists for a pair of address and rank that is there.
  // Poll then gives the first replay, if there can be one.
  base::Result<PublisherId> AddPublisher(const KvPublisherSpec& spec, base::TimePoint now);
  void RemovePublisher(PublisherId publisher);
  // All ranks behind `address`.
  void RemoveEndpoint(std::string_view address);
  std::optional<PublisherId> Find(std::string_view address, uint32_t rank) const;
  // nullptr: there is none of that number.
  const KvPublisherSpec* spec(PublisherId publisher) const;
  // A publisher that was added without can_replay has it from now on; what was missed is asked for.
  void OfferReplay(PublisherId publisher);

  // For snapshots of the index: what has to be known of a publisher, beside its holder's blocks, to
  // go on after its last applied message. Nothing if that cannot be: it has not begun, or it has
  // blocks smaller than canonical ones, whose parts are not in the index.
  std::optional<std::string> Save(PublisherId publisher) const;
  // Goes on from there: right after AddPublisher, and if true, before the next message or Poll, the
  // holder's blocks have to be put back into the index. What was missed meanwhile is replayed as
  // after a reconnect; until something is heard, confidence falls as if the connection were down.
  // False for what Save did not write, or another version did.
  bool Resume(PublisherId publisher, std::string_view saved, base::TimePoint now);

  // A live message from a connection to this publisher; the topic's pod is ignored.
  KvAction OnMessage(PublisherId publisher, const KvMessage& message, base::TimePoint now);
  // A live message on a socket that many publish to: the topic names the pod, the batch the rank.
  KvAction OnTopicMessage(const KvMessage& message, base::TimePoint now);
  KvAction OnReplayMessage(PublisherId publisher, uint32_t replay, const KvMessage& message,
                           base::TimePoint now);
  KvAction OnReplayEnd(PublisherId publisher, uint32_t replay, KvReplayEnd end,
                       base::TimePoint now);
  void OnConnection(PublisherId publisher, bool up, base::TimePoint now);
  // What is due: replays of new publishers, second attempts, expiry of parked stores. Call until it
  // gives kNone, after adding publishers and every 100 ms or so; it also refreshes confidences.
  KvAction Poll(base::TimePoint now);
  // Tells KvApplyOptions::sink of everything that the publisher holds, as if it were stored now.
  void TellAgain(PublisherId publisher);

  // --- for any thread ---
  // 0 for numbers not in use.
  float confidence(HolderId holder) const;
  // Number of the last applied message plus one; 0: none.
  uint64_t applied(HolderId holder) const;
  // When the last message came, in the nanoseconds of `now`; 0: never.
  int64_t heard_ns(HolderId holder) const;
  const base::Snapshot<KvHolders>& holders() const { return holders_; }

  // --- for the ingest thread ---
  struct Stats {
    uint64_t messages = 0;            // live, of known publishers
    uint64_t bytes = 0;               // of their payloads
    uint64_t replayed = 0;            // messages applied out of replays
    uint64_t duplicates = 0;          // came again and were ignored
    uint64_t gaps = 0;                // live sequences that skipped numbers
    uint64_t restarts = 0;            // sequences that went back, incarnations that changed
    uint64_t replays = 0;             // asked for
    uint64_t replays_failed = 0;      // ended without bringing what was asked for
    uint64_t clears_cold = 0;         // publishers cleared because messages are lost for good
    uint64_t held_dropped = 0;        // live messages dropped at a limit
    uint64_t bad_frames = 0;          // sequence frames of neither size
    uint64_t unknown_publishers = 0;  // messages that belong to no publisher
    uint64_t publishers = 0;
    uint64_t cold = 0;                // publishers that are
    uint64_t replaying = 0;           // publishers that are
    uint64_t held_bytes = 0;
    KvApplyStats apply;
  };
  Stats stats() const;

  struct PublisherStats {
    uint64_t applied = 0;  // as applied()
    uint64_t messages = 0;
    uint64_t held = 0;  // messages that wait
    uint64_t parked = 0;  // stores that wait for their parent
    double unknown_share = 0;
    bool complete = false;
    bool replaying = false;
    base::Duration age{};  // since the last message; zero before the first
  };
  PublisherStats publisher_stats(PublisherId publisher, base::TimePoint now) const;
  const KvApplyOptions& apply_options() const { return options_.apply; }

 private:
  struct Publisher;
  struct Cell;
  struct NameView {
    std::string_view address;
    uint32_t rank;
    friend bool operator==(const NameView&, const NameView&) = default;
  };
  struct Name {
    std::string address;
    uint32_t rank;
    operator NameView() const { return {address, rank}; }
  };
  struct NameHash {
    using is_transparent = void;
    size_t operator()(const NameView& name) const {
      return base::Mix64(base::Hash64(name.address), name.rank);
    }
  };
  struct NameEqual {
    using is_transparent = void;
    bool operator()(const NameView& a, const NameView& b) const { return a == b; }
  };

  Publisher* Get(PublisherId publisher) const;
  KvAction OnLive(Publisher* p, const KvMessage& message, base::TimePoint now);
  KvAction OnFirst(Publisher* p, uint64_t number, const KvMessage& message, base::TimePoint now);
  KvAction OnGap(Publisher* p, uint64_t number, const KvMessage& message, base::TimePoint now);
  KvAction OnBack(Publisher* p, uint64_t number, const KvMessage& message, base::TimePoint now);
  KvAction Restart(Publisher* p, uint64_t number, const KvMessage& message, base::TimePoint now);
  KvAction StartReplay(Publisher* p, base::TimePoint now);
  KvAction OnReplayComplete(Publisher* p, base::TimePoint now);
  KvAction ReplayAnotherProcess(Publisher* p, base::TimePoint now);
  bool ApplyHeld(Publisher* p, base::TimePoint now);
  void TryAgain(Publisher* p, base::TimePoint now);
  void GiveUp(Publisher* p, base::TimePoint now);
  void Hold(Publisher* p, uint64_t number, const KvMessage& message);
  void DropHeld(Publisher* p);
  void ApplyBatch(Publisher* p, uint64_t number, const KvMessage& message, base::TimePoint now);
  void GoCold(Publisher* p, uint64_t next);
  void Refresh(Publisher* p, base::TimePoint now);
  void PublishHolders();

  KvFeedOptions options_;
  KvApplier applier_;
  KvEventReader reader_;
  std::vector<std::unique_ptr<Publisher>> publishers_;  // by number; null: free
  std::unique_ptr<Cell[]> cells_;                       // by number, read by any thread
  std::unordered_map<Name, PublisherId, NameHash, NameEqual> by_name_;
  base::Snapshot<KvHolders> holders_;
  size_t poll_next_ = 0;
  uint32_t replays_started_ = 0;
  Stats stats_;
};

}  // namespace llmd::prefix
