// KvIngest: the index of KV blocks and what feeds it, as a consumer of the engines' events. Owned
// by precise-prefix-cache-producer, which asks it.
//
// Publishers. With a bind address engines connect to us and name themselves in their topics;
// otherwise every member of the fleet is connected to, at the port of its rank (its place among the
// members of one address, by port, kept while it is one) or of its label llmd.ai/kv-events-port;
// what was missed is asked for at replaySocketPort plus rank, or the label llmd.ai/kv-replay-port.
// What left the fleet is cleared.
//
// Snapshots (kv_ingest_snapshot.cc): publishers come back as they were. Those that do not turn up
// in the fleet within a minute are forgotten.
//
// With an index that is shared in Redis (shared_index.h) everything that is heard is copied there.
//
// Thread safety: the EventConsumer side belongs to the ingest thread; index() and feed() as they
// say; report() is for any thread.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/snapshot.h"
#include "plugin/event_snapshot.h"
#include "plugin/events.h"
#include "plugin/redis.h"
#include "plugins/producer/precise_prefix_cache_parameters.h"
#include "plugins/producer/shared_index.h"
#include "prefix/kv_feed.h"
#include "prefix/kv_index.h"
#include "prefix/kv_snapshot_feed.h"

namespace llmd::plugins {

inline constexpr std::string_view kKvEventsPortLabel = "llmd.ai/kv-events-port";
inline constexpr std::string_view kKvReplayPortLabel = "llmd.ai/kv-replay-port";

class KvIngest : public plugin::EventConsumer,
                 public plugin::EventSnapshots,
                 public plugin::EventStore {
 public:
  KvIngest(const PreciseParameters::Events& parameters, const PreciseOptions& options);

  const plugin::EventSubscription& subscription() const override { return subscription_; }
  std::vector<plugin::EventPublisher> OnMembers(const fleet::Members& members,
                                                base::TimePoint now) override;
  std::optional<plugin::EventReplay> OnEvent(std::optional<uint32_t> publisher,
                                             const plugin::EventMessage& message,
                                             base::TimePoint now) override;
  void OnConnection(uint32_t publisher, bool up, base::TimePoint now) override;
  std::optional<plugin::EventReplay> OnReplayed(const plugin::EventReplay& of,
                                                const plugin::EventMessage& message,
                                                base::TimePoint now) override;
  std::optional<plugin::EventReplay> OnReplayEnd(const plugin::EventReplay& of, bool complete,
                                                 base::TimePoint now) override;
  std::optional<plugin::EventReplay> OnTick(base::TimePoint now) override;
  std::string DumpPublishers() const override;

  const std::string& store_address() const override { return store_address_; }
  wire::RespProgram* NextStore() override { return shared_ ? shared_->Next() : nullptr; }
  void OnStoreConnected() override;
  void OnStoreEnd(const base::Status& status) override;

  void BeginSnapshot(base::WallTime now) override;
  bool NextPiece(std::string* out) override;
  base::Result<Loaded> LoadSnapshot(std::string_view bytes, base::WallTime wall,
                                    base::TimePoint now) override;

  prefix::KvIndex& index() { return index_; }
  const prefix::KvIndex& index() const { return index_; }
  const prefix::KvFeed& feed() const { return feed_; }

  // What was known at a moment not longer ago than kReportInterval.
  struct Report {
    struct Publisher {
      std::string address;
      uint32_t rank = 0;
      prefix::KvFeed::PublisherStats stats;
      float confidence = 0;
      uint64_t blocks = 0;
    };
    prefix::KvFeed::Stats feed;
    prefix::KvIndex::Stats index;
    std::optional<prefix::KvRedisMirror::Stats> shared;
    std::string shared_error;  // last refusal of the server
    std::vector<Publisher> publishers;
  };
  static constexpr base::Duration kReportInterval = std::chrono::milliseconds(500);
  std::shared_ptr<const Report> report() const { return report_.Current(); }

 protected:
  // Once per report, on the ingest thread.
  virtual void OnReport() {}

 private:
  static std::optional<plugin::EventReplay> ReplayOf(const prefix::KvAction& action);
  static prefix::KvFeedOptions FeedOptions(const PreciseOptions& options,
                                           SharedIndexWriter* sink);
  void RankMembers(const fleet::Members& members);
  void MakeReport(base::TimePoint now);
  static prefix::KvSnapshotHeader HeaderOf(const PreciseOptions& options);
  void ForgetRestored();

  const PreciseParameters::Events parameters_;
  const plugin::EventSubscription subscription_;
  const bool connects_;
  const std::string store_address_;
  const std::unique_ptr<SharedIndexWriter> shared_;  // nullptr: not shared
  prefix::KvIndex index_;
  prefix::KvFeed feed_;
  struct Member {
    std::string address;
    uint32_t rank = 0;
  };
  std::map<std::string, Member> members_;  // by host_port, as last told
  base::TimePoint reported_at_{};
  prefix::KvSnapshotHeader snapshot_header_;
  std::optional<prefix::KvSnapshotTaker> taker_;
  prefix::KvHolders restored_;  // until restored_until_
  base::TimePoint restored_until_{};
  base::Snapshot<Report> report_;
};

}  // namespace llmd::plugins
