#include "bench/measure.h"

#include <string>

#include "gtest/gtest.h"

namespace llmd::bench {
namespace {

using std::chrono::milliseconds;

constexpr base::TimePoint kNow{std::chrono::seconds(5)};

Success Streamed() {
  Success success{.latency = milliseconds(110),
                  .ttft = milliseconds(10),
                  .events = 13,
                  .token_events = 11,
                  .reply_bytes = 2000};
  success.usage.present = true;
  success.usage.prompt_tokens = 300;
  success.usage.completion_tokens = 11;
  return success;
}

TEST(Measurements, DeriveTimesPerToken) {
  Measurements m;
  m.RecordSent(kNow - milliseconds(3), kNow, 700);
  m.RecordSuccess(Streamed(), kNow + milliseconds(110));
  EXPECT_EQ(m.sent, 1u);
  EXPECT_EQ(m.succeeded, 1u);
  EXPECT_EQ(m.delay.max(), 3'000'000u);
  EXPECT_EQ(m.latency.max(), 110'000'000u);
  EXPECT_EQ(m.ttft.max(), 10'000'000u);
  EXPECT_EQ(m.tpot.max(), 10'000'000u);   // (110 - 10) / (11 - 1)
  EXPECT_EQ(m.ntpot.max(), 10'000'000u);  // 110 / 11
  EXPECT_EQ(m.prompt_tokens_sum, 300u);
  EXPECT_EQ(m.output_tokens_sum, 11u);
  EXPECT_EQ(m.replies_with_cached, 0u);
}

TEST(Measurements, WithoutUsageEveryTokenEventIsOneToken) {
  Measurements m;
  Success success = Streamed();
  success.usage = {};
  m.RecordSuccess(success, kNow);
  EXPECT_EQ(m.output_tokens_sum, 11u);
  EXPECT_EQ(m.replies_with_usage, 0u);
}

TEST(Measurements, UnstreamedRepliesHaveNoFirstToken) {
  Measurements m;
  Success success = Streamed();
  success.ttft = base::Duration(-1);
  success.usage.has_cached = true;
  success.usage.cached_tokens = 256;
  m.RecordSuccess(success, kNow);
  EXPECT_EQ(m.ttft.count(), 0u);
  EXPECT_EQ(m.tpot.count(), 0u);
  EXPECT_EQ(m.ntpot.count(), 1u);
  EXPECT_EQ(m.cached_tokens_sum, 256u);
}

TEST(Measurements, OneTokenHasNoTimePerOutputToken) {
  Measurements m;
  Success success = Streamed();
  success.usage.completion_tokens = 1;
  m.RecordSuccess(success, kNow);
  EXPECT_EQ(m.tpot.count(), 0u);
  EXPECT_EQ(m.ttft.count(), 1u);
}

TEST(Measurements, FailuresAreCountedByKindWithTheirFirstDetail) {
  Measurements m;
  m.RecordFailure("http 503", "no endpoint", kNow);
  m.RecordFailure("http 503", "later", kNow);
  m.RecordFailure("connect-failed", std::string(1000, 'x'), kNow);
  EXPECT_EQ(m.failed, 3u);
  EXPECT_EQ(m.failures["http 503"].count, 2u);
  EXPECT_EQ(m.failures["http 503"].first_detail, "no endpoint");
  EXPECT_EQ(m.failures["connect-failed"].first_detail.size(), Measurements::kDetailBytesMax);
}

TEST(Measurements, KindsOfFailureAreBounded) {
  Measurements m;
  for (int i = 0; i < 200; ++i) m.RecordFailure("kind " + std::to_string(i), "", kNow);
  EXPECT_EQ(m.failed, 200u);
  EXPECT_LE(m.failures.size(), Measurements::kFailureKindsMax + 1);
  EXPECT_EQ(m.failures["other"].count, 200u - Measurements::kFailureKindsMax);
}

TEST(Measurements, MergeAddsUp) {
  Measurements a;
  Measurements b;
  Measurements both;
  for (Measurements* m : {&a, &both}) {
    m->RecordSent(kNow, kNow + milliseconds(1), 10);
    m->RecordSuccess(Streamed(), kNow + milliseconds(5));
    m->RecordFailure("http 500", "first", kNow);
  }
  for (Measurements* m : {&b, &both}) {
    m->RecordSent(kNow, kNow, 20);
    m->RecordFailure("http 500", "second", kNow + milliseconds(9));
    m->RecordFailure("body-cut", "", kNow);
  }
  a.Merge(b);
  EXPECT_EQ(a.sent, both.sent);
  EXPECT_EQ(a.succeeded, both.succeeded);
  EXPECT_EQ(a.failed, both.failed);
  EXPECT_EQ(a.request_bytes, 30u);
  EXPECT_EQ(a.latency.count(), both.latency.count());
  EXPECT_EQ(a.delay.max(), both.delay.max());
  EXPECT_EQ(a.failures["http 500"].count, 2u);
  EXPECT_EQ(a.failures["http 500"].first_detail, "first");
  EXPECT_EQ(a.failures.size(), 2u);
  EXPECT_EQ(a.last_ended, kNow + milliseconds(9));
  EXPECT_EQ(a.last_sent, kNow + milliseconds(1));
}

}  // namespace
}  // namespace llmd::bench
