#include "telemetry/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "telemetry/access_log.h"
#include "telemetry/line_writer.h"

namespace llmd::telemetry {
namespace {

constexpr int64_t kNoon = 1'735'787'045'678'901'234;  // 2025-01-02T03:04:05.678901234Z

class CapturingSink final : public LogSink {
 public:
  CapturingSink() { SetLogSink(this); }
  ~CapturingSink() override {
    SetLogSink(nullptr);
    SetLogLevel(LogLevel::kInfo);
    SetLogFormat(LogFormat::kText);
  }
  base::WallTime Now() override { return {now_ns}; }
  void Write(LogLevel, std::string_view line) override { lines.emplace_back(line); }

  int64_t now_ns = kNoon;
  std::vector<std::string> lines;
};

TEST(Log, Tutorial) {
  CapturingSink sink;
  const std::string name = "10.0.0.1:8000";
  LLMD_LOG(kInfo, "endpoint ejected", {"endpoint", name}, {"failures", 3},
           {"for", base::Duration(1'500'000)});
  ASSERT_EQ(sink.lines.size(), 1u);
  EXPECT_THAT(sink.lines[0],
              testing::MatchesRegex("2025-01-02T03:04:05.678901Z info log_test.cc:[0-9]+ endpoint "
                                    "ejected endpoint=10.0.0.1:8000 failures=3 for=1.500ms\n"));
}

TEST(Log, JsonLines) {
  CapturingSink sink;
  SetLogFormat(LogFormat::kJson);
  LLMD_LOG(kWarn, "odd \"thing\"", {"text", "a\nb\"c\\\x01\xff\xc3\xa9"}, {"yes", true},
           {"nan", 0.0 / 0.0}, {"half", 0.5}, {"big", UINT64_MAX}, {"low", INT64_MIN},
           {"status", base::NotFound("no such file")});
  ASSERT_EQ(sink.lines.size(), 1u);
  const std::string& line = sink.lines[0];
  EXPECT_TRUE(
      line.starts_with("{\"ts\":\"2025-01-02T03:04:05.678901Z\",\"level\":\"warn\","
                       "\"caller\":\"log_test.cc:"))
      << line;
  EXPECT_TRUE(line.ends_with(
      ",\"msg\":\"odd \\\"thing\\\"\",\"text\":\"a\\u000ab\\\"c\\\\\\u0001\\ufffd\xc3\xa9\","
      "\"yes\":true,\"nan\":null,\"half\":0.5,\"big\":18446744073709551615,"
      "\"low\":-9223372036854775808,\"status\":\"no such file\"}\n"))
      << line;
}

TEST(Log, ArgumentsAreNotEvaluatedWhenOff) {
  CapturingSink sink;
  int evaluated = 0;
  const auto count = [&] { return ++evaluated; };
  LLMD_LOG(kDebug, "x", {"n", count()});
  EXPECT_EQ(evaluated, 0);
  SetLogLevel(LogLevel::kDebug);
  LLMD_LOG(kDebug, "x", {"n", count()});
  LLMD_LOG(kTrace, "x", {"n", count()});
  EXPECT_EQ(evaluated, 1);
  EXPECT_EQ(sink.lines.size(), 1u);
}

TEST(Log, ValuesCannotForgeLinesOrFields) {
  CapturingSink sink;
  sink.now_ns = 0;
  LLMD_LOG(kError, "x", {"a", "b c=d\nerror fake"}, {"e", ""});
  EXPECT_THAT(sink.lines[0], testing::MatchesRegex("error log_test.cc:[0-9]+ x "
                                                   "a=\"b c=d\\\\u000aerror fake\" e=\"\"\n"));
}

TEST(Log, LinesAreBounded) {
  for (LogFormat format : {LogFormat::kText, LogFormat::kJson}) {
    CapturingSink sink;
    SetLogFormat(format);
    const std::string big(5000, 'x');
    LLMD_LOG(kInfo, "m", {"a", big}, {"b", big}, {"c", big}, {"d", big}, {"e", 1});
    const std::string& line = sink.lines[0];
    EXPECT_LE(line.size(), kLogLineMax);
    EXPECT_THAT(line, testing::HasSubstr("xxx..."));
    EXPECT_TRUE(
        line.ends_with(format == LogFormat::kJson ? "...\",\"cut\":true}\n" : "...\" cut=true\n"))
        << line.substr(line.size() - 40);
  }
}

TEST(Log, LevelNames) {
  EXPECT_EQ(ParseLogLevel("info"), LogLevel::kInfo);
  EXPECT_EQ(ParseLogLevel("TRACE"), LogLevel::kTrace);
  EXPECT_EQ(ParseLogLevel("4"), LogLevel::kDebug);
  EXPECT_EQ(ParseLogLevel("99"), LogLevel::kTrace);
  EXPECT_EQ(ParseLogLevel("0"), LogLevel::kWarn);
  for (auto bad : {"", "-1", "loud", "2x"}) EXPECT_EQ(ParseLogLevel(bad), std::nullopt) << bad;
  EXPECT_EQ(LogLevelName(LogLevel::kVerbose), "verbose");
}

TEST(Log, ManyThreadsMayLogWhileTheLevelChanges) {
  class CountingSink final : public LogSink {
   public:
    base::WallTime Now() override { return {kNoon}; }
    void Write(LogLevel, std::string_view) override { lines.fetch_add(1); }
    std::atomic<int> lines{0};
  } sink;
  SetLogSink(&sink);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([t] {
      for (int i = 0; i < 500; ++i) {
        if (t == 0) SetLogLevel(i % 2 ? LogLevel::kInfo : LogLevel::kTrace);
        LLMD_LOG(kInfo, "x", {"thread", t}, {"i", i});
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(sink.lines.load(), 2000);
  SetLogSink(nullptr);
  SetLogLevel(LogLevel::kInfo);
}

AccessRecord SampleRecord() {
  AccessRecord record;
  record.time = {kNoon};
  record.request_id = "b0f3";
  record.method = "POST";
  record.path = "/v1/chat/completions";
  record.status = 200;
  record.model = "llama";
  record.target_model = "llama-v2";
  record.endpoint = "10.0.0.1:8000";
  record.outcome = "ok";
  record.duration = base::Duration(1'234'567'890);
  record.ttft = base::Duration(56'789'500);
  record.bytes_in = 1024;
  record.bytes_out = 20480;
  record.input_tokens = 300;
  record.output_tokens = 40;
  record.retries = 1;
  record.streamed = true;
  return record;
}

TEST(AccessLog, OneLinePerRequest) {
  char buffer[kAccessLineMax];
  EXPECT_EQ(EncodeAccessLine(SampleRecord(), LogFormat::kText, buffer),
            "2025-01-02T03:04:05.678901Z request id=b0f3 method=POST path=/v1/chat/completions "
            "status=200 outcome=ok model=llama target_model=llama-v2 endpoint=10.0.0.1:8000 "
            "duration_ms=1234.568 ttft_ms=56.790 bytes_in=1024 bytes_out=20480 input_tokens=300 "
            "output_tokens=40 retries=1 streamed=1\n");
  EXPECT_EQ(EncodeAccessLine(SampleRecord(), LogFormat::kJson, buffer),
            "{\"ts\":\"2025-01-02T03:04:05.678901Z\",\"msg\":\"request\",\"id\":\"b0f3\","
            "\"method\":\"POST\",\"path\":\"/v1/chat/completions\",\"status\":200,"
            "\"outcome\":\"ok\",\"model\":\"llama\",\"target_model\":\"llama-v2\","
            "\"endpoint\":\"10.0.0.1:8000\",\"duration_ms\":1234.568,\"ttft_ms\":56.790,"
            "\"bytes_in\":1024,\"bytes_out\":20480,\"input_tokens\":300,\"output_tokens\":40,"
            "\"retries\":1,\"streamed\":1}\n");
  EXPECT_EQ(EncodeAccessLine({}, LogFormat::kText, buffer),
            "request status=0 duration_ms=0.000 bytes_in=0 bytes_out=0 retries=0\n");
}

TEST(AccessLog, TheWorstRecordFits) {
  const std::string worst(10'000, '\x01');
  AccessRecord r = SampleRecord();
  r.request_id = r.method = r.path = r.model = r.endpoint = r.outcome = r.key = worst;
  const std::string other = worst + "x";
  r.target_model = other;
  r.bytes_in = r.bytes_out = UINT64_MAX;
  r.input_tokens = r.output_tokens = r.cached_tokens = INT64_MAX;
  r.duration = r.ttft = base::Duration::max();
  char buffer[kAccessLineMax];
  for (LogFormat format : {LogFormat::kText, LogFormat::kJson}) {
    const std::string_view line = EncodeAccessLine(r, format, buffer);
    EXPECT_TRUE(line.ends_with(format == LogFormat::kJson ? "\"streamed\":1}\n" : "streamed=1\n"));
  }
  EXPECT_EQ(EncodeAccessLine(r, LogFormat::kText, std::span(buffer, 10)), "2025-01-0\n");
}

TEST(LineWriter, Times) {
  const std::pair<int64_t, std::string_view> cases[] = {
      {0, "1970-01-01T00:00:00.000000Z"},
      {951'782'400'000'000'000, "2000-02-29T00:00:00.000000Z"},
      {-1, "1969-12-31T23:59:59.999999Z"},
      {4'102'444'799'999'999'999, "2099-12-31T23:59:59.999999Z"},
  };
  for (const auto& [ns, text] : cases) {
    char buffer[64];
    LineWriter out(buffer);
    out.AppendTime(ns);
    EXPECT_EQ(out.view(), text);
  }
}

}  // namespace
}  // namespace llmd::telemetry
