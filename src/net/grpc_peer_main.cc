// A server for foreign gRPC clients to talk to (tests/peers/grpc_test.py):
//
//   grpc_peer PLAIN_PORT TLS_PORT     on 127.0.0.1, until killed
//
// It serves grpc.health.v1.Health, /test.Peer/Echo (every message comes back) and /test.Peer/Set (a
// message is one digit, the new status, and the name that gets it).
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/strings.h"
#include "net/grpc_health.h"
#include "net/grpc_server.h"
#include "net/tls.h"
#include "runtime/loop.h"
#include "runtime/signals.h"

namespace llmd::net {
namespace {

class PeerService final : public GrpcService {
 public:
  explicit PeerService(GrpcHealth& health) : health_(health) {}
  GrpcHandler* OnCall(GrpcCall& call) override {
    return new Handler(health_, call, call.path().ends_with("/Set"));
  }

 private:
  struct Handler final : GrpcHandler {
    Handler(GrpcHealth& h, GrpcCall& c, bool s) : health(h), call(c), sets(s) {}
    void OnMessagePiece(base::Slice piece, bool last) override {
      message.push_back(std::move(piece));
      if (!last) return;
      if (sets) Set();
      call.Send(message);
      message.clear();
    }
    void Set() {
      std::string text;
      for (const base::Slice& piece : message) text += piece.view();
      if (text.empty()) return;
      health.Set(std::string_view(text).substr(1), static_cast<HealthStatus>(text[0] - '0'));
    }
    void OnHalfClose() override { call.Finish(base::StatusCode::kOk); }
    void OnEnd(GrpcEnd) override { delete this; }
    GrpcHealth& health;
    GrpcCall& call;
    const bool sets;
    std::vector<base::Slice> message;
  };
  GrpcHealth& health_;
};

int Run(std::string_view plain_port, std::string_view tls_port) {
  const std::optional<int64_t> ports[] = {base::ParseInt(plain_port), base::ParseInt(tls_port)};
  auto tls = TlsServerContext::SelfSigned({}, {.alpn = "h2"});
  if (!ports[0] || !ports[1] || !tls) return 2;
  runtime::EventLoop loop;
  runtime::SignalWatch signals(loop, [&](int) { loop.Stop(); });
  GrpcHealth health;
  GrpcHealthService health_service(loop, health);
  PeerService peer(health);
  GrpcServer plain(loop), secure(loop, {.tls = *tls});
  GrpcListener plain_listener(loop, {&plain}), secure_listener(loop, {&secure});
  for (GrpcServer* server : {&plain, &secure}) {
    server->AddService(std::string(GrpcHealthService::kPath), health_service);
    server->AddService("/test.Peer/", peer);
  }
  auto address = [&](size_t i) {
    return runtime::SocketAddress::Ipv4(0x7f000001, static_cast<uint16_t>(*ports[i]));
  };
  if (!plain_listener.Listen(address(0)) || !secure_listener.Listen(address(1))) return 3;
  loop.Run();
  return 0;
}

}  // namespace
}  // namespace llmd::net

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  return llmd::net::Run(argv[1], argv[2]);
}
