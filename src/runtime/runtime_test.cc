#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <latch>
#include <set>
#include <string>
#include <vector>

#include "base/random.h"
#include "runtime/clock.h"
#include "runtime/file_watch.h"
#include "runtime/files.h"
#include "runtime/log_sink.h"
#include "runtime/loop.h"
#include "runtime/machine.h"
#include "runtime/signals.h"
#include "runtime/socket.h"
#include "runtime/stream.h"
#include "runtime/thread_pool.h"
#include "runtime/worker.h"

namespace llmd::runtime {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;

// Turns until `done` or five seconds have passed.
template <class Done>
bool TurnUntil(EventLoop& loop, Done done) {
  const base::TimePoint limit = Now() + seconds(5);
  while (!done()) {
    if (Now() > limit) return false;
    loop.Turn(milliseconds(20));
  }
  return true;
}

// What the tests of loops and streams run on.
std::vector<IoEngine> Engines() {
  std::vector<IoEngine> engines = {IoEngine::kEpoll};
  if (UringWorks()) engines.push_back(IoEngine::kUring);
  return engines;
}
std::string EngineName(const ::testing::TestParamInfo<IoEngine>& info) {
  return info.param == IoEngine::kEpoll ? "epoll" : "io_uring";
}
class EventLoopTest : public ::testing::TestWithParam<IoEngine> {};
class TimerTest : public ::testing::TestWithParam<IoEngine> {};

class TempDir {
 public:
  TempDir() {
    char name[] = "/tmp/llmd-runtime-XXXXXX";
    path_ = mkdtemp(name);
  }
  ~TempDir() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

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

TEST(WorkerPool, RunsLoopsOnNamedThreads) {
  WorkerPool pool(3, "test");
  std::set<std::thread::id> ids;
  pool.ForEach([&](size_t, EventLoop& loop) { EXPECT_TRUE(loop.InLoopThread()); });
  pool.Start();
  std::vector<std::string> names;
  pool.ForEach([&](size_t, EventLoop& loop) {
    EXPECT_TRUE(loop.InLoopThread());
    ids.insert(std::this_thread::get_id());
    char name[16];
    pthread_getname_np(pthread_self(), name, sizeof(name));
    names.push_back(name);
  });
  EXPECT_EQ(ids.size(), 3u);
  EXPECT_FALSE(pool.loop(0).InLoopThread());
  EXPECT_THAT(names, ElementsAre("test-0", "test-1", "test-2"));
  pool.Stop();
  pool.ForEach([&](size_t, EventLoop& loop) { EXPECT_TRUE(loop.InLoopThread()); });
}

TEST(ThreadPool, RefusesBeyondItsQueueAndDropsWhatWaits) {
  std::latch started(1), release(1);
  auto token = std::make_shared<int>(0);
  {
    ThreadPool pool(1, 2, "pool");
    ASSERT_TRUE(pool.TrySubmit([&] {
      started.count_down();
      release.wait();
    }));
    started.wait();
    EXPECT_TRUE(pool.TrySubmit([token] { ++*token; }));
    EXPECT_TRUE(pool.TrySubmit([token] { ++*token; }));
    EXPECT_FALSE(pool.TrySubmit([token] { ++*token; }));
    EXPECT_EQ(pool.refused_count(), 1u);
    EXPECT_EQ(token.use_count(), 3);
    release.count_down();
  }
  EXPECT_EQ(token.use_count(), 1);
}

TEST(Files, ReadsWholeFilesWithinALimit) {
  TempDir dir;
  EXPECT_EQ(ReadFile(dir / "none").error().code(), base::StatusCode::kNotFound);
  ASSERT_TRUE(WriteFileAtomically(dir / "a", "hello").ok());
  EXPECT_EQ(ReadFile(dir / "a").value(), "hello");
  EXPECT_EQ(ReadFile(dir / "a", 5).value(), "hello");
  EXPECT_EQ(ReadFile(dir / "a", 4).error().code(), base::StatusCode::kResourceExhausted);
  EXPECT_FALSE(ReadFile(dir / "").has_value());
  EXPECT_FALSE(WriteFileAtomically(dir / "no/such", "x").ok());
}

class FileWatchTest : public ::testing::Test {
 protected:
  void Watch(const std::string& path) {
    watch_ = std::make_unique<FileWatch>(
        loop_, path,
        [this](base::Result<std::string> content) {
          seen_.push_back(
              content ? *content : "<" + std::string(StatusCodeName(content.error().code())) + ">");
        },
        FileWatchOptions{.settle = milliseconds(5), .poll = seconds(100)});
  }
  bool SawNext(const std::string& what) {
    const size_t before = seen_.size();
    return TurnUntil(loop_, [&] { return seen_.size() > before; }) && seen_.back() == what;
  }
  TempDir dir_;
  EventLoop loop_;
  std::vector<std::string> seen_;
  std::unique_ptr<FileWatch> watch_;
};

TEST_F(FileWatchTest, TellsOfEditsRenamesRemovalAndReturn) {
  const std::string path = dir_ / "config";
  ASSERT_TRUE(WriteFileAtomically(path, "one").ok());
  Watch(path);
  EXPECT_EQ(watch_->initial().value(), "one");
  ASSERT_TRUE(WriteFileAtomically(path, "two").ok());
  EXPECT_TRUE(SawNext("two"));
  {
    int fd = ::open(path.c_str(), O_WRONLY | O_TRUNC);
    ASSERT_EQ(::write(fd, "three", 5), 5);
    ::close(fd);
  }
  EXPECT_TRUE(SawNext("three"));
  ::unlink(path.c_str());
  EXPECT_TRUE(SawNext("<NOT_FOUND>"));
  ASSERT_TRUE(WriteFileAtomically(path, "four").ok());
  EXPECT_TRUE(SawNext("four"));
}

TEST_F(FileWatchTest, TouchingWithoutChangeIsSilent) {
  const std::string path = dir_ / "config";
  ASSERT_TRUE(WriteFileAtomically(path, "one").ok());
  Watch(path);
  ASSERT_TRUE(WriteFileAtomically(path, "one").ok());
  ASSERT_TRUE(WriteFileAtomically(dir_ / "other", "x").ok());
  const base::TimePoint until = Now() + milliseconds(40);
  while (Now() < until) loop_.Turn(milliseconds(5));
  EXPECT_TRUE(seen_.empty());
}

// How the kubelet updates a ConfigMap volume: file -> ..data/file, ..data -> a dated directory.
TEST_F(FileWatchTest, FollowsAConfigMapSwap) {
  std::filesystem::create_directory(dir_ / "..2026_1");
  ASSERT_TRUE(WriteFileAtomically(dir_ / "..2026_1/config", "old").ok());
  std::filesystem::create_symlink("..2026_1", dir_ / "..data");
  std::filesystem::create_symlink("..data/config", dir_ / "config");
  Watch(dir_ / "config");
  EXPECT_EQ(watch_->initial().value(), "old");
  std::filesystem::create_directory(dir_ / "..2026_2");
  ASSERT_TRUE(WriteFileAtomically(dir_ / "..2026_2/config", "new").ok());
  std::filesystem::create_symlink("..2026_2", dir_ / "..data_tmp");
  std::filesystem::rename(dir_ / "..data_tmp", dir_ / "..data");
  std::filesystem::remove_all(dir_ / "..2026_1");
  EXPECT_TRUE(SawNext("new"));
}

TEST_F(FileWatchTest, FollowsALinkToAFileElsewhere) {
  TempDir elsewhere;
  ASSERT_TRUE(WriteFileAtomically(elsewhere / "real", "one").ok());
  std::filesystem::create_symlink(elsewhere / "real", dir_ / "config");
  Watch(dir_ / "config");
  ASSERT_TRUE(WriteFileAtomically(elsewhere / "real", "two").ok());
  EXPECT_TRUE(SawNext("two"));
}

TEST(SignalWatch, DeliversSignalsOnTheLoop) {
  EventLoop loop;
  std::vector<int> seen;
  SignalWatch watch(loop, [&](int number) { seen.push_back(number); });
  ::kill(::getpid(), SIGTERM);
  ::kill(::getpid(), SIGHUP);
  EXPECT_TRUE(TurnUntil(loop, [&] { return seen.size() == 2; }));
  EXPECT_THAT(seen, ::testing::UnorderedElementsAre(SIGTERM, SIGHUP));
}

TEST(AsyncLogSink, WritesLinesOfManyThreadsUntorn) {
  TempDir dir;
  {
    auto sink = AsyncLogSink::Open({.path = dir / "log"}).value();
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < 500; ++i) {
          sink->WriteLine(std::to_string(t) + " " + std::to_string(i) + " " +
                          std::string(50, static_cast<char>('a' + t)) + "\n");
        }
      });
    }
    for (auto& thread : threads) thread.join();
    sink->Flush();
    EXPECT_EQ(std::filesystem::file_size(dir / "log"), 4 * (10 * 55u + 90 * 56u + 400 * 57u));
    EXPECT_EQ(sink->dropped_count(), 0u);
    EXPECT_GT(sink->Now().unix_ns, 0);
  }
  const std::string text = ReadFile(dir / "log").value();
  int next[4] = {0, 0, 0, 0};
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    const std::string line = text.substr(at, end - at);
    const int t = line[0] - '0';
    EXPECT_EQ(line, std::to_string(t) + " " + std::to_string(next[t]++) + " " +
                        std::string(50, static_cast<char>('a' + t)));
    at = end + 1;
  }
}

TEST(AsyncLogSink, DropsAndCountsWhenTheReaderIsTooSlow) {
  TempDir dir;
  ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
  int reader = ::open((dir / "pipe").c_str(), O_RDONLY | O_NONBLOCK);
  ASSERT_GE(reader, 0);
  auto sink = AsyncLogSink::Open({.path = dir / "pipe", .buffer_bytes_max = 64 << 10}).value();
  const std::string line = std::string(1023, 'x') + "\n";
  for (int i = 0; i < 1000; ++i) sink->WriteLine(line);
  EXPECT_GT(sink->dropped_count(), 500u);
  const uint64_t dropped = sink->dropped_count();
  std::string got;
  char buffer[8192];
  while (got.size() < (1000 - dropped) * 1024) {
    ssize_t n = ::read(reader, buffer, sizeof(buffer));
    if (n > 0) got.append(buffer, static_cast<size_t>(n));
  }
  EXPECT_EQ(got.size() % 1024, 0u);
  sink->Flush();
  ::close(reader);
}

TEST(AsyncLogSink, ReopensAfterRotation) {
  TempDir dir;
  auto sink = AsyncLogSink::Open({.path = dir / "log"}).value();
  sink->WriteLine("before\n");
  sink->Flush();
  std::filesystem::rename(dir / "log", dir / "log.1");
  ASSERT_TRUE(sink->Reopen().ok());
  sink->WriteLine("after\n");
  sink->Flush();
  EXPECT_EQ(ReadFile(dir / "log.1").value(), "before\n");
  EXPECT_EQ(ReadFile(dir / "log").value(), "after\n");
  EXPECT_FALSE(AsyncLogSink::Open({.path = dir / "no/log"}).has_value());
}

TEST(SocketAddress, ParsesAndPrints) {
  const struct {
    std::string_view text, printed;
  } kGood[] = {
      {"127.0.0.1:80", "127.0.0.1:80"},
      {"[::1]:8080", "[::1]:8080"},
      {":9090", "[::]:9090"},
      {"[::ffff:1.2.3.4]:1", "1.2.3.4:1"},
  };
  for (const auto& c : kGood) EXPECT_EQ(SocketAddress::Parse(c.text)->ToString(), c.printed);
  for (std::string_view bad : {"", "1.2.3.4", "1.2.3.4:", "1.2.3.4:x", "1.2.3.4:65536", "::1:80",
                               "[::1]80", "host:80", "[]:80", "1.2.3:80"}) {
    EXPECT_FALSE(SocketAddress::Parse(bad).has_value()) << bad;
  }
  EXPECT_EQ(SplitHostPort("engine-0.ns:8000")->host, "engine-0.ns");
  EXPECT_TRUE(SocketAddress::Parse("127.9.9.9:1")->is_loopback());
  EXPECT_FALSE(SocketAddress::Parse("128.0.0.1:1")->is_loopback());
  EXPECT_EQ(SocketAddress::Parse("1.2.3.4:5")->WithPort(6), *SocketAddress::Parse("1.2.3.4:6"));
  EXPECT_FALSE(*SocketAddress::Parse("1.2.3.4:5") == *SocketAddress::Parse("[::1]:5"));
}

TEST(SocketAddress, OfUnixSockets) {
  const SocketAddress address = SocketAddress::Unix("/run/a.sock").value();
  EXPECT_TRUE(address.is_unix());
  EXPECT_TRUE(address.is_loopback());
  EXPECT_EQ(address.ToString(), "/run/a.sock");
  EXPECT_EQ(address.WithPort(80), address);
  EXPECT_EQ(address.port(), 0);
  EXPECT_EQ(address, *SocketAddress::Unix("/run/a.sock"));
  EXPECT_EQ(address.Hash(), SocketAddress::Unix("/run/a.sock")->Hash());
  EXPECT_FALSE(address == *SocketAddress::Unix("/run/b.sock"));
  EXPECT_FALSE(address == SocketAddress());
  EXPECT_EQ(SocketAddress::From(address.raw(), address.raw_size()).value(), address);
  EXPECT_EQ(SocketAddress::From(address.raw(), sizeof(sa_family_t))->ToString(), "");
  const std::string longest(SocketAddress::kUnixPathMax, 'x');
  EXPECT_EQ(SocketAddress::Unix(longest)->ToString(), longest);
  for (const std::string& bad : {std::string(), longest + "x", std::string("/a\0b", 4)}) {
    EXPECT_FALSE(SocketAddress::Unix(bad).has_value());
  }
}

TEST(SocketAddress, AUnixSocketListensAndIsConnectedTo) {
  const TempDir dir;
  const SocketAddress address = SocketAddress::Unix(dir / "s").value();
  EXPECT_EQ(ConnectTcp(address).error().code(), base::StatusCode::kNotFound);
  const int listener = ListenTcp(address).value();
  EXPECT_EQ(LocalAddress(listener).value(), address);
  const int client = ConnectTcp(address).value();
  const int accepted = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK);
  ASSERT_GE(accepted, 0);
  EXPECT_EQ(PeerAddress(client).value(), address);
  EXPECT_EQ(PeerAddress(accepted)->ToString(), "");
  for (const int fd : {client, accepted, listener}) CloseFd(fd);
}

// A stream and the raw socket at its other end.
class StreamTest : public ::testing::TestWithParam<IoEngine> {
 protected:
  struct Owner final : IoHandler {
    void OnIo(IoEvents events) override {
      ++events_seen;
      writable |= events.writable();
      failed |= events.failed();
      if (events.readable()) can_read = true;
      if (stream && !paused) ReadAll();
    }
    void ReadAll() {
      std::vector<char> room(room_bytes);
      while (can_read && !ended) {
        const IoResult result = stream->Read(room);
        read.append(room.data(), result.bytes);
        if (result.status == IoStatus::kDrained && (!peer_closed || result.bytes == 0)) {
          can_read = false;
        }
        if (result.status == IoStatus::kEnd || result.status == IoStatus::kError) {
          ended = true;
          failed |= result.status == IoStatus::kError;
        }
      }
    }
    std::unique_ptr<Stream> stream;
    std::string read;
    size_t room_bytes = 16 << 10;
    int events_seen = 0;
    bool paused = false, can_read = false, writable = false, peer_closed = false;
    bool ended = false, failed = false;
  };
  struct Link {
    Owner owner;
    int peer = -1;
    ~Link() {
      if (peer >= 0) ::close(peer);
    }
  };

  std::unique_ptr<Link> Connect(int peer_buffer_bytes = 0) {
    auto link = std::make_unique<Link>();
    const int listener =
        ListenTcp(SocketAddress::Ipv4(0x7f000001, 0),
                  {.receive_buffer_bytes = peer_buffer_bytes})
            .value();
    const SocketAddress address = LocalAddress(listener).value();
    link->owner.stream = NewTcpStream(loop_, ConnectTcp(address).value(), link->owner).value();
    EXPECT_TRUE(TurnUntil(loop_, [&] {
      if (link->peer < 0) link->peer = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK);
      return link->peer >= 0 && link->owner.writable;
    }));
    EXPECT_EQ(SocketError(link->owner.stream->fd()), 0);
    CloseFd(listener);
    link->owner.can_read = true;  // streams may be read at any time
    link->owner.ReadAll();
    return link;
  }
  static IoResult Write(Link& link, std::string_view bytes) {
    iovec part{const_cast<char*>(bytes.data()), bytes.size()};
    return link.owner.stream->Write({&part, 1});
  }
  // Reads what has come to the raw socket; false once it has ended.
  static bool PeerRead(Link& link, std::string& into) {
    char room[64 << 10];
    while (true) {
      const ssize_t n = ::recv(link.peer, room, sizeof(room), 0);
      if (n <= 0) return n < 0 && errno == EAGAIN;
      into.append(room, static_cast<size_t>(n));
    }
  }
  static std::string Noise(size_t bytes, uint64_t seed) {
    base::Random random(seed);
    std::string noise(bytes, 0);
    for (char& c : noise) c = static_cast<char>(random.Below(256));
    return noise;
  }

  EventLoop loop_{GetParam()};
};

TEST_P(StreamTest, MovesBytesAndReportsEndAndReset) {
  EventLoop loop(GetParam());
  const int listener = ListenTcp(SocketAddress::Ipv4(0x7f000001, 0)).value();
  const SocketAddress address = LocalAddress(listener).value();
  CountingHandler client_events, server_events;
  auto client = NewTcpStream(loop, ConnectTcp(address).value(), client_events).value();
  int accepted = -1;
  ASSERT_TRUE(TurnUntil(loop, [&] {
    if (accepted < 0) accepted = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK);
    return accepted >= 0 && client_events.last.writable();
  }));
  EXPECT_EQ(SocketError(client->fd()), 0);
  auto server = NewTcpStream(loop, accepted, server_events).value();
  iovec parts[2] = {{const_cast<char*>("hel"), 3}, {const_cast<char*>("lo"), 2}};
  EXPECT_EQ(client->Write(parts).bytes, 5u);
  char room[16];
  ASSERT_TRUE(TurnUntil(loop, [&] { return server_events.last.readable(); }));
  IoResult result = server->Read(room);
  EXPECT_EQ(std::string_view(room, result.bytes), "hello");
  EXPECT_EQ(result.status, IoStatus::kDrained);
  client->ShutdownWrite();
  ASSERT_TRUE(TurnUntil(loop, [&] { return server_events.last.peer_closed(); }));
  EXPECT_EQ(server->Read(room).status, IoStatus::kEnd);
  server->ResetOnClose();
  server.reset();
  ASSERT_TRUE(TurnUntil(loop, [&] { return client_events.last.failed(); }));
  EXPECT_EQ(client->Read(room).status, IoStatus::kError);
  EXPECT_EQ(client->error(), ECONNRESET);
  CloseFd(listener);
}

// Writes of every size, with a peer that reads now and then: nothing is lost, doubled or swapped.
TEST_P(StreamTest, KeepsTheOrderOfSmallAndLargeWrites) {
  auto link = Connect(16 << 10);
  const std::string all = Noise(4 << 20, 1);
  base::Random random(2);
  std::string got;
  size_t written = 0;
  bool blocked = false;
  ASSERT_TRUE(TurnUntil(loop_, [&] {
    if (link->owner.writable) blocked = false;
    link->owner.writable = false;
    for (int i = 0; i < 8 && !blocked && written < all.size(); ++i) {
      const size_t most = random.Below(3) == 0 ? 200'000 : 3000;
      const size_t size = std::min<size_t>(1 + random.Below(most), all.size() - written);
      const IoResult result = Write(*link, std::string_view(all).substr(written, size));
      written += result.bytes;
      blocked = result.status == IoStatus::kDrained;
    }
    if (random.Below(4) == 0 || written == all.size()) PeerRead(*link, got);
    return got.size() == all.size();
  }));
  EXPECT_TRUE(got == all);
}

TEST_P(StreamTest, ReceivesSmallAndLargeMessagesInOrder) {
  auto link = Connect();
  const std::string all = Noise(4 << 20, 3);
  base::Random random(4);
  size_t sent = 0;
  const base::TimePoint until = Now() + seconds(5);
  while (link->owner.read.size() < all.size() && Now() < until) {
    // Bulk for a while, then messages one by one, and rooms of every size.
    const bool bulk = sent / 500'000 % 2 == 1;
    link->owner.room_bytes = 1 + random.Below(bulk ? 200'000 : 20'000);
    const size_t size =
        std::min<size_t>(1 + random.Below(bulk ? 300'000 : 2000), all.size() - sent);
    if (random.Below(40) == 0) link->owner.stream->SetReadLowWater(bulk ? 64 << 10 : 1);
    if (sent == all.size()) link->owner.stream->SetReadLowWater(1);
    if (size > 0) {
      const ssize_t n = ::send(link->peer, all.data() + sent, size, MSG_NOSIGNAL);
      if (n > 0) sent += static_cast<size_t>(n);
    }
    link->owner.can_read = true;
    loop_.Turn(base::Duration::zero());
    if (random.Below(3) > 0) link->owner.ReadAll();
  }
  EXPECT_TRUE(link->owner.read == all) << sent << " sent, " << link->owner.read.size() << " read";
  ::close(std::exchange(link->peer, -1));
  EXPECT_TRUE(TurnUntil(loop_, [&] { return link->owner.ended; }));
}

// While its owner pauses, a stream does not take in all that a peer sends, nor does it starve the
// others.
TEST_P(StreamTest, APausedOwnerHoldsThePeerBack) {
  auto link = Connect();
  auto other = Connect();
  link->owner.paused = true;
  const std::string much = Noise(1 << 20, 5);
  std::string sent;
  const auto send_more = [&] {
    const ssize_t n = ::send(link->peer, much.data(), much.size(), MSG_NOSIGNAL);
    if (n > 0) sent.append(much, 0, static_cast<size_t>(n));
    return n > 0;
  };
  const base::TimePoint until = Now() + seconds(5);
  for (int idle = 0; idle < 5 && Now() < until;) {
    idle = send_more() ? 0 : idle + 1;
    loop_.Turn(milliseconds(2));
  }
  EXPECT_FALSE(send_more());
  EXPECT_LT(sent.size(), 64u << 20);
  ASSERT_EQ(::send(other->peer, "hello", 5, 0), 5);
  ASSERT_TRUE(TurnUntil(loop_, [&] { return other->owner.read == "hello"; }));
  link->owner.paused = false;
  link->owner.ReadAll();
  ASSERT_TRUE(TurnUntil(loop_, [&] { return link->owner.read.size() == sent.size(); }));
  EXPECT_TRUE(link->owner.read == sent);
}

TEST_P(StreamTest, BytesWrittenBeforeTheStreamIsDestroyedStillGoOut) {
  for (const bool turns : {false, true}) {
    auto link = Connect();
    ASSERT_EQ(Write(*link, "last words").bytes, 10u);
    if (turns) loop_.Turn(base::Duration::zero());
    link->owner.stream.reset();
    std::string got;
    ASSERT_TRUE(TurnUntil(loop_, [&] { return !PeerRead(*link, got); }));
    EXPECT_EQ(got, "last words");
  }
}

// Without a turn of the loop: who destroys a stream may not come back to it.
TEST_P(StreamTest, DestroyingAStreamClosesItAtOnce) {
  for (const bool reset : {false, true}) {
    auto link = Connect();
    loop_.Turn(base::Duration::zero());
    if (reset) link->owner.stream->ResetOnClose();
    link->owner.stream.reset();
    char byte;
    EXPECT_EQ(::recv(link->peer, &byte, 1, 0), reset ? -1 : 0);
    if (reset) EXPECT_EQ(errno, ECONNRESET);
  }
}

// The peer reads nothing until the stream is gone with bytes that did not fit.
TEST_P(StreamTest, BytesThatDidNotFitOutliveTheStream) {
  auto link = Connect(4096);
  const std::string piece = Noise(4000, 6);
  std::string sent;
  IoResult result;
  const base::TimePoint until = Now() + seconds(5);
  do {
    result = Write(*link, piece);
    sent.append(piece, 0, result.bytes);
    loop_.Turn(base::Duration::zero());
  } while (result.status == IoStatus::kOk && Now() < until);
  ASSERT_EQ(result.status, IoStatus::kDrained);
  link->owner.stream.reset();
  std::string got;
  ASSERT_TRUE(TurnUntil(loop_, [&] { return !PeerRead(*link, got); }));
  EXPECT_TRUE(got == sent) << got.size() << " of " << sent.size();
}

TEST_P(StreamTest, FinFollowsTheBytesBeforeIt) {
  auto link = Connect(4096);
  std::string sent;
  IoResult result;
  do {
    const std::string piece = Noise(4000, sent.size());
    result = Write(*link, piece);
    sent.append(piece, 0, result.bytes);
    loop_.Turn(base::Duration::zero());
  } while (result.status == IoStatus::kOk && sent.size() < 100u << 20);
  link->owner.stream->ShutdownWrite();
  std::string got;
  ASSERT_TRUE(TurnUntil(loop_, [&] { return !PeerRead(*link, got); }));
  EXPECT_TRUE(got == sent) << got.size() << " of " << sent.size();
  ASSERT_EQ(::send(link->peer, "still heard", 11, 0), 11);
  ASSERT_TRUE(TurnUntil(loop_, [&] { return link->owner.read == "still heard"; }));
}

TEST_P(StreamTest, AWriteAfterAResetFailsInTheEnd) {
  auto link = Connect();
  const linger now{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(link->peer, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
  ::close(std::exchange(link->peer, -1));
  IoResult result;
  EXPECT_TRUE(TurnUntil(loop_, [&] {
    result = Write(*link, "x");
    return result.status == IoStatus::kError;
  }));
  EXPECT_NE(link->owner.stream->error(), 0);
  EXPECT_TRUE(TurnUntil(loop_, [&] { return link->owner.ended; }));
}

TEST_P(StreamTest, AFailedConnectShowsInTheSocketError) {
  const int listener = ListenTcp(SocketAddress::Ipv4(0x7f000001, 0)).value();
  const SocketAddress address = LocalAddress(listener).value();
  CloseFd(listener);
  Owner owner;
  owner.paused = true;
  owner.stream = NewTcpStream(loop_, ConnectTcp(address).value(), owner).value();
  ASSERT_TRUE(TurnUntil(loop_, [&] { return owner.writable; }));
  EXPECT_TRUE(owner.failed);
  EXPECT_EQ(SocketError(owner.stream->fd()), ECONNREFUSED);
}

// More streams than there are buffers to receive into, all at once.
TEST_P(StreamTest, ServesMoreStreamsThanBuffers) {
  std::vector<std::unique_ptr<Link>> links;
  for (int i = 0; i < 150; ++i) links.push_back(Connect());
  for (int round = 0; round < 6; ++round) {
    for (size_t i = 0; i < links.size(); ++i) {
      const std::string text = std::to_string(i) + ";";
      ASSERT_EQ(::send(links[i]->peer, text.data(), text.size(), 0),
                static_cast<ssize_t>(text.size()));
    }
    ASSERT_TRUE(TurnUntil(loop_, [&] {
      return std::ranges::all_of(links, [&](const auto& link) {
        return std::ranges::count(link->owner.read, ';') == round + 1;
      });
    }));
  }
  for (size_t i = 0; i < links.size(); ++i) {
    EXPECT_EQ(links[i]->owner.read.substr(0, links[i]->owner.read.find(';')), std::to_string(i));
  }
}

// A handler may destroy other streams, also such as have events in the same turn.
TEST_P(StreamTest, AHandlerMayDestroyOtherStreams) {
  struct Destroyer final : IoHandler {
    void OnIo(IoEvents) override {
      ++calls;
      if (armed) other->reset();
    }
    std::unique_ptr<Stream>* other = nullptr;
    int calls = 0;
    bool armed = false;
  };
  Destroyer handlers[2];
  int pairs[2][2];
  std::unique_ptr<Stream> streams[2];
  for (int i = 0; i < 2; ++i) {
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pairs[i]), 0);
    streams[i] = NewTcpStream(loop_, pairs[i][0], handlers[i]).value();
    handlers[i].other = &streams[1 - i];
  }
  ASSERT_TRUE(TurnUntil(loop_, [&] { return handlers[0].calls > 0 && handlers[1].calls > 0; }));
  for (int i = 0; i < 3; ++i) loop_.Turn(base::Duration::zero());
  const int before = handlers[0].calls + handlers[1].calls;
  for (int i = 0; i < 2; ++i) {
    handlers[i].armed = true;
    ASSERT_EQ(::write(pairs[i][1], "x", 1), 1);
  }
  for (int i = 0; i < 3; ++i) loop_.Turn(milliseconds(5));
  EXPECT_EQ(handlers[0].calls + handlers[1].calls, before + 1);
  EXPECT_NE(streams[0] == nullptr, streams[1] == nullptr);
  for (auto& pair : pairs) ::close(pair[1]);
}

// Between two runs a loop's streams may be used, and destroyed, by any thread.
TEST(Stream, SurvivesTheEndOfARunAndGoesOnInTheNext) {
  for (const IoEngine engine : Engines()) {
    EventLoop loop(engine);
    CountingHandler handler;
    int pair[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    auto stream = NewTcpStream(loop, pair[0], handler).value();
    std::string got;
    handler.then = [&] {
      char room[100];
      const IoResult result = stream->Read(room);
      got.append(room, result.bytes);
      if (got.ends_with(".")) {
        iovec part{got.data(), got.size()};
        stream->Write({&part, 1});
        loop.Stop();
      }
    };
    for (int round = 1; round <= 3; ++round) {
      std::thread thread([&] { loop.Run(); });
      ASSERT_EQ(::write(pair[1], "12.", 3), 3);
      thread.join();
      EXPECT_EQ(got.size(), 3u * static_cast<size_t>(round));
      char answer[100];
      EXPECT_EQ(::read(pair[1], answer, sizeof(answer)), 3 * round) << "written in the last turn";
    }
    stream.reset();
    char byte;
    EXPECT_EQ(::read(pair[1], &byte, 1), 0);
    ::close(pair[1]);
  }
}

INSTANTIATE_TEST_SUITE_P(Engines, EventLoopTest, ::testing::ValuesIn(Engines()), EngineName);
INSTANTIATE_TEST_SUITE_P(Engines, TimerTest, ::testing::ValuesIn(Engines()), EngineName);
INSTANTIATE_TEST_SUITE_P(Engines, StreamTest, ::testing::ValuesIn(Engines()), EngineName);

TEST(Machine, KnowsItsLimits) {
  EXPECT_GE(AvailableCpuCount(), 1u);
  EXPECT_GT(MemoryLimitBytes(), 1u << 20);
  EXPECT_GT(ResidentBytes(), 1u << 20);
  EXPECT_LT(ResidentBytes(), MemoryLimitBytes());
  EXPECT_GE(ProcessCpuSeconds(0), 0);
  EXPECT_LT(ProcessCpuSeconds(1 << 30), 0);
  EXPECT_GE(RaiseOpenFileLimit(), 256u);
  EXPECT_GT(OpenFileCount(), 2u);
  EXPECT_GE(OpenFileLimit(), OpenFileCount());
}

TEST(Clock, Moves) {
  const base::TimePoint before = Now();
  EXPECT_GE(Now(), before);
  EXPECT_GT(WallNow().unix_ns, int64_t{1'700'000'000} * 1'000'000'000);
  EXPECT_NE(EntropySeed(), EntropySeed());
  EXPECT_GE(ThreadCpuTime().count(), 0);
}

}  // namespace
}  // namespace llmd::runtime
