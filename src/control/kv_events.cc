#include "control/kv_events.h"

#include <algorithm>
#include <deque>
#include <map>
#include <utility>

#include "base/strings.h"
#include "control/event_store.h"
#include "control/kv_snapshots.h"
#include "net/zmq.h"
#include "net/zmq_replay.h"
#include "plugin/events.h"
#include "prefix/kv_events.h"
#include "runtime/thread_pool.h"
#include "runtime/worker.h"
#include "telemetry/log.h"

namespace llmd::control {
namespace {

using plugin::EventConsumer;
using plugin::EventMessage;
using plugin::EventPublisher;
using plugin::EventReplay;
using plugin::EventSubscription;
using telemetry::MetricId;

constexpr size_t kFrames = 3;  // topic, sequence, payload
constexpr size_t kLookupsWaitingMax = 16;

base::Result<net::ZmqSecurity> SecurityOf(const EventSubscription& subscription) {
  net::ZmqSecurity security{.allowed_addresses = subscription.allowed_addresses};
  if (!subscription.curve_secret_key_file.empty()) {
    LLMD_ASSIGN_OR_RETURN(const net::ZmqKeyPair keys,
                          net::LoadZmqKeyPair(subscription.curve_secret_key_file));
    security.server_secret_key = keys.secret_key;
  }
  for (const std::string& file : subscription.curve_client_key_files) {
    LLMD_ASSIGN_OR_RETURN(std::string key, net::LoadZmqPublicKey(file));
    security.client_keys.push_back(std::move(key));
  }
  return security;
}

// How publishers are connected to.
base::Result<net::ZmqSecurity> ClientSecurityOf(const EventSubscription& subscription) {
  net::ZmqSecurity security;
  if (!subscription.curve_server_key_file.empty()) {
    LLMD_ASSIGN_OR_RETURN(security.server_public_key,
                          net::LoadZmqPublicKey(subscription.curve_server_key_file));
  }
  return security;
}

// The counters of one socket.
struct SocketCounts {
  SocketCounts(telemetry::Metrics& m, size_t w, std::string_view l)
      : metrics(m),
        writer(w),
        label(l),
        messages(m.Counter(MetricId::kKvEventsMessagesTotal, {label})),
        reconnections(m.Counter(MetricId::kKvEventsReconnectionsTotal, {label})) {}
  void Error(std::string_view operation) const {
    metrics.Counter(MetricId::kKvEventsZmqErrorsTotal, {label, operation}).Add(writer);
  }

  telemetry::Metrics& metrics;
  const size_t writer;
  const std::string label;
  const telemetry::CounterHandle messages, reconnections;
};

}  // namespace

class KvEvents::Impl {
 public:
  Impl(fleet::Fleet& fleet, telemetry::Metrics& metrics, size_t writer,
       KvSnapshotOptions snapshots);
  ~Impl();

  std::optional<uint64_t> ReadSnapshot(KvPeers peers, runtime::ThreadPool& lookups) {
    return snapshots_.Read(std::move(peers), lookups);
  }
  base::Status SetGeneration(const director::Generation& generation);
  void OnMembers() {
    if (started_) thread_.Post(0, [this] { UpdateMembers(); });
  }

 private:
  class Feed;
  class Link;
  struct Wanted {
    Feed* feed;
    EventReplay replay;
  };

  runtime::EventLoop& loop() { return thread_.loop(0); }
  base::Status Renew(const std::vector<std::shared_ptr<plugin::Plugin>>& consumers);
  void UpdateMembers();
  void Tick();
  void Ask(Feed& feed, const EventReplay& replay);
  void StartReplays();
  void CountSubscribers();

  fleet::Fleet& fleet_;
  telemetry::Metrics& metrics_;
  const size_t writer_;
  const telemetry::GaugeHandle subscribers_;
  bool started_ = false;
  runtime::WorkerPool thread_;
  std::unique_ptr<runtime::ThreadPool> lookups_;  // of names of servers that are written to
  // All below belongs to the thread.
  std::unique_ptr<net::ZmqContext> context_;
  std::vector<std::unique_ptr<Feed>> feeds_;
  std::deque<Wanted> wanted_;  // replays that wait, one per publisher at most
  size_t replaying_ = 0;
  runtime::Timer tick_, start_replays_;
  KvSnapshots snapshots_;
};

// What goes from one publisher to a consumer.
class KvEvents::Impl::Link final : net::ZmqSink, net::ZmqReplaySink {
 public:
  Link(Feed& feed, const EventPublisher& publisher);
  ~Link();

  const EventPublisher& publisher() const { return publisher_; }
  bool replaying() const { return replaying_; }
  // False: it cannot be asked.
  bool StartReplay(const EventReplay& replay);
  void EndReplay();

 private:
  void OnZmqMessage(std::span<const std::string_view> frames) override;
  void OnZmqConnected(bool again) override;
  void OnZmqDisconnected() override;
  void OnReplayMessage(std::string_view topic, uint64_t sequence,
                       std::string_view payload) override;
  void OnReplayEnd(net::ZmqReplayEnd end, uint64_t messages) override;

  Feed& feed_;
  const EventPublisher publisher_;
  const SocketCounts counts_;
  std::unique_ptr<net::ZmqSubscriber> subscriber_;
  std::unique_ptr<net::ZmqReplayClient> replays_;
  EventReplay replay_;
  bool replaying_ = false;
  std::string sequence_;  // scratch
};

// One consumer with its sockets.
class KvEvents::Impl::Feed final : public net::ZmqSink {
 public:
  Feed(Impl& owner, std::shared_ptr<plugin::Plugin> plugin)
      : owner_(owner),
        plugin_(std::move(plugin)),
        consumer_(dynamic_cast<EventConsumer&>(*plugin_)) {}
  ~Feed() = default;

  base::Status Open();
  void Close() { bound_.reset(); }
  void UpdateMembers();
  void Tick();
  Link* Find(uint32_t publisher) {
    const auto it = links_.find(publisher);
    return it == links_.end() ? nullptr : it->second.get();
  }
  void Perform(const std::optional<EventReplay>& replay) {
    if (replay) owner_.Ask(*this, *replay);
    if (store_) store_->Write();
  }

  const plugin::Plugin* plugin() const { return plugin_.get(); }
  EventConsumer& consumer() { return consumer_; }
  Impl& owner() { return owner_; }
  size_t sockets() const { return links_.size() + (bound_ ? 1 : 0); }
  base::TimePoint now() const { return owner_.loop().now(); }
  const net::ZmqSecurity& client_security() const { return client_security_; }

  void OnZmqMessage(std::span<const std::string_view> frames) override {
    counts_->messages.Add(owner_.writer_);
    if (frames.size() < kFrames) return counts_->Error("recv");
    Perform(consumer_.OnEvent(std::nullopt, {frames[0], frames[1], frames[2]}, now()));
  }

 private:
  Impl& owner_;
  const std::shared_ptr<plugin::Plugin> plugin_;
  EventConsumer& consumer_;
  net::ZmqSecurity client_security_;
  std::unique_ptr<EventStoreWriter> store_;  // nullptr: it does not write
  std::optional<SocketCounts> counts_;       // of bound_
  std::unique_ptr<net::ZmqSubscriber> bound_;
  std::map<uint32_t, std::unique_ptr<Link>> links_;
};

// ---- Link --------------------------------------------------------------------------------------

KvEvents::Impl::Link::Link(Feed& feed, const EventPublisher& publisher)
    : feed_(feed),
      publisher_(publisher),
      counts_(feed.owner().metrics_, feed.owner().writer_, publisher.label) {
  if (publisher_.events.empty()) return;
  auto made = net::ZmqSubscriber::Create(
      *feed.owner().context_,
      {.connect = {publisher_.events},
       .queue_messages_max = kQueueMessagesMax,
       .security = feed.client_security()},
      feed.consumer().subscription().topics, *this);
  if (made) {
    subscriber_ = std::move(*made);
    return;
  }
  counts_.Error("connect");
  LLMD_LOG(kWarn, "the KV events of an endpoint cannot be subscribed to",
           {"endpoint", publisher_.label}, {"address", publisher_.events}, {"error", made.error()});
}

KvEvents::Impl::Link::~Link() { EndReplay(); }

void KvEvents::Impl::Link::EndReplay() {
  if (std::exchange(replaying_, false)) --feed_.owner().replaying_;
}

bool KvEvents::Impl::Link::StartReplay(const EventReplay& replay) {
  if (publisher_.replay.empty()) return false;
  if (!replays_) {
    auto made = net::ZmqReplayClient::Create(
        *feed_.owner().context_,
        {.address = publisher_.replay, .security = feed_.client_security()}, *this);
    if (!made) {
      counts_.Error("replay-connect");
      return false;
    }
    replays_ = std::move(*made);
  }
  if (!std::exchange(replaying_, true)) ++feed_.owner().replaying_;
  replay_ = replay;
  replays_->Start(replay.from);
  return true;
}

void KvEvents::Impl::Link::OnZmqMessage(std::span<const std::string_view> frames) {
  counts_.messages.Add(counts_.writer);
  if (frames.size() < kFrames) return counts_.Error("recv");
  feed_.Perform(feed_.consumer().OnEvent(publisher_.id, {frames[0], frames[1], frames[2]},
                                         feed_.now()));
}

void KvEvents::Impl::Link::OnZmqConnected(bool again) {
  if (again) counts_.reconnections.Add(counts_.writer);
  feed_.consumer().OnConnection(publisher_.id, true, feed_.now());
}

void KvEvents::Impl::Link::OnZmqDisconnected() {
  feed_.consumer().OnConnection(publisher_.id, false, feed_.now());
}

void KvEvents::Impl::Link::OnReplayMessage(std::string_view topic, uint64_t sequence,
                                           std::string_view payload) {
  sequence_.clear();
  prefix::AppendKvSequence(sequence, &sequence_);
  feed_.Perform(feed_.consumer().OnReplayed(replay_, {topic, sequence_, payload}, feed_.now()));
}

void KvEvents::Impl::Link::OnReplayEnd(net::ZmqReplayEnd end, uint64_t messages) {
  EndReplay();
  const bool complete = end == net::ZmqReplayEnd::kComplete;
  if (!complete) {
    counts_.Error(end == net::ZmqReplayEnd::kNoProgress ? "replay-no-progress"
                                                        : "replay-incomplete");
    LLMD_LOG(kVerbose, "missed KV events could not be had", {"endpoint", publisher_.label},
             {"why", net::ZmqReplayEndName(end)}, {"messages", messages});
  }
  feed_.Perform(feed_.consumer().OnReplayEnd(replay_, complete, feed_.now()));
  feed_.owner().start_replays_.ArmAfter({});
}

// ---- Feed --------------------------------------------------------------------------------------

base::Status KvEvents::Impl::Feed::Open() {
  const EventSubscription& wanted = consumer_.subscription();
  LLMD_ASSIGN_OR_RETURN(client_security_, ClientSecurityOf(wanted));
  auto* store = dynamic_cast<plugin::EventStore*>(plugin_.get());
  if (store && !store->store_address().empty()) {
    if (!owner_.lookups_) {
      owner_.lookups_ = std::make_unique<runtime::ThreadPool>(1, kLookupsWaitingMax, "kv-lookup");
    }
    LLMD_ASSIGN_OR_RETURN(store_,
                          EventStoreWriter::Create(owner_.loop(), *owner_.lookups_, *store));
  }
  if (wanted.bind.empty()) return base::OkStatus();
  LLMD_ASSIGN_OR_RETURN(net::ZmqSecurity security, SecurityOf(wanted));
  counts_.emplace(owner_.metrics_, owner_.writer_, wanted.bind);
  auto made = net::ZmqSubscriber::Create(*owner_.context_,
                                         {.bind = {wanted.bind},
                                          .queue_messages_max = kQueueMessagesMax,
                                          .security = std::move(security)},
                                         wanted.topics, *this);
  if (!made) {
    counts_->Error("bind");
    return made.error().WithContext(base::Concat("plugin \"", plugin_->name(), "\", KV events"));
  }
  bound_ = std::move(*made);
  LLMD_LOG(kInfo, "KV events may come", {"at", bound_->bound().front()});
  return base::OkStatus();
}

void KvEvents::Impl::Feed::UpdateMembers() {
  const std::vector<EventPublisher> wanted =
      consumer_.OnMembers(*owner_.fleet_.members(), now());
  std::map<uint32_t, std::unique_ptr<Link>> links;
  for (const EventPublisher& publisher : wanted) {
    std::unique_ptr<Link>& link = links[publisher.id];
    if (const auto it = links_.find(publisher.id);
        it != links_.end() && it->second && it->second->publisher() == publisher) {
      link = std::move(it->second);
    }
  }
  links_.swap(links);
  links.clear();  // now the others are disconnected
  for (const EventPublisher& publisher : wanted) {
    std::unique_ptr<Link>& link = links_[publisher.id];
    if (!link) link = std::make_unique<Link>(*this, publisher);
  }
  Tick();
}

void KvEvents::Impl::Feed::Tick() {
  while (const std::optional<EventReplay> replay = consumer_.OnTick(now())) {
    owner_.Ask(*this, *replay);
  }
  if (store_) store_->Write();
}

// ---- Impl --------------------------------------------------------------------------------------

KvEvents::Impl::Impl(fleet::Fleet& fleet, telemetry::Metrics& metrics, size_t writer,
                     KvSnapshotOptions snapshots)
    : fleet_(fleet),
      metrics_(metrics),
      writer_(writer),
      subscribers_(metrics.Gauge(MetricId::kKvEventsActiveSubscribers)),
      thread_(1, "kv-events"),
      tick_(loop(), [this] { Tick(); }),
      start_replays_(loop(), [this] { StartReplays(); }),
      snapshots_(loop(), metrics, writer, std::move(snapshots)) {}

KvEvents::Impl::~Impl() {
  thread_.Stop();
  snapshots_.Finish();
  feeds_.clear();
  lookups_.reset();  // its jobs post to the loop
}

base::Status KvEvents::Impl::SetGeneration(const director::Generation& generation) {
  std::vector<std::shared_ptr<plugin::Plugin>> consumers;
  for (const director::LoadedPlugin& loaded : generation.plugins()) {
    if (dynamic_cast<EventConsumer*>(loaded.object.get())) consumers.push_back(loaded.object);
  }
  if (consumers.empty() && !started_) return base::OkStatus();
  base::Status renewed;
  thread_.ForEach([&](size_t, runtime::EventLoop&) { renewed = Renew(consumers); });
  if (!renewed.ok() || started_) return renewed;
  thread_.Start();
  started_ = true;
  OnMembers();
  return base::OkStatus();
}

base::Status KvEvents::Impl::Renew(const std::vector<std::shared_ptr<plugin::Plugin>>& consumers) {
  LLMD_RETURN_IF_ERROR(snapshots_.Listen());
  if (!context_) context_ = std::make_unique<net::ZmqContext>(loop());
  std::vector<std::unique_ptr<Feed>> fresh(consumers.size());
  const auto stays = [&](const Feed& feed) {
    return std::ranges::any_of(consumers, [&](const auto& c) { return c.get() == feed.plugin(); });
  };
  for (size_t i = 0; i < consumers.size(); ++i) {
    const bool there = std::ranges::any_of(
        feeds_, [&](const auto& feed) { return feed->plugin() == consumers[i].get(); });
    if (there) continue;
    fresh[i] = std::make_unique<Feed>(*this, consumers[i]);
    // Who goes gives its address to who comes.
    const std::string& bind = fresh[i]->consumer().subscription().bind;
    for (const auto& feed : feeds_) {
      if (!stays(*feed) && feed->consumer().subscription().bind == bind) feed->Close();
    }
    LLMD_RETURN_IF_ERROR(fresh[i]->Open());
  }
  std::erase_if(wanted_, [&](const Wanted& w) { return !stays(*w.feed); });
  std::erase_if(feeds_, [&](const auto& feed) { return !stays(*feed); });
  for (auto& feed : fresh) {
    if (feed) feeds_.push_back(std::move(feed));
  }
  const auto keeps = std::ranges::find_if(consumers, [](const auto& c) {
    return dynamic_cast<plugin::EventSnapshots*>(c.get()) != nullptr;
  });
  snapshots_.Use(keeps == consumers.end() ? nullptr : *keeps);
  UpdateMembers();
  tick_.ArmAfter(kTick);
  return base::OkStatus();
}

void KvEvents::Impl::UpdateMembers() {
  for (const auto& feed : feeds_) feed->UpdateMembers();
  CountSubscribers();
}

void KvEvents::Impl::Tick() {
  for (const auto& feed : feeds_) feed->Tick();
  tick_.ArmAfter(kTick);
}

void KvEvents::Impl::CountSubscribers() {
  size_t sockets = 0;
  for (const auto& feed : feeds_) sockets += feed->sockets();
  subscribers_.Set(static_cast<double>(sockets));
}

// Begun from a timer: what asks for it may be the call of a socket that the replay uses.
void KvEvents::Impl::Ask(Feed& feed, const EventReplay& replay) {
  const auto same = [&](const Wanted& w) {
    return w.feed == &feed && w.replay.publisher == replay.publisher;
  };
  if (const auto it = std::ranges::find_if(wanted_, same); it != wanted_.end()) {
    it->replay = replay;
  } else {
    wanted_.push_back({&feed, replay});
  }
  start_replays_.ArmAfter({});
}

void KvEvents::Impl::StartReplays() {
  for (size_t left = wanted_.size(); left > 0; --left) {
    const Wanted wanted = wanted_.front();
    wanted_.pop_front();
    Link* link = wanted.feed->Find(wanted.replay.publisher);
    if (link && !link->replaying() && replaying_ >= kReplaysMax) {
      wanted_.push_back(wanted);  // until one of the others has ended
      continue;
    }
    if (link && link->StartReplay(wanted.replay)) continue;
    wanted.feed->Perform(
        wanted.feed->consumer().OnReplayEnd(wanted.replay, false, loop().now()));
  }
}

// ---- KvEvents ----------------------------------------------------------------------------------

KvEvents::KvEvents(fleet::Fleet& fleet, telemetry::Metrics& metrics, size_t writer,
                   KvSnapshotOptions snapshots)
    : impl_(std::make_unique<Impl>(fleet, metrics, writer, std::move(snapshots))) {}

KvEvents::~KvEvents() = default;

std::optional<uint64_t> KvEvents::ReadSnapshot(KvPeers peers, runtime::ThreadPool& lookups) {
  return impl_->ReadSnapshot(std::move(peers), lookups);
}

base::Status KvEvents::SetGeneration(const director::Generation& generation) {
  return impl_->SetGeneration(generation);
}

void KvEvents::OnMembers() { impl_->OnMembers(); }

}  // namespace llmd::control
