// What a simulated engine caches, told to routers as vLLM tells it: one ZeroMQ message per step
// with all changes of that step, [topic, sequence, msgpack batch], and a socket that replays the
// last ones (vLLM distributed/kv_events.py; fields and order as its captures show them).
//
// Thread safety: belongs to the context's loop.
// Invariants: 1. Sequences count from 0 without a gap, whether or not anybody listens. 2. What the
// replay socket has is what was published.
// Limits: replay_steps_max messages and kReplayBytesMax bytes are kept, the oldest go first; queues
// of net/zmq.h.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/time.h"
#include "engine/cache_log.h"
#include "net/zmq.h"
#include "net/zmq_replay.h"
#include "prefix/kv_events.h"
#include "sim/options.h"

namespace llmd::sim {

class KvEventPublisher final : private net::ZmqReplaySource {
 public:
  static constexpr size_t kReplayBytesMax = 256u << 20;

  // `index` of this server among those of the process: ports that are bound move by it, and those
  // of data-parallel ranks. `topic` is what the options say, or the usual one, for this server.
  static base::Result<std::unique_ptr<KvEventPublisher>> Create(net::ZmqContext& context,
                                                                const KvEventOptions& options,
                                                                uint32_t index, std::string topic,
                                                                uint32_t block_tokens,
                                                                size_t digest_bytes);

  // One step's changes; none is no message.
  void Publish(std::span<const engine::CacheChange> changes, base::WallTime now);

  // Where subscribers connect to, if it binds; else empty.
  std::string_view bound() const;
  std::string_view replay_bound() const;
  const std::string& topic() const { return topic_; }
  const net::ZmqStats& stats() const { return publisher_->stats(); }
  // Of the next message.
  uint64_t next_sequence() const { return next_sequence_; }
  // vLLM's answer at /kv_event_sources.
  std::string DescribeJson() const;

 private:
  KvEventPublisher(const KvEventOptions& options, uint32_t index, std::string topic,
                   uint32_t block_tokens, size_t digest_bytes);
  void Write(const engine::CacheChange& change);
  prefix::KvWireHash WireHash(uint64_t hash, const engine::Digest* digest) const;
  void Send(base::WallTime now);
  bool FindReplay(uint64_t sequence, Message* message) override;

  const KvEventOptions options_;
  const uint32_t rank_;
  const std::string topic_;
  const uint32_t block_tokens_;
  const size_t digest_bytes_;
  prefix::KvEventWriter writer_;
  std::vector<prefix::KvWireHash> hashes_;  // scratch
  uint64_t next_sequence_ = 0;
  std::deque<std::string> steps_;  // payloads, the last one is of next_sequence_ - 1
  size_t steps_bytes_ = 0;
  std::unique_ptr<net::ZmqPublisher> publisher_;
  std::unique_ptr<net::ZmqReplayServer> replay_;
};

// "tcp://host:5557" with the port moved by `offset`; ports that the kernel chooses and addresses
// without one stay, but a path gets "_dp<offset>" behind it as in vLLM. InvalidArgument beyond
// 65535.
base::Result<std::string> OffsetEndpoint(std::string_view endpoint, uint32_t offset);
// vLLM's rule: what holds "*" or "::", ipc and inproc is bound, the rest connected to.
bool BindsByItsLook(std::string_view endpoint);

}  // namespace llmd::sim
