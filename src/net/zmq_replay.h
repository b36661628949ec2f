// Replay of missed messages beside a ZeroMQ stream of them, as vLLM does for KV events
// (v1/core: ZmqEventPublisher): a client asks a ROUTER for everything from a sequence on and gets
// the stored messages, then an end marker.
//
// Request: ["", start sequence, 8 bytes big-endian]. Replies: ["", topic, sequence, payload] or,
// from older engines, ["", sequence, payload]; the end has sequence -1 and no payload. A publisher
// keeps a bounded number of messages, so a replay may begin later than asked for: the sink sees
// each message's sequence and judges.
//
// Thread safety, lifetime: as in net/zmq.h; but OnReplayEnd may destroy its client.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "net/zmq.h"

namespace llmd::net {

enum class ZmqReplayEnd : uint8_t {
  kComplete,    // the end marker came
  kTimeout,     // total_timeout is over
  kNoProgress,  // attempts_max attempts in a row brought nothing
  kMalformed,   // the peer does not speak this protocol
};
std::string_view ZmqReplayEndName(ZmqReplayEnd end);

class ZmqReplaySink {
 public:
  // In order of sequence. The views live until return.
  virtual void OnReplayMessage(std::string_view topic, uint64_t sequence,
                               std::string_view payload) = 0;
  // The last call of a replay. `messages` came in all attempts together.
  virtual void OnReplayEnd(ZmqReplayEnd end, uint64_t messages) = 0;

 protected:
  ~ZmqReplaySink() = default;
};

// Upstream's limits (llm-d-router: pkg/kvevents).
struct ZmqReplayOptions {
  std::string address;
  base::Duration idle_timeout = std::chrono::seconds(2);    // between messages of an attempt
  base::Duration total_timeout = std::chrono::minutes(2);
  base::Duration retry_delay = std::chrono::milliseconds(100);
  uint32_t attempts_max = 3;  // in a row without a message
  uint64_t frame_bytes_max = 64u << 20;
  ZmqSecurity security;
};

class ZmqReplayClient {
 public:
  // InvalidArgument for an address or key that cannot be.
  static base::Result<std::unique_ptr<ZmqReplayClient>> Create(ZmqContext& context,
                                                               const ZmqReplayOptions& options,
                                                               ZmqReplaySink& sink);
  ~ZmqReplayClient();

  // Asks for everything from `sequence` on. An attempt that stops is resumed behind its last
  // message. A replay under way is given up without an end.
  void Start(uint64_t sequence);
  // No more calls of the sink.
  void Cancel();
  bool running() const;

 private:
  class Impl;
  explicit ZmqReplayClient(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// What a server replays from.
class ZmqReplaySource {
 public:
  struct Message {
    std::string_view topic;
    uint64_t sequence = 0;
    std::string_view payload;  // not empty; valid until the source changes
  };
  // The first stored message with at least this sequence; false: there is none.
  virtual bool FindReplay(uint64_t sequence, Message* message) = 0;

 protected:
  ~ZmqReplaySource() = default;
};

struct ZmqReplayServerOptions {
  std::string bind;
  bool with_topic = true;  // false: the reply shape of older engines
  uint32_t queue_messages_max = 1000;  // per client; a slow one waits, and nobody waits for it
  ZmqSecurity security;
};

struct ZmqReplayServerStats {
  uint64_t requests = 0;
  uint64_t malformed = 0;
  uint64_t refused = 0;   // more than kZmqReplaysMax at once
  uint64_t messages = 0;  // sent, end markers not counted
};
inline constexpr size_t kZmqReplaysMax = 256;

class ZmqReplayServer {
 public:
  static base::Result<std::unique_ptr<ZmqReplayServer>> Create(
      ZmqContext& context, const ZmqReplayServerOptions& options, ZmqReplaySource& source);
  ~ZmqReplayServer();

  const std::string& bound() const;
  const ZmqReplayServerStats& stats() const;

 private:
  class Impl;
  explicit ZmqReplayServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace llmd::net
