#include "telemetry/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <set>
#include <thread>
#include <utility>

#include "base/random.h"
#include "base/strings.h"
#include "telemetry/exposition.h"
#include "telemetry/request_metrics.h"

namespace llmd::telemetry {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string Page(Metrics* metrics, std::vector<std::string_view> names = {}) {
  std::string page;
  metrics->WriteText(&page, names);
  return page;
}

TEST(Metrics, Tutorial) {
  Metrics metrics(2);  // two workers
  const CounterHandle retries = metrics.Counter(MetricId::kRetriesTotal, {"reset"});
  retries.Add(0);
  retries.Add(1, 2);
  EXPECT_EQ(Page(&metrics),
            "# HELP llmd_retries_total Requests sent to another endpoint before the first response "
            "byte.\n"
            "# TYPE llmd_retries_total counter\n"
            "llmd_retries_total{reason=\"reset\"} 3\n");
  EXPECT_EQ(metrics.ValueOf(MetricId::kRetriesTotal, {"reset"}), 3);
}

TEST(Metrics, HistogramsLookAsGoPrintsThem) {
  Metrics metrics(2);
  const HistogramHandle h = metrics.Histogram(MetricId::kSchedulerE2eSeconds);
  h.Observe(0, 0.0001);
  h.Observe(1, 0.00011);
  h.Observe(1, 7);
  h.Observe(1, NAN);  // ignored
  EXPECT_EQ(
      Page(&metrics, {"llm_d_epp_scheduler_e2e_duration_seconds"}),
      "# HELP llm_d_epp_scheduler_e2e_duration_seconds [ALPHA] Time of one whole scheduling "
      "decision.\n"
      R"(# TYPE llm_d_epp_scheduler_e2e_duration_seconds histogram
llm_d_epp_scheduler_e2e_duration_seconds_bucket{le="0.0001"} 1
llm_d_epp_scheduler_e2e_duration_seconds_bucket{le="0.0002"} 2
llm_d_epp_scheduler_e2e_duration_seconds_bucket{le="0.0005"} 2
llm_d_epp_scheduler_e2e_duration_seconds_bucket{le="0.001"} 2
llm_d_epp_scheduler_e2e_duration_seconds_bucket{le="0.002"} 2
llm_d_epp_scheduler_e2e_duration_seconds_bucket{le="0.005"} 2
llm_d_epp_scheduler_e2e_duration_seconds_bucket{le="0.01"} 2
llm_d_epp_scheduler_e2e_duration_seconds_bucket{le="0.02"} 2
llm_d_epp_scheduler_e2e_duration_seconds_bucket{le="0.05"} 2
llm_d_epp_scheduler_e2e_duration_seconds_bucket{le="0.1"} 2
llm_d_epp_scheduler_e2e_duration_seconds_bucket{le="+Inf"} 3
llm_d_epp_scheduler_e2e_duration_seconds_sum 7.00021
llm_d_epp_scheduler_e2e_duration_seconds_count 3
)");
  EXPECT_THAT(
      Page(&metrics),
      HasSubstr("inference_extension_scheduler_e2e_duration_seconds_bucket{le=\"0.0002\"} 2"));
}

TEST(Metrics, TwinsShowTheSameCellsUnderTheirLabels) {
  Metrics metrics(1);
  metrics.Counter(MetricId::kRequestTotal, {"m", "t", "alice", "0"}).Add(0, 2);
  metrics.Counter(MetricId::kRequestTotal, {"m", "t", "bob", "0"}).Add(0, 3);
  metrics.Counter(MetricId::kRequestTotal, {"m", "t", "bob", "-1"}).Add(0, 4);
  const std::string page = Page(&metrics, {"inference_objective_request_total"});
  EXPECT_EQ(page,
            "# HELP inference_objective_request_total [ALPHA] [Deprecated: use "
            "llm_d_epp_request_total] Requests that reached a routing decision, by model.\n"
            "# TYPE inference_objective_request_total counter\n"
            "inference_objective_request_total{model_name=\"m\",priority=\"0\",target_model_name="
            "\"t\"} 5\n"
            "inference_objective_request_total{model_name=\"m\",priority=\"-1\",target_model_name="
            "\"t\"} 4\n");
  metrics.Gauge(MetricId::kPerEndpointQueueSize, {"default", "pod-1"}).Set(2);
  EXPECT_THAT(Page(&metrics),
              HasSubstr("inference_pool_per_pod_queue_size{model_server_pod=\"pod-1\","
                        "name=\"default\"} 2\n"));
  const HistogramHandle h =
      metrics.Histogram(MetricId::kRequestDurationSeconds, {"m", "t", "alice", "0"});
  h.Observe(0, 1.25);
  metrics.Histogram(MetricId::kRequestDurationSeconds, {"m", "t", "bob", "0"}).Observe(0, 3);
  EXPECT_THAT(Page(&metrics),
              HasSubstr("inference_objective_request_duration_seconds_sum{model_name=\"m\","
                        "target_model_name=\"t\"} 4.25\n"));
}

TEST(Metrics, FamiliesAreSortedAndUnusedOnesAbsent) {
  Metrics metrics(1);
  EXPECT_EQ(Page(&metrics), "");
  // A labelled histogram without observations is not shown, a counter at zero is.
  metrics.Histogram(MetricId::kPluginSeconds, {"Score", "queue-scorer", "q"});
  metrics.Counter(MetricId::kScrapesTotal, {"ok"});
  metrics.Gauge(MetricId::kConnectionsOpen).Add(0, 1);
  EXPECT_THAT(Page(&metrics), HasSubstr("llmd_scrapes_total{result=\"ok\"} 0\n"));
  EXPECT_THAT(Page(&metrics), Not(HasSubstr("plugin_duration")));
  std::vector<std::string> families;
  const std::string page = Page(&metrics);
  for (std::string_view line : base::Split(page, '\n')) {
    if (line.starts_with("# TYPE ")) families.emplace_back(line.substr(7));
  }
  EXPECT_TRUE(std::is_sorted(families.begin(), families.end()));
}

TEST(Metrics, LabelValuesAreEscaped) {
  Metrics metrics(1);
  metrics.Counter(MetricId::kKeyRequestsTotal, {"a\"b\\c\nd"}).Add(0);
  EXPECT_THAT(Page(&metrics), HasSubstr("{key=\"a\\\"b\\\\c\\nd\"} 1\n"));
}

TEST(Metrics, GaugesAddOrSet) {
  Metrics metrics(3);
  const GaugeHandle running = metrics.Gauge(MetricId::kConnectionsOpen);
  running.Add(0, 5);
  running.Add(2, -2);
  EXPECT_EQ(metrics.ValueOf(MetricId::kConnectionsOpen), 3);
  const GaugeHandle budget = metrics.Gauge(MetricId::kMemoryBudgetBytes);
  budget.Set(1 << 20);
  EXPECT_THAT(Page(&metrics), HasSubstr("llmd_memory_budget_bytes 1.048576e+06\n"));
}

TEST(Metrics, EmptyHandlesIgnoreUpdates) {
  CounterHandle().Add(7);
  GaugeHandle().Set(1);
  GaugeHandle().Add(7, 1);
  HistogramHandle().Observe(7, 1);
  EXPECT_FALSE(CounterHandle());
}

TEST(Metrics, WhatACollectorHasBeyondTheCapAddsUp) {
  Metrics metrics(1);
  auto registration = metrics.AddCollector([](ScrapeSeries& scrape) {
    for (size_t i = 0; i < kLabelValuesMax + 3; ++i) {
      const std::string id = "t" + std::to_string(i);
      scrape.Set(MetricId::kInflightRequests, {"e", "n", "p", id, "0"}, 2);
    }
  });
  for (int scrape = 0; scrape < 2; ++scrape) {
    EXPECT_THAT(Page(&metrics),
                HasSubstr("llm_d_epp_inflight_requests{endpoint_name=\"e\",fairness_id=\"other\","
                          "namespace=\"n\",priority=\"0\",producer_name=\"p\"} 6\n"));
  }
}

TEST(Metrics, CollectorsFillOneScrape) {
  Metrics metrics(1);
  int endpoints = 2;
  auto registration = metrics.AddCollector([&](ScrapeSeries& scrape) {
    for (int i = 0; i < endpoints; ++i) {
      scrape.Set(MetricId::kPerEndpointQueueSize, {"default", std::to_string(i)}, i + 0.5);
    }
  });
  EXPECT_THAT(Page(&metrics), HasSubstr("model_server_endpoint=\"1\",name=\"default\"} 1.5\n"));
  endpoints = 1;
  EXPECT_THAT(Page(&metrics), Not(HasSubstr("model_server_endpoint=\"1\"")));
  EXPECT_THAT(Page(&metrics), HasSubstr("model_server_endpoint=\"0\""));
  registration.reset();
  EXPECT_EQ(Page(&metrics), "");
}

TEST(Metrics, ModelNamesAreCappedAndConfiguredOnesPinned) {
  Metrics metrics(1);
  const std::string_view pinned[] = {"configured"};
  for (size_t i = 0; i < kLabelValuesMax; ++i) {
    const std::string name = "m" + std::to_string(i);
    EXPECT_EQ(metrics.BoundModelName(name), name);
  }
  EXPECT_EQ(metrics.BoundModelName("one-more"), kOverflow);
  EXPECT_EQ(metrics.BoundModelName("m7"), "m7");  // admitted for ever
  EXPECT_EQ(metrics.BoundModelName(""), "");
  EXPECT_EQ(metrics.BoundModelName("configured"), kOverflow);
  metrics.PinModelNames(pinned);
  EXPECT_EQ(metrics.BoundModelName("configured"), "configured");
  EXPECT_EQ(metrics.BoundFairnessId("one-more"), "one-more");  // a cap of its own
  metrics.Counter(MetricId::kRequestTotal, {"unknown", "m7", "f", "0"}).Add(0);
  EXPECT_EQ(metrics.ValueOf(MetricId::kRequestTotal, {"other", "m7", "f", "0"}), 1);
}

TEST(Metrics, SeriesPerFamilyAreBounded) {
  Metrics metrics(1);
  for (size_t i = 0; i < kSeriesPerFamilyMax + 5; ++i) {
    metrics.Counter(MetricId::kEjectionsTotal, {std::to_string(i)}).Add(0);
  }
  EXPECT_EQ(metrics.ValueOf(MetricId::kEjectionsTotal, {kOverflow}), 5);
  EXPECT_THAT(Page(&metrics, {"llmd_series_overflow_total"}),
              HasSubstr("llmd_series_overflow_total{metric=\"llmd_ejections_total\"} 5\n"));
}

TEST(Metrics, NoUpdateIsLostAcrossWritersAndScrapes) {
  constexpr size_t kWriters = 4;
  constexpr int kRounds = 20'000;
  Metrics metrics(kWriters);
  RequestMetrics requests(&metrics);
  std::atomic<bool> done{false};
  std::thread scraper([&] {
    std::string page;
    while (!done.load()) {
      page.clear();
      metrics.WriteText(&page);
    }
  });
  std::vector<std::thread> writers;
  for (size_t w = 0; w < kWriters; ++w) {
    writers.emplace_back([&, w] {
      RequestSeriesCache cache(&requests);
      for (int i = 0; i < kRounds; ++i) {
        const std::string model = "m" + std::to_string(i % 7);
        const RequestSeries* series = cache.Find({model, model, "f", 0});
        series->total.Add(w);
        series->duration_seconds.Observe(w, 0.5);
        if (i % 100 == 0) series->AddError(w, ErrorCode::kInternal);
      }
    });
  }
  for (std::thread& writer : writers) writer.join();
  done = true;
  scraper.join();
  double total = 0, observed = 0, errors = 0;
  for (int i = 0; i < 7; ++i) {
    const std::string m = "m" + std::to_string(i);
    total += metrics.ValueOf(MetricId::kRequestTotal, {m, m, "f", "0"});
    observed += metrics.ValueOf(MetricId::kRequestDurationSeconds, {m, m, "f", "0"});
    errors += metrics.ValueOf(MetricId::kRequestErrorTotal, {m, m, "f", "0", "Internal"});
  }
  EXPECT_EQ(total, kWriters * kRounds);
  EXPECT_EQ(observed, kWriters * kRounds);
  EXPECT_EQ(errors, kWriters * kRounds / 100);
}

TEST(BucketIndex, AgreesWithASearch) {
  base::Random random(1);
  for (const MetricInfo& info : AllMetrics()) {
    if (info.kind != MetricKind::kHistogram) continue;
    const internal::BucketIndex index(info.buckets);
    const auto naive = [&](double v) {
      const auto at = std::lower_bound(info.buckets.begin(), info.buckets.end(), v);
      return static_cast<size_t>(at - info.buckets.begin());
    };
    std::vector<double> values = {0., -0., -1., 1e-300, 5e-324, 1e300, INFINITY, -INFINITY};
    for (double bound : info.buckets) {
      values.insert(values.end(),
                    {bound, std::nextafter(bound, -1e9), std::nextafter(bound, 1e12)});
    }
    for (int i = 0; i < 2000; ++i) values.push_back(std::exp(random.Uniform() * 60 - 30));
    for (double v : values) ASSERT_EQ(index.Find(v), naive(v)) << info.name << " " << v;
  }
}

TEST(Exposition, NumbersLookAsGoPrintsThem) {
  const std::pair<double, std::string_view> cases[] = {
      {0, "0"},
      {1, "1"},
      {-1.5, "-1.5"},
      {0.005, "0.005"},
      {0.0001, "0.0001"},
      {0.00001, "1e-05"},
      {123456, "123456"},
      {999999.5, "999999.5"},
      {1000000, "1e+06"},
      {1234567, "1.234567e+06"},
      {1048576, "1.048576e+06"},
      {0x1p30, "1.073741824e+09"},
      {1e21, "1e+21"},
      {1.7976931348623157e308, "1.7976931348623157e+308"},
      {INFINITY, "+Inf"},
      {-INFINITY, "-Inf"},
      {NAN, "NaN"},
  };
  for (const auto& [value, text] : cases) {
    std::string out;
    AppendNumber(&out, value);
    EXPECT_EQ(out, text);
  }
}

TEST(MetricsTable, IsConsistent) {
  std::set<std::string_view> names;
  for (const MetricInfo& info : AllMetrics()) {
    EXPECT_TRUE(names.insert(info.name).second) << info.name;
    if (!info.twin.empty()) {
      EXPECT_TRUE(names.insert(info.twin).second) << info.twin;
    }
    EXPECT_EQ(info.kind == MetricKind::kHistogram, !info.buckets.empty()) << info.name;
    EXPECT_EQ(info.kind == MetricKind::kCounter, info.name.ends_with("_total")) << info.name;
    EXPECT_TRUE(info.help.ends_with(".")) << info.name;
    EXPECT_EQ(&InfoOf(info.id), &info);
    const bool upstream = info.name.starts_with("llm_d_epp_");
    EXPECT_EQ(info.origin == MetricOrigin::kUpstream, upstream) << info.name;
  }
}

TEST(MetricsTable, TheReferenceIsCurrent) {
  const std::string path = LLMD_SOURCE_DIR "/docs/metrics.md";
  std::string found(1 << 20, '\0');
  std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "rb"), &std::fclose);
  found.resize(file ? std::fread(found.data(), 1, found.size(), file.get()) : 0);
  if (found == MetricsReference()) return;
  const std::string fresh = testing::TempDir() + "llmd-metrics.md";
  std::unique_ptr<FILE, int (*)(FILE*)> out(std::fopen(fresh.c_str(), "wb"), &std::fclose);
  ASSERT_NE(out, nullptr);
  std::fputs(MetricsReference().c_str(), out.get());
  FAIL() << "docs/metrics.md is not what src/telemetry/metrics.def says; remedy: cp " << fresh
         << " docs/metrics.md";
}

TEST(RequestMetrics, OneLookupGivesEverySeriesOfARequest) {
  Metrics metrics(2);
  RequestMetrics requests(&metrics);
  RequestSeriesCache worker0(&requests), worker1(&requests);
  const RequestLabels labels{"llama", "llama-v2", "alice", -3};
  const RequestSeries* series = worker0.Find(labels);
  EXPECT_EQ(worker0.Find(labels), series);
  EXPECT_EQ(worker1.Find(labels), series);  // shared, so that cells exist once
  EXPECT_NE(worker0.Find({"llama", "llama-v2", "alice", 0}), series);
  EXPECT_NE(worker0.Find({"llama-v2", "llama", "alice", -3}), series);
  series->total.Add(0);
  series->ttft_streaming_seconds.Observe(1, 0.1);
  series->AddError(0, ErrorCode::kServiceUnavailable);
  const std::string r = "model_name=\"llama\",priority=\"-3\"";
  const std::string page = Page(&metrics);
  EXPECT_THAT(page, HasSubstr("llm_d_epp_request_total{fairness_id=\"alice\"," + r));
  EXPECT_THAT(page, HasSubstr("llm_d_epp_request_error_total{error_code=\"ServiceUnavailable\","
                              "fairness_id=\"alice\"," +
                              r));
  EXPECT_THAT(page, HasSubstr("llm_d_epp_request_ttft_seconds_count{fairness_id=\"alice\"," + r +
                              ",streaming=\"true\",target_model_name=\"llama-v2\"} 1"));
  EXPECT_THAT(page, Not(HasSubstr("streaming=\"false\"")));
}

TEST(RequestMetrics, TuplesAreBounded) {
  Metrics metrics(1);
  RequestMetrics requests(&metrics);
  RequestSeriesCache cache(&requests);
  for (size_t i = 0; i < RequestMetrics::kTuplesMax; ++i) {
    cache.Find({"m", "m", "f", static_cast<int32_t>(i)});
  }
  const size_t bytes = metrics.cell_bytes();
  EXPECT_LT(bytes, 12u << 20);
  const RequestSeries* beyond = cache.Find({"m", "m", "f", -1});
  EXPECT_EQ(beyond, cache.Find({"x", "y", "z", -2}));
  EXPECT_EQ(beyond->model(), kOverflow);
  EXPECT_EQ(cache.Find({"m", "m", "f", 5})->model(), "m");
  // A flood of unknown names ends in `other` without growing anything.
  for (int i = 0; i < 5000; ++i) {
    const std::string name = "flood" + std::to_string(i);
    EXPECT_EQ(cache.Find({name, name, name, 0}), beyond);
  }
  EXPECT_LT(metrics.cell_bytes(), bytes + (64 << 10));
}

}  // namespace
}  // namespace llmd::telemetry
