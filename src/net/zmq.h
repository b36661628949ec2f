// ZeroMQ on one event loop: the sockets that KV events travel on.
//
// A ZmqSubscriber takes messages from many publishers, a ZmqPublisher gives them to many
// subscribers; each may bind or connect. Replay of missed messages is in net/zmq_replay.h. libzmq
// does the wire (ZMTP 3.1) on one thread of its own per context; its sockets are watched by their
// descriptor and read on the loop in bounded turns.
//
// Thread safety: a context and its sockets belong to one loop; made and destroyed on its thread, or
// while it does not run. Sinks are called on that thread.
// Lifetime: the loop outlives the context, the context its sockets, sinks their sockets. A sink
// must not destroy the socket that calls it.
// Invariants: 1. Messages of one publisher arrive in its order; of what is lost (a full queue, a
// lost connection) the transport tells nobody, so the messages carry a sequence. 2. Nothing
// blocks: a publisher drops for a subscriber whose queue is full, and counts that. 3. Unsent
// messages die with their socket (linger 0). Limits: kZmqFramesMax frames per message, longer ones
// are dropped and counted; bytes per frame and messages per queue are options; kZmqTurnMessagesMax
// messages or kZmqTurnBytesMax bytes per socket and turn of the loop.
//
// Addresses are ZeroMQ's: "tcp://10.0.0.1:5557", "tcp://*:5557", "tcp://[::1]:5557",
// "ipc:///run/kv.sock"; port 0 or * asks the kernel for one (see bound()).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/time.h"
#include "runtime/loop.h"

namespace llmd::net {

inline constexpr size_t kZmqFramesMax = 16;
inline constexpr int kZmqTurnMessagesMax = 512;
inline constexpr size_t kZmqTurnBytesMax = 4 << 20;

// --- who may connect -----------------------------------------------------------------------------

// A CURVE key pair in ZeroMQ's text form (Z85, 40 characters each).
struct ZmqKeyPair {
  std::string public_key;
  std::string secret_key;

  static ZmqKeyPair Generate();
};

// From files that hold the bare key, or a ZeroMQ certificate with public-key = "..." and
// secret-key = "..." (what zmq.auth.create_certificates writes). Blocking.
base::Result<ZmqKeyPair> LoadZmqKeyPair(const std::string& path);       // needs the secret key
base::Result<std::string> LoadZmqPublicKey(const std::string& path);

struct ZmqSecurity {
  // CURVE (encrypted, authenticated; RFC 26). The server of the handshake, as a rule who binds, has
  // the secret key; a client knows the server's public key. At most one of the two sides is set.
  std::string server_secret_key;
  std::vector<std::string> client_keys;  // public keys of who may connect; empty: all who handshake
  std::string server_public_key;
  ZmqKeyPair client;                     // of a CURVE client; empty: a fresh one

  // "10.0.0.0/8", "::1": who may connect to bound addresses; empty: everyone.
  std::vector<std::string> allowed_addresses;
};

// --- contexts ------------------------------------------------------------------------------------

class ZmqContext {
 public:
  explicit ZmqContext(runtime::EventLoop& loop);
  ~ZmqContext();
  ZmqContext(const ZmqContext&) = delete;
  ZmqContext& operator=(const ZmqContext&) = delete;

  runtime::EventLoop& loop() const;
  // Connections to bound addresses that were refused for their key or address.
  uint64_t refused() const;

  struct Impl;
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

// --- sockets -------------------------------------------------------------------------------------

struct ZmqStats {
  uint64_t messages = 0;
  uint64_t bytes = 0;
  uint64_t malformed = 0;        // dropped: too many frames
  uint64_t overflows = 0;        // publisher: times that a subscriber's queue was found full
  uint64_t connections = 0;      // handshakes done
  uint64_t reconnections = 0;    // of them to an address that had been connected before
  uint64_t disconnections = 0;
  uint64_t handshakes_failed = 0;  // wrong key, refused address, or no ZeroMQ peer at all
  uint32_t connected = 0;        // now
};

struct ZmqSocketOptions {
  std::vector<std::string> bind;
  std::vector<std::string> connect;
  uint32_t queue_messages_max = 100'000;  // per peer; vLLM's hwm
  uint64_t frame_bytes_max = 64u << 20;   // who sends more is disconnected
  base::Duration reconnect_min = std::chrono::milliseconds(100);
  base::Duration reconnect_max = std::chrono::seconds(5);
  ZmqSecurity security;
};

class ZmqSink {
 public:
  // The frames live until return.
  virtual void OnZmqMessage(std::span<const std::string_view> frames) = 0;
  // A peer's handshake is done; `again` if its address had been connected before (only known of
  // addresses that this side connects to). Messages may have been lost in between.
  virtual void OnZmqConnected(bool again) { static_cast<void>(again); }
  virtual void OnZmqDisconnected() {}

 protected:
  ~ZmqSink() = default;
};

class ZmqSubscriber {
 public:
  // `topics` are prefixes of first frames; none: everything. InvalidArgument for an address or a
  // key that cannot be, Unavailable for an address that cannot be bound.
  static base::Result<std::unique_ptr<ZmqSubscriber>> Create(ZmqContext& context,
                                                             const ZmqSocketOptions& options,
                                                             std::span<const std::string> topics,
                                                             ZmqSink& sink);
  ~ZmqSubscriber();

  // One more address, or one less. A peer that is not there (yet) is tried until it is.
  base::Status Connect(const std::string& address);
  void Disconnect(const std::string& address);
  // The addresses bound to, with their real ports, in the order of the options.
  const std::vector<std::string>& bound() const;
  const ZmqStats& stats() const;

 private:
  class Impl;
  explicit ZmqSubscriber(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

class ZmqPublisher {
 public:
  static base::Result<std::unique_ptr<ZmqPublisher>> Create(ZmqContext& context,
                                                            const ZmqSocketOptions& options);
  ~ZmqPublisher();

  // Queues one message for every subscriber whose topics match the first frame; nobody there is no
  // loss. False if some subscriber's queue is full: it misses this message and what follows until
  // it has room again; the others get it.
  bool Send(std::span<const std::string_view> frames);
  const std::vector<std::string>& bound() const;
  const ZmqStats& stats() const;

 private:
  class Impl;
  explicit ZmqPublisher(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace llmd::net
