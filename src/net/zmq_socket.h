// One libzmq socket on a loop: options, receiving and sending whole messages, its monitor. Internal
// to net/zmq*: what subscribers, publishers and replays are made of.
//
// Thread safety: belongs to the context's loop.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "net/zmq.h"
#include "net/zmq_auth.h"
#include "runtime/loop.h"

namespace llmd::net {

struct ZmqContext::Impl {
  runtime::EventLoop& loop;
  void* handle;
  std::unique_ptr<ZmqAuthenticator> authenticator;
  uint64_t sockets = 0;
  uint64_t monitors_made = 0;
};

enum class ZmqKind : uint8_t { kSubscriber, kPublisher, kDealer, kRouter };

class ZmqSocketOwner {
 public:
  // The frames live until return. The socket must not be destroyed within the call.
  virtual void OnZmqFrames(std::span<const std::string_view> frames) = 0;
  // Everything that had come was read, and peers with full queues may have room again.
  virtual void OnZmqIdle() {}
  virtual void OnZmqLink(bool up, bool again) {
    static_cast<void>(up);
    static_cast<void>(again);
  }

 protected:
  ~ZmqSocketOwner() = default;
};

enum class ZmqSendResult : uint8_t { kSent, kFull, kNoPeer };

class ZmqSocket final : private runtime::IoHandler {
 public:
  // Opens, binds and connects.
  static base::Result<std::unique_ptr<ZmqSocket>> Open(ZmqContext& context, ZmqKind kind,
                                                       const ZmqSocketOptions& options,
                                                       std::span<const std::string> topics,
                                                       ZmqSocketOwner& owner);
  ~ZmqSocket();

  base::Status Connect(const std::string& address);
  void Disconnect(const std::string& address);
  ZmqSendResult Send(std::span<const std::string_view> frames);
  // Publishers: whether a full queue makes Send answer kFull, or loses the message for its peer.
  void SetDropWhenFull(bool drop);
  // Looks again, in this turn or the next. For after whatever may have eaten the descriptor's edge.
  void LookAgain() { again_.ArmAt(loop_.now()); }

  const std::vector<std::string>& bound() const { return bound_; }
  ZmqStats& stats() { return stats_; }

 private:
  class Monitor;
  struct Message;

  ZmqSocket(ZmqContext& context, ZmqKind kind, ZmqSocketOwner& owner);
  base::Status SetUp(const ZmqSocketOptions& options, std::span<const std::string> topics);
  base::Status SetOptions(const ZmqSocketOptions& options);
  base::Status SetCurve(const ZmqSocketOptions& options);
  base::Status Bind(const std::string& address);
  void ChooseFamily(std::string_view address);
  void OnIo(runtime::IoEvents) override { Drain(); }
  void Drain();
  // False: nothing is there.
  bool Receive(Message* message);
  void OnMonitor(uint16_t event, std::string_view address);
  void OnUp(std::string_view address);
  void OnDown();

  // An address that this side connects to, once it had been reached.
  struct Target {
    std::string address;
    bool connected = false;
  };

  ZmqContext& context_;
  runtime::EventLoop& loop_;
  const ZmqKind kind_;
  ZmqSocketOwner& owner_;
  void* handle_ = nullptr;
  int fd_ = -1;
  std::string domain_;
  std::vector<std::string> bound_;
  std::vector<Target> targets_;
  uint64_t failed_pending_ = 0;  // failed handshakes at bound addresses whose end is still to come
  ZmqStats stats_;
  std::unique_ptr<Message> message_;
  std::unique_ptr<Monitor> monitor_;
  runtime::Timer again_;
};

}  // namespace llmd::net
