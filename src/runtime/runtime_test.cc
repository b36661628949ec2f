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

#include "runtime/clock.h"
#include "runtime/file_watch.h"
#include "runtime/files.h"
#include "runtime/log_sink.h"
#include "runtime/loop.h"
#include "runtime/machine.h"
#include "runtime/runtime_testing.h"
#include "runtime/signals.h"
#include "runtime/socket.h"
#include "runtime/thread_pool.h"
#include "runtime/worker.h"

namespace llmd::runtime {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;

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
