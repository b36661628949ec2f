#include "net/http_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "base/random.h"
#include "net/net_testing.h"

namespace llmd::net {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr std::string_view kGet = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
constexpr std::string_view kReply = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

class HttpClientTest : public ::testing::Test {
 protected:
  HttpClientTest() : engine_(loop_) { NewClient({}); }
  void NewClient(HttpClientOptions options) {
    client_ = std::make_unique<HttpClient>(loop_, std::move(options));
    target_ =
        client_->AddTarget({.address = runtime::SocketAddress::Ipv4(kLoopback, engine_.port())});
  }
  ClientExchange* Start(TestClient& handler, const StartOptions& options = {},
                        std::string_view head = kGet) {
    return client_->Start(target_, base::Slice::Unowned(head), {}, handler, options);
  }
  bool Done(const TestClient& handler) {
    return TurnUntil(loop_, [&] { return handler.done(); });
  }

  runtime::EventLoop loop_;
  RawListener engine_;
  std::unique_ptr<HttpClient> client_;
  ClientTarget* target_ = nullptr;
};

// The tutorial: two requests over one connection.
TEST_F(HttpClientTest, SendsRequestsAndKeepsTheConnection) {
  TestClient first;
  Start(first);
  RawPeer engine = engine_.Accept();
  ASSERT_TRUE(engine.WaitFor("\r\n\r\n"));
  EXPECT_EQ(engine.Take(), kGet);
  ASSERT_TRUE(engine.Send(kReply));
  ASSERT_TRUE(Done(first));
  EXPECT_EQ(first.status, 200);
  EXPECT_EQ(first.body, "hello");
  EXPECT_EQ(first.ended, 1);
  EXPECT_EQ(client_->idle_count(target_), 1u);

  TestClient second;
  ClientExchange* exchange = Start(second);
  EXPECT_TRUE(exchange->reused_connection());
  ASSERT_TRUE(engine.WaitFor("\r\n\r\n"));
  ASSERT_TRUE(engine.Send(kReply));
  ASSERT_TRUE(Done(second));
  EXPECT_EQ(client_->stats().connects, 1u);
  EXPECT_EQ(client_->stats().reused, 1u);
}

TEST_F(HttpClientTest, SendsHeadAndBodySlicesTogether) {
  TestClient handler;
  const base::Slice body[] = {loop_.buffers().Copy("abc"), loop_.buffers().Copy("def")};
  client_->Start(target_, loop_.buffers().Copy("POST / HTTP/1.1\r\nContent-Length: 6\r\n\r\n"),
                 body, handler);
  RawPeer engine = engine_.Accept();
  EXPECT_TRUE(engine.WaitFor("\r\n\r\nabcdef"));
}

// Whatever the split: the raw bytes are all of the body as sent, the decoded ones its content.
TEST_F(HttpClientTest, DeliversRawAndDecodedBytesOfAChunkedReply) {
  const std::string head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  const std::string body = "5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nT: v\r\n\r\n";
  const std::string reply = head + body;
  std::optional<RawPeer> engine;
  for (size_t split = 1; split <= reply.size(); ++split) {
    TestClient handler;
    Start(handler);
    if (!engine) engine.emplace(engine_.Accept());
    ASSERT_TRUE(engine->WaitFor("\r\n\r\n"));
    engine->Take();
    ASSERT_TRUE(engine->Send(reply.substr(0, split)));
    loop_.Turn(milliseconds(0));
    loop_.Turn(milliseconds(0));
    ASSERT_TRUE(engine->Send(reply.substr(split)));
    ASSERT_TRUE(Done(handler));
    ASSERT_EQ(handler.raw, body) << split;
    ASSERT_EQ(handler.body, "hello world");
  }
  EXPECT_EQ(client_->stats().connects, 1u);
}

TEST_F(HttpClientTest, ManyTinyChunksInOneReadAreAllDelivered) {
  std::string reply = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 1000; ++i) reply += "1\r\nx\r\n";
  reply += "0\r\n\r\n";
  TestClient handler;
  Start(handler);
  RawPeer engine = engine_.Accept();
  ASSERT_TRUE(engine.Send(reply));
  ASSERT_TRUE(Done(handler));
  EXPECT_EQ(handler.body, std::string(1000, 'x'));
}

TEST_F(HttpClientTest, ReadsAReplyUntilTheConnectionCloses) {
  TestClient handler;
  Start(handler);
  RawPeer engine = engine_.Accept();
  ASSERT_TRUE(engine.WaitFor("\r\n\r\n"));  // unread bytes would turn the close into a reset
  ASSERT_TRUE(engine.Send("HTTP/1.1 200 OK\r\n\r\nall of "));
  TurnABit(loop_);
  ASSERT_TRUE(engine.Send("this"));
  engine.Close();
  ASSERT_TRUE(Done(handler));
  EXPECT_EQ(handler.ended, 1);
  EXPECT_EQ(handler.body, "all of this");
  TurnABit(loop_);
  EXPECT_EQ(client_->idle_count(target_) + client_->active_count(target_), 0u);
}

TEST_F(HttpClientTest, SkipsInterimReplies) {
  TestClient handler;
  Start(handler);
  RawPeer engine = engine_.Accept();
  ASSERT_TRUE(
      engine.Send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" +
                  std::string(kReply)));
  ASSERT_TRUE(Done(handler));
  EXPECT_EQ(handler.status, 200);
  EXPECT_EQ(handler.body, "hello");
}

TEST_F(HttpClientTest, RepliesWithoutBodyEndAtTheirHead) {
  for (bool head_request : {true, false}) {
    TestClient handler;
    Start(handler, {.head_request = head_request},
          head_request ? "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n" : kGet);
    RawPeer engine = engine_.Accept();
    ASSERT_TRUE(engine.Send(head_request ? "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
                                         : "HTTP/1.1 204 No Content\r\n\r\n"));
    ASSERT_TRUE(Done(handler));
    EXPECT_EQ(handler.ended, 1);
    EXPECT_EQ(client_->idle_count(target_), 1u);
    NewClient({});
  }
}

TEST_F(HttpClientTest, ConnectionsThatMayNotBeUsedAgainAreClosed) {
  for (std::string reply :
       {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloEXTRA"}) {
    TestClient handler;
    Start(handler);
    RawPeer engine = engine_.Accept();
    ASSERT_TRUE(engine.Send(reply));
    ASSERT_TRUE(Done(handler));
    EXPECT_EQ(handler.body, "hello");
    EXPECT_EQ(client_->idle_count(target_), 0u);
    EXPECT_TRUE(engine.WaitForEnd());
  }
}

TEST_F(HttpClientTest, TheConnectionUsedLastIsUsedFirst) {
  TestClient a, b;
  Start(a);
  RawPeer first = engine_.Accept();
  Start(b);
  RawPeer second = engine_.Accept();
  ASSERT_TRUE(first.Send(kReply));
  ASSERT_TRUE(Done(a));
  ASSERT_TRUE(second.Send(kReply));
  ASSERT_TRUE(Done(b));
  first.Poll();
  second.Poll();
  first.Take();
  second.Take();
  TestClient c;
  Start(c);
  EXPECT_TRUE(second.WaitFor("\r\n\r\n"));
  first.Poll();
  EXPECT_EQ(first.received, "");
}

TEST_F(HttpClientTest, TellsHowAnExchangeFailed) {
  const struct {
    std::string reply;
    ClientErrorKind kind;
    bool head_received;
  } kCases[] = {
      {"", ClientErrorKind::kResetBeforeReply, false},
      {"HTTP/1.1 200 OK\r\nConte", ClientErrorKind::kBodyCut, false},
      {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", ClientErrorKind::kBodyCut, true},
      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
       ClientErrorKind::kBodyCut, true},
      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz", ClientErrorKind::kBadReply,
       true},
      {"SSH-2.0-OpenSSH\r\n", ClientErrorKind::kBadReply, false},
      {"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", ClientErrorKind::kBadReply, false},
  };
  for (const auto& c : kCases) {
    for (bool reset : {false, true}) {
      TestClient handler;
      Start(handler);
      RawPeer engine = engine_.Accept();
      ASSERT_TRUE(engine.WaitFor("\r\n\r\n"));
      ASSERT_TRUE(engine.Send(c.reply));
      TurnABit(loop_, 2);
      reset ? engine.Reset() : engine.Close();
      ASSERT_TRUE(Done(handler));
      EXPECT_EQ(handler.failed, 1);
      EXPECT_EQ(handler.ended, 0);
      EXPECT_EQ(ClientErrorName(handler.error.kind), ClientErrorName(c.kind)) << c.reply;
      EXPECT_EQ(handler.error.head_received, c.head_received);
      EXPECT_EQ(handler.error.response_bytes, c.reply.size());
      EXPECT_TRUE(handler.error.request_sent);
      EXPECT_EQ(handler.error.request_bytes_sent, kGet.size());
      EXPECT_FALSE(handler.error.reused_connection);
    }
  }
}

TEST_F(HttpClientTest, TellsThatAPooledConnectionDied) {
  TestClient first, second;
  Start(first);
  RawPeer engine = engine_.Accept();
  ASSERT_TRUE(engine.Send(kReply));
  ASSERT_TRUE(Done(first));
  // Closed after the pool has given it out: no turn lies between.
  engine.Reset();
  Start(second);
  EXPECT_EQ(second.failed, 0) << "never from inside Start";
  ASSERT_TRUE(Done(second));
  EXPECT_EQ(second.error.kind, ClientErrorKind::kResetBeforeReply);
  EXPECT_TRUE(second.error.reused_connection);
}

TEST_F(HttpClientTest, RefusedConnectionsFailAfterStart) {
  engine_.Close();
  TestClient handler;
  Start(handler);
  EXPECT_FALSE(handler.done());
  ASSERT_TRUE(Done(handler));
  EXPECT_EQ(handler.error.kind, ClientErrorKind::kConnectFailed);
  EXPECT_EQ(handler.error.errno_value, ECONNREFUSED);
  EXPECT_FALSE(handler.error.request_sent);
  EXPECT_EQ(client_->stats().connect_failures, 1u);
}

TEST_F(HttpClientTest, AConnectThatHangsTimesOut) {
  // A listener whose queue is full leaves further connects unanswered.
  const int fd =
      runtime::ListenTcp(runtime::SocketAddress::Ipv4(kLoopback, 0), {.backlog = 0}).value();
  const uint16_t port = runtime::LocalAddress(fd)->port();
  std::vector<RawPeer> queue;
  for (int i = 0; i < 4; ++i) queue.push_back(RawPeer::ConnectTo(loop_, port));
  TurnABit(loop_);
  ClientTarget* target =
      client_->AddTarget({.address = runtime::SocketAddress::Ipv4(kLoopback, port)});
  TestClient handler;
  client_->Start(target, base::Slice::Unowned(kGet), {}, handler,
                 {.timeouts = {.connect = milliseconds(20)}});
  ASSERT_TRUE(Done(handler));
  EXPECT_EQ(handler.error.kind, ClientErrorKind::kConnectTimeout);
  runtime::CloseFd(fd);
}

TEST_F(HttpClientTest, HeadAndBodyHaveTimeouts) {
  TestClient head;
  Start(head, {.timeouts = {.head = milliseconds(15)}});
  RawPeer engine = engine_.Accept();
  ASSERT_TRUE(Done(head));
  EXPECT_EQ(head.error.kind, ClientErrorKind::kHeadTimeout);
  EXPECT_TRUE(engine.WaitForEnd());
  TestClient body;
  Start(body, {.timeouts = {.body_idle = milliseconds(15)}});
  RawPeer other = engine_.Accept();
  ASSERT_TRUE(other.Send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"));
  ASSERT_TRUE(Done(body));
  EXPECT_EQ(body.error.kind, ClientErrorKind::kBodyTimeout);
  EXPECT_EQ(body.body, "hel");
}

TEST_F(HttpClientTest, AnEngineThatTakesNothingTimesOut) {
  TestClient handler;
  const std::string large(32 << 20, 'x');
  const base::Slice body[] = {base::Slice::Unowned(large)};
  client_->Start(target_, base::Slice::Unowned("POST / HTTP/1.1\r\n\r\n"), body, handler,
                 {.timeouts = {.write = milliseconds(20)}});
  RawPeer engine = engine_.Accept();
  ASSERT_TRUE(Done(handler));
  EXPECT_EQ(handler.error.kind, ClientErrorKind::kWriteTimeout);
  EXPECT_FALSE(handler.error.request_sent);
  EXPECT_GT(handler.error.request_bytes_sent, 0u);
}

TEST_F(HttpClientTest, PauseHoldsTheReplyBackAtTheEngine) {
  TestClient handler;
  ClientExchange* exchange = Start(handler, {.timeouts = {.body_idle = milliseconds(30)}});
  handler.on_body = [&] { exchange->Pause(); };
  RawPeer engine = engine_.Accept();
  const std::string body(24 << 20, 'b');
  ASSERT_TRUE(engine.Send("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) +
                          "\r\n\r\n"));
  std::string_view rest = body;
  const base::TimePoint until = runtime::Now() + milliseconds(60);
  while (runtime::Now() < until) {
    rest.remove_prefix(engine.SendSome(rest));
    loop_.Turn(milliseconds(1));
  }
  EXPECT_GT(rest.size(), 10u << 20);
  EXPECT_LT(handler.body.size(), 1u << 20);
  ASSERT_FALSE(handler.done()) << "paused time does not count";
  handler.on_body = nullptr;
  exchange->Resume();
  ASSERT_TRUE(engine.Send(rest));
  ASSERT_TRUE(Done(handler));
  EXPECT_EQ(handler.ended, 1);
  EXPECT_EQ(handler.body, body);
}

TEST_F(HttpClientTest, APausedReplyEndsOnlyAfterResume) {
  TestClient handler;
  ClientExchange* exchange = Start(handler);
  handler.on_body = [&] { exchange->Pause(); };
  RawPeer engine = engine_.Accept();
  ASSERT_TRUE(engine.Send(kReply));
  ASSERT_TRUE(TurnUntil(loop_, [&] { return handler.body == "hello"; }));
  TurnABit(loop_);
  EXPECT_FALSE(handler.done());
  exchange->Resume();
  ASSERT_TRUE(Done(handler));
  EXPECT_EQ(client_->idle_count(target_), 1u);
}

TEST_F(HttpClientTest, CancelClosesAtOnceAndSilently) {
  enum class When { kConnecting, kWaiting, kInHead, kInBody };
  for (When when : {When::kConnecting, When::kWaiting, When::kInHead, When::kInBody}) {
    TestClient handler;
    ClientExchange* exchange = Start(handler);
    bool cancelled = false;
    auto cancel = [&] {
      if (!std::exchange(cancelled, true)) exchange->Cancel();
    };
    if (when == When::kConnecting) cancel();
    RawPeer engine = engine_.Accept();
    if (when == When::kWaiting) {
      ASSERT_TRUE(engine.WaitFor("\r\n\r\n"));
      cancel();
    }
    if (when == When::kInHead) handler.on_head = cancel;
    if (when == When::kInBody) handler.on_body = cancel;
    engine.SendSome(kReply);
    ASSERT_TRUE(engine.WaitForEnd());
    TurnABit(loop_);
    EXPECT_EQ(handler.ended + handler.failed, 0);
    EXPECT_EQ(client_->active_count(target_) + client_->idle_count(target_), 0u);
  }
  EXPECT_EQ(client_->stats().cancelled, 4u);
}

TEST_F(HttpClientTest, IdleConnectionsLeaveThePoolWhenTheEngineClosesOrSpeaks) {
  for (bool speaks : {false, true}) {
    TestClient handler;
    Start(handler);
    RawPeer engine = engine_.Accept();
    ASSERT_TRUE(engine.Send(kReply));
    ASSERT_TRUE(Done(handler));
    EXPECT_EQ(client_->idle_count(target_), 1u);
    speaks ? static_cast<void>(engine.Send("unasked")) : engine.Close();
    EXPECT_TRUE(TurnUntil(loop_, [&] { return client_->idle_count(target_) == 0; }));
  }
  EXPECT_EQ(client_->stats().idle_closed_by_server, 2u);
}

TEST_F(HttpClientTest, IdleConnectionsAreClosedAfterTheirTime) {
  NewClient({.idle_timeout = milliseconds(15)});
  TestClient handler;
  Start(handler);
  RawPeer engine = engine_.Accept();
  ASSERT_TRUE(engine.Send(kReply));
  ASSERT_TRUE(Done(handler));
  EXPECT_TRUE(engine.WaitForEnd());
  EXPECT_EQ(client_->idle_count(target_), 0u);
}

TEST_F(HttpClientTest, StreamsARequestWithLengthOrChunks) {
  for (bool chunked : {false, true}) {
    TestClient handler;
    ClientExchange* exchange = Start(
        handler, {.request_body = chunked ? RequestBody::kStreamedChunked : RequestBody::kStreamed},
        "POST / HTTP/1.1\r\n\r\n");
    exchange->SendBody(loop_.buffers().Copy("abc"));
    RawPeer engine = engine_.Accept();
    ASSERT_TRUE(engine.WaitFor(chunked ? "3\r\nabc\r\n" : "abc"));
    exchange->SendBody(loop_.buffers().Copy(std::string(300, 'd')));
    exchange->FinishBody();
    ASSERT_TRUE(engine.WaitFor(chunked ? "\r\n0\r\n\r\n" : "dddd"));
    EXPECT_THAT(engine.received, HasSubstr(chunked ? "3\r\nabc\r\n12c\r\nddd" : "abcddd"));
    ASSERT_TRUE(engine.Send(kReply));
    ASSERT_TRUE(Done(handler));
    EXPECT_EQ(handler.ended, 1);
    NewClient({});
  }
}

TEST_F(HttpClientTest, AStreamedRequestFeelsBackPressure) {
  TestClient handler;
  ClientExchange* exchange =
      Start(handler, {.request_body = RequestBody::kStreamed}, "POST / HTTP/1.1\r\n\r\n");
  RawPeer engine = engine_.Accept();
  const std::string piece(64 << 10, 'p');
  size_t sent = 0;
  while (exchange->request_pending_bytes() < ClientExchange::kPendingHighBytes &&
         sent < 64u << 20) {
    exchange->SendBody(loop_.buffers().Copy(piece));
    sent += piece.size();
    loop_.Turn(milliseconds(0));
  }
  ASSERT_LT(sent, 32u << 20);
  EXPECT_EQ(handler.writable_count, 0);
  ASSERT_TRUE(TurnUntil(loop_, [&] {
    engine.Poll();
    return handler.writable_count == 1;
  }));
  exchange->FinishBody();
  EXPECT_TRUE(engine.WaitForBytes(sent));
}

TEST_F(HttpClientTest, AnEarlyReplyIsDeliveredAndTheConnectionDropped) {
  TestClient handler;
  const std::string large(16 << 20, 'x');
  const base::Slice body[] = {base::Slice::Unowned(large)};
  client_->Start(target_, base::Slice::Unowned("POST / HTTP/1.1\r\n\r\n"), body, handler);
  RawPeer engine = engine_.Accept();
  ASSERT_TRUE(engine.WaitForBytes(1000));
  ASSERT_TRUE(engine.Send("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"));
  ASSERT_TRUE(Done(handler));
  EXPECT_EQ(handler.status, 413);
  EXPECT_EQ(handler.body, "no");
  EXPECT_EQ(handler.ended, 1);
  EXPECT_EQ(client_->idle_count(target_), 0u);
}

TEST_F(HttpClientTest, TheNextExchangeMayStartInsideTheEndOfTheLast) {
  TestClient second;
  TestClient first;
  first.on_end = [&] { Start(second); };
  Start(first);
  RawPeer engine = engine_.Accept();
  ASSERT_TRUE(engine.WaitFor("\r\n\r\n"));
  engine.Take();
  ASSERT_TRUE(engine.Send(kReply));
  ASSERT_TRUE(engine.WaitFor("\r\n\r\n"));
  ASSERT_TRUE(engine.Send(kReply));
  ASSERT_TRUE(Done(second));
  EXPECT_EQ(second.body, "hello");
  EXPECT_EQ(client_->stats().connects, 1u);
}

TEST_F(HttpClientTest, ARetryMayStartInsideAnError) {
  TestClient second;
  TestClient first;
  first.on_error = [&] { Start(second); };
  Start(first);
  engine_.Accept().Reset();
  RawPeer engine = engine_.Accept();
  ASSERT_TRUE(engine.Send(kReply));
  ASSERT_TRUE(Done(second));
  EXPECT_EQ(second.ended, 1);
}

TEST_F(HttpClientTest, RemovingATargetLeavesItsExchangesAlone) {
  TestClient idle, busy;
  Start(idle);
  RawPeer one = engine_.Accept();
  Start(busy);
  RawPeer two = engine_.Accept();
  ASSERT_TRUE(one.Send(kReply));
  ASSERT_TRUE(Done(idle));
  client_->RemoveTarget(target_);
  EXPECT_TRUE(one.WaitForEnd());
  ASSERT_TRUE(two.Send(kReply));
  ASSERT_TRUE(Done(busy));
  EXPECT_EQ(busy.ended, 1);
  EXPECT_TRUE(two.WaitForEnd());
}

TEST_F(HttpClientTest, ConnectionsPerTargetAreLimited) {
  NewClient({.connections_per_target_max = 1});
  TestClient first, second;
  Start(first);
  Start(second);
  ASSERT_TRUE(Done(second));
  EXPECT_EQ(second.error.kind, ClientErrorKind::kTooManyConnections);
  RawPeer engine = engine_.Accept();
  ASSERT_TRUE(engine.Send(kReply));
  ASSERT_TRUE(Done(first));
  EXPECT_EQ(first.ended, 1);
}

TEST_F(HttpClientTest, DestroyingTheClientIsSilent) {
  TestClient handler;
  Start(handler);
  RawPeer engine = engine_.Accept();
  client_.reset();
  EXPECT_TRUE(engine.WaitForEnd());
  EXPECT_FALSE(handler.done());
}

// A relay as the gateway does it, in both directions at random sizes, framings and pauses: what
// comes out is what went in.
class Relay final : public HttpService {
 public:
  Relay(runtime::EventLoop& loop, uint16_t port, uint64_t seed) : client_(loop), random_(seed) {
    target_ = client_.AddTarget({.address = runtime::SocketAddress::Ipv4(kLoopback, port)});
  }
  ExchangeHandler* OnRequest(ServerExchange& exchange) override {
    return new Pair(*this, exchange);
  }
  HttpClient& client() { return client_; }

 private:
  struct Pair final : ExchangeHandler, ClientHandler {
    Pair(Relay& r, ServerExchange& exchange) : relay(r), down(exchange) {
      const bool chunked =
          r.random_.Below(2) == 0 || exchange.head().framing == wire::HttpFraming::kChunked;
      std::string head = "POST /echo HTTP/1.1\r\nHost: h\r\n";
      head += chunked ? "Transfer-Encoding: chunked\r\n\r\n"
                      : "Content-Length: " + std::to_string(exchange.head().content_length) +
                            "\r\n\r\n";
      up = r.client_.Start(
          r.target_, exchange.loop().buffers().Copy(head), {}, *this,
          {.request_body = chunked ? RequestBody::kStreamedChunked : RequestBody::kStreamed});
    }
    void OnBody(base::Slice piece) override {
      up->SendBody(std::move(piece));
      if (up->request_pending_bytes() >= ClientExchange::kPendingHighBytes) down.PauseBody();
    }
    void OnRequestWritable() override { down.ResumeBody(); }
    void OnBodyEnd() override { up->FinishBody(); }
    void OnResponseHead(const wire::ResponseHead& head) override {
      raw = head.framing == wire::HttpFraming::kChunked && relay.random_.Below(2) == 0;
      const ResponseFraming framing = raw ? ResponseFraming::kRawChunked
                                      : head.framing == wire::HttpFraming::kLength
                                          ? ResponseFraming::kLength
                                          : ResponseFraming::kChunked;
      down.SendHead("HTTP/1.1 200 OK\r\n", framing, head.content_length);
    }
    void OnResponseBody(const base::Slice& bytes,
                        std::span<const std::string_view> decoded) override {
      if (raw) {
        down.SendBody(bytes);
      } else {
        for (std::string_view piece : decoded) {
          down.SendBody(bytes.Sub(static_cast<size_t>(piece.data() - bytes.data()), piece.size()));
        }
      }
      if (down.pending_bytes() >= ServerExchange::kPendingHighBytes) up->Pause();
    }
    void OnWritable() override {
      if (up) up->Resume();
    }
    void OnResponseEnd() override {
      up = nullptr;
      down.Finish();
    }
    void OnResponseError(const ClientError& error) override {
      up = nullptr;
      ADD_FAILURE() << ClientErrorName(error.kind);
      down.Abort();
    }
    void OnFinished() override { delete this; }
    void OnClientGone(GoneReason) override {
      if (up) up->Cancel();
      delete this;
    }
    Relay& relay;
    ServerExchange& down;
    ClientExchange* up = nullptr;
    bool raw = false;
  };

  HttpClient client_;
  ClientTarget* target_;
  base::Random random_;
};

TEST(HttpRelay, WhatComesOutIsWhatWentIn) {
  runtime::EventLoop loop;
  base::Random random(4711);
  TestService echo;
  echo.prepare = [&](TestHandler& h) {
    h.on_body_end = [&](TestHandler& self) {
      if (random.Below(2) == 0) {
        self.exchange->Respond(200, "", self.body);
        return;
      }
      self.exchange->SendHead("HTTP/1.1 200 OK\r\n", ResponseFraming::kChunked);
      std::string_view rest = self.body;
      while (!rest.empty()) {
        const size_t n =
            std::min<size_t>(rest.size(), 1 + random.Below(random.Below(2) ? 300 : 90'000));
        self.exchange->SendBody(rest.substr(0, n));
        rest.remove_prefix(n);
      }
      self.exchange->Finish();
    };
  };
  HttpServer engine(loop, echo, {.body_bytes_max = 64 << 20});
  const uint16_t engine_port = engine.Listen(runtime::SocketAddress::Ipv4(kLoopback, 0)).value();
  Relay relay(loop, engine_port, 99);
  HttpServer gateway(loop, relay, {.body_bytes_max = 64 << 20});
  const uint16_t port = gateway.Listen(runtime::SocketAddress::Ipv4(kLoopback, 0)).value();

  HttpClient client(loop);
  ClientTarget* target =
      client.AddTarget({.address = runtime::SocketAddress::Ipv4(kLoopback, port)});
  for (int round = 0; round < 150; ++round) {
    std::vector<std::unique_ptr<TestClient>> clients;
    std::vector<std::string> bodies;
    for (uint64_t n = 1 + random.Below(4); n > 0; --n) {
      const size_t size = random.Below(round % 10 == 0 ? 3'000'000 : 40'000);
      std::string body(size, '\0');
      for (size_t i = 0; i < size; i += 1 + i / 64) body[i] = static_cast<char>(random.Next());
      const base::Slice slice = loop.buffers().Copy(body);
      clients.push_back(std::make_unique<TestClient>());
      client.Start(target,
                   loop.buffers().Copy("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: " +
                                       std::to_string(size) + "\r\n\r\n"),
                   {&slice, 1}, *clients.back());
      bodies.push_back(std::move(body));
    }
    for (size_t i = 0; i < clients.size(); ++i) {
      ASSERT_TRUE(TurnUntil(loop, [&] { return clients[i]->done(); }));
      ASSERT_EQ(clients[i]->ended, 1) << ClientErrorName(clients[i]->error.kind);
      ASSERT_TRUE(clients[i]->body == bodies[i]) << round;
    }
  }
  EXPECT_GT(relay.client().stats().reused, 100u);
  EXPECT_EQ(gateway.active_exchange_count(), 0u);
}

}  // namespace
}  // namespace llmd::net
