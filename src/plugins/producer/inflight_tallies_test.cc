#include "plugins/producer/inflight_tallies.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "base/random.h"
#include "base/strings.h"

namespace llmd::plugins {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> All(const InflightTallies& tallies) {
  std::vector<std::string> out;
  tallies.ForEach([&](const InflightTallies::Labels& l, int64_t requests, int64_t tokens) {
    out.push_back(base::Concat(std::to_string(l.endpoint), "/", l.fairness_id, "/", l.priority,
                               "=", std::to_string(requests), ",", std::to_string(tokens)));
  });
  return out;
}

TEST(InflightTallies, AddsUpWhatTheWorkersHave) {
  InflightTallies tallies(2);
  EXPECT_TRUE(All(tallies).empty());
  auto& one = tallies.Find(0, 3, "tenant", -1);
  one.requests = 2;
  one.tokens = 70;
  tallies.Find(1, 3, "tenant", -1).requests = 5;
  tallies.Find(1, 3, "tenant", 0).requests = 1;
  tallies.Find(1, 0, "other tenant", 0).tokens = 9;
  EXPECT_EQ(&tallies.Find(0, 3, "tenant", -1), &one);
  EXPECT_NE(&tallies.Find(1, 3, "tenant", -1), &one) << "each worker its own";
  EXPECT_THAT(All(tallies),
              ElementsAre("0/other tenant/0=0,9", "3/tenant/-1=7,70", "3/tenant/0=1,0"));
}

TEST(InflightTallies, AFullTableReusesWhatIsAtZeroAndElseCountsUnderOther) {
  constexpr size_t kMax = 32;
  InflightTallies tallies(1, kMax);
  for (size_t i = 0; i < kMax; ++i) {
    tallies.Find(0, 0, base::Concat("t", std::to_string(i)), 0).requests = 1;
  }
  tallies.Find(0, 7, "late", 4).requests = 3;
  EXPECT_EQ(&tallies.Find(0, 7, "later", 5), &tallies.Find(0, 7, "late", 4));
  EXPECT_EQ(All(tallies).back(), "7/other/other=3,0");

  tallies.Find(0, 0, "t0", 0).requests = 0;
  for (uint64_t i = 0; i < InflightTallies::kFindsKept; ++i) tallies.Find(0, 0, "t1", 0);
  for (size_t i = 0; i < kMax / 8; ++i) tallies.Find(0, 7, "late", 4);  // not looked at each time
  tallies.Find(0, 7, "late", 4).tokens = 8;
  EXPECT_EQ(All(tallies).back(), "7/other/other=3,0") << "gone over to one of its own";
  EXPECT_THAT(All(tallies), ::testing::Contains("7/late/4=0,8"));
  EXPECT_THAT(All(tallies), ::testing::Not(::testing::Contains("0/t0/0=0,0")));
}

TEST(InflightTallies, WhatWasJustFoundKeepsItsPlace) {
  InflightTallies tallies(1, 1);
  auto& found = tallies.Find(0, 0, "a", 0);
  EXPECT_NE(&tallies.Find(0, 1, "b", 0), &found) << "it will be booked in a moment";
  EXPECT_EQ(&tallies.Find(0, 0, "a", 0), &found);
}

TEST(InflightTallies, LongIdsAreNotKept) {
  InflightTallies tallies(1);
  tallies.Find(0, 0, std::string(InflightTallies::kIdBytesMax + 1, 'x'), 2).requests = 1;
  tallies.Find(0, 0, std::string(InflightTallies::kIdBytesMax, 'y'), 2).requests = 1;
  EXPECT_EQ(All(tallies).front(), "0/other/2=1,0");
  EXPECT_EQ(All(tallies).size(), 2u);
}

// Against a map that forgets nothing, with a reader all the while.
TEST(InflightTallies, NothingIsLostWhateverComes) {
  constexpr size_t kMax = 16;
  InflightTallies tallies(1, kMax);
  std::atomic<bool> done{false};
  std::thread reader([&] {
    while (!done.load()) All(tallies);
  });
  base::Random random(7);
  std::vector<InflightTallies::Tally*> open;
  for (int i = 0; i < 20'000; ++i) {
    if (open.size() < 40 && random.Below(2) == 0) {
      auto& tally =
          tallies.Find(0, static_cast<fleet::EndpointNumber>(random.Below(3)),
                       std::to_string(random.Below(30)), static_cast<int32_t>(random.Below(2)));
      tally.requests.store(tally.requests.load() + 1);
      open.push_back(&tally);
    } else if (!open.empty()) {
      const size_t at = random.Below(open.size());
      open[at]->requests.store(open[at]->requests.load() - 1);
      open[at] = open.back();
      open.pop_back();
    }
    if (i % 1000 == 0) {
      int64_t sum = 0;
      tallies.ForEach([&](const auto&, int64_t requests, int64_t) { sum += requests; });
      EXPECT_EQ(sum, static_cast<int64_t>(open.size()));
    }
  }
  done = true;
  reader.join();
}

}  // namespace
}  // namespace llmd::plugins
