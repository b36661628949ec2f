#include "runtime/loop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/random.h"
#include "runtime/clock.h"
#include "runtime/runtime_testing.h"

namespace llmd::runtime {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;

// Without io_uring its half of the cases is not there; this says why.
TEST(IoEngine, IsTried) {
  if (!UringWorks()) GTEST_SKIP() << "loops and streams are tested on " << IoEngineText();
  EXPECT_NE(EventLoop(IoEngine::kAuto).ring(), nullptr);
  EXPECT_EQ(EventLoop(IoEngine::kEpoll).ring(), nullptr);
}

class EventLoopTest : public ::testing::TestWithParam<IoEngine> {};
class TimerTest : public ::testing::TestWithParam<IoEngine> {};

struct Hook final : TurnHook {
  explicit Hook(std::function<void()> f) : run(std::move(f)) {}
  void OnTurnEnd() override { run(); }
  std::function<void()> run;
};

// The tutorial: timers, tasks and turn hooks of one loop.
TEST_P(EventLoopTest, RunsTimersTasksAndHooksOfATurnInThisOrder) {
  EventLoop loop(GetParam());
  std::vector<std::string> log;
  Hook hook([&] { log.push_back("hook"); });
  Timer timer(loop, [&] {
    log.push_back("timer");
    loop.AtTurnEnd(hook);
  });
  timer.ArmAfter(base::Duration::zero());
  loop.Post([&] {
    log.push_back("task");
    loop.AtTurnEnd(hook);  // queued already: runs once
  });
  loop.Turn(seconds(1));
  EXPECT_THAT(log, ElementsAre("timer", "task", "hook"));
}

TEST_P(EventLoopTest, HooksMayQueueUnqueueAndDestroyEachOther) {
  EventLoop loop(GetParam());
  std::vector<int> log;
  auto third = std::make_unique<Hook>([&] { log.push_back(3); });
  Hook second([&] { log.push_back(2); });
  Hook first([&] {
    log.push_back(1);
    third.reset();
    if (log.size() < 3) loop.AtTurnEnd(first);  // the same turn, next round
  });
  loop.AtTurnEnd(first);
  loop.AtTurnEnd(second);
  loop.AtTurnEnd(*third);
  loop.Turn(milliseconds(0));
  EXPECT_THAT(log, ElementsAre(1, 2, 1));
}

TEST_P(EventLoopTest, AHookThatQueuesItselfForeverDoesNotStarveTheLoop) {
  EventLoop loop(GetParam());
  int count = 0;
  Hook hook([&] {
    ++count;
    loop.AtTurnEnd(hook);
  });
  loop.AtTurnEnd(hook);
  loop.Turn(milliseconds(0));
  EXPECT_EQ(count, EventLoop::kTurnHookRoundsMax);
}

// Random arming, moving, disarming and destroying against the obvious: a set of deadlines.
TEST_P(EventLoopTest, CountsTheTimeOfItsTurnsButNotItsWaits) {
  EventLoop loop(GetParam());
  loop.Turn(base::Duration::zero());
  const base::Duration before = loop.busy();
  base::Duration worked{};
  for (int i = 0; i < 2; ++i) {
    loop.Post([&] {
      const base::TimePoint begin = Now();
      while (Now() < begin + milliseconds(3)) continue;
      worked += Now() - begin;
    });
    loop.Turn(base::Duration::zero());
  }
  const base::TimePoint begin = Now();
  loop.Turn(milliseconds(20));
  loop.Turn(base::Duration::zero());
  EXPECT_GE(loop.busy() - before, worked);
  EXPECT_LT(loop.busy() - before, worked + (Now() - begin));
  EXPECT_GE(loop.stats().turn_max, milliseconds(3));
}

TEST_P(TimerTest, FiresInOrderAndOnlyWhenArmed) {
  EventLoop loop(GetParam());
  base::Random random(7);
  const base::TimePoint start = loop.now();
  struct Entry {
    std::unique_ptr<Timer> timer;
    base::TimePoint due;
    bool expected = false;
    int fired = 0;
  };
  std::vector<Entry> entries(200);
  std::vector<base::TimePoint> order;
  for (size_t i = 0; i < entries.size(); ++i) {
    entries[i].timer = std::make_unique<Timer>(loop, [&, i] {
      ++entries[i].fired;
      order.push_back(entries[i].due);
      EXPECT_LE(entries[i].due, loop.now());
    });
  }
  for (int step = 0; step < 5000; ++step) {
    Entry& e = entries[random.Below(entries.size())];
    if (!e.timer) continue;
    switch (random.Below(20)) {
      case 0:
        e.timer->Disarm();
        e.expected = false;
        break;
      case 1:
        if (random.Below(20) == 0) {
          e.timer.reset();
          e.expected = false;
        }
        break;
      default:
        e.due = start + milliseconds(1 + random.Below(30));
        e.timer->ArmAt(e.due);
        e.expected = true;
    }
  }
  const base::TimePoint end = start + milliseconds(60);
  while (Now() < end) loop.Turn(milliseconds(5));
  for (const Entry& e : entries) EXPECT_EQ(e.fired, e.expected ? 1 : 0);
  EXPECT_GT(order.size(), 100u);
}

TEST_P(TimerTest, MovingADeadlineOutKeepsItOutAndMovingItInTakesEffect) {
  EventLoop loop(GetParam());
  int fired = 0;
  Timer timer(loop, [&] { ++fired; });
  timer.ArmAfter(milliseconds(2));
  timer.ArmAfter(seconds(100));
  const base::TimePoint until = Now() + milliseconds(6);
  while (Now() < until) loop.Turn(milliseconds(1));
  EXPECT_EQ(fired, 0);
  EXPECT_TRUE(timer.armed());
  timer.ArmAfter(milliseconds(1));
  EXPECT_TRUE(TurnUntil(loop, [&] { return fired == 1; }));
  EXPECT_FALSE(timer.armed());
}

TEST_P(TimerTest, MayRearmItselfForNowWithoutStarvingTheTurn) {
  EventLoop loop(GetParam());
  int fired = 0;
  Timer timer(loop, [&] {
    ++fired;
    timer.ArmAfter(base::Duration::zero());
  });
  timer.ArmAfter(base::Duration::zero());
  loop.Turn(milliseconds(0));
  EXPECT_EQ(fired, 1);
  loop.Turn(seconds(1));
  EXPECT_EQ(fired, 2);
}

TEST_P(EventLoopTest, AHandlerUnwatchedInTheSameTurnIsNotCalled) {
  EventLoop loop(GetParam());
  int a[2], b[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, a), 0);
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, b), 0);
  CountingHandler first, second;
  first.then = [&] { loop.Unwatch(b[0], second); };
  second.then = [&] { loop.Unwatch(a[0], first); };
  ASSERT_TRUE(loop.WatchReadable(a[0], first).ok());
  ASSERT_TRUE(loop.WatchReadable(b[0], second).ok());
  ASSERT_EQ(::write(a[1], "x", 1), 1);
  ASSERT_EQ(::write(b[1], "x", 1), 1);
  loop.Turn(seconds(1));
  EXPECT_EQ(first.count + second.count, 1);
  for (int fd : {a[0], a[1], b[0], b[1]}) ::close(fd);
}

TEST_P(EventLoopTest, PostFromOtherThreadsWakesTheLoopAndKeepsTheirOrder) {
  EventLoop loop(GetParam());
  std::vector<std::vector<int>> seen(4);
  std::vector<std::thread> threads;
  std::atomic<int> left = 4000;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 1000; ++i) {
        loop.Post([&, t, i] {
          seen[t].push_back(i);
          if (--left == 0) loop.Stop();
        });
      }
    });
  }
  loop.Run();
  for (auto& thread : threads) thread.join();
  for (const auto& one : seen) {
    ASSERT_EQ(one.size(), 1000u);
    EXPECT_TRUE(std::is_sorted(one.begin(), one.end()));
  }
}

TEST_P(EventLoopTest, TasksLeftBehindAreDestroyedWithoutRunning) {
  auto token = std::make_shared<int>(1);
  bool ran = false;
  {
    EventLoop loop(GetParam());
    loop.Post([token, &ran] { ran = true; });
    EXPECT_EQ(token.use_count(), 2);
  }
  EXPECT_FALSE(ran);
  EXPECT_EQ(token.use_count(), 1);
}

INSTANTIATE_TEST_SUITE_P(Engines, EventLoopTest, ::testing::ValuesIn(Engines()), EngineName);
INSTANTIATE_TEST_SUITE_P(Engines, TimerTest, ::testing::ValuesIn(Engines()), EngineName);

}  // namespace
}  // namespace llmd::runtime
