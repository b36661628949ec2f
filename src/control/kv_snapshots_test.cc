#include "control/kv_snapshots.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "net/net_testing.h"
#include "prefix/kv_snapshot.h"
#include "runtime/files.h"

namespace llmd::control {
namespace {

using telemetry::MetricId;

// A consumer whose snapshot has pieces that do not fit into one write.
struct Consumer final : plugin::Plugin, plugin::EventSnapshots {
  void BeginSnapshot(base::WallTime) override { next = 0; }
  bool NextPiece(std::string* out) override {
    out->append(pieces.at(next++));
    return next < pieces.size();
  }
  base::Result<Loaded> LoadSnapshot(std::string_view bytes, base::WallTime,
                                    base::TimePoint) override {
    loaded = bytes;
    if (refuses) return std::unexpected(base::FailedPrecondition("of another index"));
    return Loaded{.publishers = 1};
  }
  std::string whole() const { return pieces[0] + pieces[1] + pieces[2]; }

  std::vector<std::string> pieces{std::string(KvSnapshots::kPieceBytes, 'a'),
                                  std::string(KvSnapshots::kPieceBytes + 1, 'b'), "end"};
  size_t next = 0;
  std::string loaded;
  bool refuses = false;
};

std::string SnapshotWith(std::string seed) {
  return prefix::KvSnapshotWriter({.chain_seed = std::move(seed)}).Finish();
}

class KvSnapshotsTest : public testing::Test {
 protected:
  KvSnapshotsTest() { std::filesystem::create_directories(folder_); }
  ~KvSnapshotsTest() override { std::filesystem::remove_all(folder_); }

  void Make() {
    snapshots_ = std::make_unique<KvSnapshots>(
        loop_, metrics_, 0, KvSnapshotOptions{.file = file_, .interval = base::Duration(1)});
  }
  std::string Page() {
    std::string page;
    metrics_.WriteText(&page);
    return page;
  }
  bool Says(std::string_view line) { return Page().find(line) != std::string::npos; }
  std::string File() { return runtime::ReadFile(file_).value_or(""); }
  void Put(const std::string& bytes) {
    std::ofstream(file_, std::ios::binary) << bytes;
  }

  const std::string folder_ = testing::TempDir() + "kv-snapshots-" + std::to_string(::getpid());
  std::string file_ = folder_ + "/index";
  runtime::EventLoop loop_;
  telemetry::Metrics metrics_{1};
  runtime::ThreadPool lookups_{1, 4, "lookup"};
  std::shared_ptr<Consumer> consumer_ = std::make_shared<Consumer>();
  std::unique_ptr<KvSnapshots> snapshots_;
};

TEST_F(KvSnapshotsTest, WritesPieceByPieceAndReadsWhatItWrote) {
  Put(SnapshotWith("12345678901234567890"));
  std::ofstream(file_ + ".17.tmp") << "left by one that was killed";
  std::ofstream(file_ + ".x.tmp") << "of somebody else";
  Make();
  EXPECT_EQ(snapshots_->Read({}, lookups_), 12345678901234567890u);
  EXPECT_FALSE(std::filesystem::exists(file_ + ".17.tmp"));
  EXPECT_TRUE(std::filesystem::exists(file_ + ".x.tmp"));
  snapshots_->Use(consumer_);
  EXPECT_EQ(consumer_->loaded, File());
  EXPECT_TRUE(Says("llmd_kv_snapshot_loads_total{result=\"loaded\",source=\"file\"} 1"));

  ASSERT_TRUE(net::TurnUntil(loop_, [&] { return File() == consumer_->whole(); }));
  ASSERT_TRUE(net::TurnUntil(
      loop_, [&] { return Says("llmd_kv_snapshot_writes_total{result=\"ok\"} 1"); }));
  EXPECT_TRUE(Says("\nllmd_kv_snapshot_age_seconds "));
  EXPECT_EQ(std::filesystem::status(file_).permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);

  consumer_->pieces[2] = "the last word";
  snapshots_->Finish();
  EXPECT_EQ(File(), consumer_->whole());
}

TEST_F(KvSnapshotsTest, KeepsTheOldFileWhenTheDiskRefuses) {
  Make();
  EXPECT_EQ(snapshots_->Read({}, lookups_), std::nullopt);
  EXPECT_TRUE(Says("llmd_kv_snapshot_loads_total{result=\"none\",source=\"file\"} 1"));
  snapshots_->Use(consumer_);
  EXPECT_EQ(consumer_->loaded, "");
  std::filesystem::remove_all(folder_);
  ASSERT_TRUE(net::TurnUntil(
      loop_, [&] { return Says("llmd_kv_snapshot_writes_total{result=\"failed\"} 1"); }));
  std::filesystem::create_directories(folder_);
  ASSERT_TRUE(net::TurnUntil(loop_, [&] { return File() == consumer_->whole(); }))
      << "it is tried again";
}

TEST_F(KvSnapshotsTest, RefusedOnesStartEmpty) {
  Put(SnapshotWith("1") + "x");
  Make();
  EXPECT_EQ(snapshots_->Read({}, lookups_), std::nullopt);
  snapshots_->Use(consumer_);
  EXPECT_EQ(consumer_->loaded, "");
  EXPECT_TRUE(Says("llmd_kv_snapshot_loads_total{result=\"refused\",source=\"file\"} 1"));

  Put(SnapshotWith(""));
  Make();
  EXPECT_EQ(snapshots_->Read({}, lookups_), std::nullopt) << "keys of the config's seed";
  consumer_->refuses = true;
  snapshots_->Use(consumer_);
  EXPECT_NE(consumer_->loaded, "");
  EXPECT_TRUE(Says("llmd_kv_snapshot_loads_total{result=\"refused\",source=\"file\"} 2"));
}

// ---- peers -------------------------------------------------------------------------------------

// Reads on a thread, as a peer does that starts, while the loop of the one that runs turns.
class KvSnapshotsPeerTest : public KvSnapshotsTest {
 protected:
  KvSnapshotsPeerTest() {
    KvPeers peers{.listen = runtime::SocketAddress::Ipv4(net::kLoopback, 0)};
    running_.Read(std::move(peers), lookups_);
    EXPECT_TRUE(running_.Listen().ok());
    EXPECT_TRUE(running_.Listen().ok());
    prefix::KvIndex index;
    index.Store(0, 0, 0, nullptr, std::array<uint64_t, 1>{1}, std::array<uint64_t, 1>{1});
    prefix::KvSnapshotWriter writer({.chain_seed = "42"});
    runs_->pieces = {writer.Take()};
    writer.AddHolder(index, 0, {.address = "10.0.0.1:8000"});
    runs_->pieces.push_back(writer.Take());
    runs_->pieces.push_back(std::move(writer).Finish());
  }
  ~KvSnapshotsPeerTest() override { running_.Finish(); }

  std::optional<uint64_t> Start() {
    Make();
    std::optional<uint64_t> secret;
    std::atomic<bool> done = false;
    std::thread starting([&] {
      secret = snapshots_->Read({.from = runtime::HostPort{"127.0.0.1", running_.peer_port()},
                                 .timeout = std::chrono::seconds(5),
                                 .bytes_max = 1 << 20},
                                lookups_);
      done = true;
    });
    EXPECT_TRUE(net::TurnUntil(loop_, [&] { return done.load(); }));
    starting.join();
    snapshots_->Use(consumer_);
    return secret;
  }

  telemetry::Metrics other_metrics_{1};
  std::shared_ptr<Consumer> runs_ = std::make_shared<Consumer>();
  KvSnapshots running_{loop_, other_metrics_, 0, {}};
};

TEST_F(KvSnapshotsPeerTest, ThePeerComesBeforeTheFile) {
  Put(SnapshotWith("1"));
  running_.Use(runs_);
  EXPECT_EQ(Start(), 42u);
  EXPECT_EQ(consumer_->loaded, runs_->whole());
  EXPECT_TRUE(Says("loads_total{result=\"loaded\",source=\"peer\"} 1"));
  EXPECT_FALSE(Says("source=\"file\""));
}

TEST_F(KvSnapshotsPeerTest, TheFileStandsInForAPeerWithoutAnIndex) {
  Put(SnapshotWith("1"));
  EXPECT_EQ(Start(), 1u);
  EXPECT_EQ(consumer_->loaded, SnapshotWith("1"));
  EXPECT_TRUE(Says("loads_total{result=\"failed\",source=\"peer\"} 1"));
  EXPECT_TRUE(Says("loads_total{result=\"loaded\",source=\"file\"} 1"));
}

TEST_F(KvSnapshotsPeerTest, TheFileStandsInForAPeerThatTalksNonsense) {
  Put(SnapshotWith("1"));
  runs_->pieces[1][30] ^= 1;
  running_.Use(runs_);
  EXPECT_EQ(Start(), 1u);
  EXPECT_EQ(consumer_->loaded, SnapshotWith("1"));
  EXPECT_TRUE(Says("loads_total{result=\"refused\",source=\"peer\"} 1"));
  EXPECT_TRUE(Says("loads_total{result=\"loaded\",source=\"file\"} 1"));
}

TEST_F(KvSnapshotsPeerTest, TheFileStandsInForAPeerOfAnotherConfiguration) {
  Put(SnapshotWith("1"));
  running_.Use(runs_);
  consumer_->refuses = true;
  EXPECT_EQ(Start(), 42u);
  EXPECT_EQ(consumer_->loaded, SnapshotWith("1")) << "is tried then";
  EXPECT_TRUE(Says("loads_total{result=\"refused\",source=\"peer\"} 1"));
  EXPECT_TRUE(Says("loads_total{result=\"refused\",source=\"file\"} 1"));
}

TEST_F(KvSnapshotsPeerTest, AnAddressInUseIsAnError) {
  KvSnapshots second{loop_, other_metrics_, 0, {}};
  net::RawListener taken(loop_);
  second.Read({.listen = runtime::SocketAddress::Ipv4(net::kLoopback, taken.port())}, lookups_);
  EXPECT_THAT(second.Listen().message(), testing::HasSubstr("--kv-index-peer-listen"));
  EXPECT_EQ(second.peer_port(), 0);
}

// A reload of the configuration may take the consumer away while a snapshot is written.
TEST_F(KvSnapshotsTest, AnotherConsumerTakesOver) {
  Make();
  snapshots_->Use(consumer_);
  ASSERT_TRUE(net::TurnUntil(loop_, [&] { return consumer_->next > 0; }));
  const auto other = std::make_shared<Consumer>();
  other->pieces[2] = "of the other";
  snapshots_->Use(other);
  ASSERT_TRUE(net::TurnUntil(loop_, [&] { return File() == other->whole(); }));
  snapshots_->Use(nullptr);
  snapshots_->Finish();
  EXPECT_EQ(File(), other->whole());
}

}  // namespace
}  // namespace llmd::control
