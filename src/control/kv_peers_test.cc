#include "control/kv_peers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "base/strings.h"
#include "net/grpc_client.h"
#include "net/net_testing.h"
#include "prefix/kv_snapshot.h"
#include "runtime/clock.h"
#include "runtime/worker.h"

namespace llmd::control {
namespace {

using testing::HasSubstr;

// A snapshot of one publisher with `blocks`.
std::string SnapshotOf(size_t blocks) {
  prefix::KvIndex index;
  std::vector<uint64_t> keys(blocks);
  for (size_t i = 0; i < blocks; ++i) keys[i] = i * 0x9e3779b97f4a7c15 | 1;
  index.Store(0, 0, 0, nullptr, keys, keys);
  prefix::KvSnapshotWriter writer({.chain_seed = "7"});
  writer.AddHolder(index, 0, {.address = "10.0.0.1:8000"});
  return std::move(writer).Finish();
}

struct Source final : KvPeerSource {
  explicit Source(std::vector<std::string> all = {}) : pieces(std::move(all)) {}
  bool CanBegin() override { return can_begin; }
  base::Status Begin() override {
    taken = 0;
    return begins;
  }
  bool NextPiece(std::string* out) override {
    out->append(pieces.at(taken++));
    return taken < pieces.size();
  }

  bool can_begin = true;
  base::Status begins;
  std::vector<std::string> pieces;
  size_t taken = 0;
};

// A call whose messages are put together.
struct Wanting final : net::GrpcClientHandler {
  Wanting(runtime::EventLoop& loop, uint16_t port)
      : channel(loop, {.address = runtime::SocketAddress::Ipv4(net::kLoopback, port)}) {
    channel.Start(kKvPeerPath, {}, *this)->CloseSend();
  }
  void OnMessagePiece(base::Slice piece, bool) override { bytes += piece.view(); }
  void OnEnd(const net::GrpcClientEnd& e) override { end = e.status; }

  net::GrpcChannel channel;
  std::string bytes;
  std::optional<base::Status> end;
};

KvPeers PeersAt(uint16_t port) {
  return {.from = runtime::HostPort{"127.0.0.1", port},
          .timeout = std::chrono::seconds(5),
          .bytes_max = 64 << 20};
}

// A picker that runs, on a thread of its own.
class Running {
 public:
  explicit Running(Source source, std::shared_ptr<net::TlsServerContext> tls = nullptr)
      : source_(std::move(source)),
        door_(thread_.loop(0), source_, std::move(tls)),
        port(door_.Listen(runtime::SocketAddress::Ipv4(net::kLoopback, 0)).value()) {
    thread_.Start();
  }
  ~Running() { thread_.Stop(); }

 private:
  Source source_;
  runtime::WorkerPool thread_{1, "peer"};
  KvPeerDoor door_;

 public:
  const uint16_t port;
};

runtime::ThreadPool& Lookups() {
  static runtime::ThreadPool pool(1, 16, "lookup");
  return pool;
}

base::StatusCode CodeOf(const base::Result<std::string>& result) {
  return result ? base::StatusCode::kOk : result.error().code();
}

TEST(KvPeers, APickerThatStartsHasTheIndexOfOneThatRuns) {
  const std::string whole = SnapshotOf(100'000);
  Running peer(Source(
      {whole.substr(0, 20), "", whole.substr(20, 1 << 20), whole.substr((1 << 20) + 20)}));
  KvPeers peers = PeersAt(peer.port);
  EXPECT_TRUE(FetchKvIndex(peers, Lookups()) == whole);
  EXPECT_TRUE(FetchKvIndex(peers, Lookups()) == whole) << "and once more";
  peers.from->host = "localhost";
  EXPECT_TRUE(FetchKvIndex(peers, Lookups()) == whole);
  peers.bytes_max = 1 << 20;
  EXPECT_EQ(CodeOf(FetchKvIndex(peers, Lookups())), base::StatusCode::kResourceExhausted);
}

TEST(KvPeers, OneThatStartedAMomentAgoHasNothing) {
  Running peer(Source({SnapshotOf(0)}));
  EXPECT_EQ(CodeOf(FetchKvIndex(PeersAt(peer.port), Lookups())), base::StatusCode::kNotFound);
}

TEST(KvPeers, OneWithoutAnIndexSaysSo) {
  Source source;
  source.begins = base::Unavailable("no index");
  Running peer(source);
  const auto bytes = FetchKvIndex(PeersAt(peer.port), Lookups());
  ASSERT_EQ(CodeOf(bytes), base::StatusCode::kUnavailable);
  EXPECT_THAT(bytes.error().message(), HasSubstr("no index"));
}

TEST(KvPeers, NobodyThere) {
  uint16_t port = 0;
  {
    runtime::EventLoop loop;
    port = net::RawListener(loop).port();
  }
  const base::TimePoint begin = runtime::Now();
  EXPECT_NE(CodeOf(FetchKvIndex(PeersAt(port), Lookups())), base::StatusCode::kOk);
  EXPECT_LT(runtime::Now() - begin, std::chrono::seconds(2));
}

// The kernel takes the connection, and nobody answers: neither HTTP/2 nor anything else.
TEST(KvPeers, OneThatSaysNothingIsWaitedForSoLong) {
  runtime::EventLoop loop;
  const net::RawListener silent(loop);
  KvPeers peers = PeersAt(silent.port());
  peers.timeout = std::chrono::milliseconds(100);
  const base::TimePoint begin = runtime::Now();
  EXPECT_NE(CodeOf(FetchKvIndex(peers, Lookups())), base::StatusCode::kOk);
  EXPECT_GE(runtime::Now() - begin, peers.timeout);
  EXPECT_LT(runtime::Now() - begin, std::chrono::seconds(2));
}

TEST(KvPeers, OneThatNeverBeginsIsWaitedForSoLong) {
  Source source({"x"});
  source.can_begin = false;
  Running peer(source);
  KvPeers peers = PeersAt(peer.port);
  peers.timeout = std::chrono::milliseconds(100);
  EXPECT_EQ(CodeOf(FetchKvIndex(peers, Lookups())), base::StatusCode::kDeadlineExceeded);
}

TEST(KvPeers, CertificatesProveWhoIsWho) {
  const std::string folder = testing::TempDir() + "kv-peers-" + std::to_string(::getpid());
  for (const std::string& name : {folder + "/ours", folder + "/other"}) {
    std::filesystem::create_directories(name);
    const std::string command = base::Concat(
        "cd ", name,
        " && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        "-subj /CN=peer -addext subjectAltName=IP:127.0.0.1 -keyout tls.key -out tls.crt "
        "2>/dev/null && cp tls.crt ca.crt");
    ASSERT_EQ(std::system(command.c_str()), 0) << "is the openssl program installed?";
  }
  KvPeers ours = KvPeers::Load({.from = "127.0.0.1:1", .cert_dir = folder + "/ours"}, 0).value();
  KvPeers other = KvPeers::Load({.from = "127.0.0.1:1", .cert_dir = folder + "/other"}, 0).value();
  const std::string whole = SnapshotOf(1000);
  Running peer(Source({whole}), ours.server_tls);
  ours.from->port = other.from->port = peer.port;
  EXPECT_TRUE(FetchKvIndex(ours, Lookups()) == whole);
  EXPECT_NE(CodeOf(FetchKvIndex(other, Lookups())), base::StatusCode::kOk);
  other.client_tls =
      net::TlsClientContext::Create({.ca_file = folder + "/ours/ca.crt", .alpn = "h2"}).value();
  EXPECT_NE(CodeOf(FetchKvIndex(other, Lookups())), base::StatusCode::kOk) << "shows none";
  EXPECT_NE(CodeOf(FetchKvIndex(PeersAt(peer.port), Lookups())), base::StatusCode::kOk);
  std::filesystem::remove_all(folder);
}

TEST(KvPeers, FlagsAreChecked) {
  const auto refused = [](const KvPeerOptions& options) {
    const auto peers = KvPeers::Load(options, 0);
    return peers ? std::string() : std::string(peers.error().message());
  };
  EXPECT_EQ(refused({}), "");
  EXPECT_EQ(refused({.listen = ":9010", .from = "peers.ns.svc:9010"}), "");
  EXPECT_THAT(refused({.listen = "nonsense"}), HasSubstr("--kv-index-peer-listen"));
  EXPECT_THAT(refused({.from = "peers"}), HasSubstr("--kv-index-peer: \"peers\""));
  EXPECT_THAT(refused({.from = ":9010"}), HasSubstr("--kv-index-peer: "));
  EXPECT_THAT(refused({.cert_dir = "/nowhere"}), HasSubstr("--kv-index-peer-cert-dir"));
}

// ---- the door, on the test's loop --------------------------------------------------------------

class KvPeerDoorTest : public testing::Test {
 protected:
  runtime::EventLoop loop_;
  Source source_;
  KvPeerDoor door_{loop_, source_, nullptr};
  const uint16_t port_ = door_.Listen(runtime::SocketAddress::Ipv4(net::kLoopback, 0)).value();
};

TEST_F(KvPeerDoorTest, TakesNoMoreThanWhatLeaves) {
  source_.pieces.assign(20, std::string(1 << 20, 'x'));
  runtime::EventLoop far;  // of a peer that stops reading
  Wanting slow(far, port_);
  ASSERT_TRUE(net::TurnUntil(loop_, [&] {
    if (source_.taken == 0) far.Turn({});
    return source_.taken > 0;
  }));
  net::TurnABit(loop_, 100);
  EXPECT_LE(source_.taken, 4u) << "its window, what waits, the piece at hand";
  ASSERT_TRUE(net::TurnUntil(loop_, [&] {
    far.Turn({});
    return slow.end.has_value();
  }));
  EXPECT_TRUE(slow.end->ok());
  EXPECT_EQ(slow.bytes.size(), 20u << 20);
}

TEST_F(KvPeerDoorTest, PeersAreServedInTurn) {
  source_.pieces = {"one ", "two"};
  source_.can_begin = false;
  std::vector<std::unique_ptr<Wanting>> peers;
  for (size_t i = 0; i <= KvPeerDoor::kPeersMax; ++i) {
    peers.push_back(std::make_unique<Wanting>(loop_, port_));
  }
  const auto ended = [&] {
    return static_cast<size_t>(
        std::ranges::count_if(peers, [](const auto& peer) { return peer->end.has_value(); }));
  };
  ASSERT_TRUE(net::TurnUntil(loop_, [&] { return ended() == 1u; }));
  net::TurnABit(loop_);
  EXPECT_EQ(ended(), 1u) << "one too many";
  EXPECT_FALSE(door_.busy());
  source_.can_begin = true;
  door_.Resume();
  ASSERT_TRUE(net::TurnUntil(loop_, [&] { return ended() == KvPeerDoor::kPeersMax + 1; }));
  size_t served = 0;
  for (const auto& peer : peers) {
    served += peer->end->ok() && peer->bytes == "one two";
    if (!peer->end->ok()) EXPECT_EQ(peer->end->code(), base::StatusCode::kResourceExhausted);
  }
  EXPECT_EQ(served, KvPeerDoor::kPeersMax);
  EXPECT_TRUE(net::TurnUntil(loop_, [&] { return !door_.busy(); }));
}

TEST_F(KvPeerDoorTest, WhoGoesOrIsLetDownMakesRoom) {
  source_.pieces.assign(20, std::string(1 << 20, 'x'));
  auto goes = std::make_unique<Wanting>(loop_, port_);
  ASSERT_TRUE(net::TurnUntil(loop_, [&] { return !goes->bytes.empty(); }));
  EXPECT_TRUE(door_.busy());
  goes.reset();
  ASSERT_TRUE(net::TurnUntil(loop_, [&] { return !door_.busy(); }));
  Wanting let_down(loop_, port_);
  ASSERT_TRUE(net::TurnUntil(loop_, [&] { return !let_down.bytes.empty(); }));
  door_.Abort();
  ASSERT_TRUE(net::TurnUntil(loop_, [&] { return let_down.end.has_value(); }));
  EXPECT_FALSE(let_down.end->ok());
  EXPECT_FALSE(door_.busy());
}

}  // namespace
}  // namespace llmd::control
