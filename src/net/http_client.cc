#include "net/http_client.h"

#include <utility>

#include "net/client_connection.h"

namespace llmd::net {

std::string_view ClientErrorName(ClientErrorKind kind) {
  switch (kind) {
    case ClientErrorKind::kConnectFailed:
      return "connect-failed";
    case ClientErrorKind::kConnectTimeout:
      return "connect-timeout";
    case ClientErrorKind::kTlsFailed:
      return "tls-failed";
    case ClientErrorKind::kResetBeforeReply:
      return "reset-before-reply";
    case ClientErrorKind::kHeadTimeout:
      return "head-timeout";
    case ClientErrorKind::kBadReply:
      return "bad-reply";
    case ClientErrorKind::kBodyCut:
      return "body-cut";
    case ClientErrorKind::kBodyTimeout:
      return "body-timeout";
    case ClientErrorKind::kWriteTimeout:
      return "write-timeout";
    case ClientErrorKind::kTooManyConnections:
      return "too-many-connections";
  }
  return "";
}

// Frees a removed target once its last connection is gone.
void HttpClient::Impl::ReleaseTarget(ClientTarget* target) {
  if (!target->removed || target->connection_count > 0) return;
  (target->previous ? target->previous->next : targets) = target->next;
  if (target->next) target->next->previous = target->previous;
  delete target;
}

HttpClient::HttpClient(runtime::EventLoop& loop, HttpClientOptions options)
    : impl_(std::make_unique<Impl>(loop, std::move(options))) {}

HttpClient::~HttpClient() {
  while (impl_->connections) delete impl_->connections;
  while (ClientTarget* target = impl_->targets) {
    target->removed = true;
    impl_->ReleaseTarget(target);
  }
}

ClientTarget* HttpClient::AddTarget(TargetSpec spec) {
  auto target = std::make_unique<ClientTarget>(std::move(spec));
  target->next = impl_->targets;
  if (target->next) target->next->previous = target.get();
  impl_->targets = target.get();
  return target.release();
}

void HttpClient::RemoveTarget(ClientTarget* target) {
  while (target->idle) target->idle->CloseIdle();
  target->removed = true;
  impl_->ReleaseTarget(target);
}

ClientExchange* HttpClient::Start(ClientTarget* target, base::Slice head,
                                  std::span<const base::Slice> body, ClientHandler& handler,
                                  const StartOptions& options) {
  ++impl_->stats.exchanges;
  ClientConnection* connection = target->idle;
  if (connection) {
    // Leaves the pool's list, but stays in phase idle until Begin has taken it up.
    connection->Unlink();
  } else {
    const bool full = target->connection_count >= impl_->options.connections_per_target_max;
    connection = new ClientConnection(*impl_, target);
    if (full) {
      connection->FailAtTurnEnd(ClientErrorKind::kTooManyConnections, 0, "");
    } else {
      connection->Connect();
    }
  }
  connection->Begin(handler, std::move(head), body, options);
  return connection;
}

const HttpClientStats& HttpClient::stats() const { return impl_->stats; }
size_t HttpClient::idle_count(const ClientTarget* target) const { return target->idle_count; }
size_t HttpClient::active_count(const ClientTarget* target) const {
  return target->connection_count - target->idle_count;
}

}  // namespace llmd::net
