#include "wire/http1.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/random.h"
#include "base/strings.h"

namespace llmd::wire {
namespace {

using ::testing::ElementsAre;

// The tutorial: a head is parsed in place, then its body is walked.
TEST(Http1, ParsesARequestAndItsChunkedBody) {
  const std::string bytes =
      "POST /v1/chat/completions?debug=1 HTTP/1.1\r\n"
      "Host: gateway.example:8080\r\n"
      "Transfer-Encoding: chunked\r\n"
      "Connection: x-private\r\n"
      "X-Private: hop\r\n"
      "\r\n"
      "5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\nChecksum: 1\r\n\r\nnext";
  HeadParser parser;
  RequestHead head;
  ASSERT_EQ(parser.ParseRequest(bytes, head), ParseState::kDone);
  EXPECT_EQ(head.method, HttpMethod::kPost);
  EXPECT_EQ(head.path, "/v1/chat/completions");
  EXPECT_EQ(head.query, "debug=1");
  EXPECT_EQ(head.authority, "gateway.example:8080");
  EXPECT_EQ(head.framing, HttpFraming::kChunked);
  EXPECT_TRUE(head.keep_alive);
  EXPECT_TRUE(head.fields.Find("x-private")->hop_by_hop);
  EXPECT_TRUE(head.fields.Find(HttpFieldId::kTransferEncoding)->hop_by_hop);
  EXPECT_FALSE(head.fields.Find(HttpFieldId::kHost)->hop_by_hop);

  std::string_view rest = std::string_view(bytes).substr(head.head_bytes);
  ChunkedDecoder decoder;
  std::string body;
  std::string_view piece;
  ChunkedDecoder::Step step;
  while ((step = decoder.Next(rest, piece)) == ChunkedDecoder::Step::kData) body += piece;
  EXPECT_EQ(step, ChunkedDecoder::Step::kEnd);
  EXPECT_EQ(body, "hello world");
  EXPECT_EQ(rest, "next");
}

TEST(Http1, ParsesAResponse) {
  const std::string bytes =
      "HTTP/1.1 503 Come back later\r\nContent-Length: 12\r\nRetry-After: 1\r\n\r\n";
  HeadParser parser;
  ResponseHead head;
  ASSERT_EQ(parser.ParseResponse(bytes, head, false), ParseState::kDone);
  EXPECT_EQ(head.status, 503);
  EXPECT_EQ(head.reason, "Come back later");
  EXPECT_EQ(head.framing, HttpFraming::kLength);
  EXPECT_EQ(head.content_length, 12u);
  EXPECT_EQ(head.fields.Get(HttpFieldId::kRetryAfter), "1");
}

HttpError RequestError(std::string_view bytes, const HttpLimits& limits = {}) {
  HeadParser parser(limits);
  RequestHead head;
  const ParseState state = parser.ParseRequest(bytes, head);
  EXPECT_EQ(state == ParseState::kError, parser.error() != HttpError::kNone);
  EXPECT_NE(state, ParseState::kNeedMore) << bytes;
  return parser.error();
}

// What a proxy must not guess about. Several are known smuggling attempts.
TEST(Http1, RefusesWhatIsAmbiguous) {
  const struct {
    std::string_view bytes;
    HttpError error;
  } kCases[] = {
      {"GET / HTTP/1.1\nHost: a\n\n", HttpError::kBareLf},
      {"GET / HTTP/1.1\r\nHost: a\n\r\n", HttpError::kBareLf},
      {"GET / HTTP/1.1\r\nHost: a\r\n\n", HttpError::kBareLf},
      {"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", HttpError::kBadFieldValue},
      {"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", HttpError::kBadRequestLine},
      {"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", HttpError::kBadRequestLine},
      {"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", HttpError::kBadRequestLine},
      {"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", HttpError::kBadRequestLine},
      {" GET / HTTP/1.1\r\nHost: a\r\n\r\n", HttpError::kBadRequestLine},
      {"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", HttpError::kBadRequestLine},
      {"GET / http/1.1\r\nHost: a\r\n\r\n", HttpError::kBadRequestLine},
      {"GET / HTTP/1.10\r\nHost: a\r\n\r\n", HttpError::kBadRequestLine},
      {"GET / HTTP/2.0\r\nHost: a\r\n\r\n", HttpError::kUnsupportedVersion},
      {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", HttpError::kUnsupportedVersion},
      {"GET a HTTP/1.1\r\nHost: a\r\n\r\n", HttpError::kBadTarget},
      {"GET * HTTP/1.1\r\nHost: a\r\n\r\n", HttpError::kBadTarget},
      {"GET ftp://h/ HTTP/1.1\r\nHost: a\r\n\r\n", HttpError::kBadTarget},
      {"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", HttpError::kBadTarget},
      {"CONNECT host HTTP/1.1\r\nHost: a\r\n\r\n", HttpError::kBadTarget},
      {"GET / HTTP/1.1\r\n\r\n", HttpError::kMissingHost},
      {"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", HttpError::kRepeatedHost},
      {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", HttpError::kBadFieldValue},
      {"GET / HTTP/1.1\r\nHost: a\r\n X: b\r\n\r\n", HttpError::kObsFold},
      {"GET / HTTP/1.1\r\n X: b\r\nHost: a\r\n\r\n", HttpError::kObsFold},
      {"GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n", HttpError::kBadFieldName},
      {"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", HttpError::kBadFieldName},
      {"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", HttpError::kBadFieldName},
      {"GET / HTTP/1.1\r\nHost: a\r\nX(: b\r\n\r\n", HttpError::kBadFieldName},
      {"GET / HTTP/1.1\r\nHost: a\r\nX: b\x01\r\n\r\n", HttpError::kBadFieldValue},
      {std::string_view("GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n", 37),
       HttpError::kBadFieldValue},
      {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
       HttpError::kBadContentLength},
      {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", HttpError::kBadContentLength},
      {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", HttpError::kBadContentLength},
      {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n", HttpError::kBadContentLength},
      {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", HttpError::kBadContentLength},
      {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n",
       HttpError::kBadContentLength},
      {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
       HttpError::kLengthAndTransferEncoding},
      {"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
       HttpError::kLengthAndTransferEncoding},
      {"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
       HttpError::kUnsupportedTransferEncoding},
      {"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
       HttpError::kUnsupportedTransferEncoding},
      {"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
       HttpError::kUnsupportedTransferEncoding},
      {"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: "
       "chunked\r\n\r\n",
       HttpError::kUnsupportedTransferEncoding},
      {"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0b"
       "chunked\r\n\r\n",
       HttpError::kBadFieldValue},
      {"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
       HttpError::kUnsupportedTransferEncoding},
      {"GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", HttpError::kUnsupportedExpectation},
  };
  for (const auto& c : kCases) {
    EXPECT_EQ(HttpErrorName(RequestError(c.bytes)), HttpErrorName(c.error)) << c.bytes;
  }
}

TEST(Http1, AcceptsWhatIsOddButClear) {
  const struct {
    std::string_view bytes, path, authority;
    bool keep_alive;
  } kCases[] = {
      {"GET / HTTP/1.0\r\n\r\n", "/", "", false},
      {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "/", "", true},
      {"GET / HTTP/1.1\r\nHost: a\r\nConnection: foo, Close\r\n\r\n", "/", "a", false},
      {"GET / HTTP/1.7\r\nHost:a\r\n\r\n", "/", "a", true},
      {"\r\nGET /x?y HTTP/1.1\r\nHost: \t a \t\r\nEmpty:\r\n\r\n", "/x", "a", true},
      {"GET http://b:1/p?q HTTP/1.1\r\nHost: a\r\n\r\n", "/p", "b:1", true},
      {"GET HTTPS://b HTTP/1.1\r\nHost: a\r\n\r\n", "/", "b", true},
      {"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "*", "a", true},
      {"CONNECT b:443 HTTP/1.1\r\nHost: a\r\n\r\n", "", "b:443", true},
      {"M-SEARCH / HTTP/1.1\r\nHost: [::1]:80\r\nX: \xff\x80\r\n\r\n", "/", "[::1]:80", true},
  };
  for (const auto& c : kCases) {
    HeadParser parser;
    RequestHead head;
    ASSERT_EQ(parser.ParseRequest(c.bytes, head), ParseState::kDone) << c.bytes;
    EXPECT_EQ(head.path, c.path) << c.bytes;
    EXPECT_EQ(head.authority, c.authority) << c.bytes;
    EXPECT_EQ(head.keep_alive, c.keep_alive) << c.bytes;
    EXPECT_EQ(head.head_bytes, c.bytes.size());
  }
}

TEST(Http1, SeesUpgradeAndExpect) {
  HeadParser parser;
  RequestHead head;
  ASSERT_EQ(parser.ParseRequest("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n"
                                "Connection: Upgrade\r\nExpect: 100-Continue\r\n\r\n",
                                head),
            ParseState::kDone);
  EXPECT_TRUE(head.wants_upgrade);
  EXPECT_TRUE(head.expects_continue);
  parser.Reset();
  ASSERT_EQ(parser.ParseRequest("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n", head),
            ParseState::kDone);
  EXPECT_FALSE(head.wants_upgrade);
  EXPECT_FALSE(head.expects_continue);
}

TEST(Http1, EachLimitHasItsOwnError) {
  const HttpLimits limits{.head_bytes_max = 200, .target_bytes_max = 20, .fields_max = 3};
  EXPECT_EQ(RequestError("GET /" + std::string(20, 'a') + " HTTP/1.1\r\nHost: a\r\n\r\n", limits),
            HttpError::kTargetTooLong);
  EXPECT_EQ(RequestError("GET /" + std::string(200, 'a'), limits), HttpError::kTargetTooLong);
  EXPECT_EQ(RequestError("GET / HTTP/1.1\r\nHost: a\r\nX: " + std::string(200, 'a'), limits),
            HttpError::kHeadTooLarge);
  EXPECT_EQ(
      RequestError("GET / HTTP/1.1\r\nHost: a\r\nX: " + std::string(180, 'a') + "\r\n\r\n", limits),
      HttpError::kHeadTooLarge);
  EXPECT_EQ(RequestError("GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n", limits),
            HttpError::kTooManyFields);
  std::string many = "GET / HTTP/1.1\r\nHost: a\r\nConnection: a";
  for (int i = 0; i < 40; ++i) many += ", b" + std::to_string(i);
  EXPECT_EQ(RequestError(many + "\r\n\r\n"), HttpError::kBadFieldValue);
  EXPECT_EQ(HttpStatusOf(HttpError::kTargetTooLong), 414);
  EXPECT_EQ(HttpStatusOf(HttpError::kHeadTooLarge), 431);
}

TEST(Http1, ResponseFramingFollowsStatusAndMethod) {
  const struct {
    std::string_view bytes;
    bool to_head;
    HttpFraming framing;
    bool keep_alive;
  } kCases[] = {
      {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false, HttpFraming::kLength, true},
      {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true, HttpFraming::kNone, true},
      {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false, HttpFraming::kNone, true},
      {"HTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\n\r\n", false, HttpFraming::kChunked, true},
      {"HTTP/1.1 204 No Content\r\n\r\n", false, HttpFraming::kNone, true},
      {"HTTP/1.1 304 \r\nContent-Length: 5\r\n\r\n", false, HttpFraming::kNone, true},
      {"HTTP/1.1 100 Continue\r\n\r\n", false, HttpFraming::kNone, true},
      {"HTTP/1.1 200 OK\r\n\r\n", false, HttpFraming::kUntilClose, false},
      {"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", false, HttpFraming::kLength, false},
  };
  for (const auto& c : kCases) {
    HeadParser parser;
    ResponseHead head;
    ASSERT_EQ(parser.ParseResponse(c.bytes, head, c.to_head), ParseState::kDone) << c.bytes;
    EXPECT_EQ(head.framing, c.framing) << c.bytes;
    EXPECT_EQ(head.keep_alive, c.keep_alive) << c.bytes;
  }
  for (std::string_view bytes :
       {"HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 099 OK\r\n\r\n", "HTTP/1.1  200 OK\r\n\r\n",
        "HTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"}) {
    HeadParser parser;
    ResponseHead head;
    EXPECT_EQ(parser.ParseResponse(bytes, head, false), ParseState::kError) << bytes;
  }
}

// Every split of a head gives the same result, and byte by byte too.
TEST(Http1, ASplitHeadParsesAsAWholeOne) {
  const std::string bytes =
      "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nX-Request-Id: 7\r\n\r\n";
  for (size_t split = 0; split <= bytes.size(); ++split) {
    HeadParser parser;
    RequestHead head;
    if (split < bytes.size()) {
      ASSERT_EQ(parser.ParseRequest(std::string_view(bytes).substr(0, split), head),
                ParseState::kNeedMore);
    }
    ASSERT_EQ(parser.ParseRequest(bytes, head), ParseState::kDone) << split;
    EXPECT_EQ(head.content_length, 10u);
    EXPECT_EQ(head.fields.Get("x-request-id"), "7");
  }
  HeadParser parser;
  RequestHead head;
  for (size_t size = 0; size < bytes.size(); ++size) {
    ASSERT_EQ(parser.ParseRequest(std::string_view(bytes).substr(0, size), head),
              ParseState::kNeedMore);
  }
  EXPECT_EQ(parser.ParseRequest(bytes, head), ParseState::kDone);
}

TEST(Http1, ABareLfIsRefusedBeforeTheHeadIsComplete) {
  HeadParser parser;
  RequestHead head;
  ASSERT_EQ(parser.ParseRequest("GET / HTTP/1.1\r\nHost: a\r\nX: 1", head), ParseState::kNeedMore);
  EXPECT_EQ(parser.ParseRequest("GET / HTTP/1.1\r\nHost: a\r\nX: 1\n", head), ParseState::kError);
  EXPECT_EQ(parser.error(), HttpError::kBareLf);
}

// An obviously right reader of the same grammar: line by line, with std::string.
struct NaiveHead {
  std::string method, target;
  std::vector<std::pair<std::string, std::string>> fields;
  bool operator==(const NaiveHead&) const = default;
};
std::optional<NaiveHead> ReadNaively(std::string text) {
  if (text.starts_with("\r\n")) text.erase(0, 2);
  const size_t end = text.find("\r\n\r\n");
  if (end == std::string::npos) return std::nullopt;
  text.resize(end + 2);
  std::vector<std::string> lines;
  for (size_t at = 0; at < text.size();) {
    const size_t crlf = text.find("\r\n", at);
    lines.push_back(text.substr(at, crlf - at));
    at = crlf + 2;
  }
  for (const std::string& line : lines) {
    for (unsigned char c : line) {
      if ((c < 0x20 && c != '\t') || c == 0x7f) return std::nullopt;
    }
  }
  auto parts = base::Split(lines[0], ' ');
  if (parts.size() != 3 || !IsHttpToken(parts[0]) || parts[1].empty()) return std::nullopt;
  for (unsigned char c : parts[1]) {
    if (c <= 0x20 || c >= 0x7f) return std::nullopt;
  }
  if (parts[2].size() != 8 || !parts[2].starts_with("HTTP/1.") || !isdigit(parts[2][7])) {
    return std::nullopt;
  }
  NaiveHead head{std::string(parts[0]), std::string(parts[1]), {}};
  for (size_t i = 1; i < lines.size(); ++i) {
    const size_t colon = lines[i].find(':');
    if (colon == std::string::npos || !IsHttpToken(lines[i].substr(0, colon))) return std::nullopt;
    head.fields.emplace_back(lines[i].substr(0, colon), base::Trim(lines[i].substr(colon + 1)));
  }
  return head;
}

// Random damage to a good head: both readers agree on what is well-formed and on what it says.
// Fields whose meaning the strict parser checks are left out of the material.
TEST(Http1, AgreesWithANaiveReader) {
  base::Random random(20260101);
  const std::string_view pool = "aZ9-_:; \t\r\n\x01\x7f\x80/?&=,\"()";
  size_t good = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string text = "GET /path?q HTTP/1.1\r\nHost: h\r\n";
    for (uint64_t i = random.Below(4); i > 0; --i) {
      text += "Field-" + std::to_string(i) + ":";
      for (uint64_t n = random.Below(40); n > 0; --n) text += pool[random.Below(7)];
      text += "\r\n";
    }
    text += "\r\n";
    for (uint64_t i = random.Below(3); i > 0; --i) {
      text[30 + random.Below(text.size() - 30)] = pool[random.Below(pool.size())];
    }
    HeadParser parser;
    RequestHead head;
    const ParseState state = parser.ParseRequest(text, head);
    const std::optional<NaiveHead> naive = ReadNaively(text);
    if (state == ParseState::kDone) {
      ASSERT_TRUE(naive.has_value()) << text;
      NaiveHead ours{std::string(head.method_name), std::string(head.target), {}};
      for (const HttpField& f : head.fields) ours.fields.emplace_back(f.name, f.value);
      ASSERT_EQ(ours, *naive) << text;
      ++good;
    } else if (naive.has_value()) {
      // The naive reader looks for the end first, so it may be satisfied with what follows a head
      // that ours refuses for its Host or for white space at the start of a line.
      ASSERT_TRUE(parser.error() == HttpError::kMissingHost ||
                  parser.error() == HttpError::kRepeatedHost ||
                  parser.error() == HttpError::kBadFieldValue)
          << text << HttpErrorName(parser.error());
    }
  }
  EXPECT_GT(good, 5000u);
}

// Pieces of a chunked body however the input is cut; nullopt when it is refused.
std::optional<std::string> Decode(std::string_view bytes, size_t step_bytes, std::string* rest) {
  ChunkedDecoder decoder;
  std::string body;
  for (size_t at = 0; at < bytes.size();) {
    std::string_view input = bytes.substr(at, step_bytes);
    const size_t size = input.size();
    while (true) {
      std::string_view piece;
      const ChunkedDecoder::Step step = decoder.Next(input, piece);
      if (step == ChunkedDecoder::Step::kError) return std::nullopt;
      if (step == ChunkedDecoder::Step::kEnd) {
        *rest = bytes.substr(at + size - input.size());
        return body;
      }
      if (step == ChunkedDecoder::Step::kNeedMore) break;
      body += piece;
    }
    at += size;
  }
  return "incomplete";
}

TEST(Chunked, DecodesHoweverTheInputIsCut) {
  const std::string bytes =
      "1\r\na\r\n0A;name=\"va;lue\"\r\n0123456789\r\n00;x\r\nTrailer: v\r\nOther:\r\n\r\nREST";
  for (size_t step = 1; step <= bytes.size(); ++step) {
    std::string rest;
    EXPECT_EQ(Decode(bytes, step, &rest), "a0123456789") << step;
    EXPECT_EQ(rest, "REST");
  }
}

TEST(Chunked, RefusesBrokenFraming) {
  for (std::string_view bytes : {
           "\r\n",
           "g\r\n",
           "1 \r\na\r\n",
           "-1\r\n",
           "0x1\r\na",
           "1\na\r\n",
           "1\r\nab",
           "1\r\na\n",
           "1\r\na\r\r",
           "1;a\nb\r\n",
           "1;\x01\r\n",
           "1000000000000000\r\n",
           "0\r\nX\r\n\r\n",
           "0\r\n X: 1\r\n\r\n",
           "0\r\nX: 1\n\r\n",
           "0\r\nX: \x02\r\n\r\n",
           "0\r\n\n",
           "0\r\n\rX",
           "0\r\nX : 1\r\n\r\n",
       }) {
    std::string rest;
    EXPECT_EQ(Decode(bytes, 100, &rest), std::nullopt) << bytes;
    EXPECT_EQ(Decode(bytes, 1, &rest), std::nullopt) << bytes;
  }
}

TEST(Chunked, BoundsTrailersAndExtensions) {
  std::string rest;
  EXPECT_EQ(Decode("0\r\nX: " + std::string(9000, 'a') + "\r\n\r\n", 100000, &rest), std::nullopt);
  std::string extensions;
  for (int i = 0; i < 100; ++i) extensions += "1;" + std::string(1000, 'e') + "\r\na\r\n";
  EXPECT_EQ(Decode(extensions + "0\r\n\r\n", 1000000, &rest), std::nullopt);
}

TEST(HeadWriter, ComposesHeadsAndNoticesOverflow) {
  char room[128];
  HeadWriter head(room);
  head.StatusLine(404, "");
  head.Field("Content-Length", uint64_t{17});
  head.Field("A", "b");
  head.EndOfHead();
  EXPECT_TRUE(head.ok());
  EXPECT_EQ(head.view(), "HTTP/1.1 404 Not Found\r\nContent-Length: 17\r\nA: b\r\n\r\n");
  HeadWriter small(std::span<char>(room, 10));
  small.RequestLine("GET", "/long/target");
  small.EndOfHead();
  EXPECT_FALSE(small.ok());
  char number[18];
  EXPECT_EQ(std::string_view(number, WriteChunkSize(~uint64_t{0}, number)), "ffffffffffffffff\r\n");
}

TEST(Http1, Lists) {
  EXPECT_TRUE(HttpListHas("a, Close ,b", "close"));
  EXPECT_FALSE(HttpListHas("closed", "close"));
  EXPECT_FALSE(HttpListHas("", "close"));
  EXPECT_TRUE(IsHttpFieldValue("a\tb \xff"));
  EXPECT_FALSE(IsHttpFieldValue(std::string(40, 'a') + "\n"));
  EXPECT_FALSE(IsHttpToken(""));
}

TEST(Http1, KnowsTheNamesOfItsFieldsAndErrors) {
  EXPECT_EQ(HttpFieldIdOf("X-REQUEST-ID"), HttpFieldId::kXRequestId);
  EXPECT_EQ(HttpFieldIdOf("x-request-ie"), HttpFieldId::kOther);
  EXPECT_EQ(HttpFieldIdOf("Transfer-Encoding"), HttpFieldId::kTransferEncoding);
  EXPECT_EQ(HttpFieldIdOf(""), HttpFieldId::kOther);
  for (int e = 1; e <= static_cast<int>(HttpError::kTrailersTooLarge); ++e) {
    const HttpError error = static_cast<HttpError>(e);
    EXPECT_GE(HttpStatusOf(error), 400) << e;
    EXPECT_FALSE(HttpErrorText(error).empty()) << e;
  }
}

}  // namespace
}  // namespace llmd::wire
