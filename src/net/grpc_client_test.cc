#include "net/grpc_client.h"

#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "base/strings.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "net/grpc_server.h"
#include "net/net_testing.h"

namespace llmd::net {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// What a client was told of one call.
struct TestCall final : GrpcClientHandler {
  void OnMessagePiece(base::Slice piece, bool last) override {
    partial += piece.view();
    if (!last) return;
    messages.push_back(std::exchange(partial, {}));
    if (on_message) on_message();
  }
  void OnSent() override { ++sent; }
  void OnWritable() override { ++writable; }
  void OnEnd(const GrpcClientEnd& e) override {
    end = e;
    ++ended;
    if (on_end) on_end();
  }

  GrpcClientCall* call = nullptr;
  std::string partial;
  std::vector<std::string> messages;
  int sent = 0;
  int writable = 0;
  int ended = 0;
  GrpcClientEnd end;
  std::function<void()> on_message, on_end;
};

// Sends every message back; answers the end of the requests with OK, "fail" with a status.
class EchoService final : public GrpcService {
 public:
  GrpcHandler* OnCall(GrpcCall& call) override {
    seen.push_back(std::string(call.Metadata("x-name")));
    return new Echo(call, *this);
  }

  std::vector<std::string> seen;
  std::vector<GrpcEnd> ends;

 private:
  struct Echo final : GrpcHandler {
    Echo(GrpcCall& c, EchoService& s) : call(c), service(s) {}
    void OnMessagePiece(base::Slice piece, bool last) override {
      pieces.push_back(std::move(piece));
      if (!last) return;
      if (pieces.size() == 1 && pieces[0].view() == "fail") {
        call.Finish(base::StatusCode::kNotFound, "100 % no \xc3\xa4");
      } else {
        call.Send(pieces);
      }
      pieces.clear();
    }
    void OnHalfClose() override { call.Finish(base::StatusCode::kOk); }
    void OnEnd(GrpcEnd why) override {
      service.ends.push_back(why);
      delete this;
    }
    GrpcCall& call;
    EchoService& service;
    std::vector<base::Slice> pieces;
  };
};

class GrpcClientTest : public ::testing::Test {
 protected:
  GrpcClientTest() { Serve(); }

  void Serve() {
    server = std::make_unique<GrpcServer>(loop);
    server->AddService("/test.Echo/", service);
    listener = std::make_unique<GrpcListener>(loop, std::vector<GrpcServer*>{server.get()});
    port = listener->Listen(runtime::SocketAddress::Ipv4(kLoopback, port)).value();
  }
  void StopServing() {
    listener.reset();
    server.reset();
  }
  std::unique_ptr<GrpcChannel> Channel(GrpcChannelOptions options = {}) {
    return std::make_unique<GrpcChannel>(
        loop, TargetSpec{.address = runtime::SocketAddress::Ipv4(kLoopback, port)},
        std::move(options));
  }
  void Start(GrpcChannel& channel, TestCall& call, std::string_view name = "") {
    const GrpcHeader headers[] = {{"x-name", name}};
    call.call = channel.Start("/test.Echo/Stream", headers, call);
  }
  bool Ended(TestCall& call) {
    return TurnUntil(loop, [&] { return call.ended > 0; });
  }
  bool Got(TestCall& call, size_t messages) {
    return TurnUntil(loop, [&] { return call.messages.size() >= messages; });
  }

  runtime::EventLoop loop;
  EchoService service;
  std::unique_ptr<GrpcServer> server;
  std::unique_ptr<GrpcListener> listener;
  uint16_t port = 0;
};

TEST_F(GrpcClientTest, SendsMessagesAndHearsOfTheAnswers) {
  auto channel = Channel();
  TestCall call;
  Start(*channel, call, "first");
  call.call->Send(base::Slice::Unowned("one"));
  const base::Slice two[] = {base::Slice::Unowned("t"), base::Slice(), base::Slice::Unowned("wo")};
  call.call->Send(two);
  call.call->Send(base::Slice());
  call.call->CloseSend();
  ASSERT_TRUE(Ended(call));
  EXPECT_THAT(call.messages, ElementsAre("one", "two", ""));
  EXPECT_TRUE(call.end.status.ok());
  EXPECT_TRUE(call.end.from_server);
  EXPECT_EQ(call.sent, 1);
  EXPECT_THAT(service.seen, ElementsAre("first"));
  EXPECT_EQ(channel->active_count(), 0u);
}

TEST_F(GrpcClientTest, LargeMessagesPassTheWindowsAndToldWhenThereIsRoomAgain) {
  auto channel = Channel({.stream_window_bytes = 64 << 10, .connection_window_bytes = 1 << 20});
  TestCall call;
  Start(*channel, call);
  const std::string large(3'000'000, 'x');
  call.call->Send(base::Slice::Unowned(large));
  EXPECT_EQ(call.call->pending_bytes(), large.size() + 5);
  ASSERT_TRUE(Got(call, 1));
  EXPECT_TRUE(call.messages[0] == large);
  EXPECT_EQ(call.call->pending_bytes(), 0u);
  EXPECT_EQ(call.writable, 1);
  EXPECT_EQ(call.sent, 1);
}

TEST_F(GrpcClientTest, TellsTheServersStatus) {
  auto channel = Channel();
  TestCall call;
  Start(*channel, call);
  call.call->Send(base::Slice::Unowned("fail"));  // and our side stays open
  ASSERT_TRUE(Ended(call));
  EXPECT_EQ(call.end.status.code(), base::StatusCode::kNotFound);
  EXPECT_EQ(call.end.status.message(), "100 % no \xc3\xa4");
  EXPECT_TRUE(call.end.from_server);
  TestCall unknown;
  unknown.call = channel->Start("/no.Such/Method", {}, unknown);
  ASSERT_TRUE(Ended(unknown));
  EXPECT_EQ(unknown.end.status.code(), base::StatusCode::kUnimplemented);
}

TEST_F(GrpcClientTest, AfterResetNothingIsHeardAndTheConnectionGoesOn) {
  auto channel = Channel();
  TestCall call;
  Start(*channel, call);
  call.call->Send(base::Slice::Unowned("one"));
  call.call->Send(base::Slice::Unowned("two"));
  call.on_message = [&] { call.call->Reset(); };
  ASSERT_TRUE(TurnUntil(loop, [&] { return !service.ends.empty(); }));
  EXPECT_THAT(call.messages, ElementsAre("one"));
  EXPECT_EQ(call.ended, 0);
  EXPECT_THAT(service.ends, ElementsAre(GrpcEnd::kClientReset));
  // Before a byte of it has left, and in the middle of a frame's worth of bytes.
  TestCall early, middle, after;
  Start(*channel, early);
  early.call->Reset();
  Start(*channel, middle);
  const std::string large(5'000'000, 'x');
  middle.call->Send(base::Slice::Unowned(large));
  TurnABit(loop, 1);
  middle.call->Reset();
  Start(*channel, after);
  after.call->Send(base::Slice::Unowned("three"));
  ASSERT_TRUE(Got(after, 1));
  EXPECT_EQ(channel->stats().connects, 1u);
  EXPECT_EQ(channel->active_count(), 1u);
}

TEST_F(GrpcClientTest, CallsTakeTheConnectionsInTurn) {
  auto channel = Channel({.connections = 3});
  std::vector<TestCall> calls(7);
  for (TestCall& call : calls) {
    Start(*channel, call);
    call.call->Send(base::Slice::Unowned("m"));
  }
  for (TestCall& call : calls) ASSERT_TRUE(Got(call, 1));
  EXPECT_EQ(server->connection_count(), 3u);
  EXPECT_EQ(channel->stats().connects, 3u);
  EXPECT_EQ(channel->active_count(), 7u);
}

TEST_F(GrpcClientTest, RandomTrafficComesBackWhole) {
  auto channel = Channel({.connections = 2, .stream_window_bytes = 64 << 10});
  base::Random random(7);
  std::string text(200'000, ' ');
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i * i % 23);
  std::vector<TestCall> calls(300);
  std::vector<std::vector<std::string>> expected(calls.size());
  size_t ended = 0;
  for (size_t i = 0; i < calls.size(); ++i) {
    Start(*channel, calls[i]);
    calls[i].on_end = [&] { ++ended; };
    for (uint64_t left = random.Below(4) + 1; left > 0; --left) {
      const size_t size = random.Below(random.Below(8) == 0 ? 150'000 : 600);
      const size_t cut = size == 0 ? 0 : random.Below(size);
      const std::string_view whole = std::string_view(text).substr(random.Below(50'000), size);
      const base::Slice pieces[] = {base::Slice::Unowned(whole.substr(0, cut)),
                                    base::Slice::Unowned(whole.substr(cut))};
      calls[i].call->Send(pieces);
      expected[i].emplace_back(whole);
      if (random.Below(3) == 0) loop.Turn({});
    }
    calls[i].call->CloseSend();
  }
  ASSERT_TRUE(TurnUntil(loop, [&] { return ended == calls.size(); }));
  for (size_t i = 0; i < calls.size(); ++i) {
    EXPECT_TRUE(calls[i].end.status.ok());
    EXPECT_TRUE(calls[i].messages == expected[i]) << i;
  }
}

TEST_F(GrpcClientTest, LimitsEndTheCallThatBreaksThem) {
  auto channel = Channel({.calls_max = 1, .message_bytes_max = 10});
  TestCall call, second;
  Start(*channel, call);
  Start(*channel, second);
  EXPECT_EQ(second.ended, 0);  // not inside Start
  call.call->Send(base::Slice::Unowned("ten bytes."));
  ASSERT_TRUE(Got(call, 1));
  EXPECT_EQ(second.ended, 1);
  EXPECT_EQ(second.end.status.code(), base::StatusCode::kResourceExhausted);
  call.call->Send(base::Slice::Unowned("eleven byte"));
  ASSERT_TRUE(Ended(call));
  EXPECT_EQ(call.end.status.code(), base::StatusCode::kResourceExhausted);
  EXPECT_FALSE(call.end.from_server);
  EXPECT_EQ(call.messages.size(), 1u);
}

TEST_F(GrpcClientTest, LostConnectionEndsItsCallsAndIsReplaced) {
  auto channel = Channel();
  TestCall call, again, refused;
  Start(*channel, call);
  call.call->Send(base::Slice::Unowned("m"));
  ASSERT_TRUE(Got(call, 1));
  StopServing();
  ASSERT_TRUE(Ended(call));
  EXPECT_EQ(call.end.status.code(), base::StatusCode::kUnavailable);
  EXPECT_FALSE(call.end.from_server);
  Start(*channel, refused);
  EXPECT_EQ(refused.ended, 0);
  ASSERT_TRUE(Ended(refused));
  EXPECT_EQ(refused.end.status.code(), base::StatusCode::kUnavailable);
  EXPECT_THAT(refused.end.status.message(), HasSubstr("refused"));
  Serve();
  Start(*channel, again);
  again.call->Send(base::Slice::Unowned("m"));
  ASSERT_TRUE(Got(again, 1));
  EXPECT_EQ(channel->stats().connection_failures, 2u);
}

TEST_F(GrpcClientTest, ServerThatGoesAwayFinishesItsCallsAndGetsNoNewOnes) {
  auto channel = Channel();
  TestCall call, later;
  Start(*channel, call);
  call.call->Send(base::Slice::Unowned("m"));
  ASSERT_TRUE(Got(call, 1));
  auto old_server = std::move(server);
  listener.reset();
  bool drained = false;
  old_server->Drain(std::chrono::seconds(5), [&] { drained = true; });
  Serve();
  TurnABit(loop, 5);
  Start(*channel, later);
  later.call->Send(base::Slice::Unowned("later"));
  call.call->Send(base::Slice::Unowned("old"));
  call.call->CloseSend();
  ASSERT_TRUE(Ended(call));
  EXPECT_THAT(call.messages, ElementsAre("m", "old"));
  EXPECT_TRUE(call.end.status.ok());
  ASSERT_TRUE(Got(later, 1));
  EXPECT_EQ(channel->stats().connects, 2u);
  EXPECT_TRUE(TurnUntil(loop, [&] { return drained; }));
}

TEST_F(GrpcClientTest, HandlersMayStartCallsFromTheirLastCall) {
  auto channel = Channel();
  TestCall call, next;
  call.on_end = [&] {
    Start(*channel, next);
    next.call->Send(base::Slice::Unowned("again"));
  };
  Start(*channel, call);
  call.call->CloseSend();
  ASSERT_TRUE(Got(next, 1));
  EXPECT_THAT(next.messages, ElementsAre("again"));
}

// One frame: length, type, flags, stream.
std::string Frame(uint8_t type, uint8_t flags, uint8_t stream, std::string_view payload) {
  std::string out;
  for (const int shift : {16, 8, 0}) out += static_cast<char>(payload.size() >> shift);
  out += static_cast<char>(type);
  out += static_cast<char>(flags);
  out += std::string(3, '\0') + static_cast<char>(stream);
  return out + std::string(payload);
}
std::string Bytes(std::initializer_list<int> values) {
  std::string out;
  for (const int value : values) out += static_cast<char>(value);
  return out;
}
// A literal HPACK field, neither indexed nor Huffman coded.
std::string HpackField(std::string_view name, std::string_view value) {
  return base::Concat(Bytes({0, static_cast<int>(name.size())}), name,
                      Bytes({static_cast<int>(value.size())}), value);
}

// What servers that are not ours may say, and what the caller is told then.
TEST_F(GrpcClientTest, ServersThatBreakTheProtocol) {
  constexpr uint8_t kData = 0, kHeaders = 1, kReset = 3, kSettings = 4;
  constexpr uint8_t kEndStream = 1, kEndHeaders = 4;
  const std::string settings = Frame(kSettings, 0, 0, "");
  const std::string ok_head = Frame(kHeaders, kEndHeaders, 1, Bytes({0x88}));  // :status 200
  const std::string ok_trailers =
      Frame(kHeaders, kEndHeaders | kEndStream, 1, HpackField("grpc-status", "0"));
  struct Case {
    const char* what;
    std::string bytes;
    base::StatusCode code;
  };
  const Case cases[] = {
      {"not HTTP/2", "HTTP/1.1 400 Bad Request\r\n\r\n", base::StatusCode::kUnavailable},
      {"compressed", settings + ok_head + Frame(kData, 0, 1, Bytes({1, 0, 0, 0, 1, 'x'})),
       base::StatusCode::kUnimplemented},
      {"no grpc-status", settings + ok_head + Frame(kData, kEndStream, 1, ""),
       base::StatusCode::kInternal},
      {"ended inside a message",
       settings + ok_head + Frame(kData, 0, 1, Bytes({0, 0, 0, 0, 9, 'x'})) + ok_trailers,
       base::StatusCode::kInternal},
      {"grpc-status is no number",
       settings + ok_head +
           Frame(kHeaders, kEndHeaders | kEndStream, 1, HpackField("grpc-status", "x")),
       base::StatusCode::kUnknown},
      {"a proxy's 503",
       settings + Frame(kHeaders, kEndHeaders | kEndStream, 1, HpackField(":status", "503")),
       base::StatusCode::kUnavailable},
      {"a proxy's error page",
       settings + Frame(kHeaders, kEndHeaders, 1, HpackField(":status", "403")) +
           Frame(kData, kEndStream, 1, "<html>no</html>"),
       base::StatusCode::kPermissionDenied},
      {"refused stream", settings + Frame(kReset, 0, 1, Bytes({0, 0, 0, 7})),
       base::StatusCode::kUnavailable},
      {"reset by a calm server", settings + Frame(kReset, 0, 1, Bytes({0, 0, 0, 11})),
       base::StatusCode::kResourceExhausted},
      {"well done", settings + ok_head + ok_trailers, base::StatusCode::kOk},
  };
  for (const Case& each : cases) {
    SCOPED_TRACE(each.what);
    RawListener raw(loop);
    GrpcChannel channel(loop, {.address = runtime::SocketAddress::Ipv4(kLoopback, raw.port())}, {});
    TestCall call;
    call.call = channel.Start("/test.Echo/Stream", {}, call);
    RawPeer peer = raw.Accept();
    ASSERT_TRUE(peer.WaitFor("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
    TurnABit(loop);
    ASSERT_TRUE(peer.Send(each.bytes));
    ASSERT_TRUE(Ended(call));
    EXPECT_EQ(call.end.status.code(), each.code) << call.end.status.ToString();
    EXPECT_EQ(call.ended, 1);
  }
}

TEST_F(GrpcClientTest, SilentServerIsGivenUp) {
  RawListener raw(loop);
  GrpcChannel channel(loop, {.address = runtime::SocketAddress::Ipv4(kLoopback, raw.port())},
                      {.connect_timeout = std::chrono::milliseconds(20)});
  TestCall call;
  call.call = channel.Start("/test.Echo/Stream", {}, call);
  ASSERT_TRUE(Ended(call));
  EXPECT_EQ(call.end.status.code(), base::StatusCode::kUnavailable);
  EXPECT_THAT(call.end.status.message(), HasSubstr("connect timeout"));
}

TEST_F(GrpcClientTest, ChannelMayGoWithCallsUnderWay) {
  auto channel = Channel();
  TestCall call, connecting;
  Start(*channel, call);
  call.call->Send(base::Slice::Unowned("m"));
  ASSERT_TRUE(Got(call, 1));
  Start(*channel, connecting);
  channel.reset();
  TurnABit(loop);
  EXPECT_EQ(call.ended + connecting.ended, 0);
}

}  // namespace
}  // namespace llmd::net
