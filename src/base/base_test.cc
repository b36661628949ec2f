#include <gtest/gtest.h>

#include <cstring>
#include <mutex>
#include <thread>
#include <vector>

#include "base/adaptive_mutex.h"
#include "base/arena.h"
#include "base/buffer.h"
#include "base/check.h"
#include "base/hash.h"
#include "base/random.h"
#include "base/snapshot.h"
#include "base/status.h"
#include "base/strings.h"

namespace llmd::base {
namespace {

Result<int> Half(int n) {
  if (n % 2) return std::unexpected(InvalidArgument("odd"));
  return n / 2;
}
Result<int> Quarter(int n) {
  LLMD_ASSIGN_OR_RETURN(const int half, Half(n));
  LLMD_ASSIGN_OR_RETURN(const int quarter, Half(half));
  return quarter;
}

TEST(Status, ErrorsTravelThroughMacros) {
  EXPECT_EQ(*Quarter(8), 2);
  EXPECT_EQ(Quarter(6).error().ToString(), "INVALID_ARGUMENT: odd");
  EXPECT_EQ(Quarter(6).error().WithContext("n").message(), "n: odd");
  EXPECT_TRUE(OkStatus().WithContext("n").ok());
}

TEST(Buffer, BlocksReturnToThePoolWhenTheLastSliceDies) {
  BufferPool pool(64 << 10);
  {
    Slice a = pool.Copy("hello world");
    Slice b = a.Sub(6, 5);
    a = Slice();
    EXPECT_EQ(b.view(), "world");
    EXPECT_EQ(pool.live_bytes(), 4096u);
  }
  EXPECT_EQ(pool.live_bytes(), 0u);
  EXPECT_EQ(pool.kept_bytes(), 4096u);
  Block* again = pool.Get(100);
  EXPECT_EQ(pool.kept_bytes(), 0u);
  pool.Put(again);
}

TEST(Buffer, ThePoolKeepsNoMoreThanItsLimit) {
  BufferPool pool(8 << 10);
  Block* blocks[4];
  for (Block*& b : blocks) b = pool.Get(4096);
  for (Block* b : blocks) pool.Put(b);
  EXPECT_EQ(pool.kept_bytes(), size_t{8 << 10});
  Block* huge = pool.Get(1 << 20);
  EXPECT_EQ(huge->capacity(), size_t{1 << 20});
  pool.Put(huge);
  EXPECT_EQ(pool.kept_bytes(), size_t{8 << 10});
}

TEST(Buffer, LargeBlocksBeginHalfAPageOff) {
  BufferPool pool(4 << 20);
  std::vector<Block*> blocks;
  for (size_t bytes : {4096u, 8192u, 16384u, 100000u, 1u << 18, (1u << 20) + 1}) {
    Block* block = pool.Get(bytes);
    EXPECT_GE(block->capacity(), bytes);
    std::memset(block->data(), 1, block->capacity());
    const size_t place = reinterpret_cast<uintptr_t>(block->data()) % 4096;
    if (bytes >= 16384) {
      EXPECT_EQ(place, 2048u) << bytes;
    } else {
      EXPECT_EQ(place % 64, 0u) << bytes;
    }
    blocks.push_back(block);
  }
  for (Block* block : blocks) pool.Put(block);
}

TEST(Arena, ResetKeepsTheFirstChunk) {
  Arena arena(256);
  EXPECT_EQ(arena.Copy("abc"), "abc");
  auto numbers = arena.NewSpan<int>(1000);
  EXPECT_EQ(numbers[999], 0);
  arena.Reset();
  EXPECT_EQ(arena.allocated_bytes(), 256u);
  EXPECT_EQ(arena.Copy("x"), "x");
}

TEST(Bug, CountsEveryTimeAndGoesOn) {
  for (int i = 0; i < 3; ++i) LLMD_BUG("tried on purpose");
  EXPECT_EQ(FirstBugSite()->count.load(), 3u);
  SetBugFatalForTest(true);
  EXPECT_DEATH({ LLMD_BUG("fatal now"); }, "fatal now");
  SetBugFatalForTest(false);
}

TEST(AdaptiveMutex, LetsOneInAtATime) {
  AdaptiveMutex mutex;
  int count = 0;
  auto add = [&] {
    for (int i = 0; i < 20'000; ++i) {
      std::lock_guard lock(mutex);
      ++count;
    }
  };
  std::thread other(add);
  add();
  other.join();
  EXPECT_EQ(count, 40'000);
  mutex.lock();
  std::thread refused([&] { EXPECT_FALSE(mutex.try_lock()); });
  refused.join();
  mutex.unlock();
}

TEST(Random, IsDeterministicAndInRange) {
  Random a(7), b(7);
  for (int i = 0; i < 1000; ++i) {
    EXPECT_EQ(a.Next(), b.Next());
    EXPECT_LT(a.Below(10), 10u);
    b.Below(10);
  }
  double sum = 0;
  for (int i = 0; i < 10000; ++i) sum += a.Exponential(3);
  EXPECT_NEAR(sum / 10000, 3, 0.2);
}

TEST(Snapshot, ReadersSeeTheLatestAndKeepNoOther) {
  Snapshot<int> source;
  Snapshot<int>::Reader reader(source);
  EXPECT_EQ(reader.Get(), nullptr);
  auto first = std::make_shared<const int>(1);
  const std::weak_ptr<const int> watched = first;
  source.Publish(std::move(first));
  ASSERT_NE(reader.Get(), nullptr);
  EXPECT_EQ(*reader.Get(), 1);
  source.Publish(std::make_shared<const int>(2));
  EXPECT_FALSE(watched.expired()) << "the reader may still look at it";
  EXPECT_EQ(*reader.Get(), 2);
  EXPECT_TRUE(watched.expired());
  EXPECT_EQ(source.Current(), reader.GetShared());
  source.Publish(nullptr);
  EXPECT_EQ(reader.GetShared(), nullptr);
}

TEST(Snapshot, ReadersNeverGoBack) {
  constexpr int kLast = 2000;
  Snapshot<int> source;
  std::thread writer([&] {
    for (int i = 1; i <= kLast; ++i) source.Publish(std::make_shared<const int>(i));
  });
  Snapshot<int>::Reader reader(source);
  for (int seen = 0; seen < kLast;) {
    const int* now = reader.Get();
    if (now == nullptr) continue;
    ASSERT_GE(*now, seen);
    seen = *now;
  }
  writer.join();
}

TEST(Hash, KnownVectors) {
  EXPECT_EQ(XxHash64("", 0), 0xef46db3751d8e999u);  // xxHash: doc/xxhash_spec.md
  EXPECT_NE(Mix64(1, 2), Mix64(2, 1));
  EXPECT_NE(Hash64("a"), Hash64("b"));
}

TEST(Strings, GoDurations) {
  EXPECT_EQ(ParseGoDurationNs("200ms"), 200'000'000);
  EXPECT_EQ(ParseGoDurationNs("1h30m"), 5'400'000'000'000);
  EXPECT_EQ(ParseGoDurationNs("1.5s"), 1'500'000'000);
  EXPECT_EQ(ParseGoDurationNs("-2us"), -2000);
  EXPECT_EQ(ParseGoDurationNs("0"), 0);
  for (auto bad : {"", "5", "s", "1x", "1.2.3s", "9999999999h"}) {
    EXPECT_EQ(ParseGoDurationNs(bad), std::nullopt) << bad;
  }
}

TEST(Strings, SmallHelpers) {
  EXPECT_TRUE(EqualsIgnoreCase("Content-Length", "content-lengTH"));
  EXPECT_FALSE(EqualsIgnoreCase("a", "ab"));
  EXPECT_EQ(Trim(" \t a b "), "a b");
  EXPECT_EQ(Split("a,,b", ',').size(), 3u);
  EXPECT_EQ(ParseInt("-12"), -12);
  EXPECT_EQ(ParseInt("12x"), std::nullopt);
  const std::string_view words[] = {"queue-scorer", "max-score-picker"};
  EXPECT_EQ(NearestWord("queue-scorrer", words), "queue-scorer");
  EXPECT_EQ(NearestWord("zebra", words), "");
  std::string json;
  AppendJsonString(&json, "a\"\\\n\x01");
  EXPECT_EQ(json, "\"a\\\"\\\\\\n\\u0001\"");
  EXPECT_EQ(Concat("a", std::string("b")), "ab");
}

}  // namespace
}  // namespace llmd::base
