// KvEvents: the ingest thread. Connects to what event consumers among the plugins want to hear
// (plugin/events.h) and hands them the frames: one socket that publishers connect to, or one per
// publisher, and replays beside them.
//
// Thread safety: all methods from the owner's thread (the control loop's); sockets and consumers
// live on the ingest thread.
// Lifetime: consumers are kept as long as they are listened for.
// Invariants: 1. A consumer that a new config takes over keeps its connections. 2. A publisher that
// leaves the fleet is disconnected before anything else is told.
// Limits: ZeroMQ's queues hold kQueueMessagesMax per connection, what does not fit is lost and
// shows as a gap in the sequence, which is replayed; kReplaysMax replays run at a time, others
// wait.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "control/kv_peers.h"
#include "control/options.h"
#include "director/config.h"
#include "fleet/fleet.h"
#include "telemetry/metrics.h"

namespace llmd::control {

class KvEvents {
 public:
  static constexpr uint32_t kQueueMessagesMax = 10'000;
  static constexpr size_t kReplaysMax = 8;  // upstream's
  static constexpr base::Duration kTick = std::chrono::milliseconds(100);

  // `writer`: the metric writer of the ingest thread. References outlive the object. No thread runs
  // before the first consumer.
  KvEvents(fleet::Fleet& fleet, telemetry::Metrics& metrics, size_t writer,
           KvSnapshotOptions snapshots);
  ~KvEvents();
  KvEvents(const KvEvents&) = delete;
  KvEvents& operator=(const KvEvents&) = delete;

  // KvSnapshots::Read. Before the first SetGeneration.
  std::optional<uint64_t> ReadSnapshot(KvPeers peers, runtime::ThreadPool& lookups);
  // Whose consumers are fed from now on. An address that cannot be bound or a key that cannot be
  // read is an error; then nothing has changed.
  base::Status SetGeneration(const director::Generation& generation);
  // The fleet's members changed.
  void OnMembers();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace llmd::control
