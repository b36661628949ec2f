// Helpers for tests of this room: raw sockets that share the test's loop, and a service made of
// functions. Everything runs on one thread; waiting means turning the loop.
#pragma once

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "net/http_client.h"
#include "net/http_server.h"
#include "runtime/clock.h"
#include "runtime/loop.h"
#include "runtime/runtime_testing.h"
#include "runtime/socket.h"

namespace llmd::net {

inline constexpr uint32_t kLoopback = 0x7f000001;

using runtime::TurnUntil;

// Some turns in which nothing in particular is awaited.
inline void TurnABit(runtime::EventLoop& loop, int turns = 3) {
  for (int i = 0; i < turns; ++i) loop.Turn(std::chrono::milliseconds(1));
}

// One end of a TCP connection in the hands of the test.
class RawPeer {
 public:
  RawPeer(runtime::EventLoop& loop, int fd) : loop_(loop), fd_(fd) {}
  static RawPeer ConnectTo(runtime::EventLoop& loop, uint16_t port) {
    return RawPeer(loop,
                   runtime::ConnectTcp(runtime::SocketAddress::Ipv4(kLoopback, port)).value());
  }
  RawPeer(RawPeer&& other) noexcept
      : received(std::move(other.received)),
        loop_(other.loop_),
        fd_(std::exchange(other.fd_, -1)) {}
  ~RawPeer() { Close(); }

  // Sends all, turning the loop while the socket is full.
  bool Send(std::string_view bytes) {
    return TurnUntil(loop_, [&] {
      bytes.remove_prefix(SendSome(bytes));
      return bytes.empty();
    });
  }
  size_t SendSome(std::string_view bytes) {
    const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    return n > 0 ? static_cast<size_t>(n) : 0;
  }
  // Takes what there is.
  void Poll(size_t bytes_max = ~size_t{0}) {
    char room[64 << 10];
    while (bytes_max > 0 && !ended) {
      const ssize_t n = ::recv(fd_, room, std::min(bytes_max, sizeof(room)), MSG_DONTWAIT);
      if (n > 0) {
        received.append(room, static_cast<size_t>(n));
        bytes_max -= static_cast<size_t>(n);
        continue;
      }
      if (n < 0 && (errno == EAGAIN || errno == ENOTCONN)) return;
      ended = true;
      was_reset = n < 0;
    }
  }
  bool WaitFor(std::string_view text) {
    return TurnUntil(loop_, [&] {
      Poll();
      return received.find(text) != std::string::npos;
    });
  }
  bool WaitForBytes(size_t count) {
    return TurnUntil(loop_, [&] {
      Poll();
      return received.size() >= count;
    });
  }
  bool WaitForEnd() {
    return TurnUntil(loop_, [&] {
      Poll();
      return ended;
    });
  }
  std::string Take() { return std::exchange(received, {}); }
  void ShutdownWrite() { ::shutdown(fd_, SHUT_WR); }
  void Reset() { runtime::CloseWithReset(std::exchange(fd_, -1)); }
  void Close() {
    if (fd_ >= 0) runtime::CloseFd(std::exchange(fd_, -1));
  }
  int fd() const { return fd_; }

  std::string received;
  bool ended = false;
  bool was_reset = false;

 private:
  runtime::EventLoop& loop_;
  int fd_;
};

// A listening socket whose connections the test accepts by hand.
class RawListener {
 public:
  explicit RawListener(runtime::EventLoop& loop)
      : loop_(loop), fd_(runtime::ListenTcp(runtime::SocketAddress::Ipv4(kLoopback, 0)).value()) {}
  ~RawListener() { Close(); }
  void Close() {
    if (fd_ >= 0) runtime::CloseFd(std::exchange(fd_, -1));
  }
  uint16_t port() const { return runtime::LocalAddress(fd_)->port(); }
  // Waits for the next connection; one with fd -1 when there is none.
  RawPeer Accept() {
    int fd = -1;
    TurnUntil(loop_, [&] {
      fd = ::accept4(fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      return fd >= 0;
    });
    return RawPeer(loop_, fd);
  }
  bool Pending() {
    TurnABit(loop_);
    const int fd = ::accept4(fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) ::close(fd);
    return fd >= 0;
  }

 private:
  runtime::EventLoop& loop_;
  int fd_;
};

// Remembers one request and answers by script.
struct TestHandler final : ExchangeHandler {
  explicit TestHandler(ServerExchange& x) : exchange(&x) {}
  void OnBody(base::Slice piece) override {
    body += piece.view();
    if (on_body) on_body(*this);
  }
  void OnBodyEnd() override {
    body_ended = true;
    if (on_body_end) on_body_end(*this);
  }
  void OnWritable() override {
    ++writable_count;
    if (on_writable) on_writable(*this);
  }
  void OnFinished() override {
    ++finished;
    exchange = nullptr;
  }
  void OnClientGone(GoneReason why) override {
    ++gone;
    reason = why;
    exchange = nullptr;
  }
  bool ended() const { return finished + gone > 0; }

  ServerExchange* exchange;
  std::string body;
  bool body_ended = false;
  int writable_count = 0;
  int finished = 0;
  int gone = 0;
  GoneReason reason{};
  std::function<void(TestHandler&)> on_body, on_body_end, on_writable;
};

struct TestService final : HttpService {
  ExchangeHandler* OnRequest(ServerExchange& exchange) override {
    seen.emplace_back(std::string(exchange.head().method_name) + " " +
                      std::string(exchange.head().target));
    if (answer_at_once) {
      answer_at_once(exchange);
      return nullptr;
    }
    handlers.push_back(std::make_unique<TestHandler>(exchange));
    TestHandler& handler = *handlers.back();
    if (prepare) prepare(handler);
    return &handler;
  }
  void OnBadRequest(int status, std::string_view) override { bad.push_back(status); }
  TestHandler& last() { return *handlers.back(); }

  std::vector<std::string> seen;
  std::vector<int> bad;
  std::vector<std::unique_ptr<TestHandler>> handlers;  // also of ended exchanges
  std::function<void(TestHandler&)> prepare;
  std::function<void(ServerExchange&)> answer_at_once;
};

// What a client was told.
struct TestClient final : ClientHandler {
  void OnResponseHead(const wire::ResponseHead& head) override {
    status = head.status;
    framing = head.framing;
    if (on_head) on_head();
  }
  void OnResponseBody(const base::Slice& bytes,
                      std::span<const std::string_view> decoded) override {
    raw += bytes.view();
    for (std::string_view piece : decoded) body += piece;
    if (on_body) on_body();
  }
  void OnResponseEnd() override {
    ++ended;
    if (on_end) on_end();
  }
  void OnResponseError(const ClientError& e) override {
    ++failed;
    error = e;
    if (on_error) on_error();
  }
  void OnRequestWritable() override { ++writable_count; }
  bool done() const { return ended + failed > 0; }

  int status = 0;
  wire::HttpFraming framing{};
  std::string raw, body;
  int ended = 0;
  int failed = 0;
  int writable_count = 0;
  ClientError error{};
  std::function<void()> on_head, on_body, on_end, on_error;
};

}  // namespace llmd::net
