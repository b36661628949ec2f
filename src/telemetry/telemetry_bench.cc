// What telemetry costs the request path. Aims: Add and Observe below 5 ns, a request's series below
// 40 ns, a log call that is off below 1 ns, an access line about 300 ns.
#include <benchmark/benchmark.h>

#include "telemetry/access_log.h"
#include "telemetry/histogram.h"
#include "telemetry/metrics.h"
#include "telemetry/request_metrics.h"

namespace llmd::telemetry {
namespace {

void BM_CounterAdd(benchmark::State& state) {
  Metrics metrics(2);
  const CounterHandle counter = metrics.Counter(MetricId::kRetriesTotal, {"reset"});
  for (auto _ : state) {
    counter.Add(1);
    benchmark::ClobberMemory();
  }
}
BENCHMARK(BM_CounterAdd);

void BM_HistogramObserve(benchmark::State& state) {
  Metrics metrics(2);
  const HistogramHandle h =
      metrics.Histogram(MetricId::kRequestDurationSeconds, {"m", "m", "", "0"});
  double v = 0.001;
  for (auto _ : state) {
    h.Observe(1, v);
    v = v < 4000 ? v * 1.37 : 0.001;
    benchmark::ClobberMemory();
  }
}
BENCHMARK(BM_HistogramObserve);

void BM_RequestSeries(benchmark::State& state) {
  Metrics metrics(1);
  RequestMetrics requests(&metrics);
  RequestSeriesCache cache(&requests);
  const RequestLabels labels{"meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct",
                             "default-flow", 0};
  for (auto _ : state) benchmark::DoNotOptimize(cache.Find(labels));
}
BENCHMARK(BM_RequestSeries);

void BM_LogOff(benchmark::State& state) {
  int n = 0;
  for (auto _ : state) {
    LLMD_LOG(kTrace, "picked", {"endpoint", "10.0.0.1:8000"}, {"n", n++});
    benchmark::ClobberMemory();
  }
}
BENCHMARK(BM_LogOff);

void BM_AccessLine(benchmark::State& state) {
  AccessRecord r;
  r.time = {1'735'787'045'678'901'234};
  r.request_id = "0b9f2a34-6a54-4d3c-9b1e-0f7c2f4d9a11";
  r.method = "POST";
  r.path = "/v1/chat/completions";
  r.status = 200;
  r.model = r.target_model = "meta-llama/Llama-3.1-8B-Instruct";
  r.endpoint = "10.0.0.1:8000";
  r.outcome = "ok";
  r.duration = base::Duration(1'234'567'890);
  r.ttft = base::Duration(56'789'500);
  r.bytes_in = 1024;
  r.bytes_out = 20480;
  r.input_tokens = 300;
  r.output_tokens = 40;
  char buffer[kAccessLineMax];
  const LogFormat format = state.range(0) ? LogFormat::kJson : LogFormat::kText;
  for (auto _ : state) benchmark::DoNotOptimize(EncodeAccessLine(r, format, buffer));
}
BENCHMARK(BM_AccessLine)->Arg(0)->Arg(1);

void BM_ValueHistogramRecord(benchmark::State& state) {
  ValueHistogram h;
  uint64_t v = 1;
  for (auto _ : state) h.Record(v = v * 6364136223846793005u >> 20);
}
BENCHMARK(BM_ValueHistogramRecord);

// range(0): request label tuples with data in all their histograms.
void BM_Scrape(benchmark::State& state) {
  Metrics metrics(2);
  RequestMetrics requests(&metrics);
  for (int32_t i = 0; i < state.range(0); ++i) {
    const RequestSeries* s = requests.Resolve({"m", "m", "f", i});
    s->total.Add(0);
    for (const HistogramHandle& h : {s->duration_seconds, s->request_bytes, s->response_bytes,
                                     s->input_tokens, s->output_tokens, s->ntpot_seconds}) {
      h.Observe(0, 1);
    }
  }
  std::string page;
  for (auto _ : state) {
    page.clear();
    metrics.WriteText(&page);
  }
  state.SetBytesProcessed(static_cast<int64_t>(page.size()) * state.iterations());
}
BENCHMARK(BM_Scrape)->Arg(1)->Arg(100);

}  // namespace
}  // namespace llmd::telemetry
