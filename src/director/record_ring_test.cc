#include "director/record_ring.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <thread>

#include "config/document.h"
#include "director/director_testing.h"
#include "director/explain.h"

namespace llmd::director {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

DecisionRecord Record(std::string_view id, int64_t at, uint8_t shown = 1) {
  DecisionRecord r;
  std::memcpy(r.request_id, id.data(), id.size());
  r.received_unix_ns = at;
  r.shown = shown;
  for (size_t i = 0; i < shown; ++i) r.candidates[i].endpoint = static_cast<uint32_t>(at);
  return r;
}
std::vector<std::string> Ids(const std::vector<DecisionRecord>& records) {
  std::vector<std::string> ids;
  for (const DecisionRecord& r : records) ids.push_back(r.request_id);
  return ids;
}

// The tour: two workers write, one reader sees the newest first.
TEST(RecordRing, ShowsTheLastOfAllWorkers) {
  RecordRing ring(2, 2);
  for (auto [worker, id, at] : {std::tuple(0, "a", 10), std::tuple(1, "b", 11),
                                std::tuple(0, "c", 12)}) {
    DecisionRecord r = Record(id, at);
    EXPECT_FALSE(ring.Push(static_cast<size_t>(worker), &r));
  }
  EXPECT_THAT(Ids(ring.Last(9)), ElementsAre("c", "b", "a"));
  EXPECT_THAT(Ids(ring.Last(2)), ElementsAre("c", "b"));
  DecisionRecord d = Record("d", 13);
  EXPECT_TRUE(ring.Push(0, &d)) << "a was overwritten";
  EXPECT_EQ(d.sequence, 3u);
  EXPECT_THAT(Ids(ring.Last(9)), ElementsAre("d", "c", "b"));
  EXPECT_EQ(ring.Find("b")->received_unix_ns, 11);
  EXPECT_FALSE(ring.Find("a"));
}

TEST(RecordRing, FindsTheLatestOfAnId) {
  RecordRing ring(2);
  for (int i = 0; i < 4; ++i) {
    DecisionRecord r = Record("same", 10 + i);
    ring.Push(static_cast<size_t>(i % 2), &r);
  }
  EXPECT_EQ(ring.Find("same")->received_unix_ns, 13);
  DecisionRecord r = Record(std::string(kRecordIdBytes - 1, 'x'), 1);
  ring.Push(0, &r);
  EXPECT_TRUE(ring.Find(std::string(100, 'x'))) << "cut as records cut it";
}

TEST(RecordRing, UnusedCandidatesAreNotLeftOvers) {
  RecordRing ring(1, 1);
  DecisionRecord many = Record("many", 7, kRecordCandidatesMax);
  ring.Push(0, &many);
  DecisionRecord few = Record("few", 8, 2);
  ring.Push(0, &few);
  const DecisionRecord read = ring.Last(1)[0];
  EXPECT_EQ(read.shown, 2);
  EXPECT_EQ(read.candidates[1].endpoint, 8u);
  EXPECT_EQ(read.candidates[2].endpoint, fleet::kNoEndpoint);
}

// Run under tsan: what is read belongs together.
TEST(RecordRing, ARecordIsReadWhole) {
  RecordRing ring(1, 4);
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (int64_t i = 1; !stop; ++i) {
      DecisionRecord r = Record("id", i, static_cast<uint8_t>(i % (kRecordCandidatesMax + 1)));
      r.duration_us = static_cast<uint64_t>(i);
      ring.Push(0, &r);
    }
  });
  for (int i = 0, read = 0; i < 3000 || (read == 0 && i < 3'000'000); ++i) {
    for (const DecisionRecord& r : ring.Last(4)) {
      ++read;
      ASSERT_EQ(r.sequence, r.duration_us);
      ASSERT_EQ(static_cast<uint64_t>(r.received_unix_ns), r.duration_us);
      ASSERT_EQ(r.shown, r.duration_us % (kRecordCandidatesMax + 1));
      for (size_t c = 0; c < r.shown; ++c) ASSERT_EQ(r.candidates[c].endpoint, r.duration_us);
    }
  }
  stop = true;
  writer.join();
}

TEST(Explain, NamesWhoWasThereAndWhy) {
  testing::Bed bed(2);
  bed.fleet.ReportLoad(0, {.waiting = 3}, bed.now - std::chrono::milliseconds(20));
  bed.fleet.ReportLoad(1, {.waiting = 3}, bed.now - std::chrono::milliseconds(20));
  Session session(bed.director(), 1, bed.now);
  session.OnHead({.method = "POST", .path = "/v1/completions", .request_id = "id \"1\"",
                  .content_length = 9}, bed.now);
  session.OnBody(R"({"model":"m","prompt":"say it"})", bed.now);
  const Decision d = session.OnBodyEnd(bed.now);
  session.OnResponseHead({.status = 200}, bed.now);
  session.OnDone(1, bed.now);
  const std::string text =
      ExplainRecords(bed.records.Last(1), *bed.generation, *bed.fleet.members());
  EXPECT_THAT(text, HasSubstr(R"("request_id":"id \"1\"")"));
  EXPECT_THAT(text, HasSubstr(R"("scores":{"queue-scorer":0.25,"prefix-cache-scorer":)"));
  EXPECT_THAT(text, HasSubstr(R"("load_age_ms":20)"));
  const std::string chosen = std::to_string(d.forward.endpoints[0].endpoint);
  EXPECT_THAT(text, HasSubstr("\"outcome\":{\"endpoint\":\"default/e" + chosen + " 10.0.0.1:800" +
                              chosen + "\",\"attempts\":1,\"http_status\":200,"
                              "\"termination\":\"natural\""));
  EXPECT_THAT(text, ::testing::Not(HasSubstr("say it")));
  config::ErrorList errors;
  EXPECT_TRUE(config::Document::Parse(text, "t.json", &errors)) << errors.ToString() << text;
}

TEST(Explain, WhatHasLeftIsShownByNumber) {
  testing::Bed bed(2);
  Session session(bed.director(), 1, bed.now);
  session.OnHead({.method = "GET", .path = "/x", .request_id = "r"}, bed.now);
  session.OnBodyEnd(bed.now);
  session.OnAborted(Termination::kError, 0, bed.now);
  bed.SetEndpoints(0);
  bed.Load();
  const std::string text =
      ExplainRecords(bed.records.Last(1), *bed.generation, *bed.fleet.members());
  EXPECT_THAT(text, HasSubstr(" (left)\""));
  EXPECT_THAT(text, HasSubstr(" of generation 1\":"));
  EXPECT_EQ(ExplainRecords({}, *bed.generation, *bed.fleet.members()), "{\"decisions\":[]}\n");
}

}  // namespace
}  // namespace llmd::director
