// SIGTERM, SIGINT and SIGHUP as events on a loop.
//
// Construct it before any thread is started: it blocks the signals for this thread and for those
// that it starts later. One per process. SIGPIPE is ignored from then on.
#pragma once

#include <functional>
#include <memory>

#include "base/status.h"
#include "runtime/loop.h"

namespace llmd::runtime {

class SignalWatch {
 public:
  // `on_signal` gets the signal number, on the loop's thread.
  SignalWatch(EventLoop& loop, std::move_only_function<void(int)> on_signal);
  ~SignalWatch();
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace llmd::runtime
