// A client of one Redis or Valkey server on one event loop: one connection, over which programs of
// commands (wire/resp.h) are pipelined.
//
//   RedisClient client(loop, lookups, {.address = *RedisAddress::Parse("redis://10.0.0.1")});
//   auto run = client.Run(program, waiter, std::chrono::milliseconds(50));
//   if (!run) return run.error();          // refused, the waiter hears nothing
//   ... program.OnReply(...); waiter.OnRedisEnd(status);
//
// The connection is made at once and again after it is lost, with growing pauses; AUTH, SELECT and
// PING come first on it. Replies are parsed by hiredis' reader; sockets and TLS are those of this
// house, so that rediss:// needs nothing of hiredis.
//
// Thread safety: a client belongs to one loop's thread.
// Lifetime: loop and pool outlive the client, programs and waiters their runs; what is left when
// the client is destroyed is dropped without a word. A waiter must not destroy the client that
// calls it; it may start and cancel any run.
// Invariants: 1. Commands are sent in the order of Run, those of a round without others between
// them. 2. A run ends once: by OnRedisEnd, by Cancel, or it was refused. 3. A waiter is called from
// the loop only, never from inside Run or Cancel. 4. Nothing is sent twice: what was under way when
// a connection is lost ends with kUnavailable, and may have been done or not.
// Limits: RedisOptions; a run over one is refused or ends with kResourceExhausted. Without a
// connection and with the last attempt failed runs are refused (kUnavailable) at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/status.h"
#include "base/time.h"
#include "runtime/loop.h"
#include "runtime/thread_pool.h"
#include "wire/redis_address.h"
#include "wire/resp.h"

namespace llmd::net {

using wire::RedisAddress;

class RedisWaiter {
 public:
  // OK: the program is done, whatever its replies were. kDeadlineExceeded: not in time; what was
  // sent may still be done by the server.
  virtual void OnRedisEnd(const base::Status& status) = 0;

 protected:
  ~RedisWaiter() = default;
};

struct RedisOptions {
  RedisAddress address;
  std::string ca_file;  // of rediss://, PEM; "": the system's
  // Commands sent and not answered. One is 50 to 200 bytes here and as much with the server.
  size_t commands_max = 1 << 18;
  size_t unsent_bytes_max = 64 << 20;
  // One reply larger than that ends the connection.
  size_t reply_bytes_max = 64 << 20;
  // Runs that wait for the first connection.
  size_t waiting_max = 4096;
  base::Duration connect_timeout = std::chrono::seconds(5);  // name, TCP, TLS, AUTH
  // A server that owes an answer and sends nothing for so long is taken for dead.
  base::Duration stall_timeout = std::chrono::seconds(10);
  base::Duration reconnect_min = std::chrono::milliseconds(100);  // doubled with each failure
  base::Duration reconnect_max = std::chrono::seconds(5);
};

struct RedisStats {
  uint64_t connects = 0;      // connections that were of use
  uint64_t failures = 0;      // attempts that failed, connections lost
  uint64_t commands = 0;      // of programs
  uint64_t error_replies = 0;
  uint64_t timeouts = 0;      // runs
  uint64_t refused = 0;       // runs over a limit
};

using RedisRunId = uint64_t;  // 0 is none

class RedisClient {
 public:
  // `lookups` looks up host names.
  RedisClient(runtime::EventLoop& loop, runtime::ThreadPool& lookups, RedisOptions options);
  ~RedisClient();
  RedisClient(const RedisClient&) = delete;
  RedisClient& operator=(const RedisClient&) = delete;

  // Runs `program` within `timeout`. Its first round is asked for before Run returns if there is a
  // connection.
  base::Result<RedisRunId> Run(wire::RespProgram& program, RedisWaiter& waiter,
                               base::Duration timeout);
  // The run is over; replies to what was sent are dropped. Runs that are not (any more) are
  // ignored.
  void Cancel(RedisRunId run);

  // OK while there is a connection; otherwise why there is none.
  base::Status status() const;
  // Called after each connection was made, before runs that wait for it.
  void SetConnectedHook(std::move_only_function<void()> connected);
  const RedisStats& stats() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace llmd::net
