#include "control/kv_peers.h"

#include <algorithm>
#include <future>
#include <utility>

#include "base/strings.h"
#include "net/grpc_client.h"
#include "net/resolver.h"
#include "prefix/kv_index.h"
#include "prefix/kv_snapshot.h"
#include "runtime/clock.h"
#include "telemetry/log.h"

namespace llmd::control {
namespace {

constexpr uint32_t kRequestBytesMax = 64u << 10;
constexpr size_t kConnectionsMax = 4 * KvPeerDoor::kPeersMax;
constexpr base::Duration kIdleTimeout = std::chrono::seconds(30);
// Of a name's addresses most may be of pods that are gone.
constexpr base::Duration kConnectTimeout = std::chrono::seconds(2);

base::Result<net::Addresses> Lookup(const runtime::HostPort& at, base::TimePoint deadline,
                                    runtime::ThreadPool& lookups) {
  auto found = std::make_shared<std::promise<base::Result<net::Addresses>>>();
  auto future = found->get_future();
  const bool begun = lookups.TrySubmit(
      [found, at] { found->set_value(net::LookupHost(at.host, at.port)); });
  if (!begun || future.wait_for(deadline - runtime::Now()) != std::future_status::ready) {
    return std::unexpected(base::Unavailable("its name is not looked up in time"));
  }
  return future.get();
}

// One call, whose messages are put together.
class Fetch final : public net::GrpcClientHandler {
 public:
  Fetch(const KvPeers& peers, const runtime::SocketAddress& address)
      : bytes_max_(peers.bytes_max),
        channel_(loop_,
                 {.address = address, .tls_name = peers.from->host, .tls = peers.client_tls},
                 {.connect_timeout = std::min(kConnectTimeout, peers.timeout)}) {}

  base::Result<std::string> Run(base::TimePoint deadline) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - runtime::Now());
    const std::string timeout = std::to_string(std::max<int64_t>(left.count(), 1)) + "m";
    const net::GrpcHeader headers[] = {{"grpc-timeout", timeout}};
    net::GrpcClientCall* call = channel_.Start(kKvPeerPath, headers, *this);
    call->Send(base::Slice());
    call->CloseSend();
    for (base::TimePoint now = runtime::Now(); !end_ && !IsTooLarge(); now = runtime::Now()) {
      if (now >= deadline) {
        return std::unexpected(
            base::DeadlineExceeded(base::Concat("not whole in time, after ",
                                                std::to_string(bytes_.size()), " bytes")));
      }
      loop_.Turn(deadline - now);
    }
    if (IsTooLarge()) {
      return std::unexpected(base::ResourceExhausted(base::Concat(
          "larger than ", std::to_string(bytes_max_), " bytes (--kv-index-memory)")));
    }
    if (!end_->ok()) return std::unexpected(*end_);
    return std::move(bytes_);
  }

 private:
  void OnMessagePiece(base::Slice piece, bool) override {
    if (!IsTooLarge()) bytes_.append(piece.view());
  }
  void OnEnd(const net::GrpcClientEnd& end) override { end_ = end.status; }

  bool IsTooLarge() const { return bytes_.size() > bytes_max_; }

  const size_t bytes_max_;
  runtime::EventLoop loop_;
  net::GrpcChannel channel_;
  std::string bytes_;
  std::optional<base::Status> end_;
};

// A picker that started a moment ago itself.
bool IsEmpty(std::string_view bytes) {
  const auto snapshot = prefix::KvSnapshot::Open(bytes);
  return snapshot && std::ranges::all_of(snapshot->holders(),
                                         [](const auto& holder) { return holder.blocks == 0; });
}

}  // namespace

base::Result<KvPeers> KvPeers::Load(const KvPeerOptions& options, uint64_t index_bytes) {
  KvPeers peers{.timeout = options.timeout,
                .bytes_max = index_bytes ? index_bytes : prefix::KvIndex::kBytesMaxDefault};
  if (!options.listen.empty()) {
    auto address = runtime::SocketAddress::Parse(options.listen);
    if (!address) return std::unexpected(address.error().WithContext("--kv-index-peer-listen"));
    peers.listen = *address;
  }
  if (!options.from.empty()) {
    auto from = runtime::SplitHostPort(options.from);
    if (!from || from->host.empty() || from->port == 0) {
      return std::unexpected(base::InvalidArgument(
          base::Concat("--kv-index-peer: \"", options.from, "\" is not host:port")));
    }
    peers.from = *std::move(from);
  }
  if (options.cert_dir.empty()) return peers;
  const std::string certificate = options.cert_dir + "/tls.crt";
  const std::string key = options.cert_dir + "/tls.key";
  const std::string ca = options.cert_dir + "/ca.crt";
  auto server = net::TlsServerContext::Load(
      {.certificate_file = certificate, .key_file = key, .client_ca_file = ca, .alpn = "h2"});
  if (!server) return std::unexpected(server.error().WithContext("--kv-index-peer-cert-dir"));
  auto client = net::TlsClientContext::Create(
      {.ca_file = ca, .certificate_file = certificate, .key_file = key, .alpn = "h2"});
  if (!client) return std::unexpected(client.error().WithContext("--kv-index-peer-cert-dir"));
  peers.server_tls = *std::move(server);
  peers.client_tls = *std::move(client);
  return peers;
}

base::Result<std::string> FetchKvIndex(const KvPeers& peers, runtime::ThreadPool& lookups) {
  const base::TimePoint deadline = runtime::Now() + peers.timeout;
  LLMD_ASSIGN_OR_RETURN(const net::Addresses addresses, Lookup(*peers.from, deadline, lookups));
  base::Status why = base::NotFound("its name has no address");
  for (const runtime::SocketAddress& address : addresses) {
    if (runtime::Now() >= deadline) break;
    auto bytes = Fetch(peers, address).Run(deadline);
    if (bytes && !IsEmpty(*bytes)) return bytes;
    why = bytes ? base::NotFound("its index is empty") : bytes.error();
  }
  return std::unexpected(why);
}

// ---- the door ----------------------------------------------------------------------------------

class KvPeerDoor::Peer final : public net::GrpcHandler {
 public:
  Peer(KvPeerDoor& door, net::GrpcCall& call) : door_(door), call_(call) {}

  void Begin() {
    if (const base::Status begun = door_.source_.Begin(); !begun.ok()) return Finish(begun);
    Pump();
  }
  void Finish(const base::Status& status) { call_.Finish(status.code(), status.message()); }
  void Reset() { call_.Reset(); }

  void OnWritable() override {
    if (door_.served_ == this) Pump();
  }
  void OnEnd(net::GrpcEnd) override { door_.Forget(this); }

 private:
  // As much as may wait unsent.
  void Pump() {
    while (!call_.finished() && call_.unsent_bytes() < net::GrpcCall::kUnsentHighBytes) {
      if (sent_ == piece_.size()) {
        if (last_) return call_.Finish(base::StatusCode::kOk);
        piece_.clear();
        sent_ = 0;
        last_ = !door_.source_.NextPiece(&piece_);
      }
      const std::string_view next = std::string_view(piece_).substr(sent_, kMessageBytes);
      if (next.empty()) continue;
      call_.Send(next);
      sent_ += next.size();
    }
  }

  KvPeerDoor& door_;
  net::GrpcCall& call_;
  std::string piece_;  // a part of the snapshot, of which
  size_t sent_ = 0;    // so much has been sent
  bool last_ = false;
};

KvPeerDoor::KvPeerDoor(runtime::EventLoop& loop, KvPeerSource& source,
                       std::shared_ptr<net::TlsServerContext> tls)
    : source_(source),
      resume_(loop, [this] { Resume(); }),
      limit_(loop, [this] { Abort(); }),
      server_(loop, {.message_bytes_max = kRequestBytesMax,
                     .streams_max = kPeersMax,
                     .connections_max = kConnectionsMax,
                     .idle_timeout = kIdleTimeout,
                     .tls = std::move(tls)}),
      listener_(loop, {&server_}) {
  server_.AddService(std::string(kKvPeerPath), *this);
}

KvPeerDoor::~KvPeerDoor() = default;

base::Result<uint16_t> KvPeerDoor::Listen(const runtime::SocketAddress& address) {
  return listener_.Listen(address);
}

net::GrpcHandler* KvPeerDoor::OnCall(net::GrpcCall& call) {
  if (peers_.size() >= kPeersMax) {
    call.Finish(base::StatusCode::kResourceExhausted, "too many pickers want the index");
    return nullptr;
  }
  peers_.push_back(std::make_unique<Peer>(*this, call));
  resume_.ArmAfter({});
  return peers_.back().get();
}

void KvPeerDoor::Resume() {
  if (served_ || peers_.empty() || !source_.CanBegin()) return;
  served_ = peers_.front().get();
  limit_.ArmAfter(kTimeMax);
  served_->Begin();
}

void KvPeerDoor::Abort() {
  if (served_) served_->Reset();
}

void KvPeerDoor::Forget(Peer* peer) {
  if (served_ == peer) {
    served_ = nullptr;
    limit_.Disarm();
    resume_.ArmAfter({});
  }
  std::erase_if(peers_, [&](const auto& each) { return each.get() == peer; });
}

}  // namespace llmd::control
