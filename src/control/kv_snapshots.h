// KvSnapshots: keeps on disk what an event consumer knows (plugin/event_snapshot.h), so that a
// restarted process goes on with it: written every `interval` and at the end, read at the start.
// A peer that runs is asked first, and peers that start are answered (kv_peers.h).
//
// A snapshot is taken in pieces on the ingest thread, each handed to a pool thread that writes it,
// and the next one taken when that is done: ingest goes on between pieces, and of the bytes no more
// than one piece is held, however slow the disk. The file is replaced when it is whole and durable.
//
// Threads: Read, Listen and Use before the loop runs, afterwards Use on it; Finish after it has
// stopped.
// Limits: a piece ends with the publisher that makes it longer than kSliceMax or kPieceBytes. One
// consumer, the first; a snapshot is not begun while another is written or handed to a peer.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/status.h"
#include "base/time.h"
#include "control/kv_peers.h"
#include "control/options.h"
#include "plugin/catalogue.h"
#include "plugin/event_snapshot.h"
#include "runtime/atomic_file.h"
#include "runtime/loop.h"
#include "runtime/thread_pool.h"
#include "telemetry/metrics.h"

namespace llmd::control {

class KvSnapshots : KvPeerSource {
 public:
  static constexpr base::Duration kIntervalMin = std::chrono::seconds(1);
  static constexpr base::Duration kSliceMax = std::chrono::milliseconds(2);
  static constexpr size_t kPieceBytes = 4u << 20;

  // `loop` is the ingest thread's and outlives it, as `metrics` does.
  KvSnapshots(runtime::EventLoop& loop, telemetry::Metrics& metrics, size_t writer,
              KvSnapshotOptions options);
  ~KvSnapshots() override;

  // Has a snapshot from the peer or from the file, for the first consumer that is told of by Use.
  // The secret of the process that took it, if its keys depend on that: then ours has to be the
  // same. Once, before the others.
  std::optional<uint64_t> Read(KvPeers peers, runtime::ThreadPool& lookups);
  // Lets peers come. Does nothing when they may already, or never.
  base::Status Listen();
  uint16_t peer_port() const { return peer_port_; }  // 0: they may not
  // Whose knowledge is kept from now on; nullptr: nobody's. The first one is given what was read.
  void Use(std::shared_ptr<plugin::Plugin> plugin);
  // Writes a last time, blocking.
  void Finish();

 private:
  struct Writing;
  enum class Result : uint8_t { kLoaded, kNone, kRefused, kFailed };
  struct Had {
    std::string bytes;
    std::string_view source;  // "peer" or "file"
    std::string from;         // address or path
  };

  bool keeps_file() const { return !options_.file.empty(); }
  std::optional<uint64_t> ReadPeer(runtime::ThreadPool& lookups);
  std::optional<uint64_t> ReadFile();
  std::optional<uint64_t> Take(Had had);
  void Load();
  void WriteLater();
  void Write();
  bool CanBegin() override { return !writing_ && !due_; }
  base::Status Begin() override;
  bool NextPiece(std::string* out) override { return owner_->NextPiece(out); }
  void Step();
  void OnWritten(const base::Status& status, bool is_last);
  void End(const base::Status& status);
  void CountLoad(std::string_view source, Result result);

  runtime::EventLoop& loop_;
  telemetry::Metrics& metrics_;
  const size_t writer_;
  const KvSnapshotOptions options_;
  std::shared_ptr<plugin::Plugin> plugin_;
  plugin::EventSnapshots* owner_ = nullptr;  // it
  std::optional<Had> read_;                  // until it is loaded
  KvPeers peers_;
  std::unique_ptr<KvPeerDoor> door_;  // nullptr: closed
  uint16_t peer_port_ = 0;
  std::unique_ptr<runtime::ThreadPool> pool_;
  runtime::Timer timer_;
  std::shared_ptr<Writing> writing_;  // nullptr: nothing is under way
  base::TimePoint begun_at_{};
  base::Duration longest_{};  // slice of this snapshot
  uint64_t bytes_ = 0;        // of this snapshot
  bool due_ = false;          // it waits for a peer to be served
  bool failed_ = false;       // the last one did, and was logged
  std::atomic<int64_t> written_at_ns_{0};  // wall clock; 0: not yet
  std::unique_ptr<telemetry::Metrics::Registration> age_;
};

}  // namespace llmd::control
