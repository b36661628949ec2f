// What the tests of loops and of what lives on them share.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "runtime/clock.h"
#include "runtime/loop.h"

namespace llmd::runtime {

// Turns until `done()` or five seconds have passed; the last value of done().
template <class Done>
bool TurnUntil(EventLoop& loop, Done done) {
  const base::TimePoint limit = Now() + std::chrono::seconds(5);
  while (!done()) {
    if (Now() > limit) return false;
    loop.Turn(std::chrono::milliseconds(2));
  }
  return true;
}

// What a test of loops and streams runs on.
inline std::vector<IoEngine> Engines() {
  std::vector<IoEngine> engines = {IoEngine::kEpoll};
  if (UringWorks()) engines.push_back(IoEngine::kUring);
  return engines;
}
inline std::string EngineName(const ::testing::TestParamInfo<IoEngine>& info) {
  return info.param == IoEngine::kEpoll ? "epoll" : "io_uring";
}

struct CountingHandler final : IoHandler {
  void OnIo(IoEvents events) override {
    ++count;
    last = events;
    if (then) then();
  }
  int count = 0;
  IoEvents last;
  std::function<void()> then;
};

}  // namespace llmd::runtime
