// What one scrape costs. Numbers to beat: 20 KB in 4 us (a thousand endpoints each 50 ms leave 8 us
// of half a core to each scrape, socket work included).
#include <benchmark/benchmark.h>

#include <string>

#include "wire/prometheus.h"

namespace llmd::wire {
namespace {

// A page shaped like a model server's: the wanted gauges near the front, histograms behind, an info
// metric at the end.
std::string Page(size_t bytes, bool with_info) {
  std::string page;
  for (std::string_view name : {"requests_running", "requests_waiting"}) {
    page.append("# HELP vllm:num_").append(name).append(" Number of requests.\n");
    page.append("# TYPE vllm:num_").append(name).append(" gauge\n");
    page.append("vllm:num_").append(name).append("{engine=\"0\",model_name=\"m\"} 12.0\n");
  }
  page.append("# TYPE vllm:kv_cache_usage_perc gauge\n");
  page.append("vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m\"} 0.4375\n");
  for (int i = 0; page.size() < bytes; ++i) {
    page.append("vllm:time_to_first_token_seconds_bucket{engine=\"0\",le=\"0.");
    page.append(std::to_string(i)).append("\",model_name=\"m\"} 1234.0\n");
  }
  if (with_info) page.append("vllm:cache_config_info{block_size=\"16\"} 1.0\n");
  return page;
}

// range(0): page bytes; range(1): 1 if the last wanted family stands at the end of the page.
void BM_ScanPage(benchmark::State& state) {
  const bool to_the_end = state.range(1) != 0;
  std::vector<MetricSpec> specs;
  for (std::string_view text : {"vllm:num_requests_waiting", "vllm:num_requests_running",
                                "vllm:kv_cache_usage_perc", "vllm:cache_config_info"}) {
    if (to_the_end || text != "vllm:cache_config_info") specs.push_back(*ParseMetricSpec(text));
  }
  const WantedMetrics wanted(specs);
  const std::string page = Page(static_cast<size_t>(state.range(0)), true);
  double sum = 0;
  for (auto _ : state) {
    PageScanner scan(wanted, page);
    for (ScrapedSample s; scan.Next(&s);) sum += s.value;
  }
  benchmark::DoNotOptimize(sum);
  state.SetBytesProcessed(static_cast<int64_t>(page.size()) * state.iterations());
}
BENCHMARK(BM_ScanPage)->Args({20 << 10, 1})->Args({20 << 10, 0})->Args({64 << 10, 1});

}  // namespace
}  // namespace llmd::wire
