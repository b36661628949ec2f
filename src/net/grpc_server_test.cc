#include "net/grpc_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "net/grpc_echo_testing.h"
#include "runtime/worker.h"

namespace llmd::net {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class GrpcServerTest : public GrpcServerFixture {};

std::string Pattern(size_t size) {
  std::string out(size, '\0');
  for (size_t i = 0; i < size; ++i) out[i] = static_cast<char>(i * 31 >> 3);
  return out;
}

// The tutorial: a service answers each call with a handler, which hears the pieces of each message
// and sends one back.
TEST_F(GrpcServerTest, EchoesMessages) {
  Serve();
  Client client(loop_, port_);
  auto& stream = client.Open("/test.Echo/Chat", {{"x-name", "value"}});
  client.Send(stream, "hello");
  ASSERT_TRUE(client.WaitForMessages(stream, 1));
  EchoHandler& handler = service_.last();
  EXPECT_EQ(handler.call->path(), "/test.Echo/Chat");
  EXPECT_EQ(handler.call->authority(), "test");
  EXPECT_EQ(handler.call->Metadata("x-name"), "value");
  EXPECT_EQ(handler.call->Metadata("x-none"), "");
  EXPECT_EQ(handler.call->deadline(), base::TimePoint::max());
  EXPECT_FALSE(handler.call->is_tls());
  EXPECT_TRUE(handler.call->peer().is_loopback());
  EXPECT_EQ(handler.announced, 5u);
  client.Send(stream, "");
  client.Send(stream, std::string(3000, 'x'));
  client.HalfClose(stream);
  ASSERT_TRUE(client.WaitForEnd(stream));
  EXPECT_THAT(stream.messages, ElementsAre("hello", "", std::string(3000, 'x')));
  EXPECT_EQ(stream.http_status, 200);
  EXPECT_EQ(stream.grpc_status, 0);
  EXPECT_EQ(stream.error_code, 0u);
  EXPECT_EQ(handler.half_closes, 1);
  EXPECT_EQ(handler.ends, 1);
  EXPECT_EQ(handler.end, GrpcEnd::kFinished);
  EXPECT_EQ(stats().finished, 1u);
  EXPECT_EQ(server_->active_call_count(), 0u);
}

// --- messages and frames -------------------------------------------------------------------------

TEST_F(GrpcServerTest, MessagesMayBeCutAnywhere) {
  Serve();
  Client client(loop_, port_);
  const std::string bytes = GrpcFrame("") + GrpcFrame("a") + GrpcFrame(Pattern(60)) + GrpcFrame("");
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    auto& stream = client.Open("/test.Echo/Chat");
    client.SendBytes(stream, bytes.substr(0, cut));
    client.Pump();
    TurnABit(loop_, 1);
    client.SendBytes(stream, bytes.substr(cut));
    client.HalfClose(stream);
    ASSERT_TRUE(client.WaitForEnd(stream)) << cut;
    EXPECT_THAT(stream.messages, ElementsAre("", "a", Pattern(60), "")) << cut;
    EXPECT_EQ(stream.grpc_status, 0);
  }
}

TEST_F(GrpcServerTest, FramesOfEverySizeGiveTheSameMessages) {
  Serve();
  Client client(loop_, port_);
  for (size_t frame : {1, 2, 3, 5, 7, 64, 1000, 16'384}) {
    auto& stream = client.Open("/test.Echo/Chat");
    stream.frame_max = frame;
    client.Send(stream, Pattern(700));
    client.Send(stream, Pattern(1));
    client.HalfClose(stream);
    ASSERT_TRUE(client.WaitForEnd(stream));
    EXPECT_THAT(stream.messages, ElementsAre(Pattern(700), Pattern(1))) << frame;
  }
}

TEST_F(GrpcServerTest, OneFrameMayHoldManyMessages) {
  Serve();
  Client client(loop_, port_);
  auto& stream = client.Open("/test.Echo/Chat");
  std::string bytes;
  for (int i = 0; i < 200; ++i) bytes += GrpcFrame(std::to_string(i));
  client.SendBytes(stream, bytes);
  client.HalfClose(stream);
  ASSERT_TRUE(client.WaitForEnd(stream));
  ASSERT_EQ(stream.messages.size(), 200u);
  for (int i = 0; i < 200; ++i) EXPECT_EQ(stream.messages[i], std::to_string(i));
}

TEST_F(GrpcServerTest, LargeMessagesPassBothWays) {
  Serve();
  Client client(loop_, port_);
  const std::string message = Pattern(8 << 20);
  auto& stream = client.Open("/test.Echo/Chat");
  client.Send(stream, message);
  client.HalfClose(stream);
  ASSERT_TRUE(client.WaitForEnd(stream));
  ASSERT_EQ(stream.messages.size(), 1u);
  EXPECT_TRUE(stream.messages[0] == message);
  EXPECT_EQ(service_.last().announced, message.size());
  EXPECT_GE(service_.last().pieces, 512);  // at least one for each frame
}

TEST_F(GrpcServerTest, KeptPiecesStayAsTheyWere) {
  Serve();
  service_.prepare = [](EchoHandler& h) { h.keep = true; };
  Client client(loop_, port_);
  std::string sent;
  std::vector<Client::Stream*> streams;
  for (int i = 0; i < 50; ++i) streams.push_back(&client.Open("/test.Echo/Chat"));
  for (int round = 0; round < 20; ++round) {
    for (size_t i = 0; i < streams.size(); ++i) {
      client.Send(*streams[i], std::string(1 + 37 * i, static_cast<char>('a' + round)));
    }
    ASSERT_TRUE(client.WaitForMessages(*streams.back(), round + 1));
  }
  for (auto& handler : service_.handlers) {
    std::string whole, kept;
    for (const std::string& message : handler->messages) whole += message;
    for (const base::Slice& piece : handler->kept) kept += piece.view();
    EXPECT_TRUE(whole == kept);
    handler->kept.clear();
  }
}

TEST_F(GrpcServerTest, TwoThousandStreamsAtOnce) {
  Serve();
  Client client(loop_, port_);
  std::vector<Client::Stream*> streams;
  for (int i = 0; i < 2000; ++i) {
    streams.push_back(&client.Open("/test.Echo/Chat"));
    client.Send(*streams.back(), "one " + std::to_string(i));
  }
  ASSERT_TRUE(client.WaitFor([&] {
    for (auto* stream : streams) {
      if (stream->messages.empty()) return false;
    }
    return true;
  }));
  EXPECT_EQ(server_->active_call_count(), 2000u);
  EXPECT_EQ(server_->connection_count(), 1u);
  for (auto* stream : streams) client.HalfClose(*stream);
  for (size_t i = 0; i < streams.size(); ++i) {
    ASSERT_TRUE(client.WaitForEnd(*streams[i]));
    EXPECT_THAT(streams[i]->messages, ElementsAre("one " + std::to_string(i)));
  }
  EXPECT_EQ(server_->active_call_count(), 0u);
}

// --- how calls end -------------------------------------------------------------------------------

TEST_F(GrpcServerTest, AnswersWithoutMessagesAreOneBlockOfFields) {
  Serve();
  service_.at_once = [](GrpcCall& call) {
    call.Finish(base::StatusCode::kNotFound, "100 % \xc3\xa4 \n no");
    call.Finish(base::StatusCode::kOk);  // too late, and without effect
    call.Send("too late");
  };
  Client client(loop_, port_);
  auto& stream = client.Open("/test.Echo/Chat");
  ASSERT_TRUE(client.WaitForEnd(stream));
  EXPECT_EQ(stream.http_status, 200);
  EXPECT_EQ(stream.grpc_status, 5);
  EXPECT_EQ(stream.grpc_message, "100 %25 %C3%A4 %0A no");
  EXPECT_TRUE(stream.trailers.empty());
  EXPECT_TRUE(stream.messages.empty());
}

TEST_F(GrpcServerTest, AnAnswerMayEndBeforeTheRequest) {
  Serve();
  service_.prepare = [](EchoHandler& h) {
    h.on_message = [](EchoHandler& self) { self.call->Finish(base::StatusCode::kAborted, "stop"); };
  };
  Client client(loop_, port_);
  auto& stream = client.Open("/test.Echo/Chat");
  client.Send(stream, "one");
  client.Send(stream, "two");  // after Finish nobody hears of it
  ASSERT_TRUE(client.WaitForEnd(stream));
  EXPECT_THAT(stream.messages, ElementsAre("one"));
  EXPECT_EQ(stream.grpc_status, 10);
  EXPECT_EQ(stream.error_code, NGHTTP2_NO_ERROR);
  EXPECT_EQ(service_.last().end, GrpcEnd::kFinished);
  EXPECT_THAT(service_.last().messages, ElementsAre("one"));
}

struct ResetCase {
  const char* name;
  std::string_view bytes;  // sent before
  bool half_close;
  bool echo;
};
constexpr ResetCase kResetCases[] = {
    {"before any message", "", false, true},
    {"inside a prefix", std::string_view("\0\0", 2), false, true},
    {"inside a message", std::string_view("\0\0\0\0\5ab", 7), false, true},
    {"after a message and its answer", std::string_view("\0\0\0\0\1a", 6), false, true},
    {"after the request, before the answer", std::string_view("\0\0\0\0\1a", 6), true, false},
};

TEST_F(GrpcServerTest, ClientsMayResetAnyTime) {
  Serve();
  Client client(loop_, port_);
  for (const ResetCase& c : kResetCases) {
    service_.prepare = [&](EchoHandler& h) {
      h.echo = c.echo;
      h.on_half_close = {};
    };
    auto& stream = client.Open("/test.Echo/Chat");
    client.SendBytes(stream, c.bytes);
    if (c.half_close) client.HalfClose(stream);
    const int calls = service_.calls;
    ASSERT_TRUE(WaitForCalls(client, calls + 1));
    client.Pump();
    TurnABit(loop_);
    client.Reset(stream, NGHTTP2_INTERNAL_ERROR);
    ASSERT_TRUE(client.WaitFor([&] { return service_.last().ends > 0; })) << c.name;
    EXPECT_EQ(service_.last().end, GrpcEnd::kClientReset) << c.name;
    EXPECT_EQ(service_.last().ends, 1);
  }
  EXPECT_EQ(stats().client_resets, std::size(kResetCases));
  EXPECT_EQ(server_->active_call_count(), 0u);
}

TEST_F(GrpcServerTest, HandlersMayResetAnyTime) {
  Serve();
  Client client(loop_, port_);
  for (const ResetCase& c : kResetCases) {
    service_.prepare = [&](EchoHandler& h) {
      h.echo = c.echo;
      h.on_half_close = {};
      if (c.bytes.empty()) h.call->Reset();
    };
    auto& stream = client.Open("/test.Echo/Chat");
    client.SendBytes(stream, c.bytes);
    if (c.half_close) client.HalfClose(stream);
    const int calls = service_.calls;
    ASSERT_TRUE(WaitForCalls(client, calls + 1));
    client.Pump();
    TurnABit(loop_);
    if (GrpcCall* call = service_.last().call) {
      call->Reset();
      call->Reset();
      call->Send("dropped");
      EXPECT_EQ(service_.last().ends, 0) << "from inside a call into the GrpcCall";
    }
    ASSERT_TRUE(client.WaitForEnd(stream)) << c.name;
    EXPECT_EQ(stream.error_code, NGHTTP2_CANCEL) << c.name;
    EXPECT_EQ(service_.last().end, GrpcEnd::kReset) << c.name;
    EXPECT_EQ(service_.last().ends, 1);
  }
  EXPECT_EQ(stats().early_resets, 0u);
}

TEST_F(GrpcServerTest, NothingIsHeardAfterAReset) {
  Serve();
  service_.prepare = [](EchoHandler& h) {
    h.on_message = [](EchoHandler& self) { self.call->Reset(); };
  };
  Client client(loop_, port_);
  auto& stream = client.Open("/test.Echo/Chat");
  client.SendBytes(stream, GrpcFrame("one") + GrpcFrame("two"));
  client.HalfClose(stream);
  ASSERT_TRUE(client.WaitForEnd(stream));
  EXPECT_THAT(service_.last().messages, ElementsAre("one"));
  EXPECT_EQ(service_.last().half_closes, 0);
  EXPECT_EQ(service_.last().ends, 1);
}

TEST_F(GrpcServerTest, ALostConnectionEndsItsCalls) {
  Serve();
  auto client = std::make_unique<Client>(loop_, port_);
  for (int i = 0; i < 10; ++i) client->Send(client->Open("/test.Echo/Chat"), "x");
  ASSERT_TRUE(WaitForCalls(*client, 10));
  client->Close();
  ASSERT_TRUE(TurnUntil(loop_, [&] { return server_->connection_count() == 0; }));
  for (auto& handler : service_.handlers) {
    EXPECT_EQ(handler->ends, 1);
    EXPECT_EQ(handler->end, GrpcEnd::kConnectionLost);
  }
  EXPECT_EQ(stats().connection_lost_calls, 10u);
  EXPECT_EQ(server_->active_call_count(), 0u);
}

TEST_F(GrpcServerTest, ADestroyedServerResetsItsCalls) {
  Serve();
  Client client(loop_, port_);
  client.Send(client.Open("/test.Echo/Chat"), "x");
  ASSERT_TRUE(WaitForCalls(client, 1));
  server_.reset();
  EXPECT_EQ(service_.last().end, GrpcEnd::kReset);
  EXPECT_EQ(service_.last().ends, 1);
}

struct SelfDeleting final : GrpcHandler {
  explicit SelfDeleting(GrpcCall& c, int& count) : call(c), deleted(count) {}
  ~SelfDeleting() override { ++deleted; }
  void OnHalfClose() override { call.Finish(base::StatusCode::kOk); }
  void OnEnd(GrpcEnd) override { delete this; }
  GrpcCall& call;
  int& deleted;
};
struct SelfDeletingService final : GrpcService {
  GrpcHandler* OnCall(GrpcCall& call) override { return new SelfDeleting(call, deleted); }
  int deleted = 0;
};

TEST_F(GrpcServerTest, HandlersMayDeleteThemselvesAndPathsAreMatched) {
  SelfDeletingService exact;
  GrpcServer server(loop_);
  server.AddService("/test.Exact/Only", exact);
  server.AddService("/test.Echo/", service_);
  GrpcListener listener(loop_, {&server});
  Client client(loop_, listener.Listen(runtime::SocketAddress::Ipv4(kLoopback, 0)).value());
  auto& only = client.Open("/test.Exact/Only", {}, true);
  auto& more = client.Open("/test.Exact/Only/More", {}, true);
  auto& echo = client.Open("/test.Echo/Anything", {}, true);
  auto& other = client.Open("/test.Ech", {}, true);
  for (auto* stream : {&only, &more, &echo, &other}) ASSERT_TRUE(client.WaitForEnd(*stream));
  EXPECT_EQ(only.grpc_status, 0);
  EXPECT_EQ(exact.deleted, 1);
  EXPECT_EQ(more.grpc_status, 12);
  EXPECT_EQ(more.grpc_message, "unknown method /test.Exact/Only/More");
  EXPECT_EQ(echo.grpc_status, 0);
  EXPECT_EQ(other.grpc_status, 12);
  EXPECT_EQ(server.stats().unknown_methods, 2u);
}

TEST_F(GrpcServerTest, RequestsThatAreNotGrpcAreToldInHttp) {
  Serve();
  Client client(loop_, port_);
  auto& json = client.Open("/test.Echo/Chat", {{"content-type", "application/json"}}, true);
  auto& web = client.Open("/test.Echo/Chat", {{"content-type", "application/grpc-web"}}, true);
  auto& get = client.Open("/test.Echo/Chat", {{":method", "GET"}}, true);
  auto& proto = client.Open("/test.Echo/Chat", {{"content-type", "application/grpc+proto"}}, true);
  for (auto* stream : {&json, &web, &get, &proto}) ASSERT_TRUE(client.WaitForEnd(*stream));
  EXPECT_EQ(json.http_status, 415);
  EXPECT_EQ(web.http_status, 415);
  EXPECT_EQ(get.http_status, 405);
  EXPECT_EQ(proto.grpc_status, 0);
  EXPECT_EQ(stats().bad_requests, 3u);
  EXPECT_EQ(service_.calls, 1);
}

TEST_F(GrpcServerTest, DeadlinesAreKept) {
  Serve();
  Client client(loop_, port_);
  auto& waits = client.Open("/test.Echo/Chat", {{"grpc-timeout", "20m"}});
  auto& in_time = client.Open("/test.Echo/Chat", {{"grpc-timeout", "1H"}}, true);
  auto& wrong = client.Open("/test.Echo/Chat", {{"grpc-timeout", "soon"}});
  client.Send(waits, "answered");
  ASSERT_TRUE(client.WaitForEnd(waits));
  ASSERT_TRUE(client.WaitForEnd(in_time));
  ASSERT_TRUE(client.WaitForEnd(wrong));
  EXPECT_EQ(waits.grpc_status, 4);
  EXPECT_THAT(waits.messages, ElementsAre("answered"));
  EXPECT_EQ(service_.handlers[0]->end, GrpcEnd::kDeadline);
  EXPECT_EQ(service_.handlers[0]->ends, 1);
  EXPECT_EQ(in_time.grpc_status, 0);
  EXPECT_EQ(wrong.grpc_status, 13);
  EXPECT_EQ(stats().deadlines_exceeded, 1u);
}

TEST_F(GrpcServerTest, ADeadlineInsideAMessageResetsTheStream) {
  Serve();
  Client client(loop_, port_, {.stream_window = 1000, .give_window = false});
  auto& stream = client.Open("/test.Echo/Chat", {{"grpc-timeout", "30m"}});
  client.Send(stream, Pattern(5000));
  ASSERT_TRUE(client.WaitForEnd(stream));
  EXPECT_EQ(stream.grpc_status, -1);
  EXPECT_EQ(stream.error_code, NGHTTP2_CANCEL);
  EXPECT_EQ(service_.last().end, GrpcEnd::kDeadline);
}

// --- flow control --------------------------------------------------------------------------------

TEST_F(GrpcServerTest, AnswersWaitForTheClientsWindow) {
  Serve();
  service_.prepare = [](EchoHandler& h) { h.echo = false; };
  Client client(loop_, port_, {.stream_window = 0, .give_window = false});
  auto& stream = client.Open("/test.Echo/Chat");
  client.Send(stream, "go");
  ASSERT_TRUE(WaitForCalls(client, 1));
  ASSERT_TRUE(client.WaitFor([&] { return !service_.last().messages.empty(); }));
  GrpcCall& call = *service_.last().call;
  const std::string answer = Pattern(2 << 20);
  call.Send(answer);
  TurnABit(loop_);
  EXPECT_EQ(call.unsent_bytes(), answer.size() + 5);
  EXPECT_EQ(call.sent_bytes(), answer.size() + 5);
  client.GiveWindow(stream, 1 << 20);
  ASSERT_TRUE(client.WaitFor([&] { return stream.partial.size() == 1 << 20; }));
  EXPECT_EQ(call.unsent_bytes(), answer.size() + 5 - (1 << 20));
  EXPECT_EQ(service_.last().writable, 0);
  client.GiveWindow(stream, 600 << 10);
  ASSERT_TRUE(client.WaitFor([&] { return service_.last().writable == 1; }));
  client.GiveWindow(stream, 2 << 20);
  ASSERT_TRUE(client.WaitForMessages(stream, 1));
  EXPECT_TRUE(stream.messages[0] == answer);
  EXPECT_EQ(call.unsent_bytes(), 0u);
}

TEST_F(GrpcServerTest, APausedCallGetsOneWindowAndNoMore) {
  Serve();
  service_.prepare = [](EchoHandler& h) {
    h.echo = false;
    h.call->PauseReading();
  };
  Client client(loop_, port_);
  const std::string message = Pattern(3 << 20);
  auto& stream = client.Open("/test.Echo/Chat");
  client.Send(stream, message);
  ASSERT_TRUE(client.WaitFor([&] {
    return service_.calls == 1 && service_.last().call->received_bytes() == (1 << 20) - 5;
  }));
  for (int i = 0; i < 10; ++i) {
    client.Pump();
    TurnABit(loop_);
  }
  EXPECT_EQ(service_.last().call->received_bytes(), (1u << 20) - 5);
  EXPECT_EQ(stream.window_given, 0u);
  // The connection's window is not held up: others go on.
  service_.prepare = {};
  auto& other = client.Open("/test.Echo/Chat");
  client.Send(other, message);
  client.HalfClose(other);
  ASSERT_TRUE(client.WaitForEnd(other));
  EXPECT_TRUE(other.messages.at(0) == message);
  service_.handlers[0]->call->ResumeReading();
  ASSERT_TRUE(client.WaitFor([&] { return service_.handlers[0]->messages.size() == 1; }));
  EXPECT_TRUE(service_.handlers[0]->messages[0] == message);
}

TEST_F(GrpcServerTest, AClientThatTakesNoAnswersMaySendNoMore) {
  Serve();
  Client client(loop_, port_, {.stream_window = 0, .give_window = false});
  auto& stream = client.Open("/test.Echo/Chat");
  for (int i = 0; i < 50; ++i) client.Send(stream, Pattern(100 << 10));
  ASSERT_TRUE(client.WaitFor(
      [&] { return service_.calls == 1 && service_.last().call->unsent_bytes() > (1 << 20); }));
  for (int i = 0; i < 20; ++i) {
    client.Pump();
    TurnABit(loop_);
  }
  // One window before the mark was reached, at most one after it.
  EXPECT_LE(service_.last().call->unsent_bytes(), GrpcCall::kUnsentHighBytes + (2u << 20));
  for (int i = 0; i < 200 && stream.messages.size() < 50; ++i) {
    client.GiveWindow(stream, 200 << 10);
    client.Pump();
    TurnABit(loop_);
  }
  EXPECT_EQ(stream.messages.size(), 50u);
}

// --- drain, stop, several loops ------------------------------------------------------------------

TEST_F(GrpcServerTest, DrainFinishesWhatIsUnderWay) {
  Serve({.linger_timeout = std::chrono::milliseconds(20)});
  Client busy(loop_, port_), idle(loop_, port_);
  auto& stream = busy.Open("/test.Echo/Chat");
  busy.Send(stream, "one");
  ASSERT_TRUE(busy.WaitForMessages(stream, 1));
  ASSERT_TRUE(TurnUntil(loop_, [&] { return idle.Pump() && server_->connection_count() == 2; }));
  bool done = false;
  listener_->StopListening();
  server_->Drain(std::chrono::seconds(5), [&] { done = true; });
  ASSERT_TRUE(idle.WaitForClose());
  EXPECT_TRUE(idle.goaway);
  EXPECT_EQ(idle.goaway_code, NGHTTP2_NO_ERROR);
  ASSERT_TRUE(busy.WaitFor([&] { return busy.goaway_last_stream == stream.id; }));
  EXPECT_FALSE(done);
  busy.Send(stream, "two");
  busy.HalfClose(stream);
  ASSERT_TRUE(busy.WaitForEnd(stream));
  EXPECT_THAT(stream.messages, ElementsAre("one", "two"));
  EXPECT_EQ(stream.grpc_status, 0);
  ASSERT_TRUE(busy.WaitFor([&] { return done; }));
  EXPECT_EQ(server_->connection_count(), 0u);
}

TEST_F(GrpcServerTest, DrainAbortsWhatIsLeftAtItsLimit) {
  Serve();
  Client client(loop_, port_);
  client.Send(client.Open("/test.Echo/Chat"), "one");
  ASSERT_TRUE(WaitForCalls(client, 1));
  bool done = false;
  server_->Drain(std::chrono::milliseconds(20), [&] { done = true; });
  ASSERT_TRUE(client.WaitFor([&] { return done; }));
  EXPECT_EQ(service_.last().end, GrpcEnd::kReset);
}

TEST(GrpcListenerTest, DealsConnectionsToTheLoopsInTurn) {
  runtime::WorkerPool workers(3, "grpc-test");
  std::vector<std::unique_ptr<EchoService>> services;
  std::vector<std::unique_ptr<GrpcServer>> servers;
  std::vector<GrpcServer*> dealt;
  for (size_t i = 0; i < workers.size(); ++i) {
    services.push_back(std::make_unique<EchoService>());
    servers.push_back(std::make_unique<GrpcServer>(workers.loop(i)));
    servers.back()->AddService("/test.Echo/", *services.back());
    dealt.push_back(servers.back().get());
  }
  GrpcListener listener(workers.loop(0), dealt);
  const uint16_t port = listener.Listen(runtime::SocketAddress::Ipv4(kLoopback, 0)).value();
  workers.Start();
  runtime::EventLoop loop;
  std::vector<std::unique_ptr<GrpcTestClient>> clients;
  for (int i = 0; i < 6; ++i) {
    clients.push_back(std::make_unique<GrpcTestClient>(loop, port));
    auto& stream = clients.back()->Open("/test.Echo/Chat");
    clients.back()->Send(stream, "x");
    clients.back()->HalfClose(stream);
    ASSERT_TRUE(clients.back()->WaitForEnd(stream));
    EXPECT_EQ(stream.grpc_status, 0);
  }
  workers.Stop();
  for (auto& server : servers) EXPECT_EQ(server->connection_count(), 2u);
  servers.clear();
}

TEST_F(GrpcServerTest, ConnectionsBeyondTheLimitAreClosed) {
  Serve({.connections_max = 2});
  Client one(loop_, port_), two(loop_, port_);
  ASSERT_TRUE(TurnUntil(loop_, [&] { return server_->connection_count() == 2; }));
  Client three(loop_, port_);
  ASSERT_TRUE(three.WaitForClose());
  EXPECT_EQ(stats().refused_full, 1u);
}

TEST_F(GrpcServerTest, KeepaliveFindsPeersThatVanished) {
  Serve({.keepalive_time = std::chrono::milliseconds(20),
         .keepalive_timeout = std::chrono::milliseconds(40)});
  Client alive(loop_, port_);
  auto gone = std::make_unique<Client>(loop_, port_);
  gone->Send(gone->Open("/test.Echo/Chat"), "x");
  ASSERT_TRUE(WaitForCalls(*gone, 1));
  ASSERT_TRUE(alive.WaitFor([&] { return server_->connection_count() == 1; }));
  EXPECT_EQ(stats().keepalive_failures, 1u);
  EXPECT_EQ(service_.last().end, GrpcEnd::kConnectionLost);
  auto& stream = alive.Open("/test.Echo/Chat", {}, true);
  ASSERT_TRUE(alive.WaitForEnd(stream));
  EXPECT_EQ(stream.grpc_status, 0);
}

TEST_F(GrpcServerTest, IdleConnectionsAreClosedWhenAskedFor) {
  Serve({.idle_timeout = std::chrono::milliseconds(20)});
  Client client(loop_, port_);
  auto& stream = client.Open("/test.Echo/Chat");
  ASSERT_TRUE(WaitForCalls(client, 1));
  ASSERT_TRUE(client.WaitFor(
      [&, until = loop_.now() + std::chrono::milliseconds(60)] { return loop_.now() > until; }));
  EXPECT_FALSE(client.goaway) << "a call is under way";
  client.HalfClose(stream);
  ASSERT_TRUE(client.WaitForClose());
  EXPECT_TRUE(client.goaway);
  EXPECT_EQ(stats().idle_closed, 1u);
}

TEST_F(GrpcServerTest, NoBlocksAreKeptBetweenRequests) {
  Serve();
  Client client(loop_, port_);
  for (int i = 0; i < 100; ++i) {
    auto& stream = client.Open("/test.Echo/Chat");
    client.Send(stream, Pattern(10'000));
    client.HalfClose(stream);
    ASSERT_TRUE(client.WaitForEnd(stream));
  }
  // The block of small copies, no more.
  EXPECT_LE(loop_.buffers().live_bytes(), 16u << 10);
}

}  // namespace
}  // namespace llmd::net
