// A picker that starts is warmed by one that runs: the index of KV blocks over gRPC, in the bytes
// of prefix/kv_snapshot.h.
//
//   rpc /llmd.v1.KvIndexSnapshot/Get: any request, a stream of messages. Each message is the next
//   bytes of a snapshot that is taken meanwhile, publisher by publisher, without protobuf around.
//
// KvPeerDoor hands it out. What is held is one publisher's part and kUnsentHighBytes of copies,
// however slow the peer: the next part is taken when this one has left.
// FetchKvIndex has it from a peer; blocking, at the start.
//
// Secrets: a snapshot may carry the seed of the key chain. With certificates both sides prove who
// they are; without, whoever reaches the port may have it.
// Threads: a door belongs to the ingest thread's loop. Limits: kPeersMax peers wait, one is served,
// for at most kTimeMax.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "base/status.h"
#include "base/time.h"
#include "control/options.h"
#include "net/grpc_server.h"
#include "net/tls.h"
#include "runtime/loop.h"
#include "runtime/socket.h"
#include "runtime/thread_pool.h"

namespace llmd::control {

inline constexpr std::string_view kKvPeerPath = "/llmd.v1.KvIndexSnapshot/Get";

// KvPeerOptions with its addresses and files read.
struct KvPeers {
  std::optional<runtime::SocketAddress> listen;
  std::optional<runtime::HostPort> from;
  base::Duration timeout{};
  size_t bytes_max = 0;  // of what is fetched
  std::shared_ptr<net::TlsServerContext> server_tls;  // nullptr: plain
  std::shared_ptr<net::TlsClientContext> client_tls;

  // Errors name the flag. A fetched snapshot is no larger than an index of `index_bytes`.
  static base::Result<KvPeers> Load(const KvPeerOptions& options, uint64_t index_bytes);
};

// The snapshot of the first address of peers.from that has one, whole by gRPC's rules only. Names
// are looked up on `lookups`, which a job may keep busy after the return. NotFound: peers have
// empty ones.
base::Result<std::string> FetchKvIndex(const KvPeers& peers, runtime::ThreadPool& lookups);

// Where a door has snapshots from, one at a time.
class KvPeerSource {
 public:
  virtual ~KvPeerSource() = default;
  // Whether one can be begun now; else the door is told by Resume.
  virtual bool CanBegin() = 0;
  virtual base::Status Begin() = 0;
  // EventSnapshots'.
  virtual bool NextPiece(std::string* out) = 0;
};

class KvPeerDoor final : public net::GrpcService {
 public:
  static constexpr size_t kPeersMax = 8;
  static constexpr size_t kMessageBytes = 256u << 10;
  static constexpr base::Duration kTimeMax = std::chrono::seconds(60);

  // `source` and `loop` outlive the door.
  KvPeerDoor(runtime::EventLoop& loop, KvPeerSource& source,
             std::shared_ptr<net::TlsServerContext> tls);
  ~KvPeerDoor() override;

  // Returns the port.
  base::Result<uint16_t> Listen(const runtime::SocketAddress& address);
  // A peer is being served from the source.
  bool busy() const { return served_ != nullptr; }
  // The source can begin a snapshot again.
  void Resume();
  // What the source gave belongs to nobody now: the peer that is served is let down.
  void Abort();

  net::GrpcHandler* OnCall(net::GrpcCall& call) override;

 private:
  class Peer;
  void Forget(Peer* peer);

  KvPeerSource& source_;
  std::deque<std::unique_ptr<Peer>> peers_;  // in the order of coming
  Peer* served_ = nullptr;
  runtime::Timer resume_, limit_;
  net::GrpcServer server_;
  net::GrpcListener listener_;
};

}  // namespace llmd::control
