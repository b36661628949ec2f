// KvRedisMirror: what one picker writes into the shared index (kv_redis.h). Operations go in as the
// engines tell of them; out comes a program of commands, run again whenever there is something.
//
//   mirror.Store({.pod = "10.0.0.7:8000", .tier = "gpu"}, engine_keys, blocks);
//   if (mirror.pending()) client.Run(mirror, ...);   // to its end: OnEnd; and again
//
// Order: operations of one pod take effect in their order. Clearing a pod is a walk over all keys
// in many rounds; what is told of that pod meanwhile waits for its end, other pods go on.
//
// Losses. What was under way when a connection broke may be done or not and is sent again: done
// twice in the same order, operations leave what they leave done once. Operations not yet sent
// wait; over Limits::pending_bytes all of them are dropped. A server that starts anew may have
// forgotten what it was told. After either TakeDropped or TakeServerChanged says so, and whoever
// knows what is held tells it again (StoreAgain). Refusals of the server (out of memory, read-only)
// are counted and not tried again.
//
// Thread safety: none; one thread writes and runs it. Invariant: OnEnd before the program is run
// again.
#pragma once

#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "prefix/kv_redis.h"

namespace llmd::prefix {

class KvRedisMirror final : public wire::RespProgram {
 public:
  struct Limits {
    // 50,000 blocks a second at 250 bytes for five seconds, the longest pause between attempts to
    // connect.
    size_t pending_bytes = 64 << 20;
    size_t round_bytes = 1 << 20;
  };
  struct Stats {
    uint64_t commands = 0;       // given out
    uint64_t errors = 0;         // of them refused by the server
    uint64_t sent_again = 0;     // under way when a connection broke
    uint64_t dropped = 0;        // over the limit
    uint64_t told_again = 0;     // blocks
    uint64_t cleared = 0;        // pods
    size_t pending_bytes = 0;
  };

  KvRedisMirror();
  explicit KvRedisMirror(const Limits& limits) : limits_(limits) {}

  void Store(const KvRedisEntry& entry, std::span<const EngineKey> engine_keys,
             std::span<const BlockKey> blocks);
  // The same for what was told before. Does not count for the limit: who tells again does so piece
  // by piece, each when pending() is false.
  void StoreAgain(const KvRedisEntry& entry, std::span<const EngineKey> engine_keys,
                  std::span<const BlockKey> blocks);
  void Remove(const KvRedisEntry& entry, std::span<const EngineKey> engine_keys);
  void RemoveBlocks(const KvRedisEntry& entry, std::span<const BlockKey> blocks);
  void Clear(std::string_view pod);

  // One run is no more than kRunRounds rounds, so that it can have a time limit.
  static constexpr size_t kRunRounds = 64;
  bool pending() const { return asks_server_ || !ready_.empty() || !walks_.empty(); }
  size_t NextRound(std::string* commands) override;
  void OnReply(size_t index, const wire::RespValue& reply) override;
  // The program ended, or could not be run.
  void OnEnd(const base::Status& status);

  // A new connection: the next round finds out whether the server is the same process as before.
  void OnConnected() { asks_server_ = true; }
  // It is not, since the last call (the first one counts): it may know nothing.
  bool TakeServerChanged() { return std::exchange(server_changed_, false); }
  // Operations were dropped since the last call: the server may list what is gone.
  bool TakeDropped() { return std::exchange(was_dropped_, false); }

  Stats stats() const;
  // The last refusal of the server.
  const std::string& error() const { return error_; }

 private:
  struct Chunk {
    std::string bytes;
    size_t commands = 0;
    bool is_again = false;
  };
  struct Walk {
    explicit Walk(std::string pod) : clear(std::move(pod)) {}
    KvRedisClear clear;
    uint64_t begin_after = 0;   // chunks given out before it may begin
    std::deque<Chunk> waiting;  // what was told of the pod since
    bool again = false;         // cleared once more since
  };
  struct Part {
    enum class Kind : uint8_t { kOperations, kWalk, kServer };
    Kind kind = Kind::kOperations;
    Walk* walk = nullptr;
    size_t commands = 0;
  };
  static constexpr size_t kChunkBytes = 64 << 10;

  template <class Append>
  void Put(std::string_view pod, bool is_again, Append append);
  void Forget(const Chunk& chunk) {
    if (!chunk.is_again) pending_bytes_ -= chunk.bytes.size();
  }
  void DropAll();
  void OnServer(const wire::RespValue& reply);
  void Finish(Walk* walk);

  const Limits limits_;
  std::deque<Chunk> ready_;
  std::deque<Chunk> under_way_;  // of the round
  uint64_t chunks_out_ = 0;
  size_t pending_bytes_ = 0;
  std::map<std::string, Walk, std::less<>> walks_;
  std::vector<Part> round_;
  size_t part_ = 0, answered_ = 0;  // place in round_
  size_t rounds_ = 0;               // of this run
  bool asks_server_ = false, server_changed_ = false, was_dropped_ = false;
  std::string server_;  // its run id
  Stats stats_;
  std::string error_;
};

}  // namespace llmd::prefix
