#include "scheduling/cycle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "base/check.h"
#include "scheduling/test_plugins.h"

namespace llmd::scheduling {
namespace {

using plugin::EndpointNumber;
using scheduling::testing::BestPicker;
using scheduling::testing::EveryProfileHandler;
using scheduling::testing::FunctionFilter;
using scheduling::testing::FunctionScorer;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

// A fleet of `n` and a request to schedule.
struct Bed {
  explicit Bed(size_t n, uint64_t seed = 1) : view(fleet, 0) {
    std::vector<fleet::EndpointSpec> specs;
    for (size_t i = 0; i < n; ++i) {
      specs.push_back({.name = std::to_string(i), .address = "10.0.0.1",
                       .port = static_cast<uint16_t>(i), .labels = {}});
      numbers.push_back(static_cast<EndpointNumber>(i));
    }
    EXPECT_TRUE(fleet.SetMembers(std::move(specs), {}).ok());
    view.Refresh(base::TimePoint(std::chrono::hours(1)));
    request.random = base::Random(seed);
    request.arena = &arena;
    request.fleet = &view;
  }
  std::vector<EndpointNumber> Run(const Profile& profile, size_t wanted = 1,
                                  Trace* trace = nullptr) {
    result = RunProfile(profile, request, numbers, wanted, trace);
    std::vector<EndpointNumber> endpoints;
    for (const auto& c : result.endpoints) endpoints.push_back(c.endpoint);
    return endpoints;
  }

  fleet::Fleet fleet{1};
  fleet::View view;
  base::Arena arena;
  plugin::RequestContext request;
  std::vector<EndpointNumber> numbers;
  plugin::ProfileResult result;
};

uint64_t Bugs() {
  uint64_t sum = 0;
  for (auto* site = base::FirstBugSite(); site; site = site->next) sum += site->count;
  return sum;
}

// The tour: odd endpoints only, a weighted sum of two opinions, the best and one fallback.
TEST(Cycle, FiltersScoresAndPicks) {
  Bed bed(6);
  const FunctionFilter odd([](EndpointNumber n) { return n % 2 == 1; });
  const FunctionScorer low([](EndpointNumber n) { return 1 - n / 10.0; });
  const FunctionScorer three([](EndpointNumber n) { return n == 3 ? 1 : 0; });
  const BestPicker picker;
  const Profile profile{.name = "default",
                        .filters = {{&odd, 0}},
                        .scorers = {{&low, 1, 1}, {&three, 3, 2}},
                        .picker = &picker};
  EXPECT_THAT(bed.Run(profile, 2), ElementsAre(3, 1));
  EXPECT_DOUBLE_EQ(bed.result.endpoints[0].score, 0.7 + 3);
  EXPECT_DOUBLE_EQ(bed.result.endpoints[1].score, 0.9);
  EXPECT_EQ(bed.result.profile, "default");
  EXPECT_TRUE(bed.result.ran);
}

TEST(Cycle, ClampsScoresAndCountsNaN) {
  Bed bed(3);
  const double given[] = {7, -2, std::nan("")};
  const FunctionScorer wild([&](EndpointNumber n) { return given[n]; });
  const BestPicker picker(3);
  const Profile profile{.name = "p", .scorers = {{&wild, 2, 0}}, .picker = &picker};
  const uint64_t before = Bugs();
  bed.Run(profile);
  EXPECT_EQ(Bugs(), before + 1);
  ASSERT_EQ(bed.result.endpoints.size(), 3u) << "the picker's own minimum";
  EXPECT_EQ(bed.result.endpoints[0].endpoint, 0u);
  EXPECT_EQ(bed.result.endpoints[0].score, 2);
  EXPECT_EQ(bed.result.endpoints[1].score, 0);
  EXPECT_EQ(bed.result.endpoints[2].score, 0);
}

TEST(Cycle, TiesGoToTheLeastBusyAndThenAreRandom) {
  std::map<EndpointNumber, int> wins;
  for (uint64_t seed = 0; seed < 1000; ++seed) {
    Bed bed(5, seed);
    bed.view.Book(fleet::kRequestsInFlight, 0, 2);
    bed.view.Book(fleet::kRequestsInFlight, 2, 1);
    const FunctionScorer same([](EndpointNumber) { return 0.5; });
    const BestPicker picker(1, seed % 2 == 0);
    const auto order =
        bed.Run({.name = "p", .scorers = {{&same, 1, 0}}, .picker = &picker}, 5);
    EXPECT_EQ(order[3], 2u);
    EXPECT_EQ(order[4], 0u);
    ++wins[order[0]];
  }
  EXPECT_EQ(wins.size(), 3u);
  for (EndpointNumber n : {1u, 3u, 4u}) EXPECT_NEAR(wins[n], 333, 60);
}

// Insertion, counting and comparison sort must agree with buckets after the same shuffle.
TEST(Cycle, OrdersByInFlightWhateverTheSpread) {
  for (const auto& [n, spread] : std::vector<std::pair<size_t, int64_t>>{
           {2, 3}, {16, 5}, {17, 5}, {300, 1}, {300, 50}, {300, 100000}}) {
    Bed bed(n, 7);
    base::Random random(n);
    for (EndpointNumber e = 0; e < n; ++e) {
      bed.view.Book(fleet::kRequestsInFlight, e,
                    static_cast<int64_t>(random.Below(static_cast<uint64_t>(spread))));
    }
    const BestPicker picker(n);
    std::vector<EndpointNumber> expected = bed.numbers;
    base::Random shuffle = bed.request.random;
    for (size_t i = n; i > 1; --i) std::swap(expected[i - 1], expected[shuffle.Below(i)]);
    const int64_t* in_flight = bed.view.counter(fleet::kRequestsInFlight);
    std::map<int64_t, std::vector<EndpointNumber>> by_load;
    for (EndpointNumber e : expected) by_load[in_flight[e]].push_back(e);
    expected.clear();
    for (const auto& [load, same] : by_load) {
      expected.insert(expected.end(), same.begin(), same.end());
    }
    EXPECT_EQ(bed.Run({.name = "p", .picker = &picker}), expected) << n << " " << spread;
  }
}

// Who cannot be chosen is left out of sight, and nothing else changes: against a plain sort.
TEST(Cycle, APickerOfTheHighestChoosesAsIfItSawAll) {
  using Place = std::pair<double, int64_t>;  // by score, then by requests in flight
  base::Random random(3);
  for (uint64_t round = 0; round < 300; ++round) {
    const size_t n = 1 + random.Below(60), wanted = 1 + random.Below(20);
    const uint64_t scores = 1 + random.Below(8), loads = 1 + random.Below(4);
    Bed bed(n, round);
    std::vector<Place> places, chosen;
    for (EndpointNumber e = 0; e < n; ++e) {
      places.push_back({-static_cast<double>(random.Below(scores)) / 8, random.Below(loads)});
      bed.view.Book(fleet::kRequestsInFlight, e, places[e].second);
    }
    const FunctionScorer scorer([&](EndpointNumber e) { return -places[e].first; });
    const BestPicker picker(1, true);
    const auto order =
        bed.Run({.name = "p", .scorers = {{&scorer, 1, 0}}, .picker = &picker}, wanted);
    for (EndpointNumber e : order) chosen.push_back(places[e]);
    std::map<EndpointNumber, double> scored;
    for (const auto& c : bed.result.scored) scored[c.endpoint] = c.score;
    ASSERT_EQ(scored.size(), n) << "the others are there, too";
    for (const auto& [e, score] : scored) ASSERT_EQ(score, -places[e].first);
    ASSERT_EQ(std::set(order.begin(), order.end()).size(), std::min(n, wanted));
    std::sort(places.begin(), places.end());
    places.resize(std::min(n, wanted));
    ASSERT_EQ(chosen, places);
  }
}

TEST(Cycle, OneIsChosenThoughNobodyAskedForAny) {
  const FunctionScorer scorer([](EndpointNumber e) { return e == 2 ? 1 : 0; });
  for (const bool highest : {false, true}) {
    Bed bed(3);
    const BestPicker picker(0, highest);
    EXPECT_THAT(bed.Run({.name = "p", .scorers = {{&scorer, 1, 0}}, .picker = &picker}, 0),
                ElementsAre(2));
  }
}

// The config reader lets no such weight pass; a program that builds its profiles may.
TEST(Cycle, WeightsBeyondNumbersChooseSomebody) {
  const double kInfinity = std::numeric_limits<double>::infinity();
  for (const double weight : {kInfinity, -kInfinity, std::nan("")}) {
    for (size_t wanted = 1; wanted <= 4; ++wanted) {
      Bed bed(4);
      const FunctionScorer scorer([](EndpointNumber e) { return e % 2; });
      const BestPicker picker(1, true);
      const auto order =
          bed.Run({.name = "p", .scorers = {{&scorer, weight, 0}}, .picker = &picker}, wanted);
      EXPECT_EQ(std::set(order.begin(), order.end()).size(), wanted);
    }
  }
}

TEST(Cycle, ANegativeWeightPutsTheLowestFirst) {
  Bed bed(40);
  const FunctionScorer scorer([](EndpointNumber e) { return e / 40.0; });
  const BestPicker picker(1, true);
  EXPECT_THAT(bed.Run({.name = "p", .scorers = {{&scorer, -2, 0}}, .picker = &picker}, 3),
              ElementsAre(0, 1, 2));
}

TEST(Cycle, TheSameSeedDecidesTheSame) {
  const FunctionScorer same([](EndpointNumber) { return 1; });
  const BestPicker picker;
  const Profile profile{.name = "p", .scorers = {{&same, 1, 0}}, .picker = &picker};
  EXPECT_EQ(Bed(50, 9).Run(profile, 50), Bed(50, 9).Run(profile, 50));
  EXPECT_NE(Bed(50, 9).Run(profile, 50), Bed(50, 10).Run(profile, 50));
}

TEST(Cycle, AnEmptyResultSaysWhatItMeans) {
  Bed bed(3);
  const FunctionFilter none([](EndpointNumber) { return false; });
  const FunctionFilter full([](EndpointNumber) { return false; }, plugin::EmptyMeans::kSaturated);
  const BestPicker picker;
  EXPECT_THAT(bed.Run({.name = "p", .filters = {{&none, 0}, {&full, 1}}, .picker = &picker}),
              IsEmpty());
  EXPECT_EQ(bed.result.empty_means, plugin::EmptyMeans::kNoEndpoints);
  bed.Run({.name = "p", .filters = {{&full, 0}, {&none, 1}}, .picker = &picker});
  EXPECT_EQ(bed.result.empty_means, plugin::EmptyMeans::kSaturated);
  bed.numbers.clear();
  bed.Run({.name = "p", .filters = {{&full, 0}}, .picker = &picker});
  EXPECT_EQ(bed.result.empty_means, plugin::EmptyMeans::kNoEndpoints) << "nobody was there";
}

struct Log final : StageSink {
  void OnStage(ExtensionPoint point, uint32_t plugin, base::Duration took) override {
    entries.push_back(std::string(ExtensionPointName(point)) + " " + std::to_string(plugin) + " " +
                      std::to_string(took.count()));
  }
  std::vector<std::string> entries;
};
// Advances by one at every look.
base::TimePoint Tick() {
  static int64_t now = 0;
  return base::TimePoint(base::Duration(++now));
}

TEST(Cycle, TracesStagesAndScores) {
  Bed bed(2);
  const FunctionFilter all([](EndpointNumber) { return true; });
  const FunctionScorer a([](EndpointNumber n) { return n; });
  const FunctionScorer b([](EndpointNumber) { return 0.25; });
  const BestPicker picker;
  const EveryProfileHandler handler;
  const Profile profiles[] = {{.name = "p",
                               .filters = {{&all, 4}},
                               .scorers = {{&a, 1, 5}, {&b, 2, 6}},
                               .picker = &picker,
                               .picker_plugin = 7}};
  Log log;
  Trace trace{.clock = Tick, .sink = &log, .handler_plugin = 8, .keep_scores = true};
  ASSERT_TRUE(Schedule(handler, profiles, bed.request, bed.numbers, 1, &trace).has_value());
  EXPECT_THAT(log.entries,
              ElementsAre("ProfilePicker 8 1", "Filter 4 1", "Scorer 5 1", "Scorer 6 1",
                          "Picker 7 1", "ProfilePicker 8 1", "ProcessProfilesResults 8 1"));
  EXPECT_THAT(trace.scored, ElementsAre(0, 1));
  ASSERT_EQ(trace.scorers.size(), 2u);
  EXPECT_THAT(trace.scorers[0].scores, ElementsAre(0, 1));
  EXPECT_THAT(trace.scorers[1].scores, ElementsAre(0.25, 0.25));
  EXPECT_EQ(trace.scorers[1].weight, 2);
  EXPECT_THAT(trace.totals, ElementsAre(0.5, 1.5));
}

TEST(Schedule, RunsProfilesAndNamesThePrimaryOne) {
  Bed bed(4);
  const FunctionFilter low([](EndpointNumber n) { return n < 2; });
  const FunctionFilter none([](EndpointNumber) { return false; }, plugin::EmptyMeans::kSaturated);
  const BestPicker picker;
  const EveryProfileHandler handler;
  std::vector<Profile> profiles = {{.name = "decode", .filters = {{&low, 0}}, .picker = &picker},
                                   {.name = "prefill", .filters = {{&none, 0}}, .picker = &picker}};
  const auto result = Schedule(handler, profiles, bed.request, bed.numbers, 9, nullptr);
  ASSERT_TRUE(result.has_value());
  EXPECT_EQ(result->primary, 0u);
  EXPECT_EQ(result->endpoints().size(), 2u) << "as many as there are";
  EXPECT_TRUE(result->profiles[1].ran);
  EXPECT_TRUE(result->profiles[1].endpoints.empty());

  std::swap(profiles[0], profiles[1]);
  const auto full = Schedule(handler, profiles, bed.request, bed.numbers, 1, nullptr);
  EXPECT_EQ(full.error().ToString(),
            "RESOURCE_EXHAUSTED: no endpoints available for the given request (profile prefill)");
  const auto nobody = Schedule(handler, {&profiles[1], 1}, bed.request, {}, 1, nullptr);
  EXPECT_EQ(nobody.error().ToString(),
            "UNAVAILABLE: no endpoints available for the given request");
}

struct StubbornHandler final : plugin::ProfileHandler {
  std::optional<size_t> Next(plugin::RequestContext&,
                             std::span<const plugin::ProfileResult>) const override {
    return next;
  }
  base::Result<size_t> Primary(plugin::RequestContext&,
                               std::span<const plugin::ProfileResult>) const override {
    return next;
  }
  base::Status CheckProfiles(std::span<const std::string>) const override {
    return base::OkStatus();
  }
  size_t next = 0;
};

TEST(Schedule, AHandlerThatNeverStopsIsStopped) {
  Bed bed(2);
  const BestPicker picker;
  const Profile profile{.name = "p", .picker = &picker};
  StubbornHandler handler;
  uint64_t before = Bugs();
  EXPECT_TRUE(Schedule(handler, {&profile, 1}, bed.request, bed.numbers, 1, nullptr).has_value());
  EXPECT_EQ(Bugs(), before + 1);
  handler.next = 3;
  before = Bugs();
  EXPECT_EQ(Schedule(handler, {&profile, 1}, bed.request, bed.numbers, 1, nullptr).error().code(),
            base::StatusCode::kInternal);
  EXPECT_EQ(Bugs(), before + 2);
}

#ifndef NDEBUG
struct InventingFilter final : plugin::Filter {
  void Apply(const plugin::RequestContext&, plugin::Candidates& c) const override {
    c.numbers[0] = 99;
  }
};
struct InventingPicker final : plugin::Picker {
  void Pick(plugin::RequestContext&, std::span<plugin::ScoredCandidate> scored,
            size_t) const override {
    scored[0].endpoint = 99;
  }
  size_t endpoint_count() const override { return 1; }
};

TEST(Cycle, InventedEndpointsAreCaughtInDebugBuilds) {
  Bed bed(3);
  const InventingFilter filter;
  const BestPicker picker;
  uint64_t before = Bugs();
  EXPECT_THAT(bed.Run({.name = "p", .filters = {{&filter, 0}}, .picker = &picker}, 3),
              ::testing::UnorderedElementsAre(1, 2));
  EXPECT_EQ(Bugs(), before + 1);
  const InventingPicker inventing;
  before = Bugs();
  EXPECT_THAT(bed.Run({.name = "p", .picker = &inventing}), IsEmpty());
  EXPECT_EQ(Bugs(), before + 1);
}
#endif

TEST(ExtensionPoint, NamesAreUpstreams) {
  EXPECT_EQ(ExtensionPointName(ExtensionPoint::kDataProducer), "DataProducer");
  EXPECT_EQ(ExtensionPointName(ExtensionPoint::kResponseComplete), "ResponseComplete");
}

}  // namespace
}  // namespace llmd::scheduling
