// Who may connect to a bound ZeroMQ socket: policies, and the ZAP handler (RFC 27) that libzmq
// asks. Internal to net/zmq*.
//
// Thread safety: belongs to the context's loop.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "net/zmq.h"
#include "runtime/loop.h"

namespace llmd::net {

inline constexpr size_t kZmqKeyTextBytes = 40;  // Z85
inline constexpr size_t kZmqKeyBytes = 32;

// An address prefix; IPv4 lies inside IPv6 as ::ffff:0:0/96.
class ZmqNetwork {
 public:
  static base::Result<ZmqNetwork> Parse(std::string_view text);  // "10.0.0.0/8", "::1"
  bool Contains(std::string_view ip) const;

 private:
  std::array<uint8_t, 16> bytes_{};
  int bits_ = 0;
};

struct ZmqPolicy {
  std::vector<ZmqNetwork> networks;                     // empty: all
  std::vector<std::array<uint8_t, kZmqKeyBytes>> keys;  // empty: all

  static base::Result<ZmqPolicy> Make(const ZmqSecurity& security);
  // `key` is what the client proved to have; empty without CURVE.
  bool Allows(std::string_view ip, std::string_view key) const;
};

class ZmqAuthenticator final : private runtime::IoHandler {
 public:
  ZmqAuthenticator(runtime::EventLoop& loop, void* context) : loop_(loop), context_(context) {}
  ~ZmqAuthenticator();

  // The ZAP domain to give to the socket. Remove it when the socket is closed.
  base::Result<std::string> Add(ZmqPolicy policy);
  void Remove(std::string_view domain);
  uint64_t refused() const { return refused_; }

 private:
  struct Entry {
    std::string domain;
    ZmqPolicy policy;
  };

  base::Status Listen();
  void OnIo(runtime::IoEvents) override;
  bool AnswerOne();

  runtime::EventLoop& loop_;
  void* const context_;
  void* socket_ = nullptr;
  int fd_ = -1;
  uint64_t refused_ = 0;
  uint64_t next_domain_ = 0;
  std::vector<Entry> entries_;
};

}  // namespace llmd::net
