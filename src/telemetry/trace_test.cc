#include "telemetry/trace.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "base/random.h"

namespace llmd::telemetry {
namespace {

constexpr std::string_view kParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

// The tour: a caller's context is read, continued under a span of our own, and sent on.
TEST(Trace, ACallersContextIsContinued) {
  std::optional<TraceContext> caller = ParseTraceparent(kParent);
  ASSERT_TRUE(caller);
  EXPECT_EQ(caller->trace_high, 0x0af7651916cd43ddu);
  EXPECT_EQ(caller->trace_low, 0x8448eb211c80319cu);
  EXPECT_EQ(caller->span_id, 0xb7ad6b7169203331u);
  EXPECT_TRUE(caller->sampled());

  TraceContext ours = *caller;
  ours.span_id = 0x00f067aa0ba902b7;
  const auto header = FormatTraceparent(ours);
  EXPECT_EQ(std::string_view(header.data(), header.size()),
            "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01");
}

TEST(Trace, WhatIsATraceparentAndWhatIsNone) {
  const std::string ids = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";
  const std::string zeros16(16, '0'), zeros32(32, '0');
  const struct {
    std::string header;
    bool valid;
    uint8_t flags = 0;
  } cases[] = {
      {"00-" + ids + "-00", true, 0},
      {"00-" + ids + "-01", true, 1},
      {"00-" + ids + "-03", true, 3},
      {"00-" + ids + "-ff", true, 3},              // unknown flags are not passed on
      {"cc-" + ids + "-01", true, 1},              // a later version
      {"cc-" + ids + "-01-what-comes", true, 1},   // may say more
      {"cc-" + ids + "-01.what-comes", false},
      {"00-" + ids + "-01-more", false},
      {"00-" + ids + "-01 ", false},
      {"ff-" + ids + "-01", false},
      {"00-" + ids + "-1", false},
      {"00-" + ids + "-0G", false},
      {"00-" + ids + "-0A", false},
      {"0-" + ids + "-001", false},
      {"00_" + ids + "-01", false},
      {"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", false},
      {"00-" + zeros32 + "-b7ad6b7169203331-01", false},
      {"00-0af7651916cd43dd8448eb211c80319c-" + zeros16 + "-01", false},
      {"", false},
      {"00", false},
  };
  for (const auto& c : cases) {
    const auto context = ParseTraceparent(c.header);
    ASSERT_EQ(context.has_value(), c.valid) << c.header;
    if (context) {
      EXPECT_EQ(context->flags, c.flags) << c.header;
    }
  }
}

TEST(Trace, FormatAndParseAreInverse) {
  base::Random random(7);
  for (int i = 0; i < 1000; ++i) {
    const TraceContext context{random.Next(), random.Next(), random.Next(),
                               static_cast<uint8_t>(random.Below(4))};
    const auto header = FormatTraceparent(context);
    EXPECT_EQ(ParseTraceparent({header.data(), header.size()}), context);
  }
}

// Any change of one byte is another context or none; it never reads beyond the text.
TEST(Trace, MangledHeadersAreSurvived) {
  base::Random random(3);
  for (int i = 0; i < 20000; ++i) {
    std::string header(kParent);
    for (uint64_t n = random.Below(4); n-- > 0;) {
      header[random.Below(header.size())] = static_cast<char>(random.Below(256));
    }
    header.resize(random.Below(header.size() + 1));
    if (header.size() < kTraceparentBytes) {
      EXPECT_FALSE(ParseTraceparent(header));
    }
  }
}

TEST(Trace, WhoIsSampled) {
  const std::optional<TraceContext> sampled = TraceContext{1, 2, 3, 1};
  const std::optional<TraceContext> dropped = TraceContext{1, 2, 3, 0};
  const uint64_t low = 0, middle = uint64_t{1} << 63, high = ~uint64_t{0};
  const struct {
    double ratio;
    bool parent_based;
    std::optional<TraceContext> parent;
    uint64_t trace_low;
    bool expected;
  } cases[] = {
      {0, true, sampled, high, true},      {1, true, dropped, low, false},
      {0, false, sampled, low, false},     {1, false, dropped, high, true},
      {0.5, true, std::nullopt, low, true}, {0.5, true, std::nullopt, middle - 1, true},
      {0.5, true, std::nullopt, middle, false}, {0.5, true, std::nullopt, high, false},
      {1, true, std::nullopt, high, true}, {2, true, std::nullopt, high, true},
      {-1, true, std::nullopt, low, false}, {0.0 / 0.0, true, std::nullopt, low, false},
      // Go's SDK with .1: the bound is 922337203685477632.
      {0.1, true, std::nullopt, (uint64_t{922337203685477632} - 1) << 1, true},
      {0.1, true, std::nullopt, uint64_t{922337203685477632} << 1, false},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(TraceSampler::Ratio(c.ratio, c.parent_based).Samples(c.parent, c.trace_low),
              c.expected)
        << c.ratio << " " << c.parent_based << " " << c.trace_low;
  }
}

TEST(Trace, ATenthIsATenth) {
  const TraceSampler sampler = TraceSampler::Ratio(0.1, true);
  base::Random random(1);
  int sampled = 0;
  for (int i = 0; i < 100'000; ++i) sampled += sampler.Samples(std::nullopt, random.Next());
  EXPECT_NEAR(sampled, 10'000, 300);
}

TEST(Tracer, TheQueueIsBoundedBySpansAndBytes) {
  Tracer tracer({.sampler = {}, .queue_spans_max = 10, .queue_bytes_max = 100});
  EXPECT_TRUE(tracer.Push("aaa", 4));
  EXPECT_TRUE(tracer.Push("bbb", 6));
  EXPECT_FALSE(tracer.Push("ccc", 1));
  EXPECT_EQ(tracer.stats().dropped, 1u);
  EXPECT_EQ(tracer.Take(100).count, 10u);
  EXPECT_TRUE(tracer.Push(std::string(100, 'x'), 1));
  EXPECT_FALSE(tracer.Push("y", 1));
  EXPECT_EQ(tracer.stats().dropped, 2u);
  EXPECT_EQ(tracer.Take(100).spans.size(), 1u);
  EXPECT_TRUE(tracer.Take(100).empty());
}

TEST(Tracer, BatchesAreCutBetweenPushes) {
  Tracer tracer(TracerOptions{});
  for (const size_t n : {3, 3, 3, 9}) tracer.Push("x", n);
  EXPECT_EQ(tracer.Take(7).count, 6u);
  EXPECT_EQ(tracer.Take(7).count, 3u);
  EXPECT_EQ(tracer.Take(7).count, 9u) << "larger than a batch, but it has to go some time";
}

TEST(Tracer, CountsWhatBecameOfSpans) {
  Tracer tracer(TracerOptions{});
  tracer.CountExported(10, 3);
  tracer.CountExported(2, 50);
  tracer.CountFailed(4);
  EXPECT_EQ(tracer.stats().exported, 7u);
  EXPECT_EQ(tracer.stats().failed, 9u);
}

TEST(Tracer, ManyThreadsPushAndOneTakes) {
  Tracer tracer(TracerOptions{});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) tracer.Push("spans", 2);
    });
  }
  size_t taken = 0;
  while (taken < 8000) taken += tracer.Take(64).count;
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(tracer.Take(1).empty());
  EXPECT_EQ(tracer.stats().dropped, 0u);
}

}  // namespace
}  // namespace llmd::telemetry
