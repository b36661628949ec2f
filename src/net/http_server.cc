#include "net/http_server.h"

#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/strings.h"
#include "net/server_connection.h"
#include "net/tls.h"

namespace llmd::net {
namespace {

constexpr size_t kSpareExchangesMax = 64;  // about 6 KiB each
constexpr base::Duration kAcceptRetry = std::chrono::milliseconds(100);
// The shortest time over which a loop's busy share says something: many turns even of a slow one.
constexpr base::Duration kBusyWindow = std::chrono::milliseconds(100);
constexpr std::string_view kFullResponse =
    "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\n"
    "Connection: close\r\n\r\n";

std::string DefaultErrorBody(int status, std::string_view code, std::string_view message) {
  std::string body = R"({"error":{"message":)";
  base::AppendJsonString(&body, message);
  body += base::Concat(R"(,"type":")", status >= 500 ? "server_error" : "invalid_request_error",
                       R"(","param":null,"code":)");
  base::AppendJsonString(&body, code);
  return body + "}}";
}

}  // namespace

std::string_view GoneReasonName(GoneReason reason) {
  switch (reason) {
    case GoneReason::kClosed:
      return "closed";
    case GoneReason::kBodyTimeout:
      return "body-timeout";
    case GoneReason::kWriteTimeout:
      return "write-timeout";
    case GoneReason::kBadBody:
      return "bad-body";
    case GoneReason::kBodyTooLarge:
      return "body-too-large";
    case GoneReason::kAborted:
      return "aborted";
  }
  return "";
}

class HttpServer::Impl::Listener final : public runtime::IoHandler {
 public:
  Listener(HttpServer& server, int fd)
      : server_(server), fd_(fd), retry_(server.impl_->loop, [this] { AcceptAll(); }) {}
  ~Listener() {
    server_.impl_->loop.Unwatch(fd_, *this);
    ::close(fd_);
  }
  base::Status Watch() { return server_.impl_->loop.WatchReadable(fd_, *this); }
  void OnIo(runtime::IoEvents) override { AcceptAll(); }

 private:
  void AcceptAll() {
    while (true) {
      sockaddr_storage storage;
      socklen_t size = sizeof(storage);
      int fd = ::accept4(fd_, reinterpret_cast<sockaddr*>(&storage), &size,
                         SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd >= 0) {
        auto peer = runtime::SocketAddress::From(reinterpret_cast<sockaddr*>(&storage), size);
        server_.impl_->Place(fd, peer ? *peer : runtime::SocketAddress());
        continue;
      }
      if (errno == ECONNABORTED || errno == EINTR || errno == EPROTO) continue;
      // Out of descriptors or memory: the edge is used up, so look again by the clock.
      if (errno != EAGAIN && errno != EWOULDBLOCK) retry_.ArmAfter(kAcceptRetry);
      return;
    }
  }

  HttpServer& server_;
  int fd_;
  runtime::Timer retry_;
};

HttpServer::Impl::Impl(runtime::EventLoop& event_loop, HttpService& http_service,
                       HttpServerOptions opts)
    : loop(event_loop),
      service(http_service),
      options(std::move(opts)),
      drain_timer(event_loop, [this] {
        for (ServerConnection* c = connections; c; c = c->next_) c->AbortNow();
      }) {}

std::unique_ptr<ServerExchange> HttpServer::Impl::NewExchange() {
  if (spare_exchanges.empty()) {
    auto exchange = std::unique_ptr<ServerExchange>(new ServerExchange);
    exchange->decoder_ = wire::ChunkedDecoder(options.limits.trailer_bytes_max);
    return exchange;
  }
  auto exchange = std::move(spare_exchanges.back());
  spare_exchanges.pop_back();
  return exchange;
}

void HttpServer::Impl::Recycle(std::unique_ptr<ServerExchange> exchange) {
  if (spare_exchanges.size() >= kSpareExchangesMax) return;
  // Everything but the head, which the next parse overwrites.
  exchange->connection_ = nullptr;
  exchange->handler_ = nullptr;
  exchange->head_hold_ = base::Slice();
  exchange->body_bytes_ = exchange->body_left_ = 0;
  exchange->response_bytes_ = exchange->response_body_left_ = 0;
  exchange->decoder_ = wire::ChunkedDecoder(options.limits.trailer_bytes_max);
  exchange->framing_ = ResponseFraming::kNone;
  exchange->body_ended_ = exchange->body_paused_ = exchange->continue_due_ = false;
  exchange->head_sent_ = exchange->finish_called_ = exchange->suppress_body_ = false;
  exchange->close_after_ = exchange->above_high_ = false;
  spare_exchanges.push_back(std::move(exchange));
}

void HttpServer::Impl::Remove(ServerConnection* connection) {
  (connection->previous_ ? connection->previous_->next_ : connections) = connection->next_;
  if (connection->next_) connection->next_->previous_ = connection->previous_;
  --connection_count;
  if (connection->exchange_) Recycle(std::move(connection->exchange_));
  delete connection;
  FinishDrainIfIdle();
}

void HttpServer::Impl::FinishDrainIfIdle() {
  if (!draining || connection_count > 0 || !drain_done) return;
  drain_timer.Disarm();
  // Not from inside the connection that was the last one.
  loop.Post(std::exchange(drain_done, nullptr));
}

std::string_view HttpServer::Impl::DateLine() {
  if (loop.now() < date_until) return date_line;
  const int64_t unix_ns = loop.wall_now().unix_ns;
  const time_t seconds = static_cast<time_t>(unix_ns / 1'000'000'000);
  tm parts;
  gmtime_r(&seconds, &parts);
  // strftime's names follow the locale, which stays "C" unless someone calls setlocale.
  char text[64];
  const size_t size = strftime(text, sizeof(text), "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &parts);
  date_line.assign(text, size);
  date_until = loop.now() + base::Duration(1'000'000'000 - unix_ns % 1'000'000'000);
  return date_line;
}

std::string HttpServer::Impl::ErrorBody(int status, std::string_view code,
                                        std::string_view message) const {
  return options.error_body ? options.error_body(status, code, message)
                            : DefaultErrorBody(status, code, message);
}

HttpServer::HttpServer(runtime::EventLoop& loop, HttpService& service, HttpServerOptions options)
    : impl_(std::make_unique<Impl>(loop, service, std::move(options))) {}

HttpServer::~HttpServer() {
  StopListening();
  impl_->draining = true;
  impl_->drain_done = nullptr;
  while (ServerConnection* connection = impl_->connections) {
    connection->AbortNow();
    connection->Settle();
  }
}

base::Result<uint16_t> HttpServer::Listen(const runtime::SocketAddress& address) {
  LLMD_ASSIGN_OR_RETURN(const int fd, runtime::ListenTcp(address));
  auto listener = std::make_unique<Impl::Listener>(*this, fd);
  LLMD_RETURN_IF_ERROR(listener->Watch());
  LLMD_ASSIGN_OR_RETURN(const runtime::SocketAddress local, runtime::LocalAddress(fd));
  impl_->listeners.push_back(std::move(listener));
  return local.port();
}

void HttpServer::StopListening() { impl_->listeners.clear(); }

void HttpServer::ShareWith(const std::vector<HttpServer*>& servers,
                           const PlacementPolicy& policy) {
  impl_->placement = policy;
  for (HttpServer* server : servers) {
    impl_->sharers.push_back({server->impl_.get(), server->impl_->loop.busy(), {}});
  }
}

void HttpServer::Adopt(int fd, const runtime::SocketAddress& peer) {
  ++impl_->connection_count;
  impl_->Adopt(fd, peer);
}

void HttpServer::Impl::LookAtLoads() {
  const base::Duration since = loop.now() - looked_at;
  const bool again = since >= kBusyWindow;
  if (again) looked_at = loop.now();
  for (Sharer& sharer : sharers) {
    sharer.load.connections = sharer.server->connection_count.load(std::memory_order_relaxed);
    if (!again) continue;
    const base::Duration busy = sharer.server->loop.busy();
    sharer.load.busy_share = base::ToSeconds(busy - sharer.busy) / base::ToSeconds(since);
    sharer.busy = busy;
  }
}

void HttpServer::Impl::Place(int fd, const runtime::SocketAddress& peer) {
  Impl* server = this;
  if (!sharers.empty()) {
    LookAtLoads();
    server = sharers[PlaceConnection(sharers, placement, &Sharer::load)].server;
  }
  ++server->connection_count;
  if (server == this) {
    Adopt(fd, peer);
    return;
  }
  server->loop.Post([server, peer, held = runtime::OwnedFd(fd)]() mutable {
    server->Adopt(held.Take(), peer);
  });
}

// The connection is counted already.
void HttpServer::Impl::Adopt(int fd, const runtime::SocketAddress& peer) {
  const auto refuse = [this] {
    ++stats.refused_full;
    --connection_count;
    FinishDrainIfIdle();
  };
  if (connection_count > options.connections_max || draining) {
    if (!options.tls) {
      [[maybe_unused]] ssize_t n =
          ::send(fd, kFullResponse.data(), kFullResponse.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    ::close(fd);
    return refuse();
  }
  auto connection = std::make_unique<ServerConnection>(*this, peer, ++last_connection_id);
  auto stream = options.tls ? options.tls->NewStream(loop, fd, *connection)
                            : runtime::NewTcpStream(loop, fd, *connection);
  if (!stream) return refuse();
  ++stats.accepted;
  connection->Attach(*std::move(stream));
  connection->next_ = connections;
  if (connections) connections->previous_ = connection.get();
  connections = connection.release();
}

void HttpServer::Drain(base::Duration limit, std::move_only_function<void()> done) {
  Impl& impl = *impl_;
  StopListening();
  impl.draining = true;
  impl.drain_done = std::move(done);
  for (ServerConnection* c = impl.connections; c; c = c->next_) c->BeginDrain();
  impl.drain_timer.ArmAfter(limit);
  impl.FinishDrainIfIdle();
}

size_t HttpServer::connection_count() const { return impl_->connection_count; }
size_t HttpServer::active_exchange_count() const { return impl_->active_count; }
const HttpServerStats& HttpServer::stats() const { return impl_->stats; }
const HttpServerOptions& HttpServer::options() const { return impl_->options; }

}  // namespace llmd::net
