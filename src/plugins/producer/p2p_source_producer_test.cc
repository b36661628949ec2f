#include "plugins/producer/p2p_source_producer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "plugins/producer/approx_prefix_cache_producer.h"
#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using plugin::EndpointNumber;
using testing::Scene;

// What endpoints have in single tiers.
struct Tiers final : plugin::PrefixTiers {
  std::span<const uint32_t> BlocksIn(plugin::RequestContext&, std::string_view tier) override {
    EXPECT_EQ(tier, "cpu");
    return cpu;
  }
  std::vector<uint32_t> cpu;
};

// Four endpoints; the match is set by hand, blocks are of 16 tokens.
struct P2p : Scene {
  explicit P2p(std::string_view yaml = "") : Scene(4) {
    maker = Make(ApproxPrefixCacheProducerType());  // the key's default producer
    made = Make(P2pSourceProducerType(), yaml);
    EXPECT_NE(made, nullptr) << context().errors().ToString();
    Refresh();
  }
  // The value of the header for a request that goes to `n`; "(none)" when it is not set.
  std::string HeaderFor(EndpointNumber n, std::vector<uint32_t> blocks, std::string id = "r",
                        plugin::PrefixTiers* tiers = nullptr) {
    Begin(std::move(blocks), std::move(id), tiers);
    plugin::BookingList bookings;
    EXPECT_TRUE(Route(*made, n, &bookings).ok());
    EXPECT_TRUE(bookings.items().empty());
    return Header();
  }
  void Begin(std::vector<uint32_t> blocks, std::string id = "r",
             plugin::PrefixTiers* tiers = nullptr) {
    NewRequest();
    request_id = std::move(id);
    matched = std::move(blocks);
    match = {.matched_blocks = matched, .total_blocks = 100, .block_tokens = 16};
    match.tiers = tiers;
    request().request_id = request_id;
    request().headers = headers;
    request().attributes.Set(context().SlotOf<plugin::PrefixCacheMatchInfo>(),
                             static_cast<const plugin::PrefixCacheMatchInfo*>(&match));
    EXPECT_TRUE(Produce(*made).ok());
  }
  std::string Header() {
    for (const plugin::Header& h : request().to_engine.headers()) {
      if (h.name == "x-kv-cache-source-host-port") return std::string(h.value);
    }
    return "(none)";
  }

  std::unique_ptr<plugin::Plugin> maker, made;
  std::vector<uint32_t> matched;
  std::vector<plugin::Header> headers;
  std::string request_id;
  plugin::PrefixCacheMatchInfo match;
};

TEST(P2pSourceProducer, NamesThePeerThatHasMoreThanWhoComputes) {
  P2p x;
  EXPECT_EQ(x.HeaderFor(0, {2, 0, 9, 7}), "10.0.0.1:8002");
  EXPECT_EQ(x.HeaderFor(2, {2, 0, 9, 7}), "(none)") << "nobody has more";
  EXPECT_EQ(x.HeaderFor(0, {0, 0, 0, 0}), "(none)");
  EXPECT_EQ(x.HeaderFor(0, {}), "(none)");
}

TEST(P2pSourceProducer, ADeltaThatIsNotWorthIt) {
  P2p x("{minCachedTokenDelta: 65}");
  EXPECT_EQ(x.HeaderFor(0, {4, 0, 8, 0}), "(none)") << "64 tokens";
  EXPECT_EQ(x.HeaderFor(0, {4, 0, 9, 0}), "10.0.0.1:8002");
}

TEST(P2pSourceProducer, OnlyWhatIsInMemoryCanBePulled) {
  P2p x;
  Tiers tiers;
  tiers.cpu = {0, 5, 0, 3};
  EXPECT_EQ(x.HeaderFor(0, {4, 9, 9, 3}, "r", &tiers), "10.0.0.1:8001");
  EXPECT_EQ(x.HeaderFor(0, {5, 9, 9, 3}, "r", &tiers), "(none)") << "it has as much in any tier";
  tiers.cpu = {};
  EXPECT_EQ(x.HeaderFor(0, {0, 9, 9, 3}, "r", &tiers), "(none)");
}

TEST(P2pSourceProducer, EqualHoldersShareThePullsAndLongQueuesAreSpared) {
  P2p x;
  x.Report(0, {.waiting = 0});
  x.Report(1, {.waiting = 0});
  x.Report(2, {.waiting = 3});
  x.Report(3, {.waiting = 0});
  std::map<std::string, int> drawn;
  constexpr int kRequests = 9000;
  for (int i = 0; i < kRequests; ++i) {
    ++drawn[x.HeaderFor(3, {10, 9, 10, 0}, "request-" + std::to_string(i))];
  }
  // One block less is as good; weights 1, 1 and 1/4.
  EXPECT_EQ(drawn.size(), 3u);
  EXPECT_NEAR(drawn["10.0.0.1:8000"], kRequests * 4 / 9, kRequests / 30);
  EXPECT_NEAR(drawn["10.0.0.1:8001"], kRequests * 4 / 9, kRequests / 30);
  EXPECT_NEAR(drawn["10.0.0.1:8002"], kRequests * 1 / 9, kRequests / 30);
  EXPECT_EQ(x.HeaderFor(3, {10, 9, 10, 0}, "same"), x.HeaderFor(3, {10, 9, 10, 0}, "same"));
}

TEST(P2pSourceProducer, PrefillComputesWhereItRan) {
  P2p x("{prefillProfileName: p}");
  const plugin::ScoredCandidate decode[] = {{1, 1}}, prefill[] = {{2, 1}};
  plugin::ProfileResult profiles[] = {{.profile = "decode", .endpoints = decode, .ran = true},
                                      {.profile = "p", .endpoints = prefill, .ran = true}};
  auto& hook = dynamic_cast<plugin::PreRequest&>(*x.made);
  plugin::BookingList bookings;
  const auto header = [&] {
    x.Begin({0, 0, 9, 0});
    EXPECT_TRUE(hook.OnRouted(x.request(), {.profiles = profiles}, &bookings).ok());
    return x.Header();
  };
  EXPECT_EQ(header(), "(none)") << "endpoint 2 computes it and has it";
  profiles[1].ran = false;
  profiles[1].endpoints = {};
  EXPECT_EQ(header(), "10.0.0.1:8002") << "endpoint 1 computes it";
}

TEST(P2pSourceProducer, AClientsHeaderDoesNotGetThrough) {
  P2p x;
  x.headers = {{"X-KV-Cache-Source-Host-Port", "6.6.6.6:666"}};
  EXPECT_EQ(x.HeaderFor(0, {0, 0, 0, 0}), "");
  EXPECT_EQ(x.HeaderFor(0, {0, 3, 0, 0}), "10.0.0.1:8001");
}

TEST(P2pSourceProducer, Parameters) {
  for (const char* yaml : {"{minCachedTokenDelta: 0}", "{minCachedTokenDelta: x}", "{other: 1}"}) {
    Scene scene(1);
    auto maker = scene.Make(ApproxPrefixCacheProducerType());
    EXPECT_EQ(scene.Make(P2pSourceProducerType(), yaml), nullptr) << yaml;
  }
  P2p named("{prefixMatchInfoProducerName: approx-prefix-cache-producer, prefillProfileName: ''}");
}

}  // namespace
}  // namespace llmd::plugins
