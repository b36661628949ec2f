#include "net/grpc_server.h"

#include <nghttp2/nghttp2.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "net/grpc_gzip.h"
#include "net/http2_connection.h"
#include "net/tls.h"

namespace llmd::net {
namespace {

constexpr size_t kSpareCallsMax = 4096;  // about 700 bytes each
constexpr size_t kSmallBlockBytes = 8 << 10;
constexpr base::Duration kAcceptRetry = std::chrono::milliseconds(100);

// A descriptor on its way to another loop, closed when it does not arrive.
class TravellingFd {
 public:
  explicit TravellingFd(int fd) : fd_(fd) {}
  TravellingFd(TravellingFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~TravellingFd() {
    if (fd_ >= 0) ::close(fd_);
  }
  int Take() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

}  // namespace

GrpcServer::Impl::Impl(runtime::EventLoop& event_loop, GrpcServerOptions opts)
    : loop(event_loop),
      options(std::move(opts)),
      callbacks(Http2Connection::NewCallbacks()),
      session_options(Http2Connection::NewSessionOptions()),
      drain_timer(event_loop, [this] {
        for (Http2Connection* c = connections; c; c = c->next_) c->AbortNow();
      }) {}

GrpcServer::Impl::~Impl() {
  for (GrpcCall* call : spare_calls) delete call;
  nghttp2_option_del(session_options);
  nghttp2_session_callbacks_del(callbacks);
}

GrpcService* GrpcServer::Impl::Find(std::string_view path) const {
  for (const auto& [name, service] : services) {
    if (name.ends_with('/') ? path.starts_with(name) : path == name) return service;
  }
  return nullptr;
}

GrpcCall* GrpcServer::Impl::NewCall() {
  if (spare_calls.empty()) return new GrpcCall(loop);
  GrpcCall* call = spare_calls.back();
  spare_calls.pop_back();
  return call;
}

void GrpcServer::Impl::Recycle(GrpcCall* call) {
  if (spare_calls.size() >= kSpareCallsMax) {
    delete call;
    return;
  }
  call->Clear();
  spare_calls.push_back(call);
}

base::Slice GrpcServer::Impl::CopySmall(std::string_view first, std::span<const base::Slice> rest) {
  size_t size = first.size();
  for (const base::Slice& piece : rest) size += piece.size();
  if (!small || small->capacity() - small_used < size) {
    small = loop.buffers().Get(kSmallBlockBytes);
    small_hold = base::Slice(small, small->data(), small->capacity());
    small_used = 0;
  }
  char* const begin = small->data() + small_used;
  std::memcpy(begin, first.data(), first.size());
  char* at = begin + first.size();
  for (const base::Slice& piece : rest) {
    if (piece.empty()) continue;
    std::memcpy(at, piece.data(), piece.size());
    at += piece.size();
  }
  small_used += size;
  return base::Slice(small, begin, size);
}

void GrpcServer::Impl::Add(std::unique_ptr<Http2Connection> connection) {
  ++stats.accepted;
  ++connection_count;
  connection->next_ = connections;
  if (connections) connections->previous_ = connection.get();
  connections = connection.release();
}

void GrpcServer::Impl::Remove(Http2Connection* connection) {
  (connection->previous_ ? connection->previous_->next_ : connections) = connection->next_;
  if (connection->next_) connection->next_->previous_ = connection->previous_;
  --connection_count;
  delete connection;
  FinishDrainIfIdle();
}

void GrpcServer::Impl::FinishDrainIfIdle() {
  if (!draining || connection_count > 0 || !drain_done) return;
  drain_timer.Disarm();
  // Not from inside the connection that was the last one.
  loop.Post(std::exchange(drain_done, nullptr));
}

GrpcServer::GrpcServer(runtime::EventLoop& loop, GrpcServerOptions options)
    : impl_(std::make_unique<Impl>(loop, std::move(options))) {}

GrpcServer::~GrpcServer() {
  impl_->draining = true;
  impl_->drain_done = nullptr;
  while (Http2Connection* connection = impl_->connections) {
    connection->AbortNow();
    connection->Settle();
  }
}

void GrpcServer::AddService(std::string path, GrpcService& service) {
  impl_->services.emplace_back(std::move(path), &service);
}

void GrpcServer::Adopt(int fd, const runtime::SocketAddress& peer) {
  Impl& impl = *impl_;
  if (impl.connection_count >= impl.options.connections_max || impl.draining) {
    ++impl.stats.refused_full;
    ::close(fd);
    return;
  }
  auto connection = std::make_unique<Http2Connection>(impl, peer, ++impl.last_connection_id);
  auto stream = impl.options.tls ? impl.options.tls->NewStream(impl.loop, fd, *connection)
                                 : runtime::NewTcpStream(impl.loop, fd, *connection);
  if (!stream) {
    ++impl.stats.refused_full;
    return;
  }
  connection->Attach(*std::move(stream));
  impl.Add(std::move(connection));
}

runtime::IoHandler* GrpcServer::AdoptForTest(std::unique_ptr<runtime::Stream> stream) {
  Impl& impl = *impl_;
  if (impl.connection_count >= impl.options.connections_max || impl.draining) return nullptr;
  auto connection =
      std::make_unique<Http2Connection>(impl, runtime::SocketAddress(), ++impl.last_connection_id);
  runtime::IoHandler* handler = connection.get();
  connection->Attach(std::move(stream));
  impl.Add(std::move(connection));
  return handler;
}

void GrpcServer::Drain(base::Duration limit, std::move_only_function<void()> done) {
  Impl& impl = *impl_;
  impl.draining = true;
  impl.drain_done = std::move(done);
  for (Http2Connection* c = impl.connections; c; c = c->next_) c->BeginDrain();
  impl.drain_timer.ArmAfter(limit);
  impl.FinishDrainIfIdle();
}

runtime::EventLoop& GrpcServer::loop() const { return impl_->loop; }
size_t GrpcServer::connection_count() const { return impl_->connection_count; }
size_t GrpcServer::active_call_count() const { return impl_->active_count; }
const GrpcServerStats& GrpcServer::stats() const { return impl_->stats; }
const GrpcServerOptions& GrpcServer::options() const { return impl_->options; }

// --- the listener --------------------------------------------------------------------------------

struct GrpcListener::Impl {
  class Socket;

  void Deal(int fd, const runtime::SocketAddress& peer) {
    GrpcServer* server = servers[next++ % servers.size()];
    // Not InLoopThread: while workers start, that is true of a loop that does not run yet.
    if (&server->loop() == &loop) {
      server->Adopt(fd, peer);
      return;
    }
    server->loop().Post(
        [server, peer, held = TravellingFd(fd)]() mutable { server->Adopt(held.Take(), peer); });
  }

  runtime::EventLoop& loop;
  std::vector<GrpcServer*> servers;
  size_t next = 0;
  std::vector<std::unique_ptr<Socket>> sockets;
};

class GrpcListener::Impl::Socket final : public runtime::IoHandler {
 public:
  Socket(Impl& listener, int fd)
      : listener_(listener), fd_(fd), retry_(listener.loop, [this] { AcceptAll(); }) {}
  ~Socket() {
    listener_.loop.Unwatch(fd_, *this);
    ::close(fd_);
  }
  base::Status Watch() { return listener_.loop.WatchReadable(fd_, *this); }
  void OnIo(runtime::IoEvents) override { AcceptAll(); }

 private:
  void AcceptAll() {
    while (true) {
      sockaddr_storage storage;
      socklen_t size = sizeof(storage);
      const int fd = ::accept4(fd_, reinterpret_cast<sockaddr*>(&storage), &size,
                               SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd >= 0) {
        auto peer = runtime::SocketAddress::From(reinterpret_cast<sockaddr*>(&storage), size);
        listener_.Deal(fd, peer ? *peer : runtime::SocketAddress());
        continue;
      }
      if (errno == ECONNABORTED || errno == EINTR || errno == EPROTO) continue;
      // Out of descriptors or memory: the edge is used up, so look again by the clock.
      if (errno != EAGAIN && errno != EWOULDBLOCK) retry_.ArmAfter(kAcceptRetry);
      return;
    }
  }

  Impl& listener_;
  int fd_;
  runtime::Timer retry_;
};

GrpcListener::GrpcListener(runtime::EventLoop& loop, std::vector<GrpcServer*> servers)
    : impl_(std::make_unique<Impl>(loop, std::move(servers))) {}

GrpcListener::~GrpcListener() = default;

base::Result<uint16_t> GrpcListener::Listen(const runtime::SocketAddress& address) {
  LLMD_ASSIGN_OR_RETURN(const int fd, runtime::ListenTcp(address, {.reuse_port = false}));
  auto socket = std::make_unique<Impl::Socket>(*impl_, fd);
  LLMD_RETURN_IF_ERROR(socket->Watch());
  LLMD_ASSIGN_OR_RETURN(const runtime::SocketAddress local, runtime::LocalAddress(fd));
  impl_->sockets.push_back(std::move(socket));
  return local.port();
}

void GrpcListener::StopListening() { impl_->sockets.clear(); }

}  // namespace llmd::net
