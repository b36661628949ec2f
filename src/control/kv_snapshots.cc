#include "control/kv_snapshots.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/strings.h"
#include "prefix/kv_snapshot.h"
#include "runtime/clock.h"
#include "runtime/files.h"
#include "telemetry/log.h"

namespace llmd::control {
namespace {

using telemetry::MetricId;

std::optional<uint64_t> SecretOf(const prefix::KvSnapshotHeader& header) {
  const std::string& text = header.chain_seed;
  uint64_t secret = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), secret);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) {
    return std::nullopt;
  }
  return secret;
}

}  // namespace

// The file, in the hands of one pool job at a time.
struct KvSnapshots::Writing {
  base::Status Write(const std::string& path, std::string_view piece, bool is_last) {
    if (!file) {
      LLMD_ASSIGN_OR_RETURN(auto created, runtime::AtomicFile::Create(path));
      file.emplace(std::move(created));
    }
    LLMD_RETURN_IF_ERROR(file->Write(piece));
    return is_last ? file->Commit() : base::OkStatus();
  }

  std::optional<runtime::AtomicFile> file;
};

KvSnapshots::KvSnapshots(runtime::EventLoop& loop, telemetry::Metrics& metrics, size_t writer,
                         KvSnapshotOptions options)
    : loop_(loop),
      metrics_(metrics),
      writer_(writer),
      options_(std::move(options)),
      timer_(loop, [this] { Write(); }) {
  if (!keeps_file()) return;
  pool_ = std::make_unique<runtime::ThreadPool>(1, 1, "kv-snapshot");
  age_ = metrics.AddCollector([this](telemetry::ScrapeSeries& series) {
    const int64_t at = written_at_ns_.load(std::memory_order_relaxed);
    if (at == 0) return;
    series.Set(MetricId::kKvSnapshotAgeSeconds, {},
               static_cast<double>(runtime::WallNow().unix_ns - at) * 1e-9);
  });
}

KvSnapshots::~KvSnapshots() = default;

// ---- reading -----------------------------------------------------------------------------------

std::optional<uint64_t> KvSnapshots::Read(KvPeers peers, runtime::ThreadPool& lookups) {
  peers_ = std::move(peers);
  const std::optional<uint64_t> secret = ReadPeer(lookups);
  return read_ ? secret : ReadFile();
}

std::optional<uint64_t> KvSnapshots::ReadPeer(runtime::ThreadPool& lookups) {
  if (!peers_.from) return std::nullopt;
  Had had{.source = "peer",
          .from = base::Concat(peers_.from->host, ":", std::to_string(peers_.from->port))};
  auto bytes = FetchKvIndex(peers_, lookups);
  if (!bytes) {
    const bool is_none = bytes.error().code() == base::StatusCode::kNotFound;
    CountLoad(had.source, is_none ? Result::kNone : Result::kFailed);
    LLMD_LOG(kWarn, "a peer's KV index cannot be had", {"peer", had.from},
             {"error", bytes.error()});
    return std::nullopt;
  }
  had.bytes = *std::move(bytes);
  return Take(std::move(had));
}

std::optional<uint64_t> KvSnapshots::ReadFile() {
  if (!keeps_file()) return std::nullopt;
  runtime::AtomicFile::RemoveLeftovers(options_.file);
  Had had{.source = "file", .from = options_.file};
  // A snapshot takes less room than the index of which it is.
  auto bytes = runtime::ReadFile(options_.file, prefix::KvIndex::kBytesMaxLargest);
  if (!bytes) {
    const bool is_first = bytes.error().code() == base::StatusCode::kNotFound;
    CountLoad(had.source, is_first ? Result::kNone : Result::kFailed);
    if (!is_first) {
      LLMD_LOG(kWarn, "the snapshot of the KV index cannot be read: it starts empty",
               {"file", options_.file}, {"error", bytes.error()});
    }
    return std::nullopt;
  }
  had.bytes = *std::move(bytes);
  return Take(std::move(had));
}

std::optional<uint64_t> KvSnapshots::Take(Had had) {
  const auto snapshot = prefix::KvSnapshot::Open(had.bytes);
  if (!snapshot) {
    CountLoad(had.source, Result::kRefused);
    LLMD_LOG(kWarn, "a snapshot of the KV index is refused", {had.source, had.from},
             {"error", snapshot.error()});
    return std::nullopt;
  }
  const std::optional<uint64_t> secret = SecretOf(snapshot->header());
  read_ = std::move(had);
  return secret;
}

void KvSnapshots::Load() {
  const Had had = *std::exchange(read_, std::nullopt);
  const base::TimePoint begin = runtime::Now();
  const auto loaded = owner_->LoadSnapshot(had.bytes, runtime::WallNow(), begin);
  CountLoad(had.source, loaded ? Result::kLoaded : Result::kRefused);
  if (loaded) {
    LLMD_LOG(kInfo, "the KV index goes on from a snapshot", {had.source, had.from},
             {"publishers", loaded->publishers}, {"blocks", loaded->blocks},
             {"seconds", base::ToSeconds(runtime::Now() - begin)});
    return;
  }
  LLMD_LOG(kWarn, "a snapshot of the KV index is refused", {had.source, had.from},
           {"error", loaded.error()});
  // A peer of another configuration; the file is our own.
  if (had.source == "file") return;
  ReadFile();
  if (read_) Load();
}

void KvSnapshots::CountLoad(std::string_view source, Result result) {
  static constexpr std::string_view kNames[] = {"loaded", "none", "refused", "failed"};
  metrics_
      .Counter(MetricId::kKvSnapshotLoadsTotal, {source, kNames[static_cast<size_t>(result)]})
      .Add(writer_);
}

// ---- peers -------------------------------------------------------------------------------------

base::Status KvSnapshots::Listen() {
  if (door_ || !peers_.listen) return base::OkStatus();
  KvPeerSource& source = *this;
  auto door = std::make_unique<KvPeerDoor>(loop_, source, peers_.server_tls);
  auto port = door->Listen(*peers_.listen);
  if (!port) return port.error().WithContext("--kv-index-peer-listen");
  door_ = std::move(door);
  peer_port_ = *port;
  LLMD_LOG(kInfo, "pickers that start may have the KV index", {"port", peer_port_},
           {"tls", peers_.server_tls ? "mutual" : "no"});
  return base::OkStatus();
}

base::Status KvSnapshots::Begin() {
  if (!owner_) return base::Unavailable("no index of KV blocks is kept here");
  owner_->BeginSnapshot(runtime::WallNow());
  return base::OkStatus();
}

// ---- writing -----------------------------------------------------------------------------------

void KvSnapshots::Use(std::shared_ptr<plugin::Plugin> plugin) {
  if (plugin == plugin_) return;
  if (door_) door_->Abort();
  plugin_ = std::move(plugin);
  owner_ = dynamic_cast<plugin::EventSnapshots*>(plugin_.get());
  writing_.reset();  // of the one before; a job that still writes ends alone
  due_ = false;
  timer_.Disarm();
  if (!owner_) return;
  if (read_) Load();
  WriteLater();
}

void KvSnapshots::WriteLater() {
  if (keeps_file()) timer_.ArmAfter(std::max(options_.interval, kIntervalMin));
  if (door_) door_->Resume();
}

void KvSnapshots::Write() {
  due_ = door_ && door_->busy();
  if (due_) return timer_.ArmAfter(kIntervalMin);
  begun_at_ = runtime::Now();
  longest_ = {};
  bytes_ = 0;
  writing_ = std::make_shared<Writing>();
  owner_->BeginSnapshot(runtime::WallNow());
  Step();
}

void KvSnapshots::Step() {
  const base::TimePoint begin = runtime::Now();
  std::string piece;
  bool is_last = false;
  while (!is_last && piece.size() < kPieceBytes && runtime::Now() - begin < kSliceMax) {
    is_last = !owner_->NextPiece(&piece);
  }
  longest_ = std::max(longest_, runtime::Now() - begin);
  bytes_ += piece.size();
  const bool begun = pool_->TrySubmit([this, writing = writing_, piece = std::move(piece), is_last,
                                       &loop = loop_]() mutable {
    base::Status status = writing->Write(options_.file, piece, is_last);
    loop.Post([this, writing = std::move(writing), status = std::move(status), is_last] {
      if (writing == writing_) OnWritten(status, is_last);
    });
  });
  // The disk still works on a piece of a consumer that is gone.
  if (!begun) End(base::Unavailable("the disk is behind"));
}

void KvSnapshots::OnWritten(const base::Status& status, bool is_last) {
  if (status.ok() && !is_last) return Step();
  End(status);
}

void KvSnapshots::End(const base::Status& status) {
  writing_.reset();
  metrics_.Counter(MetricId::kKvSnapshotWritesTotal, {status.ok() ? "ok" : "failed"})
      .Add(writer_);
  if (status.ok()) {
    written_at_ns_.store(runtime::WallNow().unix_ns, std::memory_order_relaxed);
    metrics_.Gauge(MetricId::kKvSnapshotBytes).Set(static_cast<double>(bytes_));
    metrics_.Gauge(MetricId::kKvSnapshotWriteSeconds)
        .Set(base::ToSeconds(runtime::Now() - begun_at_));
    metrics_.Gauge(MetricId::kKvSnapshotStallSeconds).Set(base::ToSeconds(longest_));
  } else if (!failed_) {
    LLMD_LOG(kError, "the snapshot of the KV index cannot be written; the one before stays",
             {"file", options_.file}, {"error", status});
  }
  failed_ = !status.ok();
  WriteLater();
}

void KvSnapshots::Finish() {
  door_.reset();
  pool_.reset();
  writing_.reset();
  if (!owner_ || !keeps_file()) return;
  Writing last;
  owner_->BeginSnapshot(runtime::WallNow());
  base::Status status;
  for (bool is_last = false; status.ok() && !is_last;) {
    std::string piece;
    is_last = !owner_->NextPiece(&piece);
    status = last.Write(options_.file, piece, is_last);
  }
  owner_ = nullptr;
  if (status.ok()) {
    LLMD_LOG(kInfo, "the snapshot of the KV index is written", {"file", options_.file});
  } else {
    LLMD_LOG(kError, "the snapshot of the KV index cannot be written; the one before stays",
             {"file", options_.file}, {"error", status});
  }
}

}  // namespace llmd::control
