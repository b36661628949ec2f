#include "wire/sse.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/random.h"

namespace llmd::wire {
namespace {

using ::testing::ElementsAre;

// Events as "name|data", with the place checked where the parser states one.
std::vector<std::string> Events(SseParser& parser, std::string_view stream,
                                const std::vector<size_t>& cuts) {
  std::vector<std::string> out;
  size_t begin = 0;
  for (size_t i = 0; i <= cuts.size(); ++i) {
    const size_t end = i < cuts.size() ? cuts[i] : stream.size();
    const std::vector<char> chunk(stream.begin() + begin, stream.begin() + end);
    parser.Feed({chunk.data(), chunk.size()});
    for (SseEvent event; parser.Next(&event);) {
      out.push_back(std::string(event.name) + "|" + std::string(event.data));
      if (event.contiguous) {
        EXPECT_EQ(stream.substr(event.data_begin, event.data.size()), event.data);
      }
    }
    begin = end;
  }
  return out;
}

TEST(Sse, DeliversEventsOfACompletionStream) {
  const std::string_view stream =
      "data: {\"id\":\"cmpl-1\"}\n\n"
      ": keep-alive\n\n"
      "event: response.completed\ndata: {\"x\":1}\n\n"
      "data: [DONE]\n\n";
  SseParser parser;
  EXPECT_THAT(Events(parser, stream, {}),
              ElementsAre("|{\"id\":\"cmpl-1\"}", "response.completed|{\"x\":1}", "|[DONE]"));
  EXPECT_EQ(parser.events(), 3u);
  EXPECT_EQ(parser.pending_bytes(), 0u);
}

TEST(Sse, FormatTable) {
  const struct {
    std::string_view stream;
    std::vector<std::string> events;
  } cases[] = {
      {"data: a\r\n\r\ndata: b\r\rdata: c\n\n", {"|a", "|b", "|c"}},
      {"data: a\r\r\ndata: b\n\n", {"|a", "|b"}},
      {"data: one\ndata: two\r\ndata:three\n\n", {"|one\ntwo\nthree"}},
      {"data\n\n", {"|"}},
      {"data:\n\n", {"|"}},
      {"data:  two spaces\n\n", {"| two spaces"}},
      {"event: only\n\n", {}},
      {"event: a\nevent: b\ndata: x\n\n", {"b|x"}},
      {"id: 7\nretry: 10\nother\ndata: x\n\n", {"|x"}},
      {"datax: no\ndata: yes\n\n", {"|yes"}},
      {"\n\n\ndata: x\n\n\n\n", {"|x"}},
      {"data: unfinished\n", {}},
      {"\xef\xbb\xbf" "data: x\n\n", {"|x"}},
      {"\xef\xbb" "data: x\n\ndata: y\n\n", {"|y"}},
  };
  for (const auto& c : cases) {
    SseParser whole;
    EXPECT_EQ(Events(whole, c.stream, {}), c.events) << c.stream;
    for (size_t cut = 0; cut <= c.stream.size(); ++cut) {
      SseParser parser;
      EXPECT_EQ(Events(parser, c.stream, {cut}), c.events) << c.stream << " cut at " << cut;
    }
  }
}

TEST(Sse, OnlyTheUnfinishedEventIsPending) {
  SseParser parser;
  SseEvent event;
  parser.Feed("data: a\n\ndata: b");
  ASSERT_TRUE(parser.Next(&event));
  EXPECT_TRUE(event.in_chunk);
  EXPECT_FALSE(parser.Next(&event));
  EXPECT_EQ(parser.pending_bytes(), 7u);
  parser.Feed("bb\n\ndata: c\n\n");
  ASSERT_TRUE(parser.Next(&event));
  EXPECT_EQ(event.data, "bbb");
  EXPECT_FALSE(event.in_chunk);
  EXPECT_EQ(parser.pending_bytes(), 0u);
  ASSERT_TRUE(parser.Next(&event));
  EXPECT_EQ(event.data, "c");
  EXPECT_TRUE(event.in_chunk);
}

TEST(Sse, AnEventThatOutgrowsTheTailIsSkippedAndCounted) {
  const std::string stream = "data: a\n\ndata: " + std::string(100, 'x') + "\n\ndata: b\n\n";
  SseParser small(32);
  EXPECT_THAT(Events(small, stream, {20, 40, 60}), ElementsAre("|a", "|b"));
  EXPECT_EQ(small.skipped_events(), 1u);
  // In one chunk nothing is kept, so nothing is too long.
  SseParser whole(32);
  EXPECT_EQ(Events(whole, stream, {}).size(), 3u);
  EXPECT_EQ(whole.skipped_events(), 0u);
}

// The format read in the plainest way: lines first, then fields.
std::vector<std::string> Twin(std::string_view stream) {
  std::vector<std::string> lines(1), out;
  if (stream.starts_with("\xef\xbb\xbf")) stream.remove_prefix(3);
  for (size_t i = 0; i < stream.size(); ++i) {
    if (stream[i] == '\r' && i + 1 < stream.size() && stream[i + 1] == '\n') ++i;
    if (stream[i] == '\r' || stream[i] == '\n') {
      lines.emplace_back();
    } else {
      lines.back() += stream[i];
    }
  }
  lines.pop_back();  // what no line end closes
  std::string name, data;
  bool any = false;
  for (const std::string& line : lines) {
    if (line.empty()) {
      if (any) out.push_back(name + "|" + data);
      name.clear();
      data.clear();
      any = false;
      continue;
    }
    const size_t colon = line.find(':');
    const std::string field = line.substr(0, colon);
    std::string value = colon == std::string::npos ? "" : line.substr(colon + 1);
    if (!value.empty() && value[0] == ' ') value.erase(0, 1);
    if (field == "data") {
      data += (any ? "\n" : "") + value;
      any = true;
    } else if (field == "event") {
      name = value;
    }
  }
  return out;
}

TEST(SseRandom, AgreesWithTheTwinAtAnyCut) {
  static constexpr std::string_view kBits[] = {
      "data: ", "data:", "data",     "event: ", ": ",        "\n",    "\n\n",
      "\r\n",   "\r",    "\r\n\r\n", "x",       "{\"a\":1}", "id: 1", " "};
  base::Random random(5);
  for (int round = 0; round < 20000; ++round) {
    std::string stream = random.Below(10) ? "" : "\xef\xbb\xbf";
    for (uint64_t i = random.Below(30); i > 0; --i) stream += kBits[random.Below(std::size(kBits))];
    std::vector<size_t> cuts;
    const uint64_t stride = 2 + random.Below(20);
    for (size_t at = random.Below(5); at < stream.size(); at += random.Below(stride))
      cuts.push_back(at);
    SseParser parser;
    ASSERT_EQ(Events(parser, stream, cuts), Twin(stream)) << testing::PrintToString(stream);
  }
}

}  // namespace
}  // namespace llmd::wire
