// Outside: performs what plugins ask for beside the loop (plugin/outside.h), for one loop: jobs on
// the threads of a pool, calls over HTTP and gRPC and programs on Redis servers on the loop itself.
//
// Thread safety: belongs to its loop's thread; OutsidePools is thread-safe.
// Lifetime: pools end before the loops do (their jobs post to them) and may end after an Outside. A
// waiter that goes away says Forget first.
// Invariants: 1. A waiter is told of the end of its task once, on the loop, and never from inside
// Begin. 2. After Forget it is not told; a call under way is cut off, a job that has not begun does
// not run. 3. Every task ends, or nobody waits for it.
// Limits: kJobsWaitingMax jobs in the queue and kCallsMax calls at a time, beyond which a task ends
// at once with kResourceExhausted; kServersMax servers, of which the one longest unused goes;
// kRedisServersMax Redis servers likewise.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "net/http_client.h"
#include "net/resolver.h"
#include "plugin/outside.h"
#include "runtime/loop.h"
#include "runtime/thread_pool.h"
#include "telemetry/metrics.h"

namespace llmd::net {
class TlsClientContext;
}

namespace llmd::control {

// The threads behind every Outside of a process.
struct OutsidePools {
  // Of text of 100k tokens at 10 ms each, 256 are what four threads do in .64 s: who comes later
  // would wait in vain (plugin::kProduceWaitMax).
  static constexpr size_t kJobsWaitingMax = 256;
  static constexpr size_t kLookupsWaitingMax = 256;

  explicit OutsidePools(size_t threads)
      : jobs(threads, kJobsWaitingMax, "outside"), lookups(1, kLookupsWaitingMax, "lookup") {}

  runtime::ThreadPool jobs;
  runtime::ThreadPool lookups;
};

class OutsideWaiter {
 public:
  // The task has ended.
  virtual void OnOutsideEnd() = 0;

 protected:
  ~OutsideWaiter() = default;

 private:
  friend class Outside;
  uint64_t outside_ticket_ = 0;  // 0: waits for nothing
};

struct OutsideOptions {
  // How endpoints of the fleet are spoken to.
  std::shared_ptr<net::TlsClientContext> engine_tls;  // nullptr: plain
  std::string engine_lines;                           // header lines with CRLF
};

class Outside {
 public:
  static constexpr size_t kCallsMax = 1024;
  static constexpr size_t kServersMax = 64;
  static constexpr size_t kRedisServersMax = 8;  // each keeps a connection
  // After which a server's name is looked up anew.
  static constexpr base::Duration kResolveInterval = std::chrono::seconds(30);

  // `writer`: the metric writer of this loop's thread. References outlive the object.
  Outside(runtime::EventLoop& loop, OutsidePools& pools, telemetry::Metrics& metrics, size_t writer,
          OutsideOptions options = {});
  ~Outside();
  Outside(const Outside&) = delete;
  Outside& operator=(const Outside&) = delete;

  // Has `task` performed for `waiter`, which waits for nothing else. False: it has ended already,
  // its status says why, and the waiter is not told.
  bool Begin(std::shared_ptr<plugin::OutsideTask> task, OutsideWaiter& waiter);
  // The waiter does not want to know any more (or never did).
  void Forget(OutsideWaiter& waiter);
  void SetEngineOptions(OutsideOptions options);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace llmd::control
