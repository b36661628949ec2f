// Socket addresses and the few socket calls that the rooms above need. All sockets made here are
// non-blocking and close-on-exec; TCP streams have TCP_NODELAY. Thread-safe.
#pragma once

#include <netinet/in.h>
#include <sys/un.h>

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "base/status.h"

namespace llmd::runtime {

// An IPv4 or IPv6 address with port, or the path of a Unix socket. Value type; compares by family,
// address, port (and scope), or by path.
class SocketAddress {
 public:
  SocketAddress();  // 0.0.0.0:0
  static SocketAddress Ipv4(uint32_t host_order_address, uint16_t port);
  // A socket in the file system, of at most kUnixPathMax bytes and without a zero byte.
  static constexpr size_t kUnixPathMax = sizeof(sockaddr_un::sun_path) - 1;
  static base::Result<SocketAddress> Unix(std::string_view path);
  // From a kernel sockaddr (AF_INET, AF_INET6 or AF_UNIX; a Unix socket without a name has the path
  // "").
  static base::Result<SocketAddress> From(const sockaddr* address, socklen_t size);
  // A literal address: "127.0.0.1", "::1". Names are the resolver's (net/resolver.h).
  static base::Result<SocketAddress> ParseIp(std::string_view ip, uint16_t port);
  // "127.0.0.1:80", "[::1]:80", and ":80" for every address of both families ("[::]:80").
  static base::Result<SocketAddress> Parse(std::string_view text);

  const sockaddr* raw() const { return reinterpret_cast<const sockaddr*>(&storage_); }
  socklen_t raw_size() const;
  int family() const { return storage_.v4.sin_family; }
  bool is_unix() const { return family() == AF_UNIX; }
  uint16_t port() const;  // 0 of a Unix socket, which WithPort leaves as it is
  SocketAddress WithPort(uint16_t port) const;
  bool is_loopback() const;      // true of a Unix socket
  std::string ToString() const;  // "1.2.3.4:80", "[::1]:80", "/run/x.sock"
  std::string IpString() const;  // without the port; an IPv4-mapped IPv6 address as IPv4
  uint64_t Hash() const;
  bool operator==(const SocketAddress& other) const;

 private:
  union Storage {
    sockaddr_in v4;
    sockaddr_in6 v6;
    sockaddr_un local;
  } storage_;
};

// Splits "host:port" or "[v6]:port"; the port is checked, the host only for being non-empty (":80"
// is allowed and gives an empty host).
struct HostPort {
  std::string host;
  uint16_t port = 0;
};
base::Result<HostPort> SplitHostPort(std::string_view text);

struct ListenOptions {
  int backlog = 4096;
  bool reuse_port = true;        // one listening socket per worker on the same port
  int receive_buffer_bytes = 0;  // 0: the kernel's automatic sizing
};
// The descriptor of a listening socket. An IPv6 wildcard listens on IPv4 too; when the machine has
// no IPv6 it falls back to 0.0.0.0. The path of a Unix socket must not exist yet; who listens
// removes it in the end.
base::Result<int> ListenTcp(const SocketAddress& address, const ListenOptions& options = {});
// Starts to connect; the socket becomes writable when it is done (then read SocketError). A Unix
// socket is connected at once or not at all.
base::Result<int> ConnectTcp(const SocketAddress& address);
// errno value pending on the socket, 0 when connected and well.
int SocketError(int fd);
base::Result<SocketAddress> LocalAddress(int fd);
base::Result<SocketAddress> PeerAddress(int fd);
// Closes so that the peer sees a reset and unread data is dropped.
void CloseWithReset(int fd);
void CloseFd(int fd);

// A descriptor on its way to another owner; closed when it does not arrive.
class OwnedFd {
 public:
  explicit OwnedFd(int fd) : fd_(fd) {}
  OwnedFd(OwnedFd&& other) noexcept : fd_(other.Take()) {}
  OwnedFd& operator=(OwnedFd&&) = delete;
  ~OwnedFd() {
    if (fd_ >= 0) CloseFd(fd_);
  }
  int Take() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

}  // namespace llmd::runtime
