#include "fleet/fleet.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <thread>

#include "base/check.h"

namespace llmd::fleet {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;

base::TimePoint At(base::Duration d) { return base::TimePoint(seconds(1000) + d); }

EndpointSpec Spec(std::string name, uint16_t port = 8000) {
  return {.name = std::move(name), .address = "10.0.0.1", .port = port, .labels = {}};
}
std::vector<EndpointSpec> Specs(size_t n) {
  std::vector<EndpointSpec> specs;
  for (size_t i = 0; i < n; ++i) {
    specs.push_back(Spec("s" + std::to_string(i), static_cast<uint16_t>(8000 + i)));
  }
  return specs;
}
// A fleet of n endpoints long past their slow start.
struct SteadyFleet {
  explicit SteadyFleet(size_t n, size_t workers = 2) : fleet(workers) {
    EXPECT_TRUE(fleet.SetMembers(Specs(n), At(seconds(-100))).ok());
  }
  Fleet fleet;
};

// The tour: members, loads, what is in flight, and a view of it all.
TEST(Fleet, ShowsMembersLoadsAndWhatIsInFlight) {
  Fleet fleet(2);
  ASSERT_TRUE(fleet.SetMembers({Spec("a", 8001), Spec("b", 8002)}, At({})).ok());
  fleet.ReportLoad(1, {.waiting = 3, .running = 8, .kv_usage = 0.5f, .block_tokens = 16}, At({}));
  View view(fleet, 0);
  view.Refresh(At(milliseconds(1)));
  EXPECT_THAT(view.members(), ElementsAre(0, 1));
  EXPECT_EQ(view.endpoint(1).host_port, "10.0.0.1:8002");
  EXPECT_EQ(view.waiting()[1], 3);
  EXPECT_EQ(view.running()[1], 8);
  EXPECT_EQ(view.block_tokens()[1], 16u);
  view.Book(kRequestsInFlight, 1, 2);
  EXPECT_EQ(view.counter(kRequestsInFlight)[1], 2);
  EXPECT_EQ(view.waiting()[1], 5) << "two arrivals joined the queue";
  EXPECT_EQ(fleet.CounterSum(kRequestsInFlight, 1), 2);
  view.Book(kRequestsInFlight, 1, -2);
  EXPECT_EQ(view.waiting()[1], 3);
  EXPECT_EQ(view.reported_at()[0], base::TimePoint{}) << "never reported";
}

TEST(Fleet, JoinsHostAndPort) {
  EXPECT_EQ(JoinHostPort("10.0.0.1", 80), "10.0.0.1:80");
  EXPECT_EQ(JoinHostPort("fd00::1", 8000), "[fd00::1]:8000");
  EXPECT_EQ(JoinHostPort("vllm-0.svc", 8000), "vllm-0.svc:8000");
}

TEST(Fleet, FindsLabels) {
  EndpointSpec spec = Spec("a");
  spec.labels = {{"app", "vllm"}, {"role", "decode"}};
  EXPECT_EQ(*spec.Label("role"), "decode");
  EXPECT_EQ(spec.Label("zone"), nullptr);
}

TEST(Fleet, CorrectsScrapedLoadByWhatHappenedSince) {
  struct Case {
    float waiting, running;
    int64_t delta;
    float waiting_after, running_after;
  };
  for (const Case& c : {Case{0, 4, 0, 0, 4}, Case{0, 4, 3, 0, 7}, Case{2, 4, 3, 5, 4},
                        Case{2, 4, -1, 1, 4}, Case{2, 4, -3, 0, 3}, Case{2, 4, -9, 0, 0},
                        Case{0, 4, -4, 0, 0}}) {
    const Load load =
        CorrectedLoad({.waiting = c.waiting, .running = c.running, .kv_usage = 0.3f}, c.delta);
    EXPECT_EQ(load.waiting, c.waiting_after) << c.waiting << " " << c.delta;
    EXPECT_EQ(load.running, c.running_after) << c.waiting << " " << c.delta;
    EXPECT_EQ(load.kv_usage, 0.3f);
  }
}

TEST(Fleet, AScrapeResetsTheCorrection) {
  SteadyFleet s(1);
  View view(s.fleet, 0);
  view.Refresh(At({}));
  view.Book(kRequestsInFlight, 0, 5);
  s.fleet.ReportLoad(0, {.running = 5}, At(milliseconds(1)));  // the page already counts them
  view.Refresh(At(milliseconds(2)));
  EXPECT_EQ(view.running()[0], 5);
  view.Book(kRequestsInFlight, 0, -5);
  EXPECT_EQ(view.running()[0], 0);
}

TEST(Fleet, KeepsNumberLoadAndHealthWhileIdentityStays) {
  SteadyFleet s(2);
  s.fleet.ReportLoad(1, {.waiting = 7}, At({}));
  std::vector<EndpointSpec> specs = Specs(2);
  specs[1].labels = {{"zone", "b"}, {"app", "x"}};
  specs[1].draining = true;
  const uint64_t version = s.fleet.version();
  ASSERT_TRUE(s.fleet.SetMembers({specs[1], Spec("new", 9000)}, At({})).ok());
  EXPECT_EQ(s.fleet.version(), version + 1);
  const auto members = s.fleet.members();
  EXPECT_EQ(members->by_number[1]->spec.name, "s1");
  EXPECT_EQ(*members->by_number[1]->spec.Label("app"), "x") << "labels were sorted";
  EXPECT_EQ(members->by_number[1]->generation, 1u);
  View view(s.fleet, 0);
  view.Refresh(At({}));
  EXPECT_EQ(view.waiting()[1], 7);
  ASSERT_TRUE(s.fleet.SetMembers({specs[1], Spec("new", 9000)}, At({})).ok());
  EXPECT_EQ(s.fleet.version(), version + 1) << "nothing changed, nobody need look";
}

TEST(Fleet, ReusesANumberOnlyWhenNobodyHoldsItsOwner) {
  SteadyFleet s(2);
  View view(s.fleet, 0);
  view.Refresh(At({}));
  Pin pin(view);
  std::vector<EndpointSpec> relabelled = Specs(2);
  relabelled[0].labels = {{"k", "v"}};
  ASSERT_TRUE(s.fleet.SetMembers(relabelled, At({})).ok());  // `pin` holds the older object
  s.fleet.ReportLoad(0, {.waiting = 9}, At({}));
  ASSERT_TRUE(s.fleet.SetMembers({Specs(2)[1], Spec("x", 1)}, At({})).ok());
  EXPECT_EQ(s.fleet.members()->by_number[2]->spec.name, "x") << "0 is pinned";
  view.Refresh(At({}));
  EXPECT_EQ(pin.endpoint(0).spec.name, "s0");
  const Pin copy = pin;
  pin = Pin();
  ASSERT_TRUE(s.fleet.SetMembers({Specs(2)[1], Spec("y", 1)}, At({})).ok());
  EXPECT_EQ(s.fleet.members()->by_number[3]->spec.name, "y") << "a copy of the pin still holds 0";
  {
    const Pin last = std::move(const_cast<Pin&>(copy));
  }
  view.Refresh(At({}));
  ASSERT_TRUE(s.fleet.SetMembers({Specs(2)[1], Spec("z", 1)}, At({})).ok());
  const auto members = s.fleet.members();
  EXPECT_EQ(members->by_number[0]->spec.name, "z");
  EXPECT_EQ(members->by_number[0]->generation, 2u);
  view.Refresh(At({}));
  EXPECT_EQ(view.waiting()[0], 0) << "the new owner starts unknown";
  EXPECT_EQ(view.reported_at()[0], base::TimePoint{});
}

TEST(Fleet, RefusesTooManyAndTwins) {
  SteadyFleet s(1);
  EXPECT_EQ(s.fleet.SetMembers(Specs(kEndpointsMax + 1), At({})).message(),
            "16385 endpoints, at most 16384 are served");
  EXPECT_EQ(s.fleet.SetMembers({Spec("a", 1), Spec("a", 2)}, At({})).message(),
            "two endpoints are named default/a");
  EXPECT_EQ(s.fleet.version(), 1u);
  // The limit itself works, and with every number pinned the next stranger is refused.
  ASSERT_TRUE(s.fleet.SetMembers(Specs(kEndpointsMax), At({})).ok());
  View view(s.fleet, 0);
  view.Refresh(At({}));
  EXPECT_EQ(view.members().size(), kEndpointsMax);
  const base::Status status = s.fleet.SetMembers({Spec("stranger", 1)}, At({}));
  EXPECT_EQ(status.code(), base::StatusCode::kResourceExhausted);
  EXPECT_EQ(s.fleet.version(), 2u);
}

TEST(Fleet, OtherWorkersSeeABookingWithinAMillisecond) {
  SteadyFleet s(1);
  View mine(s.fleet, 0), other(s.fleet, 1);
  mine.Refresh(At({}));
  other.Refresh(At({}));
  mine.Book(kRequestsInFlight, 0, 1);
  other.Refresh(At(View::kRefreshInterval - base::Duration(1)));
  EXPECT_EQ(other.counter(kRequestsInFlight)[0], 0) << "not due";
  other.Refresh(At(View::kRefreshInterval));
  EXPECT_EQ(other.counter(kRequestsInFlight)[0], 1);
  other.Book(kRequestsInFlight, 0, 1);
  EXPECT_EQ(other.counter(kRequestsInFlight)[0], 2);
  mine.Refresh(At(View::kRefreshInterval));
  EXPECT_EQ(mine.counter(kRequestsInFlight)[0], 2);
}

TEST(Fleet, ALargeFleetIsRefreshedLessOften) {
  SteadyFleet s(5000);
  View view(s.fleet, 0);
  view.Refresh(At({}));
  s.fleet.ReportLoad(4999, {.kv_usage = 0.5f}, At({}));
  view.Refresh(At(milliseconds(4)));
  EXPECT_EQ(view.kv_usage()[4999], 0);
  view.Refresh(At(milliseconds(5)));
  EXPECT_EQ(view.kv_usage()[4999], 0.5f);
}

// Columns of every kind reach as far as the members, whichever came first.
TEST(Fleet, CountersAndAttributesGrowWithTheFleet) {
  SteadyFleet s(10);
  View view(s.fleet, 0);
  const auto before = *s.fleet.AddCounter();
  const auto attribute = *s.fleet.AddAttribute();
  ASSERT_TRUE(s.fleet.SetMembers(Specs(kEndpointsMax), At({})).ok());
  const auto after = *s.fleet.AddCounter();
  constexpr EndpointNumber kLast = kEndpointsMax - 1;
  view.Refresh(At({}));
  EXPECT_TRUE(std::isnan(view.attribute(attribute)[kLast]));
  s.fleet.ReportAttribute(kLast, attribute, 7);
  s.fleet.ReportAdapters(kLast, {.max = 3});
  for (const CounterId c : {kRequestsInFlight, before, after}) view.Book(c, kLast, 2);
  view.Refresh(At(seconds(1)));
  for (const CounterId c : {kRequestsInFlight, before, after}) {
    EXPECT_EQ(view.counter(c)[kLast], 2);
    EXPECT_EQ(view.counter(c)[kLast - 1], 0);
  }
  EXPECT_EQ(view.attribute(attribute)[kLast], 7);
  EXPECT_EQ(view.adapters(kLast)->max, 3u);
}

TEST(Fleet, ANewMemberSetIsSeenAtOnce) {
  SteadyFleet s(1);
  View view(s.fleet, 0);
  view.Refresh(At({}));
  ASSERT_TRUE(s.fleet.SetMembers(Specs(2), At({})).ok());
  view.Refresh(At({}));
  EXPECT_THAT(view.members(), ElementsAre(0, 1));
}

TEST(Fleet, HandsOutCountersUpToTheLimit) {
  SteadyFleet s(1);
  View view(s.fleet, 0);
  view.Refresh(At({}));
  std::vector<CounterId> ids;
  for (size_t i = 1; i < kCountersMax; ++i) ids.push_back(*s.fleet.AddCounter());
  EXPECT_EQ(s.fleet.AddCounter().error().message(), "all 16 in-flight counters are in use");
  view.Refresh(At({}));
  view.Book(ids[3], 0, 40);
  EXPECT_EQ(view.counter(ids[3])[0], 40);
  EXPECT_EQ(view.counter(kRequestsInFlight)[0], 0);
  view.Book(ids[3], 0, -40);
  s.fleet.RemoveCounter(ids[3]);
  EXPECT_EQ(*s.fleet.AddCounter(), ids[3]);
}

TEST(Fleet, AttributesAreUnknownUntilTheyAreReportedAndAgainForANewOwner) {
  SteadyFleet steady(2);
  Fleet& fleet = steady.fleet;
  View view(fleet, 0);
  const auto heat = fleet.AddAttribute();
  ASSERT_TRUE(heat);
  view.Refresh(At({}));
  EXPECT_TRUE(std::isnan(view.attribute(*heat)[0]));
  fleet.ReportAttribute(1, *heat, 42);
  view.Refresh(At(milliseconds(1)));
  EXPECT_TRUE(std::isnan(view.attribute(*heat)[0]));
  EXPECT_EQ(view.attribute(*heat)[1], 42);
  fleet.ReportAdapters(1, {.max = 2, .active = {7}, .waiting = {}, .loaded = {}});
  view.Refresh(At(milliseconds(2)));
  EXPECT_EQ(view.adapters(0), nullptr);
  ASSERT_NE(view.adapters(1), nullptr);
  EXPECT_EQ(view.adapters(1)->max, 2u);

  ASSERT_TRUE(fleet.SetMembers(Specs(1), At(milliseconds(3))).ok());
  view.Refresh(At(milliseconds(3)));
  ASSERT_TRUE(fleet.SetMembers({Specs(1)[0], Spec("other", 9000)}, At(milliseconds(4))).ok());
  view.Refresh(At(milliseconds(5)));
  ASSERT_EQ(view.endpoint(1).spec.name, "other") << "the number is used again";
  EXPECT_TRUE(std::isnan(view.attribute(*heat)[1]));
  EXPECT_EQ(view.adapters(1), nullptr);
}

TEST(Fleet, HandsOutAttributesUpToTheLimit) {
  Fleet fleet(1);
  std::vector<AttributeId> ids;
  for (size_t i = 0; i < kAttributesMax; ++i) ids.push_back(*fleet.AddAttribute());
  EXPECT_EQ(fleet.AddAttribute().error().code(), base::StatusCode::kResourceExhausted);
  fleet.RemoveAttribute(ids.back());
  EXPECT_EQ(*fleet.AddAttribute(), ids.back());
  View view(fleet, 0);
  view.Refresh(At({}));
}

TEST(Fleet, ABookingBeforeTheViewKnowsTheCounterIsNotLost) {
  SteadyFleet s(1);
  View view(s.fleet, 0);
  view.Refresh(At({}));
  const CounterId c = *s.fleet.AddCounter();
  view.Book(c, 0, 3);
  view.Refresh(At({}));
  EXPECT_EQ(view.counter(c)[0], 3);
}

std::vector<EndpointNumber> Routed(View& view, uint64_t seed, base::TimePoint now) {
  base::Random random(seed);
  base::Arena arena;
  view.Refresh(now);
  const auto routable = view.Routable(random, arena);
  return {routable.begin(), routable.end()};
}

TEST(Routable, LeavesOutDrainingAndEjected) {
  SteadyFleet s(4);
  std::vector<EndpointSpec> specs = Specs(4);
  specs[2].draining = true;
  ASSERT_TRUE(s.fleet.SetMembers(specs, At({})).ok());
  View view(s.fleet, 0);
  EXPECT_THAT(Routed(view, 1, At({})), ElementsAre(0, 1, 3));
  for (uint32_t i = 0; i < Health::kFailuresToEject; ++i) s.fleet.health(0).ReportFailure(At({}));
  EXPECT_THAT(Routed(view, 1, At(milliseconds(1))), ElementsAre(1, 3));
}

TEST(Routable, NeverLeavesOutMoreThanHalfForBadHealth) {
  for (size_t size = 1; size <= 9; ++size) {
    SteadyFleet s(size);
    View view(s.fleet, 0);
    for (size_t ejected = 0; ejected <= size; ++ejected) {
      const auto now = At(milliseconds(2 * ejected));
      const size_t left = Routed(view, ejected, now).size();
      EXPECT_EQ(left, ejected * 2 > size ? size : size - ejected) << size << " " << ejected;
      if (ejected == size) break;
      Health& health = s.fleet.health(static_cast<EndpointNumber>(ejected));
      for (uint32_t i = 0; i < Health::kFailuresToEject; ++i) health.ReportFailure(now);
    }
  }
}

TEST(Routable, ANewEndpointTakesARisingShare) {
  SteadyFleet s(4);
  std::vector<EndpointSpec> specs = Specs(5);
  ASSERT_TRUE(s.fleet.SetMembers(specs, At({})).ok());
  View view(s.fleet, 0);
  const auto share = [&](base::Duration age) {
    int chosen = 0;
    for (uint64_t seed = 0; seed < 2000; ++seed) {
      const auto routed = Routed(view, seed, At(age));
      EXPECT_GE(routed.size(), 4u) << "the old ones are always there";
      chosen += routed.size() == 5;
    }
    return chosen / 2000.0;
  };
  EXPECT_NEAR(share({}), 0.1, 0.03);
  EXPECT_NEAR(share(Health::kSlowStart / 2), 0.55, 0.05);
  EXPECT_EQ(share(Health::kSlowStart), 1);
}

TEST(Routable, AFleetThatIsNewAsAWholeStartsEvenly) {
  Fleet fleet(1);
  ASSERT_TRUE(fleet.SetMembers(Specs(4), At({})).ok());
  View view(fleet, 0);
  for (uint64_t seed = 0; seed < 100; ++seed) EXPECT_EQ(Routed(view, seed, At({})).size(), 4u);
}

TEST(Routable, IsEmptyWithoutMembers) {
  Fleet fleet(1);
  View view(fleet, 0);
  EXPECT_TRUE(Routed(view, 1, At({})).empty());
}

TEST(Health, EjectsAfterFailuresInARowAndDoublesTheTime) {
  Health health;
  EXPECT_EQ(health.state(At({})), Health::State::kHealthy) << "nothing ever happened";
  health.Reset(At(seconds(-20)));
  for (uint32_t i = 1; i < Health::kFailuresToEject; ++i) {
    EXPECT_FALSE(health.ReportFailure(At({})));
  }
  health.ReportSuccess(At({}));  // breaks the row
  for (uint32_t i = 1; i < Health::kFailuresToEject; ++i) {
    EXPECT_FALSE(health.ReportFailure(At({})));
  }
  EXPECT_TRUE(health.ReportFailure(At({})));
  EXPECT_FALSE(health.ReportFailure(At({}))) << "sent before the ejection";
  base::TimePoint now = At({});
  base::Duration expected = Health::kEjectionBase;
  for (int round = 0; round < 8; ++round) {
    EXPECT_EQ(health.state(now + expected - milliseconds(1)), Health::State::kEjected);
    EXPECT_EQ(health.share(now + expected - milliseconds(1)), 0);
    now += expected;
    EXPECT_EQ(health.state(now), Health::State::kSlowStart);
    EXPECT_NEAR(health.share(now), Health::kFirstShare, 1e-6);
    EXPECT_TRUE(health.ReportFailure(now)) << "one failure on probation is enough";
    expected = std::min<base::Duration>(expected * 2, Health::kEjectionMax);
  }
  EXPECT_EQ(expected, Health::kEjectionMax);
}

TEST(Health, ForgetsAfterSuccesses) {
  Health health;
  for (uint32_t i = 0; i < Health::kFailuresToEject; ++i) health.ReportFailure(At({}));
  const auto now = At(Health::kEjectionBase);
  for (uint32_t i = 0; i < Health::kSuccessesToForget; ++i) health.ReportSuccess(now);
  EXPECT_FALSE(health.ReportFailure(now)) << "no longer on probation";
  for (uint32_t i = 2; i < Health::kFailuresToEject; ++i) EXPECT_FALSE(health.ReportFailure(now));
  EXPECT_TRUE(health.ReportFailure(now));
  EXPECT_EQ(health.state(now + Health::kEjectionBase), Health::State::kSlowStart)
      << "the doubling was forgotten too";
}

TEST(Health, SteadyAgreesWithShare) {
  Health health;
  EXPECT_TRUE(health.steady(At({})));
  health.Reset(At({}));
  for (auto age : {seconds(0), seconds(5), seconds(9), seconds(10), seconds(11)}) {
    EXPECT_EQ(health.steady(At(age)), health.share(At(age)) == 1) << age.count();
  }
}

// Run under tsan: scrapers, discovery and two workers at once. The counters balance exactly.
TEST(FleetConcurrency, WorkersScrapersAndDiscovery) {
  constexpr size_t kWorkers = 2;
  SteadyFleet s(8, kWorkers);
  std::atomic<bool> stop{false};
  std::thread discovery([&] {
    for (int i = 0; i < 300; ++i) {
      auto specs = Specs(i % 50 < 49 ? 8 : 100 + 10 * static_cast<size_t>(i));  // up to 3,090
      specs[7] = Spec("flapping", static_cast<uint16_t>(9000 + i));
      specs[6].draining = i % 2;
      ASSERT_TRUE(s.fleet.SetMembers(specs, At(milliseconds(i))).ok());
    }
    stop = true;
  });
  std::thread scraper([&] {
    for (int i = 0; !stop; ++i) {
      const auto members = s.fleet.members();
      for (EndpointNumber n : members->numbers) {
        const auto f = static_cast<float>(i);
        s.fleet.ReportLoad(n, {.waiting = f, .running = f, .kv_usage = f}, At(milliseconds(i)));
        s.fleet.health(n).ReportFailure(At(milliseconds(i)));
      }
    }
  });
  std::vector<std::thread> workers;
  for (size_t w = 0; w < kWorkers; ++w) {
    workers.emplace_back([&, w] {
      View view(s.fleet, w);
      base::Random random(w);
      base::Arena arena;
      for (int i = 0; !stop || i < 1000; ++i) {
        view.Refresh(At(milliseconds(i)));
        arena.Reset();
        const auto routable = view.Routable(random, arena);
        const EndpointNumber n = routable[random.Below(routable.size())];
        const Pin pin(view);
        view.Book(kRequestsInFlight, n, 1);
        ASSERT_GE(view.counter(kRequestsInFlight)[n], 1);
        view.Refresh(At(milliseconds(i) + milliseconds(1)));
        ASSERT_FALSE(pin.endpoint(n).host_port.empty());
        view.Book(kRequestsInFlight, n, -1);
      }
    });
  }
  discovery.join();
  scraper.join();
  for (std::thread& t : workers) t.join();
  for (EndpointNumber n = 0; n < 32; ++n) EXPECT_EQ(s.fleet.CounterSum(kRequestsInFlight, n), 0);
}

// A torn read would mix two reports.
TEST(FleetConcurrency, ALoadIsReadWhole) {
  SteadyFleet s(1);
  std::atomic<bool> stop{false};
  std::vector<std::thread> writers;
  for (int w = 0; w < 2; ++w) {
    writers.emplace_back([&, w] {
      for (int i = w; !stop; i = (i + 2) % 1000) {
        const auto f = static_cast<float>(i);
        s.fleet.ReportLoad(0,
                           {.waiting = f, .running = f, .kv_usage = f,
                            .block_tokens = static_cast<uint32_t>(i)},
                           At({}));
      }
    });
  }
  View view(s.fleet, 0);
  for (int i = 0; i < 20000; ++i) {
    view.Refresh(At(milliseconds(i)));
    ASSERT_EQ(view.waiting()[0], view.running()[0]);
    ASSERT_EQ(view.waiting()[0], static_cast<float>(view.block_tokens()[0]));
  }
  stop = true;
  for (std::thread& t : writers) t.join();
}

TEST(Fleet, TakingBackTooMuchIsABug) {
  SteadyFleet s(1);
  View view(s.fleet, 0);
  view.Refresh(At({}));
  uint64_t before = 0, after = 0;
  for (auto* site = base::FirstBugSite(); site; site = site->next) before += site->count;
  view.Book(kRequestsInFlight, 0, -1);
  for (auto* site = base::FirstBugSite(); site; site = site->next) after += site->count;
  EXPECT_EQ(after, before + 1);
}

}  // namespace
}  // namespace llmd::fleet
