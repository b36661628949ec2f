// A plain blocking HTTP client for tests of the simulated server: real sockets, nothing shared with
// the code under test.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "base/strings.h"

namespace llmd::sim {

struct TestReply {
  int status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // chunk framing removed
  std::string raw;
};

class TestConnection {
 public:
  explicit TestConnection(uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) std::abort();
  }
  ~TestConnection() { ::close(fd_); }
  TestConnection(const TestConnection&) = delete;

  void Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return;
      bytes.remove_prefix(static_cast<size_t>(n));
    }
  }
  // What one read gives; empty at the end.
  std::string Read() {
    std::string piece(65536, '\0');
    const ssize_t n = ::recv(fd_, piece.data(), piece.size(), 0);
    piece.resize(n > 0 ? static_cast<size_t>(n) : 0);
    return piece;
  }
  std::string ReadAll() {
    std::string all;
    for (std::string piece = Read(); !piece.empty(); piece = Read()) all += piece;
    return all;
  }

 private:
  int fd_;
};

inline std::string TestRequest(std::string_view method, std::string_view target,
                               std::string_view body = "", std::string_view lines = "") {
  return base::Concat(method, " ", target, " HTTP/1.1\r\nHost: test\r\nConnection: close\r\n",
                      lines, "Content-Length: ", std::to_string(body.size()), "\r\n\r\n", body);
}

inline TestReply ParseReply(std::string raw) {
  TestReply reply;
  reply.raw = std::move(raw);
  const size_t head_end = reply.raw.find("\r\n\r\n");
  if (head_end == std::string::npos) return reply;
  reply.status = std::atoi(reply.raw.substr(9, 3).c_str());
  std::string head = reply.raw.substr(0, head_end);
  for (size_t at = head.find("\r\n"); at != std::string::npos;) {
    const size_t next = head.find("\r\n", at + 2);
    const std::string line = head.substr(at + 2, next == std::string::npos ? next : next - at - 2);
    const size_t colon = line.find(':');
    reply.headers[base::ToLower(line.substr(0, colon))] =
        std::string(base::Trim(line.substr(colon + 1)));
    at = next;
  }
  std::string rest = reply.raw.substr(head_end + 4);
  if (reply.headers["transfer-encoding"] != "chunked") {
    if (reply.headers["transfer-encoding"].empty()) reply.headers.erase("transfer-encoding");
    reply.body = std::move(rest);
    return reply;
  }
  size_t at = 0;
  while (at < rest.size()) {
    const size_t line_end = rest.find("\r\n", at);
    if (line_end == std::string::npos) break;
    const size_t size = std::strtoul(rest.c_str() + at, nullptr, 16);
    if (size == 0) break;
    reply.body += rest.substr(line_end + 2, size);
    at = line_end + 2 + size + 2;
  }
  return reply;
}

inline TestReply Fetch(uint16_t port, std::string_view method, std::string_view target,
                       std::string_view body = "", std::string_view lines = "") {
  TestConnection connection(port);
  connection.Send(TestRequest(method, target, body, lines));
  return ParseReply(connection.ReadAll());
}

}  // namespace llmd::sim
