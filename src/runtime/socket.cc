#include "runtime/socket.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstring>

#include "base/hash.h"
#include "base/strings.h"

namespace llmd::runtime {
namespace {

// Four bytes in network order. By hand because every relayed request writes one: inet_ntop goes
// through printf.
std::string DottedQuad(const void* address) {
  const auto* bytes = static_cast<const unsigned char*>(address);
  char text[16];
  char* out = text;
  for (int i = 0; i < 4; ++i) {
    if (i > 0) *out++ = '.';
    out = std::to_chars(out, std::end(text), bytes[i]).ptr;
  }
  return std::string(text, out);
}

}  // namespace

SocketAddress::SocketAddress() {
  std::memset(&storage_, 0, sizeof(storage_));
  storage_.v4.sin_family = AF_INET;
}

SocketAddress SocketAddress::Ipv4(uint32_t host_order_address, uint16_t port) {
  SocketAddress address;
  address.storage_.v4.sin_addr.s_addr = htonl(host_order_address);
  address.storage_.v4.sin_port = htons(port);
  return address;
}

base::Result<SocketAddress> SocketAddress::Unix(std::string_view path) {
  if (path.empty() || path.size() > kUnixPathMax || path.find('\0') != std::string_view::npos) {
    return std::unexpected(base::InvalidArgument(
        base::Concat("\"", path, "\" is not the path of a Unix socket: it has 1 to ",
                     std::to_string(kUnixPathMax), " bytes, none of them zero")));
  }
  SocketAddress address;
  address.storage_.local.sun_family = AF_UNIX;
  std::memcpy(address.storage_.local.sun_path, path.data(), path.size());
  return address;
}

base::Result<SocketAddress> SocketAddress::From(const sockaddr* address, socklen_t size) {
  SocketAddress result;
  if (address->sa_family == AF_INET && size >= sizeof(sockaddr_in)) {
    std::memcpy(&result.storage_.v4, address, sizeof(sockaddr_in));
  } else if (address->sa_family == AF_INET6 && size >= sizeof(sockaddr_in6)) {
    std::memcpy(&result.storage_.v6, address, sizeof(sockaddr_in6));
  } else if (address->sa_family == AF_UNIX && size >= sizeof(sa_family_t)) {
    // The kernel counts the zero byte behind a path, but tells none of a socket without a name.
    const auto* local = reinterpret_cast<const sockaddr_un*>(address);
    const size_t room = std::min<size_t>(size - sizeof(sa_family_t), kUnixPathMax);
    result.storage_.local.sun_family = AF_UNIX;
    std::memcpy(result.storage_.local.sun_path, local->sun_path, strnlen(local->sun_path, room));
  } else {
    return std::unexpected(base::InvalidArgument("not an IPv4, IPv6 or Unix address"));
  }
  return result;
}

base::Result<SocketAddress> SocketAddress::ParseIp(std::string_view ip, uint16_t port) {
  const std::string text(ip);
  SocketAddress address;
  if (inet_pton(AF_INET, text.c_str(), &address.storage_.v4.sin_addr) == 1) {
    address.storage_.v4.sin_port = htons(port);
    return address;
  }
  std::memset(&address.storage_, 0, sizeof(address.storage_));
  if (inet_pton(AF_INET6, text.c_str(), &address.storage_.v6.sin6_addr) == 1) {
    address.storage_.v6.sin6_family = AF_INET6;
    address.storage_.v6.sin6_port = htons(port);
    return address;
  }
  return std::unexpected(base::InvalidArgument(base::Concat("\"", ip, "\" is not an IP address")));
}

base::Result<SocketAddress> SocketAddress::Parse(std::string_view text) {
  LLMD_ASSIGN_OR_RETURN(HostPort parts, SplitHostPort(text));
  return ParseIp(parts.host.empty() ? "::" : parts.host, parts.port);
}

socklen_t SocketAddress::raw_size() const {
  if (is_unix()) {
    return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) +
                                  std::strlen(storage_.local.sun_path) + 1);
  }
  return family() == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
}

uint16_t SocketAddress::port() const {
  if (is_unix()) return 0;
  return ntohs(family() == AF_INET6 ? storage_.v6.sin6_port : storage_.v4.sin_port);
}

SocketAddress SocketAddress::WithPort(uint16_t port) const {
  SocketAddress copy = *this;
  if (is_unix()) return copy;
  (family() == AF_INET6 ? copy.storage_.v6.sin6_port : copy.storage_.v4.sin_port) = htons(port);
  return copy;
}

bool SocketAddress::is_loopback() const {
  if (is_unix()) return true;
  if (family() == AF_INET) return (ntohl(storage_.v4.sin_addr.s_addr) >> 24) == 127;
  if (IN6_IS_ADDR_V4MAPPED(&storage_.v6.sin6_addr)) return storage_.v6.sin6_addr.s6_addr[12] == 127;
  return IN6_IS_ADDR_LOOPBACK(&storage_.v6.sin6_addr);
}

std::string SocketAddress::IpString() const {
  if (is_unix()) return storage_.local.sun_path;
  if (family() == AF_INET) return DottedQuad(&storage_.v4.sin_addr);
  if (IN6_IS_ADDR_V4MAPPED(&storage_.v6.sin6_addr)) {
    return DottedQuad(&storage_.v6.sin6_addr.s6_addr[12]);
  }
  char text[INET6_ADDRSTRLEN] = "";
  inet_ntop(AF_INET6, &storage_.v6.sin6_addr, text, sizeof(text));
  return text;
}

std::string SocketAddress::ToString() const {
  const std::string ip = IpString();
  if (is_unix()) return ip;
  const bool brackets = ip.find(':') != std::string::npos;
  return base::Concat(brackets ? "[" : "", ip, brackets ? "]:" : ":", std::to_string(port()));
}

uint64_t SocketAddress::Hash() const {
  return base::Hash64({reinterpret_cast<const char*>(&storage_), raw_size()});
}

bool SocketAddress::operator==(const SocketAddress& other) const {
  if (family() != other.family() || port() != other.port()) return false;
  if (is_unix()) return std::strcmp(storage_.local.sun_path, other.storage_.local.sun_path) == 0;
  if (family() == AF_INET) return storage_.v4.sin_addr.s_addr == other.storage_.v4.sin_addr.s_addr;
  return storage_.v6.sin6_scope_id == other.storage_.v6.sin6_scope_id &&
         std::memcmp(&storage_.v6.sin6_addr, &other.storage_.v6.sin6_addr, sizeof(in6_addr)) == 0;
}

base::Result<HostPort> SplitHostPort(std::string_view text) {
  auto fail = [&](std::string_view why) {
    return std::unexpected(base::InvalidArgument(
        base::Concat("\"", text, "\": ", why, "; allowed are host:port, [ipv6]:port, :port")));
  };
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return fail("the port is missing");
  auto port = base::ParseInt(text.substr(colon + 1));
  if (!port || *port < 0 || *port > 65535) return fail("the port is not a number up to 65535");
  std::string_view host = text.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']') && host.size() > 2) {
    host = host.substr(1, host.size() - 2);
  } else if (host.find_first_of(":[]") != std::string_view::npos) {
    return fail("an IPv6 address needs brackets");
  }
  return HostPort{std::string(host), static_cast<uint16_t>(*port)};
}

namespace {

base::Result<int> Listen(const SocketAddress& address, const ListenOptions& options) {
  int fd = ::socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return std::unexpected(base::ErrnoStatus(errno, "socket"));
  const int on = 1;
  const int off = 0;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (options.reuse_port) ::setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
  if (address.family() == AF_INET6) ::setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
  if (options.receive_buffer_bytes > 0) {
    ::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &options.receive_buffer_bytes, sizeof(int));
  }
  // Accepted sockets inherit it, which saves a call per connection.
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  if (::bind(fd, address.raw(), address.raw_size()) != 0 || ::listen(fd, options.backlog) != 0) {
    base::Status status = base::ErrnoStatus(errno, "listen on " + address.ToString());
    ::close(fd);
    return std::unexpected(std::move(status));
  }
  return fd;
}

}  // namespace

base::Result<int> ListenTcp(const SocketAddress& address, const ListenOptions& options) {
  auto fd = Listen(address, options);
  const bool any6 = address == SocketAddress::ParseIp("::", address.port()).value();
  if (!fd && any6 && (errno == EAFNOSUPPORT || errno == EADDRNOTAVAIL)) {
    return Listen(SocketAddress::Ipv4(0, address.port()), options);
  }
  return fd;
}

base::Result<int> ConnectTcp(const SocketAddress& address) {
  int fd = ::socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return std::unexpected(base::ErrnoStatus(errno, "socket"));
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  if (::connect(fd, address.raw(), address.raw_size()) != 0 && errno != EINPROGRESS) {
    base::Status status = base::ErrnoStatus(errno, "connect to " + address.ToString());
    ::close(fd);
    return std::unexpected(std::move(status));
  }
  return fd;
}

int SocketError(int fd) {
  int error = 0;
  socklen_t size = sizeof(error);
  if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) return errno;
  return error;
}

base::Result<SocketAddress> LocalAddress(int fd) {
  sockaddr_storage storage;
  socklen_t size = sizeof(storage);
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &size) != 0) {
    return std::unexpected(base::ErrnoStatus(errno, "getsockname"));
  }
  return SocketAddress::From(reinterpret_cast<sockaddr*>(&storage), size);
}

base::Result<SocketAddress> PeerAddress(int fd) {
  sockaddr_storage storage;
  socklen_t size = sizeof(storage);
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&storage), &size) != 0) {
    return std::unexpected(base::ErrnoStatus(errno, "getpeername"));
  }
  return SocketAddress::From(reinterpret_cast<sockaddr*>(&storage), size);
}

void CloseWithReset(int fd) {
  const linger reset{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
  ::close(fd);
}

void CloseFd(int fd) { ::close(fd); }

}  // namespace llmd::runtime
