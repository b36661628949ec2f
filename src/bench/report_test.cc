#include "bench/report.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace llmd::bench {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr base::TimePoint kBegin{std::chrono::seconds(5)};

// 200 streamed requests of 10 ms in two seconds, all good.
Report SoundReport() {
  Report report;
  report.options.urls = {"http://127.0.0.1:1"};
  report.options.body.model = "m";
  report.options.body.stream = true;
  report.options.arrival = workload::Arrival::kPoisson;
  report.options.rate = 100;
  for (int i = 0; i < 200; ++i) {
    const base::TimePoint due = kBegin + i * milliseconds(10);
    report.measured.RecordSent(due, due + std::chrono::microseconds(100), 1000);
    Success success{.latency = milliseconds(10),
                    .ttft = milliseconds(2),
                    .events = 19,
                    .token_events = 17,
                    .reply_bytes = 3000};
    success.usage = {.present = true,
                     .has_cached = true,
                     .prompt_tokens = 256,
                     .completion_tokens = 17,
                     .cached_tokens = 64};
    report.measured.RecordSuccess(success, due + milliseconds(10));
  }
  report.send_s = 1.99;
  report.elapsed_s = 2.0;
  report.generator = {.cpu_s = 0.01, .busiest_worker = 0.005, .workers = 1};
  report.processes.push_back({.name = "gateway",
                              .cpu_s = 0.02,
                              .resident_bytes = 10 << 20,
                              .resident_bytes_max = 12 << 20});
  return report;
}

TEST(Report, JsonHasInferencePerfsNames) {
  const auto json = nlohmann::json::parse(ToJson(SoundReport()));
  EXPECT_EQ(json["load_summary"]["count"], 200);
  EXPECT_EQ(json["load_summary"]["requested_rate"], 100);
  EXPECT_NEAR(json["load_summary"]["schedule_delay"]["median"].get<double>(), 1e-4, 1e-6);
  EXPECT_NEAR(json["successes"]["latency"]["request_latency"]["p99"].get<double>(), 0.01, 1e-4);
  EXPECT_NEAR(json["successes"]["latency"]["time_to_first_token"]["mean"].get<double>(), 0.002,
              1e-5);
  EXPECT_NEAR(json["successes"]["latency"]["time_per_output_token"]["p99.9"].get<double>(), 0.0005,
              1e-5);
  EXPECT_EQ(json["successes"]["throughput"]["requests_per_sec"], 100.0);
  EXPECT_EQ(json["successes"]["prompt_tokens"]["total"], 200 * 256);
  EXPECT_EQ(json["successes"]["prompt_tokens"]["cached"], 200 * 64);
  EXPECT_EQ(json["successes"]["prompt_tokens"]["uncached"], 200 * 192);
  EXPECT_EQ(json["failures"]["count"], 0);
  EXPECT_NEAR(json["processes"]["gateway"]["cpu_ms_per_request"].get<double>(), 0.1, 1e-9);
  EXPECT_NEAR(json["processes"]["gateway"]["cpu_us_per_chunk"].get<double>(), 2e4 / (200 * 19),
              1e-9);
  EXPECT_THAT(json["warnings"], IsEmpty());
}

TEST(Report, TableNamesWhatPeopleLookFor) {
  const std::string table = ToTable(SoundReport());
  for (const char* text :
       {"poisson 100/s, chat streamed", "200 ok, 0 failed in 2.00 s: 100.0 requests/s",
        "25.0 % cached", "request latency", "time to first token", "schedule delay", "gateway",
        "0.1000"}) {
    EXPECT_THAT(table, HasSubstr(text));
  }
  EXPECT_THAT(table, Not(HasSubstr("WARNING")));
}

TEST(Report, SaysThatTheGeneratorFellBehind) {
  Report report = SoundReport();
  report.send_s = 4.0;  // 200 requests took twice their time
  EXPECT_THAT(Warnings(report), ElementsAre(HasSubstr("fell behind its schedule: 50.0 of 100.0")));
  report.measured.starts_at_limit = 1;
  EXPECT_THAT(Warnings(report), ElementsAre(HasSubstr("the target is slower than the rate")));
  // A closed loop has no schedule to fall behind.
  report.options.arrival = workload::Arrival::kClosedLoop;
  EXPECT_THAT(Warnings(report), IsEmpty());
}

TEST(Report, SaysWhatElseMakesNumbersDoubtful) {
  Report report = SoundReport();
  report.generator.busiest_worker = 0.97;
  report.measured.RecordFailure("http 503", "no \xff endpoint", kBegin);
  report.processes[0].gone = true;
  report.interrupted = true;
  EXPECT_THAT(Warnings(report),
              ElementsAre(HasSubstr("97 % of the time"), HasSubstr("0.50 % of the requests failed"),
                          HasSubstr("process gateway ended"), HasSubstr("interrupted")));
  EXPECT_THAT(ToTable(report), HasSubstr("failed: http 503"));
  const auto json = nlohmann::json::parse(ToJson(report));
  EXPECT_EQ(json["failures"]["by_label"]["http 503"]["count"], 1);
}

TEST(Report, AnEmptyRunIsStillAReport) {
  Report report;
  EXPECT_THAT(Warnings(report), ElementsAre(HasSubstr("nothing was measured")));
  EXPECT_THAT(ToTable(report), HasSubstr("0 ok, 0 failed"));
  EXPECT_TRUE(
      nlohmann::json::parse(ToJson(report))["successes"]["latency"]["request_latency"].is_null());
}

}  // namespace
}  // namespace llmd::bench
