#include "prefix/kv_feed.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <deque>
#include <optional>

#include "base/check.h"
#include "base/hash.h"

namespace llmd::prefix {
namespace {

// How far back a message that comes again is recognised.
constexpr size_t kRecent = 64;
constexpr uint64_t kSavedVersion = 1;
// References over which the share of unknown blocks is averaged.
constexpr double kShareWindow = 1024;

// Tells messages of one number apart: a batch begins with its time.
uint64_t Fingerprint(std::string_view payload) {
  return base::Mix64(base::Hash64(payload.substr(0, 24)), payload.size()) | 1;
}

}  // namespace

struct KvFeed::Cell {
  std::atomic<float> confidence{0};
  std::atomic<uint64_t> applied{0};
  std::atomic<int64_t> heard_ns{0};
};

struct KvFeed::Publisher {
  struct Held {
    uint64_t number;
    std::string topic;
    std::string payload;
    size_t bytes() const { return topic.size() + payload.size(); }
  };
  // kWaiting: for the next attempt at a replay.
  enum class Phase : uint8_t { kLive, kReplaying, kWaiting };

  explicit Publisher(PublisherId number) : id(number), state(number) {}

  bool is_behind() const {
    return phase != Phase::kLive || !is_connected || is_unconfirmed ||
           (wants_replay && has_started);
  }
  const PublisherId id;
  KvPublisherSpec spec;
  KvHolderState state;

  uint64_t next = 0;         // number that comes next
  bool has_started = false;  // something was applied since the last restart
  bool is_complete = false;
  double unknown_share = 1;
  std::string incarnation;
  std::array<uint64_t, kRecent> recent{};  // fingerprints by number, 0: unknown
  double timestamp = 0;                    // of the last applied batch

  Phase phase = Phase::kLive;
  bool wants_replay = false;  // asked for by the next message or Poll
  bool is_verifying = false;  // the current replay begins with the last applied message, to compare
  bool has_failed = false;    // the last one was given up
  bool has_brought = false;   // the current replay did
  bool is_anew = false;       // the current replay is of everything, on top of what is there
  uint32_t replay = 0;
  uint32_t attempts = 0;
  base::TimePoint due;  // of the next attempt, or of asking anew after giving up
  std::deque<Held> held;
  size_t held_bytes = 0;

  bool is_connected = true;
  bool is_unconfirmed = false;  // resumed or reconnected, and nothing was heard since
  base::TimePoint behind_since;
  base::TimePoint heard;
  uint64_t messages = 0;
};

KvFeed::KvFeed(const KvFeedOptions& options, KvIndex* index)
    : options_(options),
      applier_(options.apply, index),
      reader_(options.dialect),
      cells_(std::make_unique<Cell[]>(KvIndex::kHoldersMax)) {
  options_.limits.publishers = std::min(options_.limits.publishers, KvIndex::kHoldersMax);
  holders_.Publish(std::make_shared<const KvHolders>());
}

KvFeed::~KvFeed() = default;

KvFeed::Publisher* KvFeed::Get(PublisherId publisher) const {
  return publisher < publishers_.size() ? publishers_[publisher].get() : nullptr;
}

// --- publishers ----------------------------------------------------------------------------------

std::optional<PublisherId> KvFeed::Find(std::string_view address, uint32_t rank) const {
  const auto it = by_name_.find(NameView{address, rank});
  return it == by_name_.end() ? std::nullopt : std::optional(it->second);
}

const KvPublisherSpec* KvFeed::spec(PublisherId publisher) const {
  const Publisher* p = Get(publisher);
  return p == nullptr ? nullptr : &p->spec;
}

void KvFeed::OfferReplay(PublisherId publisher) {
  Publisher* p = Get(publisher);
  if (p == nullptr || p->spec.can_replay) return;
  p->spec.can_replay = true;
  p->wants_replay = true;
}

base::Result<PublisherId> KvFeed::AddPublisher(const KvPublisherSpec& spec, base::TimePoint now) {
  if (Find(spec.address, spec.rank)) {
    return std::unexpected(base::Status(base::StatusCode::kAlreadyExists,
                                        "KV events of " + spec.address + " rank " +
                                            std::to_string(spec.rank) + " are fed already"));
  }
  size_t slot = 0;
  while (slot < publishers_.size() && publishers_[slot]) ++slot;
  if (slot >= options_.limits.publishers) {
    return std::unexpected(base::ResourceExhausted("too many publishers of KV events"));
  }
  if (slot == publishers_.size()) publishers_.emplace_back();
  const auto id = static_cast<PublisherId>(slot);
  auto p = std::make_unique<Publisher>(id);
  p->spec = spec;
  p->wants_replay = spec.can_replay;
  p->behind_since = now;
  p->due = now;
  by_name_.emplace(Name{spec.address, spec.rank}, id);
  publishers_[slot] = std::move(p);
  ++stats_.publishers;
  Refresh(publishers_[slot].get(), now);
  PublishHolders();
  return id;
}

void KvFeed::RemovePublisher(PublisherId publisher) {
  Publisher* p = Get(publisher);
  if (p == nullptr) return;
  applier_.Forget(&p->state);
  DropHeld(p);
  by_name_.erase(by_name_.find(NameView{p->spec.address, p->spec.rank}));
  publishers_[publisher].reset();
  cells_[publisher].confidence.store(0, std::memory_order_relaxed);
  cells_[publisher].applied.store(0, std::memory_order_relaxed);
  cells_[publisher].heard_ns.store(0, std::memory_order_relaxed);
  --stats_.publishers;
  PublishHolders();
}

void KvFeed::RemoveEndpoint(std::string_view address) {
  for (size_t i = 0; i < publishers_.size(); ++i) {
    if (publishers_[i] && publishers_[i]->spec.address == address) {
      RemovePublisher(static_cast<PublisherId>(i));
    }
  }
}

void KvFeed::TellAgain(PublisherId publisher) {
  if (const Publisher* p = Get(publisher)) applier_.TellAgain(p->state);
}

void KvFeed::PublishHolders() {
  auto holders = std::make_shared<KvHolders>(publishers_.size());
  for (size_t i = 0; i < publishers_.size(); ++i) {
    if (publishers_[i]) (*holders)[i] = {publishers_[i]->spec.address, publishers_[i]->spec.rank};
  }
  holders_.Publish(std::move(holders));
}

void KvFeed::OnConnection(PublisherId publisher, bool up, base::TimePoint now) {
  Publisher* p = Get(publisher);
  if (p == nullptr || p->is_connected == up) return;
  if (!up && !p->is_behind()) p->behind_since = now;
  p->is_connected = up;
  // What was published meanwhile is lost to the subscription, an idle engine would not tell, and it
  // may be another process by now: what waits, and a replay under way, may mix the two.
  if (up && p->spec.can_replay) {
    DropHeld(p);
    p->phase = Publisher::Phase::kLive;
    p->wants_replay = true;
  }
  Refresh(p, now);
}

// [version, next, complete, unknown share, time, fingerprint of the last message, incarnation,
// state of the applier]
std::optional<std::string> KvFeed::Save(PublisherId publisher) const {
  const Publisher* p = Get(publisher);
  if (p == nullptr || !p->has_started) return std::nullopt;
  wire::MsgpackWriter out;
  out.Array(8);
  out.Uint(kSavedVersion);
  out.Uint(p->next);
  out.Bool(p->is_complete);
  out.Float(p->unknown_share);
  out.Float(p->timestamp);
  out.Uint(p->recent[(p->next - 1) % kRecent]);
  out.Binary(p->incarnation);
  if (!p->state.Save(&out)) return std::nullopt;
  return out.Take();
}

bool KvFeed::Resume(PublisherId publisher, std::string_view saved, base::TimePoint now) {
  Publisher* p = Get(publisher);
  if (p == nullptr || p->messages > 0 || p->phase != Publisher::Phase::kLive) return false;
  wire::MsgpackReader in(saved);
  uint32_t fields;
  uint64_t version, next, fingerprint;
  bool is_complete;
  double unknown_share, timestamp;
  std::string_view incarnation;
  if (!in.ReadArray(&fields) || fields != 8 || !in.ReadUint(&version) || version != kSavedVersion ||
      !in.ReadUint(&next) || next == 0 || !in.ReadBool(&is_complete) ||
      !in.ReadNumber(&unknown_share) || !(unknown_share >= 0 && unknown_share <= 1) ||
      !in.ReadNumber(&timestamp) || !in.ReadUint(&fingerprint) || !in.ReadBinary(&incarnation) ||
      !applier_.Resume(&p->state, &in)) {
    return false;
  }
  p->has_started = true;
  p->next = next;
  p->is_complete = is_complete;
  p->unknown_share = unknown_share;
  p->timestamp = timestamp;
  p->recent[(next - 1) % kRecent] = fingerprint;
  p->incarnation = incarnation;
  p->is_unconfirmed = true;
  p->behind_since = now;
  cells_[publisher].applied.store(next, std::memory_order_relaxed);
  Refresh(p, now);
  return true;
}

// --- live messages -------------------------------------------------------------------------------

KvAction KvFeed::OnMessage(PublisherId publisher, const KvMessage& message, base::TimePoint now) {
  Publisher* p = Get(publisher);
  if (p == nullptr) {
    ++stats_.unknown_publishers;
    return {};
  }
  return OnLive(p, message, now);
}

KvAction KvFeed::OnTopicMessage(const KvMessage& message, base::TimePoint now) {
  const KvTopic topic = ParseKvTopic(message.topic);
  reader_.Begin(message.payload);
  const uint32_t rank = reader_.rank().value_or(0);
  std::optional<PublisherId> id = Find(topic.pod, rank);
  if (!id && options_.discover && !topic.pod.empty()) {
    const auto added = AddPublisher({.address = std::string(topic.pod), .rank = rank}, now);
    if (added) id = *added;
  }
  if (!id) {
    ++stats_.unknown_publishers;
    return {};
  }
  return OnLive(Get(*id), message, now);
}

KvAction KvFeed::OnLive(Publisher* p, const KvMessage& message, base::TimePoint now) {
  const std::optional<KvSequence> sequence = ParseKvSequence(message.sequence);
  if (!sequence || sequence->is_end()) {
    ++stats_.bad_frames;
    return {};
  }
  ++stats_.messages;
  ++p->messages;
  stats_.bytes += message.payload.size();
  p->heard = now;
  cells_[p->id].heard_ns.store(now.time_since_epoch().count(), std::memory_order_relaxed);
  const uint64_t number = sequence->number;
  if (sequence->incarnation != p->incarnation) {
    const bool is_new = !p->incarnation.empty() && !sequence->incarnation.empty();
    p->incarnation = sequence->incarnation;
    if (is_new) return Restart(p, number, message, now);
  }
  // A heartbeat's number is the last one published.
  const uint64_t published = number + (message.payload.empty() ? 1 : 0);
  if (p->phase != Publisher::Phase::kLive) {
    if (number < p->next && published < p->next) return OnBack(p, number, message, now);
    if (!message.payload.empty()) Hold(p, number, message);
    return {};
  }
  if (p->wants_replay) {
    if (!message.payload.empty()) Hold(p, number, message);
    return StartReplay(p, now);
  }
  if (!p->has_started) return OnFirst(p, number, message, now);
  if (published < p->next) return OnBack(p, number, message, now);
  if (published > p->next) return OnGap(p, number, message, now);
  if (!message.payload.empty()) ApplyBatch(p, number, message, now);
  return {};
}

// The first message since the publisher was added or restarted.
KvAction KvFeed::OnFirst(Publisher* p, uint64_t number, const KvMessage& message,
                         base::TimePoint now) {
  if (number != 0 || message.payload.empty()) return OnGap(p, number, message, now);
  ApplyBatch(p, number, message, now);
  return {};
}

KvAction KvFeed::OnGap(Publisher* p, uint64_t number, const KvMessage& message,
                       base::TimePoint now) {
  if (p->has_started) ++stats_.gaps;
  const bool is_heartbeat = message.payload.empty();
  if (p->spec.can_replay && !(p->has_failed && now < p->due)) {
    if (!is_heartbeat) Hold(p, number, message);
    return StartReplay(p, now);
  }
  GoCold(p, is_heartbeat ? number + 1 : number);
  if (!is_heartbeat) ApplyBatch(p, number, message, now);
  Refresh(p, now);
  return {};
}

// A number that was there before: the same message once more, or another process that counts from
// 0.
KvAction KvFeed::OnBack(Publisher* p, uint64_t number, const KvMessage& message,
                        base::TimePoint now) {
  const uint64_t known = p->next - number <= kRecent ? p->recent[number % kRecent] : 0;
  bool is_duplicate = known == Fingerprint(message.payload);
  if (known == 0) {
    // Too long ago to remember, as when a replay ran ahead of a long queue. A new process publishes
    // later than the old one did.
    reader_.Begin(message.payload);
    is_duplicate = p->has_started && reader_.timestamp() != 0 &&
                   reader_.timestamp() <= p->timestamp;
  }
  if (!is_duplicate) return Restart(p, number, message, now);
  ++stats_.duplicates;
  return {};
}

// Another process publishes now: nothing of the old one is left.
KvAction KvFeed::Restart(Publisher* p, uint64_t number, const KvMessage& message,
                         base::TimePoint now) {
  ++stats_.restarts;
  DropHeld(p);
  GoCold(p, 0);
  p->has_started = false;
  p->has_failed = false;
  p->attempts = 0;
  p->wants_replay = false;
  p->phase = Publisher::Phase::kLive;
  return OnFirst(p, number, message, now);
}

void KvFeed::ApplyBatch(Publisher* p, uint64_t number, const KvMessage& message,
                        base::TimePoint now) {
  const std::string_view topic_model = ParseKvTopic(message.topic).model;
  const std::string_view model = topic_model.empty() ? p->spec.model : topic_model;
  // Message 0 on top of nothing: all of the history.
  if (number == 0) p->is_complete = true;
  reader_.Begin(message.payload);
  for (KvEventType type; (type = reader_.Next()) != KvEventType::kEnd;) {
    applier_.Apply(&p->state, type, reader_.event(), model, now);
    if (type == KvEventType::kCleared) p->is_complete = true;
  }
  applier_.Flush();
  applier_.CountMalformed(reader_.malformed());
  const KvHolderState::References references = p->state.TakeReferences();
  if (const double n = references.known + references.unknown; n > 0) {
    p->unknown_share +=
        (references.unknown / n - p->unknown_share) * std::min(1.0, n / kShareWindow);
  }
  p->has_started = true;
  p->is_unconfirmed = false;
  p->next = number + 1;
  p->timestamp = reader_.timestamp();
  p->recent[number % kRecent] = Fingerprint(message.payload);
  cells_[p->id].applied.store(p->next, std::memory_order_relaxed);
  Refresh(p, now);
}

// Messages are lost for good: what is left of the publisher would be a guess.
void KvFeed::GoCold(Publisher* p, uint64_t next) {
  if (p->has_started) ++stats_.clears_cold;
  applier_.Forget(&p->state);
  p->is_complete = false;
  p->is_unconfirmed = false;
  p->unknown_share = 1;
  p->next = next;
  p->has_started = next > 0;
  p->recent.fill(0);
}

// --- replays -------------------------------------------------------------------------------------

KvAction KvFeed::StartReplay(Publisher* p, base::TimePoint now) {
  if (!p->is_behind()) p->behind_since = now;
  p->phase = Publisher::Phase::kReplaying;
  p->is_verifying = p->wants_replay && p->has_started;
  p->wants_replay = false;
  p->has_brought = false;
  p->is_anew = false;
  p->replay = ++replays_started_;
  ++stats_.replays;
  Refresh(p, now);
  return {KvAction::Type::kReplay, p->id, p->replay, p->next - (p->is_verifying ? 1 : 0)};
}

KvAction KvFeed::OnReplayMessage(PublisherId publisher, uint32_t replay, const KvMessage& message,
                                 base::TimePoint now) {
  Publisher* p = Get(publisher);
  if (p == nullptr || p->phase != Publisher::Phase::kReplaying || p->replay != replay) return {};
  const std::optional<KvSequence> sequence = ParseKvSequence(message.sequence);
  if (!sequence) {
    ++stats_.bad_frames;
    return {};
  }
  // vLLM ends a replay with number -1, SGLang with an empty payload only.
  if (sequence->is_end() || message.payload.empty()) {
    return OnReplayEnd(publisher, replay, KvReplayEnd::kComplete, now);
  }
  const uint64_t number = sequence->number;
  if (p->is_anew) {
    GoCold(p, 0);
    p->is_anew = false;
  }
  if (p->is_verifying && number + 1 >= p->next) {
    p->is_verifying = false;
    if (number >= p->next || p->recent[number % kRecent] != Fingerprint(message.payload)) {
      return ReplayAnotherProcess(p, now);
    }
  }
  if (number < p->next) {
    ++stats_.duplicates;
    return {};
  }
  // It begins, or goes on, behind what was wanted: the server no longer has that.
  if (number > p->next) GoCold(p, number);
  ApplyBatch(p, number, message, now);
  p->has_brought = true;
  ++stats_.replayed;
  return {};
}

KvAction KvFeed::OnReplayEnd(PublisherId publisher, uint32_t replay, KvReplayEnd end,
                             base::TimePoint now) {
  Publisher* p = Get(publisher);
  if (p == nullptr || p->phase != Publisher::Phase::kReplaying || p->replay != replay) return {};
  if (p->has_brought) p->attempts = 0;
  if (end == KvReplayEnd::kFailed) {
    ++stats_.replays_failed;
    p->wants_replay = p->is_verifying;
    TryAgain(p, now);
    return {};
  }
  // The last message applied is not there.
  if (p->is_verifying) return ReplayAnotherProcess(p, now);
  return OnReplayComplete(p, now);
}

KvAction KvFeed::ReplayAnotherProcess(Publisher* p, base::TimePoint now) {
  ++stats_.restarts;
  DropHeld(p);
  GoCold(p, 0);
  return StartReplay(p, now);
}

// Applies what waited, as far as it goes on from what is applied; true if anything did.
bool KvFeed::ApplyHeld(Publisher* p, base::TimePoint now) {
  std::sort(p->held.begin(), p->held.end(),
            [](const auto& a, const auto& b) { return a.number < b.number; });
  bool has_progress = false;
  while (!p->held.empty() && p->held.front().number <= p->next) {
    const Publisher::Held held = std::move(p->held.front());
    p->held.pop_front();
    p->held_bytes -= held.bytes();
    stats_.held_bytes -= held.bytes();
    if (held.number < p->next) {
      ++stats_.duplicates;
      continue;
    }
    ApplyBatch(p, held.number, {.topic = held.topic, .payload = held.payload}, now);
    has_progress = true;
  }
  return has_progress;
}

KvAction KvFeed::OnReplayComplete(Publisher* p, base::TimePoint now) {
  p->is_unconfirmed = false;
  // Asked for everything, and there was nothing.
  if (!p->has_started && !p->has_brought && p->held.empty()) p->is_complete = true;
  const bool has_progress = ApplyHeld(p, now) || p->has_brought;
  if (p->held.empty()) {
    p->phase = Publisher::Phase::kLive;
    p->attempts = 0;
    p->has_failed = false;
    Refresh(p, now);
    return {};
  }
  if (has_progress) return StartReplay(p, now);
  ++stats_.replays_failed;
  TryAgain(p, now);
  return {};
}

void KvFeed::TryAgain(Publisher* p, base::TimePoint now) {
  if (++p->attempts >= options_.limits.replay_attempts) return GiveUp(p, now);
  p->phase = Publisher::Phase::kWaiting;
  p->due = now + options_.limits.replay_backoff * (1 << std::min(p->attempts - 1, 10u));
}

// The replay is impossible. What waited is the newest there is: it goes on from there.
void KvFeed::GiveUp(Publisher* p, base::TimePoint now) {
  p->phase = Publisher::Phase::kLive;
  p->has_failed = true;
  p->attempts = 0;
  p->due = now + options_.limits.replay_cooldown;
  // Nobody could say whether it still is the same process; the next message will tell.
  if (p->wants_replay) p->is_unconfirmed = true;
  p->wants_replay = false;
  while (ApplyHeld(p, now), !p->held.empty()) GoCold(p, p->held.front().number);
  Refresh(p, now);
}

void KvFeed::Hold(Publisher* p, uint64_t number, const KvMessage& message) {
  const KvFeedLimits& limits = options_.limits;
  const size_t bytes = message.payload.size() + message.topic.size();
  if (p->held.size() >= limits.held_messages || p->held_bytes + bytes > limits.held_bytes ||
      stats_.held_bytes + bytes > limits.held_bytes_total) {
    ++stats_.held_dropped;
    return;
  }
  p->held.push_back({number, std::string(message.topic), std::string(message.payload)});
  p->held_bytes += bytes;
  stats_.held_bytes += bytes;
}

void KvFeed::DropHeld(Publisher* p) {
  stats_.held_bytes -= p->held_bytes;
  p->held_bytes = 0;
  p->held.clear();
}

// --- time ----------------------------------------------------------------------------------------

KvAction KvFeed::Poll(base::TimePoint now) {
  for (; poll_next_ < publishers_.size(); ++poll_next_) {
    Publisher* p = publishers_[poll_next_].get();
    if (p == nullptr) continue;
    applier_.Expire(&p->state, now);
    Refresh(p, now);
    using Phase = Publisher::Phase;
    if (p->phase == Phase::kWaiting ? now >= p->due
                                    : p->phase == Phase::kLive && p->wants_replay) {
      ++poll_next_;
      return StartReplay(p, now);
    }
    // Everything anew, unless what is there has earned trust. It stays until the replay's first
    // message comes, for the server may be as unreachable as before.
    if (p->phase == Phase::kLive && p->has_failed && !p->is_complete && p->unknown_share > 0.5 &&
        now >= p->due) {
      ++poll_next_;
      KvAction action = StartReplay(p, now);
      p->is_anew = p->has_started;
      action.from = 0;
      return action;
    }
  }
  poll_next_ = 0;
  return {};
}

void KvFeed::Refresh(Publisher* p, base::TimePoint now) {
  double confidence = p->is_complete ? 1 : 1 - p->unknown_share;
  if (p->is_behind()) {
    const double age = base::ToSeconds(now - p->behind_since);
    confidence *= std::exp2(-std::max(age, 0.0) / base::ToSeconds(kFreshnessHalfLife));
  }
  cells_[p->id].confidence.store(static_cast<float>(confidence), std::memory_order_relaxed);
}

float KvFeed::confidence(HolderId holder) const {
  return holder < KvIndex::kHoldersMax ? cells_[holder].confidence.load(std::memory_order_relaxed)
                                       : 0;
}

uint64_t KvFeed::applied(HolderId holder) const {
  return holder < KvIndex::kHoldersMax ? cells_[holder].applied.load(std::memory_order_relaxed) : 0;
}

int64_t KvFeed::heard_ns(HolderId holder) const {
  return holder < KvIndex::kHoldersMax ? cells_[holder].heard_ns.load(std::memory_order_relaxed)
                                       : 0;
}

KvFeed::Stats KvFeed::stats() const {
  Stats stats = stats_;
  stats.apply = applier_.stats();
  for (const auto& p : publishers_) {
    if (!p) continue;
    stats.cold += !p->is_complete;
    stats.replaying += p->phase != Publisher::Phase::kLive;
  }
  return stats;
}

KvFeed::PublisherStats KvFeed::publisher_stats(PublisherId publisher, base::TimePoint now) const {
  const Publisher* p = Get(publisher);
  if (p == nullptr) return {};
  return {.applied = p->has_started ? p->next : 0,
          .messages = p->messages,
          .held = p->held.size(),
          .parked = p->state.parked(),
          .unknown_share = p->unknown_share,
          .complete = p->is_complete,
          .replaying = p->phase != Publisher::Phase::kLive,
          .age = p->messages == 0 ? base::Duration{} : now - p->heard};
}

}  // namespace llmd::prefix
