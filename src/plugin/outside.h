// Outside: how a plugin asks for work that a loop must not do itself: a job on another thread, a
// call to a server.
//
// A data producer that needs one makes a task, leaves it in RequestContext::asked and waits
// (DataProducer::Produce). The door has it performed (control/outside.h) and wakes the request when
// it has ended; the producer then finds the same task in `asked`, takes what it wants out of it and
// clears `asked`. A task of its own beside the requests (loading a file, warming up a server) is an
// Errand.
//
//   if (!request.asked) {
//     request.asked = std::make_shared<TokenizeJob>(tokenizer_, TextOf(request));
//     request.wait_until = request.now + kLimit;
//     return base::OkStatus();
//   }
//   auto& job = static_cast<TokenizeJob&>(*request.asked);   // nobody else's task is shown to it
//   if (!job.ended()) { request.wait_until = ...; return base::OkStatus(); }
//
// Thread safety: fields that the asker sets are written before the task is handed over and not
// after; results are written by who performs it and read after ended() said true. Cancel may be
// called at any time by the asker's side.
// Invariants: 1. A task is performed at most once. 2. It owns what it works on: the request and its
// body may be gone before it ends, and what comes then is dropped with the last pointer to it. 3. A
// cancelled job that has not begun is not run.
// Limits: the performer's (a full queue ends the task with kResourceExhausted at once).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "base/time.h"

namespace llmd::plugin {

class OutsideTask {
 public:
  virtual ~OutsideTask() = default;

  bool ended() const { return state_.load(std::memory_order_acquire) == State::kEnded; }
  // Of an ended task. An error: it could not be done, and no result may be read.
  const base::Status& status() const { return status_; }
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }
  // The same, for work that looks at it now and then.
  const std::atomic<bool>& cancel_flag() const { return cancelled_; }
  // Nobody wants the result any more.
  void Cancel() { cancelled_.store(true, std::memory_order_relaxed); }

  // For who hands it over: false when that was done before.
  bool Begin() {
    State expected = State::kNew;
    return state_.compare_exchange_strong(expected, State::kBegun, std::memory_order_relaxed);
  }
  // For who performs it: once, after the results were written.
  void End(base::Status status) {
    status_ = std::move(status);
    state_.store(State::kEnded, std::memory_order_release);
  }

 private:
  enum class State : uint8_t { kNew, kBegun, kEnded };
  std::atomic<State> state_{State::kNew};
  std::atomic<bool> cancelled_{false};
  base::Status status_;
};

// Work for a thread of the pool.
class OutsideJob : public OutsideTask {
 public:
  // Read before Run, in order. A file larger than `bytes_max` is an error.
  struct File {
    std::string path;
    size_t bytes_max = 0;
    base::Result<std::string> content = std::string();
  };
  std::vector<File> files;

  // On a pool thread. Its outcome is the task's.
  virtual base::Status Run() = 0;
};

// One request to a server and its whole reply.
class OutsideCall : public OutsideTask {
 public:
  enum class Protocol : uint8_t {
    kHttp,  // POST of a JSON body, or GET without one; any status is an answer
    kGrpc,  // one message each way; a status other than OK is the task's
  };
  Protocol protocol = Protocol::kHttp;
  // "host:port", or the path of a Unix socket, which begins with a slash.
  std::string server;
  bool tls = false;        // verified with the system's certificates
  // The server is an endpoint of the fleet: spoken to as the data path does (--engine-tls,
  // --engine-header), whatever `tls` says. Of errands only.
  bool engine = false;
  std::string path;        // "/v1/completions/render", "/package.Service/Method"
  std::string body;        // JSON text, or the message
  base::Duration timeout = std::chrono::seconds(5);  // for all of it
  size_t reply_bytes_max = 16u << 20;

  int http_status = 0;
  std::string reply;
};

// Something that a plugin wants done beside the requests, at start and later. Asked on the control
// thread when a config comes into force, after each end, and about once a second.
class ErrandRunner {
 public:
  virtual ~ErrandRunner() = default;
  // The next task, nullptr: nothing for now. Not asked again before the one it gave has ended.
  virtual std::shared_ptr<OutsideTask> NextErrand(base::TimePoint now) = 0;
  // `task` is ended.
  virtual void OnErrandEnd(OutsideTask& task, base::TimePoint now) = 0;
};

}  // namespace llmd::plugin
