#include "wire/prometheus.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <memory>

#include "base/random.h"
#include "wire/prometheus_twin.h"

namespace llmd::wire {
namespace {

MetricSpec Spec(std::string_view text) {
  auto spec = ParseMetricSpec(text);
  EXPECT_TRUE(spec.has_value()) << text;
  return spec ? *spec : MetricSpec{"bad", {}};
}

std::vector<MetricSpec> Specs(std::initializer_list<std::string_view> texts) {
  std::vector<MetricSpec> specs;
  for (std::string_view text : texts) specs.push_back(Spec(text));
  return specs;
}

std::string RealPage() {
  const std::string path = LLMD_SOURCE_DIR "/conformance/recorded/vllm-0.32/metrics.txt";
  std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "rb"), &std::fclose);
  EXPECT_NE(file, nullptr) << path;
  std::string page(1 << 20, '\0');
  page.resize(file ? std::fread(page.data(), 1, page.size(), file.get()) : 0);
  return page;
}

// Everything a scan yields, as the twin shows it.
TwinResult Scan(const std::vector<MetricSpec>& specs, std::string_view page,
                size_t* scanned = nullptr) {
  const WantedMetrics wanted(specs);
  PageScanner scanner(wanted, page);
  TwinResult result;
  for (ScrapedSample s; scanner.Next(&s);) {
    result.samples.push_back({s.spec, s.value, std::string(s.labels), std::string(s.rest)});
  }
  result.error = scanner.error();
  if (scanned) *scanned = scanner.scanned_bytes();
  return result;
}

void ExpectSame(const TwinSample& a, const TwinSample& b) {
  EXPECT_EQ(a.spec, b.spec);
  EXPECT_TRUE(a.value == b.value || (std::isnan(a.value) && std::isnan(b.value)));
  EXPECT_EQ(a.labels, b.labels);
  EXPECT_EQ(a.rest, b.rest);
}

TEST(PageScanner, Tutorial) {
  const WantedMetrics wanted(
      Specs({"vllm:num_requests_waiting", "vllm:kv_cache_usage_perc", "vllm:cache_config_info"}));
  const std::string page = RealPage();
  PageScanner scan(wanted, page);
  std::string block_size, scratch;
  double values[3] = {-1, -1, -1};
  for (ScrapedSample sample; scan.Next(&sample);) {
    values[sample.spec] = sample.value;
    if (sample.spec == 2) block_size = sample.Label("block_size", &scratch).value_or("");
  }
  EXPECT_EQ(scan.error(), ScanError::kNone);
  EXPECT_THAT(values, testing::ElementsAre(0, 0, 1));
  EXPECT_EQ(block_size, "32");
}

TEST(PageScanner, ReadsWhatPagesMayHold) {
  struct Case {
    std::string_view page;
    std::vector<double> values;
    ScanError error = ScanError::kNone;
  };
  const Case cases[] = {
      {"", {}},
      {"\n", {}},
      {"queue 3\n", {3}},
      {"queue 3\r\n", {3}},
      {"queue\t3\n", {3}},
      {"queue{} 3\n", {3}},
      {"queue{a=\"b\"} 3 1520879607789\n", {3}},
      {"queue { a = \"b\" , } 3\n", {3}},
      {"queue{a=\"}\"} 3\n", {3}},
      {"queue{a=\"\\\"}\"} 3\n", {3}},
      {"queue 3 # {trace=\"x\"} 0.5 1520879607.789\n", {3}},
      {"queue +3.5e1\n", {35}},
      {"queue -3\n", {-3}},
      {"queue +Inf\n", {INFINITY}},
      {"queue -Inf\n", {-INFINITY}},
      {"# HELP queue 7\n# TYPE queue gauge\nqueue 3\n", {3}},
      {"queue 3\nqueue{x=\"2\"} 4\n", {3, 4}},
      {"queue_size 9\nqueue 3\nqueuex 8\n", {3}},
      {"queu 9\n  queue 3\n", {}},  // indented lines are skipped
      {"queue 3", {}, ScanError::kTruncated},
      {"queue 3\nqueue{a=\"", {3}, ScanError::kTruncated},
      {"queue{a=\"b} 3\n", {}, ScanError::kMalformed},
      {"queue\n", {}},  // no value and no blank: another name
      {"queue \n", {}, ScanError::kMalformed},
      {"queue x\nqueue 4\n", {4}, ScanError::kMalformed},
      {"queue 3x\n", {}, ScanError::kMalformed},
      {"queue +-3\n", {}, ScanError::kMalformed},
      {"queue nan(1)\n", {}, ScanError::kMalformed},
      {"queue 1e999\n", {}, ScanError::kMalformed},
  };
  for (const Case& c : cases) {
    const TwinResult result = Scan(Specs({"queue"}), c.page);
    std::vector<double> values;
    for (const auto& sample : result.samples) values.push_back(sample.value);
    EXPECT_EQ(values, c.values) << c.page;
    EXPECT_EQ(result.error, c.error) << c.page;
  }
  const TwinResult nan = Scan(Specs({"queue"}), "queue NaN\n");
  ASSERT_EQ(nan.samples.size(), 1u);
  EXPECT_TRUE(std::isnan(nan.samples[0].value));
}

TEST(PageScanner, FiltersByLabels) {
  const auto specs =
      Specs({"m{type=waiting}", "m{type=\"scheduled\",x=1}", "m", "m{q=\"a\\\"b\"}"});
  const TwinResult result =
      Scan(specs, "m{type=\"waiting\"} 1\nm{x=\"1\",type=\"scheduled\"} 2\nm{q=\"a\\\"b\"} 3\n");
  std::vector<std::pair<uint32_t, double>> got;
  for (const auto& s : result.samples) got.emplace_back(s.spec, s.value);
  EXPECT_THAT(got,
              testing::ElementsAre(testing::Pair(0, 1), testing::Pair(2, 1), testing::Pair(1, 2),
                                   testing::Pair(2, 2), testing::Pair(2, 3), testing::Pair(3, 3)));
}

TEST(PageScanner, LabelsAndTimestampsOnDemand) {
  const WantedMetrics wanted(Specs({"m"}));
  PageScanner scan(wanted,
                   "m{a=\"plain\",b=\"x\\\\y\\\"z\\n\",c=\"\"} 1 1234\nm 2 12.5 # {} 1\nm 3\n");
  ScrapedSample s;
  std::string scratch;
  ASSERT_TRUE(scan.Next(&s));
  EXPECT_EQ(s.Label("a", &scratch), "plain");
  EXPECT_EQ(s.Label("b", &scratch), "x\\y\"z\n");
  EXPECT_EQ(s.Label("c", &scratch), "");
  EXPECT_EQ(s.Label("d", &scratch), std::nullopt);
  EXPECT_EQ(s.TimestampMs(), 1234);
  ASSERT_TRUE(scan.Next(&s));
  EXPECT_EQ(s.TimestampMs(), 12'500);
  ASSERT_TRUE(scan.Next(&s));
  EXPECT_EQ(s.TimestampMs(), std::nullopt);
  EXPECT_FALSE(scan.Next(&s));
  EXPECT_FALSE(scan.Next(&s));  // stays at the end
}

TEST(PageScanner, StopsOnceEveryFamilyWasPassed) {
  const std::string head = "# TYPE a gauge\na 1\na{x=\"2\"} 2\n# TYPE b gauge\nb 3\n";
  size_t scanned = 0;
  TwinResult result = Scan(Specs({"a", "b"}), head + "# TYPE c gauge\nc 4\nb 5\n", &scanned);
  EXPECT_EQ(result.samples.size(), 3u);
  EXPECT_EQ(scanned, head.size());
  // Histogram lines of one family interleave by label set: the group ends where the family does.
  const std::string histogram =
      "h_bucket{a=\"1\"} 1\nh_sum{a=\"1\"} 2\nh_count{a=\"1\"} 3\n"
      "h_bucket{a=\"2\"} 4\nh_sum{a=\"2\"} 5\nh_count{a=\"2\"} 6\n";
  result = Scan(Specs({"h_sum", "h_count"}), histogram + "i 1\n", &scanned);
  EXPECT_EQ(result.samples.size(), 4u);
  EXPECT_EQ(scanned, histogram.size());
}

TEST(PageScanner, NothingWantedReadsNothing) {
  size_t scanned = 1;
  EXPECT_TRUE(Scan({}, RealPage(), &scanned).samples.empty());
  EXPECT_EQ(scanned, 0u);
}

// Every name of the real page, alone and in random sets, gives what the twin gives.
TEST(PageScanner, AgreesWithTheTwinOnTheRealPage) {
  const std::string page = RealPage();
  std::vector<std::string> names;
  for (size_t at = 0; at < page.size(); at = page.find('\n', at) + 1) {
    std::string name = page.substr(at, page.find_first_of("{ \n", at) - at);
    if (name != "#" && (names.empty() || names.back() != name)) names.push_back(name);
  }
  ASSERT_GT(names.size(), 100u);
  base::Random random(7);
  for (int round = 0; round < 300; ++round) {
    std::vector<MetricSpec> specs;
    const uint64_t count = 1 + random.Below(8);
    while (specs.size() < count) {
      MetricSpec spec{names[random.Below(names.size())], {}};
      if (random.Below(4) == 0) spec.labels.emplace_back("model_name", "tiny");
      if (random.Below(8) == 0) spec.labels.emplace_back("le", "10.0");
      specs.push_back(spec);
    }
    // A page cut anywhere, to move lines against the 64-byte blocks and to see truncation.
    const size_t cut = random.Below(2) ? page.size() : random.Below(page.size());
    const size_t skip = random.Below(64);
    const std::string part = std::string(skip, '\n') + page.substr(0, cut);
    const TwinResult fast = Scan(specs, part), slow = ScanSlowly(specs, part);
    EXPECT_EQ(fast.error, slow.error);
    ASSERT_EQ(fast.samples.size(), slow.samples.size()) << specs[0].name;
    for (size_t i = 0; i < fast.samples.size(); ++i) ExpectSame(fast.samples[i], slow.samples[i]);
  }
}

TEST(MetricSpec, Parses) {
  using Labels = std::vector<std::pair<std::string, std::string>>;
  const struct {
    std::string_view text;
    MetricSpec spec;
  } cases[] = {
      {"vllm:num_requests_waiting", {"vllm:num_requests_waiting", {}}},
      {" m {} ", {"m", {}}},
      {"m{a=b}", {"m", Labels{{"a", "b"}}}},
      {"m { a = \"b c\" , d=e }", {"m", Labels{{"a", "b c"}, {"d", "e"}}}},
      {"m{a=\"x,y}\"}", {"m", Labels{{"a", "x,y}"}}}},
      {"m{a=\"\"}", {"m", Labels{{"a", ""}}}},
      {"m{a=\"q\\\"\\\\\\n\"}", {"m", Labels{{"a", "q\"\\\n"}}}},
  };
  for (const auto& c : cases) {
    const auto spec = ParseMetricSpec(c.text);
    ASSERT_TRUE(spec.has_value()) << c.text;
    EXPECT_EQ(*spec, c.spec) << c.text;
    const auto again = ParseMetricSpec(ToString(*spec));
    ASSERT_TRUE(again.has_value()) << ToString(*spec);
    EXPECT_EQ(*again, *spec);
  }
}

TEST(MetricSpec, RefusesWithTheReason) {
  const struct {
    std::string_view text, reason;
  } cases[] = {
      {"", "the name is invalid"},
      {"9m", "the name is invalid"},
      {"m-x", "the name is invalid"},
      {"m{a=b", "labels stand in one pair of braces"},
      {"m a=b", "labels stand in one pair of braces"},
      {"m{a}", "a label has no value"},
      {"m{a=}", "a label has no value"},
      {"m{=b}", "a label name is invalid"},
      {"m{a:b=c}", "a label name is invalid"},
      {"m{a=b,}", "a label is missing after the comma"},
      {"m{a=b c=d}", "labels are separated by commas"},
      {"m{a=\"b}", "a quote is not closed"},
      {"m{a=b,a=c}", "a label is given twice"},
  };
  for (const auto& c : cases) {
    const auto spec = ParseMetricSpec(c.text);
    ASSERT_FALSE(spec.has_value()) << c.text;
    EXPECT_THAT(std::string(spec.error().message()), testing::HasSubstr(c.reason)) << c.text;
  }
}

}  // namespace
}  // namespace llmd::wire
