#include "bench/options.h"

#include <functional>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace llmd::bench {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(WatchedProcess, IsANameAndPids) {
  const auto process = ParseWatchedProcess("nginx=12,13");
  ASSERT_TRUE(process);
  EXPECT_EQ(process->name, "nginx");
  EXPECT_THAT(process->pids, ElementsAre(12, 13));
  for (const char* text :
       {"", "nginx", "=1", "nginx=", "nginx=0", "nginx=1,", "nginx=1,x", "n=-4"}) {
    EXPECT_FALSE(ParseWatchedProcess(text)) << text;
  }
}

TEST(BenchOptions, ValidateNamesTheFlag) {
  struct Case {
    std::function<void(BenchOptions&)> spoil;
    const char* message;
  };
  BenchOptions good;
  good.urls = {"http://127.0.0.1:1"};
  EXPECT_TRUE(Validate(good).ok());
  const Case cases[] = {
      {[](BenchOptions& o) { o.urls.clear(); }, "no target"},
      {[](BenchOptions& o) { o.ext_proc.target = "127.0.0.1:9002"; }, "exclude each other"},
      {[](BenchOptions& o) { o.ext_proc.connections = 0; }, "--connections"},
      {[](BenchOptions& o) { o.ext_proc.response_chunks = 0; }, "--response-chunks"},
      {[](BenchOptions& o) { o.ext_proc.chunk_window = 0; }, "--chunk-window"},
      {[](BenchOptions& o) { o.ext_proc.chunk_interval = base::Duration(-1); }, "--chunk-interval"},
      {[](BenchOptions& o) { o.concurrency = 0; }, "--concurrency"},
      {[](BenchOptions& o) { o.concurrency = 65536; }, "--concurrency"},
      {[](BenchOptions& o) { o.arrival = workload::Arrival::kPoisson; }, "--rate"},
      {[](BenchOptions& o) {
         o.arrival = workload::Arrival::kConstant;
         o.rate = 1;
         o.in_flight_max = 0;
       },
       "--max-in-flight"},
      {[](BenchOptions& o) { o.workers = 0; }, "--workers"},
      {[](BenchOptions& o) { o.request_count_max = 0; }, "--requests"},
      {[](BenchOptions& o) { o.duration = {}; }, "--duration"},
      {[](BenchOptions& o) { o.headers = {"no colon"}; }, "Name: value"},
      {[](BenchOptions& o) { o.headers = {"a b: c"}; }, "Name: value"},
      {[](BenchOptions& o) { o.headers = {"a: c\r\nd: e"}; }, "Name: value"},
      {[](BenchOptions& o) { o.headers = {"content-length: 3"}; }, "generator's own"},
      {[](BenchOptions& o) { o.api_key = "a\nb"; }, "API key"},
      {[](BenchOptions& o) { o.body.extra_members = "\"a\":"; }, "--extra-body"},
  };
  for (const Case& c : cases) {
    BenchOptions options = good;
    c.spoil(options);
    EXPECT_THAT(std::string(Validate(options).message()), HasSubstr(c.message));
  }
}

}  // namespace
}  // namespace llmd::bench
