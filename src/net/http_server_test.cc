#include "net/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "net/net_testing.h"
#include "runtime/machine.h"

namespace llmd::net {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr std::string_view kGet = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";

class HttpServerTest : public ::testing::Test {
 protected:
  void Start(HttpServerOptions options = {}) {
    server_ = std::make_unique<HttpServer>(loop_, service_, std::move(options));
    port_ = server_->Listen(runtime::SocketAddress::Ipv4(kLoopback, 0)).value();
  }
  RawPeer Connect() { return RawPeer::ConnectTo(loop_, port_); }
  // Waits until the service has seen `count` requests.
  bool Requests(size_t count) {
    return TurnUntil(loop_, [&] { return service_.seen.size() >= count; });
  }
  void AnswerAtBodyEnd(std::string_view body = "ok") {
    service_.prepare = [body](TestHandler& h) {
      h.on_body_end = [body](TestHandler& self) {
        self.exchange->Respond(200, "text/plain", body);
      };
    };
  }
  // The same for a body that is sent back.
  void Echo() {
    service_.prepare = [](TestHandler& h) {
      h.on_body_end = [](TestHandler& self) {
        self.exchange->Respond(200, "text/plain", self.body);
      };
    };
  }

  runtime::EventLoop loop_;
  TestService service_;
  std::unique_ptr<HttpServer> server_;
  uint16_t port_ = 0;
};

// The tutorial: a request arrives, its handler answers, the connection serves the next one.
TEST_F(HttpServerTest, AnswersRequestsOnOneConnection) {
  Start();
  AnswerAtBodyEnd("hello");
  RawPeer client = Connect();
  for (int i = 1; i <= 3; ++i) {
    ASSERT_TRUE(client.Send(kGet));
    ASSERT_TRUE(client.WaitFor("\r\n\r\nhello"));
    const std::string reply = client.Take();
    EXPECT_THAT(reply, StartsWith("HTTP/1.1 200 OK\r\nDate: "));
    EXPECT_THAT(reply, HasSubstr("Content-Length: 5\r\n"));
    EXPECT_THAT(reply, Not(HasSubstr("Connection:")));
    EXPECT_EQ(service_.last().finished, 1);
  }
  EXPECT_EQ(server_->stats().accepted, 1u);
  EXPECT_EQ(server_->stats().requests, 3u);
  EXPECT_EQ(server_->active_exchange_count(), 0u);
}

TEST_F(HttpServerTest, PipelinedRequestsAreStrictlySequential) {
  Start();
  RawPeer client = Connect();
  ASSERT_TRUE(
      client.Send("GET /1 HTTP/1.1\r\nHost: h\r\n\r\n"
                  "POST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
                  "GET /3 HTTP/1.1\r\nHost: h\r\n\r\n"));
  for (size_t i = 1; i <= 3; ++i) {
    ASSERT_TRUE(Requests(i));
    TurnABit(loop_);
    EXPECT_EQ(service_.seen.size(), i);
    EXPECT_TRUE(service_.last().body_ended);
    service_.last().exchange->Respond(200, "", "r" + std::to_string(i));
    ASSERT_TRUE(client.WaitFor("r" + std::to_string(i)));
  }
  EXPECT_THAT(service_.seen, ElementsAre("GET /1", "POST /2", "GET /3"));
  EXPECT_EQ(service_.handlers[1]->body, "abc");
}

TEST_F(HttpServerTest, ManyPipelinedRequestsInOneReadDoNotRecurse) {
  Start();
  service_.answer_at_once = [](ServerExchange& x) { x.Respond(200, "", ""); };
  RawPeer client = Connect();
  std::string many;
  for (int i = 0; i < 5000; ++i) many += kGet;
  ASSERT_TRUE(client.Send(many));
  ASSERT_TRUE(Requests(5000));
}

TEST_F(HttpServerTest, EverySplitOfARequestGivesTheSame) {
  Start();
  Echo();
  const std::string request =
      "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
      "3\r\nabc\r\n2;x\r\nde\r\n0\r\nT: 1\r\n\r\n";
  RawPeer client = Connect();
  for (size_t split = 1; split < request.size(); ++split) {
    ASSERT_TRUE(client.Send(request.substr(0, split)));
    loop_.Turn(milliseconds(0));
    loop_.Turn(milliseconds(0));
    ASSERT_TRUE(client.Send(request.substr(split)));
    ASSERT_TRUE(client.WaitFor("\r\n\r\nabcde")) << split;
    client.Take();
  }
  for (char c : request) {
    ASSERT_TRUE(client.Send({&c, 1}));
    loop_.Turn(milliseconds(0));
  }
  ASSERT_TRUE(client.WaitFor("\r\n\r\nabcde"));
  EXPECT_EQ(server_->stats().accepted, 1u);
}

TEST_F(HttpServerTest, LargeBodiesArriveWholeAndInFewPieces) {
  Start({.body_bytes_max = 64 << 20});
  size_t pieces = 0;
  service_.prepare = [&](TestHandler& h) {
    h.on_body = [&](TestHandler&) { ++pieces; };
    h.on_body_end = [](TestHandler& self) { self.exchange->Respond(200, "", "done"); };
  };
  for (size_t size : {1u, 16u << 10, 100'000u, 128u << 10, 1u << 20, 5'000'000u}) {
    std::string body(size, 'x');
    for (size_t i = 0; i < size; i += 101) body[i] = static_cast<char>('a' + i % 26);
    pieces = 0;
    RawPeer client = Connect();
    ASSERT_TRUE(client.Send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: " +
                            std::to_string(size) + "\r\n\r\n" + body));
    ASSERT_TRUE(client.WaitFor("done"));
    EXPECT_EQ(service_.last().body, body);
  }
}

TEST_F(HttpServerTest, AfterALargeRequestTheNextIsReadWithItsHeadAndTheHeadAloneIsKept) {
  Start();
  size_t first_piece_bytes = 0;
  service_.prepare = [&](TestHandler& h) {
    first_piece_bytes = 0;
    h.on_body = [&](TestHandler& self) {
      if (first_piece_bytes == 0) first_piece_bytes = self.body.size();
    };
  };
  const std::string large(100 << 10, 'b');
  RawPeer client = Connect();
  for (size_t i = 1; i <= 3; ++i) {
    const std::string body = i < 3 ? large : "small";
    ASSERT_TRUE(client.Send("POST /" + std::to_string(i) + " HTTP/1.1\r\nHost: h" +
                            std::to_string(i) + "\r\nContent-Length: " +
                            std::to_string(body.size()) + "\r\n\r\n" + body));
    ASSERT_TRUE(TurnUntil(loop_, [&] {
      return service_.handlers.size() == i && service_.last().body_ended;
    }));
    EXPECT_EQ(service_.last().body, body);
    EXPECT_EQ(service_.last().exchange->head().target, "/" + std::to_string(i));
    EXPECT_EQ(service_.last().exchange->head().authority, "h" + std::to_string(i));
    if (i == 1) {
      EXPECT_LT(first_piece_bytes, size_t{16 << 10});
    } else if (i == 2) {
      EXPECT_GT(first_piece_bytes, size_t{16 << 10});
    }
    EXPECT_LE(loop_.buffers().live_bytes(), size_t{16 << 10});  // what may wait for an answer
    service_.last().exchange->Respond(200, "", "r" + std::to_string(i));
    ASSERT_TRUE(client.WaitFor("r" + std::to_string(i)));
  }
}

TEST_F(HttpServerTest, Sends100ContinueOnlyToWhoWaitsForIt) {
  Start();
  Echo();
  const std::string head =
      "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
  RawPeer waits = Connect();
  ASSERT_TRUE(waits.Send(head));
  ASSERT_TRUE(waits.WaitFor("HTTP/1.1 100 Continue\r\n\r\n"));
  ASSERT_TRUE(waits.Send("hi"));
  ASSERT_TRUE(waits.WaitFor("\r\n\r\nhi"));
  RawPeer does_not = Connect();
  ASSERT_TRUE(does_not.Send(head + "hi"));
  ASSERT_TRUE(does_not.WaitFor("\r\n\r\nhi"));
  EXPECT_THAT(does_not.received, StartsWith("HTTP/1.1 200"));
  // Who is refused at once gets no 100, and the connection ends: a body may or may not follow.
  service_.answer_at_once = [](ServerExchange& x) { x.Respond(401, "", "no"); };
  RawPeer refused = Connect();
  ASSERT_TRUE(refused.Send(head));
  ASSERT_TRUE(refused.WaitForEnd());
  EXPECT_THAT(refused.received, StartsWith("HTTP/1.1 401"));
  EXPECT_THAT(refused.received, HasSubstr("Connection: close\r\n"));
}

TEST_F(HttpServerTest, APausedBodyGetsItsContinueWhenItGoesOn) {
  Start();
  service_.prepare = [](TestHandler& h) { h.exchange->PauseBody(); };
  RawPeer client = Connect();
  ASSERT_TRUE(client.Send(
      "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"));
  ASSERT_TRUE(Requests(1));
  TurnABit(loop_);
  client.Poll();
  EXPECT_EQ(client.received, "");
  service_.last().exchange->ResumeBody();
  EXPECT_TRUE(client.WaitFor("100 Continue"));
}

TEST_F(HttpServerTest, BadHeadsAreAnsweredCountedAndTheConnectionEnds) {
  Start({.limits = {.head_bytes_max = 1024, .target_bytes_max = 100, .fields_max = 4}});
  const struct {
    std::string request;
    int status;
    wire::HttpError error;
  } kCases[] = {
      {"GET / HTTP/1.1\r\n\r\n", 400, wire::HttpError::kMissingHost},
      {"GET / HTTP/1.1\nHost: h\n\n", 400, wire::HttpError::kBareLf},
      {"GET / HTTP/3.0\r\n", 505, wire::HttpError::kUnsupportedVersion},
      {"GET /" + std::string(200, 'a') + " HTTP/1.1\r\nHost: h\r\n\r\n", 414,
       wire::HttpError::kTargetTooLong},
      {"GET / HTTP/1.1\r\nHost: h\r\nA: " + std::string(2000, 'a'), 431,
       wire::HttpError::kHeadTooLarge},
      {"GET / HTTP/1.1\r\nHost: h\r\nA: 1\r\nB: 1\r\nC: 1\r\nD: 1\r\n\r\n", 431,
       wire::HttpError::kTooManyFields},
      {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
       "\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n",
       400, wire::HttpError::kLengthAndTransferEncoding},
      {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", 501,
       wire::HttpError::kUnsupportedTransferEncoding},
  };
  for (const auto& c : kCases) {
    RawPeer client = Connect();
    const uint64_t before = server_->stats().bad_heads[static_cast<size_t>(c.error)];
    ASSERT_TRUE(client.Send(c.request));
    ASSERT_TRUE(client.WaitForEnd());
    EXPECT_FALSE(client.was_reset);
    EXPECT_THAT(client.received, StartsWith("HTTP/1.1 " + std::to_string(c.status) + " "));
    EXPECT_THAT(client.received, HasSubstr("Connection: close\r\n"));
    EXPECT_THAT(client.received, HasSubstr(R"("code":")"));
    EXPECT_EQ(server_->stats().bad_heads[static_cast<size_t>(c.error)], before + 1);
    EXPECT_EQ(service_.bad.back(), c.status);
  }
  EXPECT_TRUE(service_.seen.empty());
}

TEST_F(HttpServerTest, BodiesOverTheLimitGet413) {
  Start({.body_bytes_max = 10});
  Echo();
  RawPeer known = Connect();
  ASSERT_TRUE(known.Send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\n"));
  ASSERT_TRUE(known.WaitForEnd());
  EXPECT_THAT(known.received, StartsWith("HTTP/1.1 413 "));
  EXPECT_TRUE(service_.seen.empty());
  RawPeer chunked = Connect();
  ASSERT_TRUE(
      chunked.Send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                   "8\r\n01234567\r\n8\r\n01234567\r\n"));
  ASSERT_TRUE(chunked.WaitForEnd());
  EXPECT_THAT(chunked.received, StartsWith("HTTP/1.1 413 "));
  EXPECT_EQ(service_.last().gone, 1);
  EXPECT_EQ(service_.last().reason, GoneReason::kBodyTooLarge);
  EXPECT_EQ(server_->stats().bodies_too_large, 2u);
  RawPeer fits = Connect();
  ASSERT_TRUE(fits.Send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n0123456789"));
  EXPECT_TRUE(fits.WaitFor("\r\n\r\n0123456789"));
}

TEST_F(HttpServerTest, BrokenChunksEndTheExchange) {
  Start();
  Echo();
  RawPeer client = Connect();
  ASSERT_TRUE(
      client.Send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcX"));
  ASSERT_TRUE(client.WaitForEnd());
  EXPECT_THAT(client.received, StartsWith("HTTP/1.1 400 "));
  EXPECT_EQ(service_.last().reason, GoneReason::kBadBody);
}

TEST_F(HttpServerTest, SlowSendersMeetTheirTimeouts) {
  Start({.head_timeout = milliseconds(20),
         .body_timeout = milliseconds(20),
         .idle_timeout = milliseconds(20)});
  RawPeer idle = Connect();
  ASSERT_TRUE(idle.WaitForEnd());
  EXPECT_EQ(idle.received, "");
  EXPECT_EQ(server_->stats().idle_closed, 1u);

  RawPeer slow_head = Connect();
  ASSERT_TRUE(slow_head.Send("GET / HTTP/1.1\r\nHo"));
  ASSERT_TRUE(slow_head.WaitForEnd());
  EXPECT_THAT(slow_head.received, StartsWith("HTTP/1.1 408 "));
  EXPECT_EQ(server_->stats().head_timeouts, 1u);

  RawPeer slow_body = Connect();
  ASSERT_TRUE(slow_body.Send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc"));
  ASSERT_TRUE(slow_body.WaitForEnd());
  EXPECT_THAT(slow_body.received, StartsWith("HTTP/1.1 408 "));
  EXPECT_EQ(service_.last().reason, GoneReason::kBodyTimeout);
  EXPECT_EQ(server_->stats().body_timeouts, 1u);
}

// A head that trickles in byte by byte is measured from its first byte, not from its last.
TEST_F(HttpServerTest, ATricklingHeadDoesNotEscapeTheTimeout) {
  Start({.head_timeout = milliseconds(30)});
  RawPeer client = Connect();
  ASSERT_TRUE(client.Send("GET / HTTP/1.1\r\nX: "));
  EXPECT_TRUE(TurnUntil(loop_, [&] {
    client.SendSome("a");
    client.Poll();
    return client.ended;
  }));
  EXPECT_THAT(client.received, StartsWith("HTTP/1.1 408 "));
}

// Large bodies are read in large portions; that must neither stall nor time out a slow sender.
TEST_F(HttpServerTest, ALargeBodyThatTricklesInIsProgress) {
  Start({.body_timeout = milliseconds(40)});
  Echo();
  RawPeer client = Connect();
  const std::string body(400'000, 'b');
  ASSERT_TRUE(client.Send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 400000\r\n\r\n"));
  const base::TimePoint start = runtime::Now();
  std::string_view rest = body;
  while (!rest.empty()) {
    // About 50 portions of 8 KB, 5 ms apart: far longer in all than the timeout.
    ASSERT_TRUE(client.Send(rest.substr(0, 8000)));
    rest.remove_prefix(std::min<size_t>(rest.size(), 8000));
    const base::TimePoint until = runtime::Now() + milliseconds(5);
    while (runtime::Now() < until) loop_.Turn(milliseconds(1));
    client.Poll();
    if (!rest.empty()) ASSERT_EQ(client.received, "");
  }
  ASSERT_TRUE(client.WaitForBytes(body.size()));
  EXPECT_GT(runtime::Now() - start, milliseconds(200));
  EXPECT_EQ(server_->stats().body_timeouts, 0u);
  // And the connection is as attentive as before.
  client.Take();
  ASSERT_TRUE(client.Send(kGet));
  EXPECT_TRUE(client.WaitFor("\r\n\r\n"));
  // A sender that stops is noticed all the same.
  ASSERT_TRUE(client.Send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 400000\r\n\r\n" +
                          body.substr(0, 150'000)));
  ASSERT_TRUE(client.WaitForEnd());
  EXPECT_EQ(server_->stats().body_timeouts, 1u);
}

TEST_F(HttpServerTest, APausedBodyAndASlowAnswerHaveNoTimeout) {
  Start({.body_timeout = milliseconds(5), .idle_timeout = milliseconds(5)});
  service_.prepare = [](TestHandler& h) { h.exchange->PauseBody(); };
  RawPeer client = Connect();
  ASSERT_TRUE(client.Send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n"));
  ASSERT_TRUE(Requests(1));
  const base::TimePoint until = runtime::Now() + milliseconds(25);
  while (runtime::Now() < until) loop_.Turn(milliseconds(2));
  ASSERT_FALSE(service_.last().ended());
  ASSERT_TRUE(client.Send("abc"));
  service_.last().exchange->ResumeBody();
  ASSERT_TRUE(TurnUntil(loop_, [&] { return service_.last().body_ended; }));
  const base::TimePoint until2 = runtime::Now() + milliseconds(25);
  while (runtime::Now() < until2) loop_.Turn(milliseconds(2));
  service_.last().exchange->Respond(200, "", "late");
  EXPECT_TRUE(client.WaitFor("late"));
}

TEST_F(HttpServerTest, AClientThatTakesNothingIsGivenUp) {
  Start({.write_timeout = milliseconds(30)});
  service_.prepare = [](TestHandler& h) {
    h.on_body_end = [](TestHandler& self) {
      self.exchange->Respond(200, "", std::string(16 << 20, 'x'));
    };
  };
  RawPeer client = Connect();
  ASSERT_TRUE(client.Send(kGet));
  ASSERT_TRUE(
      TurnUntil(loop_, [&] { return !service_.handlers.empty() && service_.last().ended(); }));
  EXPECT_EQ(service_.last().reason, GoneReason::kWriteTimeout);
  EXPECT_EQ(server_->stats().write_timeouts, 1u);
}

TEST_F(HttpServerTest, TellsWhenTheClientIsGone) {
  Start();
  for (int way = 0; way < 3; ++way) {
    RawPeer client = Connect();
    ASSERT_TRUE(
        client.Send(way == 2 ? "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nab" : kGet));
    ASSERT_TRUE(TurnUntil(loop_, [&] { return service_.handlers.size() == size_t(way) + 1; }));
    if (way == 0) client.Close();
    if (way == 1) client.Reset();
    if (way == 2) client.ShutdownWrite();
    ASSERT_TRUE(TurnUntil(loop_, [&] { return service_.last().gone == 1; })) << way;
    EXPECT_EQ(service_.last().reason, GoneReason::kClosed);
    EXPECT_EQ(service_.last().finished, 0);
  }
  EXPECT_EQ(server_->connection_count(), 0u);
  EXPECT_EQ(server_->stats().client_gone, 3u);
}

TEST_F(HttpServerTest, HalfCloseIsServedWhenAllowed) {
  Start({.half_close_is_gone = false});
  RawPeer client = Connect();
  ASSERT_TRUE(client.Send(kGet));
  client.ShutdownWrite();
  ASSERT_TRUE(Requests(1));
  TurnABit(loop_);
  ASSERT_FALSE(service_.last().ended());
  service_.last().exchange->Respond(200, "", "answer");
  ASSERT_TRUE(client.WaitForEnd());
  EXPECT_THAT(client.received, HasSubstr("answer"));
  EXPECT_FALSE(client.was_reset);
}

TEST_F(HttpServerTest, AnAnswerGivenAtOnceReachesAClientThatHalfClosed) {
  Start();
  service_.answer_at_once = [](ServerExchange& x) { x.Respond(200, "", "answer"); };
  RawPeer client = Connect();
  TurnABit(loop_);
  ASSERT_TRUE(client.Send(std::string(kGet) + std::string(kGet)));
  client.ShutdownWrite();
  ASSERT_TRUE(client.WaitForEnd());
  EXPECT_EQ(service_.seen.size(), 2u);
  EXPECT_FALSE(client.was_reset);
  EXPECT_NE(client.received.find("answer"), client.received.rfind("answer"));
}

TEST_F(HttpServerTest, PauseHoldsTheBodyBackAtTheSender) {
  Start({.body_bytes_max = 64 << 20});
  service_.prepare = [](TestHandler& h) {
    h.on_body = [](TestHandler& self) { self.exchange->PauseBody(); };
  };
  RawPeer client = Connect();
  const std::string body(32 << 20, 'b');
  ASSERT_TRUE(client.Send(
      "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n"));
  std::string_view rest = body;
  for (int i = 0; i < 200; ++i) {
    rest.remove_prefix(client.SendSome(rest));
    loop_.Turn(milliseconds(0));
  }
  EXPECT_GT(rest.size(), 16u << 20);
  EXPECT_LT(service_.last().body.size(), 1u << 20);
  service_.last().on_body = nullptr;
  service_.last().exchange->ResumeBody();
  ASSERT_TRUE(client.Send(rest));
  ASSERT_TRUE(TurnUntil(loop_, [&] { return service_.last().body_ended; }));
  EXPECT_EQ(service_.last().body, body);
}

TEST_F(HttpServerTest, FramesResponsesForTheirClient) {
  Start();
  service_.answer_at_once = [](ServerExchange& x) {
    x.SendHead("HTTP/1.1 200 OK\r\nX-A: b\r\n", ResponseFraming::kChunked);
    x.SendBody("0123456789abcdef");
    x.SendBody(std::string(100, 'z'));
    x.Finish();
  };
  RawPeer modern = Connect();
  ASSERT_TRUE(modern.Send(kGet));
  ASSERT_TRUE(modern.WaitFor("\r\n0\r\n\r\n"));
  EXPECT_EQ(modern.Take(),
            "HTTP/1.1 200 OK\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n0123456789abcdef"
            "\r\n64\r\n" +
                std::string(100, 'z') + "\r\n0\r\n\r\n");
  ASSERT_TRUE(modern.Send("HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n"));
  ASSERT_TRUE(modern.WaitFor("\r\n\r\n"));
  TurnABit(loop_);
  modern.Poll();
  EXPECT_EQ(modern.Take(), "HTTP/1.1 200 OK\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n");
  RawPeer old = Connect();
  ASSERT_TRUE(old.Send("GET /a HTTP/1.0\r\n\r\n"));
  ASSERT_TRUE(old.WaitForEnd());
  EXPECT_EQ(old.received, "HTTP/1.1 200 OK\r\nX-A: b\r\nConnection: close\r\n\r\n0123456789abcdef" +
                              std::string(100, 'z'));
  service_.answer_at_once = [](ServerExchange& x) { x.Respond(200, "", "kept"); };
  RawPeer kept = Connect();
  ASSERT_TRUE(kept.Send("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
  ASSERT_TRUE(kept.WaitFor("kept"));
  EXPECT_THAT(kept.received, HasSubstr("Connection: keep-alive\r\n"));
  EXPECT_FALSE(kept.ended);
}

TEST_F(HttpServerTest, AResponseThatIsTooShortEndsTheConnection) {
  Start();
  service_.answer_at_once = [](ServerExchange& x) {
    x.SendHead("HTTP/1.1 200 OK\r\n", ResponseFraming::kLength, 10);
    x.SendBody("short");
    x.Finish();
  };
  RawPeer client = Connect();
  ASSERT_TRUE(client.Send(kGet));
  ASSERT_TRUE(client.WaitForEnd());
  EXPECT_THAT(client.received, HasSubstr("\r\n\r\nshort"));
}

TEST_F(HttpServerTest, AbortResetsTheConnection) {
  Start();
  RawPeer client = Connect();
  ASSERT_TRUE(client.Send(kGet));
  ASSERT_TRUE(Requests(1));
  service_.last().exchange->SendHead("HTTP/1.1 200 OK\r\n", ResponseFraming::kUntilClose);
  service_.last().exchange->Abort();
  EXPECT_EQ(service_.last().gone, 0) << "not from inside the call";
  ASSERT_TRUE(client.WaitForEnd());
  EXPECT_TRUE(client.was_reset);
  EXPECT_EQ(service_.last().gone, 1);
  EXPECT_EQ(service_.last().reason, GoneReason::kAborted);
}

TEST_F(HttpServerTest, WatermarksHoldBackTheSource) {
  Start();
  RawPeer client = Connect();
  ASSERT_TRUE(client.Send(kGet));
  ASSERT_TRUE(Requests(1));
  TestHandler& handler = service_.last();
  handler.exchange->SendHead("HTTP/1.1 200 OK\r\n", ResponseFraming::kUntilClose);
  size_t sent = 0;
  auto fill = [&] {
    while (handler.exchange->pending_bytes() < ServerExchange::kPendingHighBytes &&
           sent < 40u << 20) {
      handler.exchange->SendBody(std::string_view("0123456789abcdef0123456789abcdef"));
      sent += 32;
      if (sent % (64 << 10) == 0) {
        handler.exchange->SendBody(std::string(64 << 10, 'y'));
        sent += 64 << 10;
      }
    }
  };
  fill();
  EXPECT_EQ(handler.writable_count, 0);
  EXPECT_LT(sent, 20u << 20);
  handler.on_writable = [&](TestHandler& h) {
    EXPECT_LE(h.exchange->pending_bytes(), ServerExchange::kPendingLowBytes);
    fill();
    if (sent >= 40u << 20) h.exchange->Finish();
  };
  ASSERT_TRUE(client.WaitForEnd());
  EXPECT_GT(handler.writable_count, 2);
  EXPECT_EQ(client.received.size() - client.received.find("\r\n\r\n") - 4, sent);
}

// A slow reader of many small pieces must not pin one large block per piece.
TEST_F(HttpServerTest, SmallPiecesDoNotPinLargeBlocks) {
  Start();
  RawPeer client = Connect();
  ASSERT_TRUE(client.Send(kGet));
  ASSERT_TRUE(Requests(1));
  TestHandler& handler = service_.last();
  handler.exchange->SendHead("HTTP/1.1 200 OK\r\n", ResponseFraming::kUntilClose);
  handler.exchange->SendBody(std::string(8 << 20, 'x'));
  loop_.Turn(milliseconds(0));
  const size_t before = loop_.buffers().live_bytes();
  for (int i = 0; i < 2000; ++i) {
    base::Block* block = loop_.buffers().Get(16 << 10);
    handler.exchange->SendBody(base::Slice(block, block->data(), 200));
  }
  EXPECT_LT(loop_.buffers().live_bytes() - before, 4u * 2000 * 200);
}

TEST_F(HttpServerTest, AnEarlyAnswerKeepsTheConnectionWhenTheRestIsShort) {
  Start();
  service_.answer_at_once = [](ServerExchange& x) { x.Respond(429, "", "no"); };
  RawPeer client = Connect();
  ASSERT_TRUE(client.Send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n"));
  ASSERT_TRUE(client.WaitFor("no"));
  EXPECT_THAT(client.Take(), Not(HasSubstr("close")));
  ASSERT_TRUE(client.Send(std::string(1000, 'b') + std::string(kGet)));
  ASSERT_TRUE(Requests(2));
  EXPECT_EQ(service_.seen[1], "GET /a");
}

TEST_F(HttpServerTest, AnEarlyAnswerReachesAClientThatIsStillSending) {
  Start({.body_bytes_max = 64 << 20});
  service_.answer_at_once = [](ServerExchange& x) { x.Respond(403, "", "forbidden"); };
  RawPeer client = Connect();
  ASSERT_TRUE(client.Send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 20000000\r\n\r\n"));
  ASSERT_TRUE(Requests(1));
  ASSERT_TRUE(client.Send(std::string(10 << 20, 'b')));
  ASSERT_TRUE(client.WaitFor("forbidden"));
  EXPECT_THAT(client.received, HasSubstr("Connection: close"));
  EXPECT_FALSE(client.was_reset);
}

TEST_F(HttpServerTest, DrainClosesIdleConnectionsAndEndsTheOthersAfterTheirExchange) {
  Start();
  RawPeer idle = Connect();
  RawPeer busy = Connect();
  ASSERT_TRUE(busy.Send(kGet));
  ASSERT_TRUE(Requests(1));
  ASSERT_TRUE(TurnUntil(loop_, [&] { return server_->connection_count() == 2; }));
  bool done = false;
  server_->Drain(std::chrono::seconds(10), [&] { done = true; });
  ASSERT_TRUE(idle.WaitForEnd());
  EXPECT_FALSE(done);
  service_.last().exchange->Respond(200, "", "last");
  ASSERT_TRUE(busy.WaitForEnd());
  EXPECT_THAT(busy.received, HasSubstr("Connection: close\r\n"));
  EXPECT_TRUE(TurnUntil(loop_, [&] { return done; }));
}

TEST_F(HttpServerTest, DrainAbortsWhatIsLeftAtTheLimit) {
  Start();
  RawPeer busy = Connect();
  ASSERT_TRUE(busy.Send(kGet));
  ASSERT_TRUE(Requests(1));
  bool done = false;
  server_->Drain(milliseconds(10), [&] { done = true; });
  EXPECT_TRUE(TurnUntil(loop_, [&] { return done; }));
  EXPECT_EQ(service_.last().reason, GoneReason::kAborted);
}

TEST_F(HttpServerTest, ConnectionsOverTheLimitAreRefusedAndCounted) {
  Start({.connections_max = 1});
  RawPeer first = Connect();
  ASSERT_TRUE(TurnUntil(loop_, [&] { return server_->connection_count() == 1; }));
  RawPeer second = Connect();
  ASSERT_TRUE(second.WaitForEnd());
  EXPECT_THAT(second.received, StartsWith("HTTP/1.1 503 "));
  EXPECT_EQ(server_->stats().refused_full, 1u);
}

TEST_F(HttpServerTest, RequestsPerConnectionMayBeLimited) {
  Start({.requests_per_connection_max = 2});
  service_.answer_at_once = [](ServerExchange& x) { x.Respond(200, "", "x"); };
  RawPeer client = Connect();
  ASSERT_TRUE(client.Send(std::string(kGet) + std::string(kGet) + std::string(kGet)));
  ASSERT_TRUE(client.WaitForEnd());
  EXPECT_EQ(service_.seen.size(), 2u);
}

TEST_F(HttpServerTest, DestroyingTheServerTellsItsHandlers) {
  Start();
  RawPeer client = Connect();
  ASSERT_TRUE(client.Send(kGet));
  ASSERT_TRUE(Requests(1));
  server_.reset();
  EXPECT_EQ(service_.last().reason, GoneReason::kAborted);
  EXPECT_EQ(service_.last().gone, 1);
}

TEST_F(HttpServerTest, AThousandIdleConnectionsAreCheap) {
  runtime::RaiseOpenFileLimit();
  Start();
  service_.answer_at_once = [](ServerExchange& x) { x.Respond(200, "", "x"); };
  std::vector<RawPeer> clients;
  const uint64_t before = runtime::ResidentBytes();
  for (int i = 0; i < 1000; ++i) {
    clients.push_back(Connect());
    ASSERT_TRUE(clients.back().Send(kGet));
    ASSERT_TRUE(clients.back().WaitFor("x"));
    clients.back().Take();
  }
  EXPECT_EQ(server_->connection_count(), 1000u);
  EXPECT_EQ(loop_.buffers().live_bytes(), 0u);
  // Sanitizers keep freed memory aside, so the bound is generous there.
  EXPECT_LT(runtime::ResidentBytes() - before, 16u << 20);
}

}  // namespace
}  // namespace llmd::net
