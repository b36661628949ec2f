#include "plugins/producer/inflight_load_producer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/producer/approx_prefix_cache_producer.h"
#include "plugins/producer/token_producer.h"
#include "plugins/testing.h"
#include "telemetry/metrics.h"

namespace llmd::plugins {
namespace {

using ::testing::ElementsAre;
using testing::Scene;

// A scene whose attributes are set by hand: 100 tokens, of which one block of 64 fits; endpoint 1
// has `matched` blocks of it.
class InFlight {
 public:
  explicit InFlight(std::string_view yaml = "") : scene(2) {
    // Made first only so that the keys have default producers.
    makers.push_back(scene.Make(TokenProducerType()));
    makers.push_back(scene.Make(ApproxPrefixCacheProducerType()));
    producer = scene.Make(InFlightLoadProducerType(), yaml);
    EXPECT_NE(producer, nullptr) << scene.context().errors().ToString();
    scene.Refresh();
  }
  plugin::RequestContext& Request(uint32_t total_blocks, std::vector<uint32_t> matched) {
    plugin::RequestContext& request = scene.NewRequest();
    blocks = std::move(matched);
    match = {.matched_blocks = blocks, .total_blocks = total_blocks, .block_tokens = 64};
    request.attributes.Set(scene.context().SlotOf<plugin::TokenizedPrompt>(), &prompt);
    request.attributes.Set(scene.context().SlotOf<plugin::PrefixCacheMatchInfo>(), &match);
    return request;
  }
  std::vector<plugin::Booking> Route(plugin::EndpointNumber n,
                                     std::string_view profile = "default") {
    plugin::BookingList list;
    EXPECT_TRUE(scene.Route(*producer, n, &list, profile).ok());
    return {list.items().begin(), list.items().end()};
  }

  Scene scene;
  std::vector<std::unique_ptr<plugin::Plugin>> makers;
  std::unique_ptr<plugin::Plugin> producer;
  plugin::TokenizedPrompt prompt{.token_count = 100, .media_tokens = {}};
  std::vector<uint32_t> blocks;
  plugin::PrefixCacheMatchInfo match;
};

TEST(InFlightLoadProducer, BooksARequestAndTheTokensToCompute) {
  InFlight x;
  x.Request(2, {0, 1});
  const auto cold = x.Route(0);
  ASSERT_EQ(cold.size(), 2u);
  EXPECT_EQ(cold[0].amount, 1);
  EXPECT_FALSE(cold[0].until_first_token);
  EXPECT_EQ(cold[1].amount, 2 * 64);
  EXPECT_TRUE(cold[1].until_first_token);
  EXPECT_NE(cold[0].counter, cold[1].counter);
  EXPECT_EQ(x.Route(1)[1].amount, 64);
}

TEST(InFlightLoadProducer, WhatLiesBeyondTheBlocksCounts) {
  InFlight x;
  x.Request(1, {1, 0});  // the prompt's limit was one block: 36 tokens lie beyond
  EXPECT_EQ(x.Route(0)[1].amount, 36);
  EXPECT_EQ(x.Route(1)[1].amount, 64 + 36);
}

TEST(InFlightLoadProducer, WithoutMatchesTheWholePromptCounts) {
  InFlight x;
  plugin::RequestContext& request = x.Request(1, {});
  request.attributes.Set(x.scene.context().SlotOf<plugin::PrefixCacheMatchInfo>(),
                         static_cast<const plugin::PrefixCacheMatchInfo*>(nullptr));
  EXPECT_EQ(x.Route(0)[1].amount, 100);
  request.attributes.Set(x.scene.context().SlotOf<plugin::TokenizedPrompt>(),
                         static_cast<const plugin::TokenizedPrompt*>(nullptr));
  EXPECT_EQ(x.Route(0)[1].amount, 0) << "an opaque request";
}

TEST(InFlightLoadProducer, TheAnswerCanBePartOfTheEstimate) {
  InFlight x("{addEstimatedOutputTokens: true}");
  x.Request(2, {2, 0});
  const auto booked = x.Route(0);
  EXPECT_EQ(booked[1].amount, 150) << "nothing to compute, 100 * 1.5 to write";
  EXPECT_FALSE(booked[1].until_first_token);
  x.scene.body().max_output_tokens = 16;
  EXPECT_EQ(x.Route(0)[1].amount, 16);

  InFlight capped(
      "{addEstimatedOutputTokens: true, outputRatio: 0.333, maxEstimatedOutputTokens: 30}");
  capped.Request(2, {2, 0});
  EXPECT_EQ(capped.Route(0)[1].amount, 30) << "33 without the limit";
}

TEST(InFlightLoadProducer, PrefillEndsWithTheFirstToken) {
  InFlight x("{addEstimatedOutputTokens: true}");
  x.Request(2, {0, 0});
  for (const plugin::Booking& booking : x.Route(0, "prefill")) {
    EXPECT_TRUE(booking.until_first_token);
  }
}

TEST(InFlightLoadProducer, ShowsTheCounters) {
  InFlight x;
  plugin::RequestContext& request = x.Request(2, {0, 0});
  for (const plugin::Booking& b : x.Route(1)) x.scene.view().Book(b.counter, b.endpoint, b.amount);
  EXPECT_TRUE(x.scene.Produce(*x.producer).ok());
  const auto* load = request.attributes.Get(x.scene.context().SlotOf<plugin::InFlightLoad>());
  ASSERT_NE(load, nullptr);
  EXPECT_THAT(load->requests, ElementsAre(0, 1));
  EXPECT_THAT(load->tokens, ElementsAre(0, 128));
  EXPECT_EQ(load->NewTokens(0), 128) << "whole blocks, as they are booked";
}

struct Gauges final : telemetry::ScrapeSeries {
  void Set(telemetry::MetricId id, telemetry::LabelValues labels, double value) override {
    std::string line(telemetry::InfoOf(id).name.substr(std::string_view("llm_d_epp_").size()));
    for (const std::string_view label : labels.values()) {
      if (label != "inflight-load-producer") line.append(" ").append(label);
    }
    lines.push_back(line + " = " + std::to_string(static_cast<int64_t>(value)));
  }
  std::vector<std::string> lines;
};

TEST(InFlightLoadProducer, TheGaugesSayWhoseRequestsTheyAre) {
  InFlight x;
  const auto gauges = [&] {
    Gauges out;
    x.producer->CollectMetrics(out);
    return out.lines;
  };
  EXPECT_TRUE(gauges().empty());
  plugin::RequestContext& request = x.Request(2, {0, 0});
  request.fairness_id = "tenant";
  request.priority = -2;
  const auto booked = x.Route(1);
  ASSERT_EQ(booked.size(), 2u);
  for (const plugin::Booking& b : booked) *b.tally += b.amount;
  EXPECT_THAT(gauges(), ElementsAre("inflight_requests s1 default tenant -2 = 1",
                                    "inflight_tokens s1 default tenant -2 = 128"));
  for (const plugin::Booking& b : booked) *b.tally -= b.amount;
  EXPECT_THAT(gauges(), ElementsAre("inflight_requests s1 default tenant -2 = 0",
                                    "inflight_tokens s1 default tenant -2 = 0"));
  x.scene.SetMembers({});
  EXPECT_TRUE(gauges().empty()) << "its endpoint has left";
}

TEST(InFlightLoadProducer, MoreProfilesThanCanBeCountedIsAnError) {
  InFlight x;
  x.Request(1, {});
  const plugin::ScoredCandidate chosen[] = {{0, 1}};
  const std::vector<plugin::ProfileResult> profiles(
      plugin::kBookingsMax, {.profile = "p", .endpoints = chosen, .ran = true});
  plugin::BookingList list;
  auto& hook = dynamic_cast<plugin::PreRequest&>(*x.producer);
  EXPECT_FALSE(hook.OnRouted(x.scene.request(), {.profiles = profiles}, &list).ok());
  EXPECT_EQ(list.items().size(), plugin::kBookingsMax);
}

TEST(InFlightLoadProducer, RunsOutOfCountersWithAnError) {
  Scene scene(1);
  while (scene.fleet().AddCounter()) continue;
  EXPECT_EQ(scene.Make(InFlightLoadProducerType()), nullptr);
}

TEST(InFlightLoadProducer, RefusesWhatIsOutOfBounds) {
  for (const char* yaml : {"{outputRatio: -1}", "{maxEstimatedOutputTokens: -1}"}) {
    Scene scene(1);
    EXPECT_EQ(scene.Make(InFlightLoadProducerType(), yaml), nullptr) << yaml;
  }
}

}  // namespace
}  // namespace llmd::plugins
