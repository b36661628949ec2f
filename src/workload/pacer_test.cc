#include "workload/pacer.h"

#include <map>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace llmd::workload {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr base::TimePoint kBegin{seconds(100)};

// Plays `pacer` with requests that each take `service`, and returns its starts in order.
std::vector<Start> Play(Pacer& pacer, base::Duration service, base::TimePoint until) {
  std::vector<Start> starts;
  std::multimap<base::TimePoint, int> ends;
  base::TimePoint now = kBegin;
  while (now < until) {
    while (!ends.empty() && ends.begin()->first <= now) {
      ends.erase(ends.begin());
      pacer.OnFinished();
    }
    while (auto start = pacer.TryStart(now)) {
      starts.push_back(*start);
      ends.emplace(now + service, 0);
    }
    base::TimePoint next = pacer.next_due();
    if (!ends.empty()) next = std::min(next, ends.begin()->first);
    if (next == base::TimePoint::max()) break;
    EXPECT_GE(next, now);
    now = std::max(next, now);
  }
  return starts;
}

TEST(Pacer, ClosedLoopKeepsItsConcurrencyInFlight) {
  Pacer pacer({.concurrency = 3}, kBegin);
  EXPECT_EQ(pacer.TryStart(kBegin)->index, 0u);
  EXPECT_EQ(pacer.TryStart(kBegin)->index, 1u);
  EXPECT_EQ(pacer.TryStart(kBegin)->index, 2u);
  EXPECT_FALSE(pacer.TryStart(kBegin));
  EXPECT_EQ(pacer.next_due(), base::TimePoint::max()) << "only a finished request makes room";
  pacer.OnFinished();
  const auto start = pacer.TryStart(kBegin + seconds(1));
  ASSERT_TRUE(start);
  EXPECT_EQ(start->index, 3u);
  EXPECT_EQ(start->due, kBegin + seconds(1));
}

TEST(Pacer, ConstantIsPeriodic) {
  Pacer pacer({.arrival = Arrival::kConstant, .rate = 4, .duration = seconds(2)}, kBegin);
  const auto starts = Play(pacer, milliseconds(1), kBegin + seconds(10));
  ASSERT_EQ(starts.size(), 8u);
  for (size_t i = 0; i < starts.size(); ++i) {
    EXPECT_EQ(starts[i].index, i);
    EXPECT_EQ(starts[i].due, kBegin + i * milliseconds(250));
  }
  EXPECT_TRUE(pacer.exhausted());
}

TEST(Pacer, PoissonGapsHaveTheRightMeanAndVariance) {
  Pacer pacer({.arrival = Arrival::kPoisson, .rate = 200, .duration = seconds(100), .seed = 5},
              kBegin);
  const auto starts = Play(pacer, milliseconds(1), kBegin + seconds(200));
  EXPECT_NEAR(static_cast<double>(starts.size()), 20000, 600);  // 4 sigma
  // Counts per second of a Poisson process have variance = mean.
  std::vector<int> counts(100);
  for (const Start& start : starts)
    ++counts[static_cast<size_t>((start.due - kBegin) / seconds(1))];
  double mean = 0;
  double variance = 0;
  for (int count : counts) mean += count / 100.0;
  for (int count : counts) variance += (count - mean) * (count - mean) / 99.0;
  EXPECT_NEAR(variance / mean, 1.0, 0.6);
}

TEST(Pacer, ALateStartKeepsItsDueTime) {
  Pacer pacer({.arrival = Arrival::kConstant, .rate = 10}, kBegin);
  const auto late = kBegin + seconds(1);
  for (uint64_t i = 0; i <= 10; ++i) {
    const auto start = pacer.TryStart(late);
    ASSERT_TRUE(start) << i;
    EXPECT_EQ(start->due, kBegin + i * milliseconds(100));
  }
  EXPECT_FALSE(pacer.TryStart(late));
  EXPECT_EQ(pacer.next_due(), kBegin + milliseconds(1100));
}

TEST(Pacer, OpenLoopStopsAtItsInFlightLimit) {
  Pacer pacer({.arrival = Arrival::kConstant, .rate = 1000, .in_flight_max = 2}, kBegin);
  EXPECT_TRUE(pacer.TryStart(kBegin + seconds(1)));
  EXPECT_TRUE(pacer.TryStart(kBegin + seconds(1)));
  EXPECT_FALSE(pacer.TryStart(kBegin + seconds(1)));
  pacer.OnFinished();
  EXPECT_EQ(pacer.TryStart(kBegin + seconds(2))->due, kBegin + milliseconds(2));
}

TEST(Pacer, IndicesBeginAgainAfterTheWarmUp) {
  for (const Arrival arrival : {Arrival::kClosedLoop, Arrival::kConstant}) {
    Pacer pacer({.arrival = arrival,
                 .rate = 10,
                 .request_count_max = 5,
                 .warm_up = seconds(1),
                 .duration = seconds(60)},
                kBegin);
    const auto starts = Play(pacer, milliseconds(100), kBegin + seconds(90));
    ASSERT_EQ(starts.size(), 15u);
    for (size_t i = 0; i < 15; ++i) {
      EXPECT_EQ(starts[i].warm_up, i < 10) << i;
      EXPECT_EQ(starts[i].index, i < 10 ? i : i - 10) << i;
    }
    EXPECT_TRUE(pacer.exhausted());
  }
}

TEST(Pacer, ClosedLoopEndsWithItsDuration) {
  Pacer pacer({.concurrency = 2, .duration = seconds(1)}, kBegin);
  const auto starts = Play(pacer, milliseconds(300), kBegin + seconds(90));
  EXPECT_EQ(starts.size(), 8u);  // at 0, 300, 600 and 900 ms
  EXPECT_TRUE(pacer.exhausted());
}

// The schedule of any number of workers together is that of one.
TEST(Pacer, ManyWorkersShareOneSchedule) {
  PacerOptions options{.arrival = Arrival::kPoisson,
                       .rate = 50,
                       .request_count_max = 400,
                       .warm_up = seconds(2),
                       .duration = seconds(30),
                       .seed = 9};
  Pacer alone(options, kBegin);
  std::map<std::pair<bool, uint64_t>, base::TimePoint> expected;
  for (const Start& start : Play(alone, milliseconds(1), kBegin + seconds(99))) {
    expected[{!start.warm_up, start.index}] = start.due;
  }
  EXPECT_GT(expected.size(), 450u);
  std::map<std::pair<bool, uint64_t>, base::TimePoint> actual;
  options.worker_count = 3;
  for (uint32_t worker = 0; worker < 3; ++worker) {
    options.worker = worker;
    Pacer pacer(options, kBegin);
    for (const Start& start : Play(pacer, milliseconds(1), kBegin + seconds(99))) {
      EXPECT_TRUE(actual.insert({{!start.warm_up, start.index}, start.due}).second);
    }
  }
  EXPECT_EQ(actual, expected);
}

TEST(Pacer, ClosedLoopPlacesAreDividedAmongWorkers) {
  uint32_t in_flight = 0;
  uint64_t index_sum = 0;
  for (uint32_t worker = 0; worker < 4; ++worker) {
    Pacer pacer({.concurrency = 6, .worker = worker, .worker_count = 4}, kBegin);
    while (auto start = pacer.TryStart(kBegin)) index_sum += start->index;
    in_flight += pacer.in_flight();
  }
  EXPECT_EQ(in_flight, 6u);
  EXPECT_EQ(index_sum, 0u + 1 + 2 + 3 + 4 + 5);
}

TEST(Pacer, AWorkerWithoutAPlaceIsExhausted) {
  Pacer pacer({.concurrency = 2, .worker = 2, .worker_count = 4}, kBegin);
  EXPECT_TRUE(pacer.exhausted());
  EXPECT_FALSE(pacer.TryStart(kBegin));
  EXPECT_EQ(pacer.next_due(), base::TimePoint::max());
}

TEST(Pacer, StopIsTheEnd) {
  Pacer pacer({.concurrency = 2}, kBegin);
  EXPECT_TRUE(pacer.TryStart(kBegin));
  pacer.Stop();
  EXPECT_TRUE(pacer.exhausted());
  EXPECT_FALSE(pacer.TryStart(kBegin));
}

TEST(Pacer, EndlessRunsDoNotOverflow) {
  Pacer pacer({.arrival = Arrival::kConstant, .rate = 1e-9}, kBegin);
  EXPECT_TRUE(pacer.TryStart(kBegin));
  EXPECT_FALSE(pacer.TryStart(kBegin + seconds(1)));
  EXPECT_GT(pacer.next_due(), kBegin + std::chrono::hours(1));
}

}  // namespace
}  // namespace llmd::workload
