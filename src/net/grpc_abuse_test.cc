// What hostile and broken clients are answered: each limit of GrpcServerOptions, counted.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <string>
#include <vector>

#include "net/grpc_echo_testing.h"

namespace llmd::net {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// HPACK: POST, http, :path /test.Echo/a, :authority a, content-type application/grpc.
constexpr std::string_view kRequest =
    "\x83\x86\x44\x0c/test.Echo/a\x41\x01\x61\x0f\x10\x10"
    "application/grpc";
constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

class GrpcAbuseTest : public GrpcServerFixture {
 protected:
  // The connection ends with ENHANCE_YOUR_CALM and its calls with it.
  void ExpectCalm(Client& client) {
    ASSERT_TRUE(client.WaitForClose());
    EXPECT_TRUE(client.goaway);
    EXPECT_EQ(client.goaway_code, NGHTTP2_ENHANCE_YOUR_CALM);
    client.Close();
    ASSERT_TRUE(TurnUntil(loop_, [&] { return server_->connection_count() == 0; }));
    EXPECT_EQ(server_->active_call_count(), 0u);
    for (auto& handler : service_.handlers) EXPECT_EQ(handler->ends, 1);
  }
  void ExpectStillServed(Client& client) {
    service_.prepare = {};
    auto& stream = client.Open("/test.Echo/Chat", {}, true);
    ASSERT_TRUE(client.WaitForEnd(stream));
    EXPECT_EQ(stream.grpc_status, 0);
  }
};

std::string Gzip(std::string_view text) {
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, text.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

// --- messages ------------------------------------------------------------------------------------

TEST_F(GrpcAbuseTest, OversizeMessagesAreRefusedBeforeTheyArrive) {
  Serve({.message_bytes_max = 1000});
  Client client(loop_, port_);
  auto& fits = client.Open("/test.Echo/Chat");
  client.Send(fits, std::string(1000, 'x'));
  client.HalfClose(fits);
  ASSERT_TRUE(client.WaitForEnd(fits));
  EXPECT_EQ(fits.grpc_status, 0);
  auto& large = client.Open("/test.Echo/Chat");
  client.SendBytes(large, GrpcFrame(std::string(1001, 'x')).substr(0, 5));
  ASSERT_TRUE(client.WaitForEnd(large));
  EXPECT_EQ(large.grpc_status, 8);
  EXPECT_EQ(large.grpc_message, "a message of 1001 bytes is larger than 1000");
  EXPECT_EQ(service_.last().end, GrpcEnd::kBadMessage);
  EXPECT_EQ(stats().messages_too_large, 1u);
  ExpectStillServed(client);
}

TEST_F(GrpcAbuseTest, BrokenFramingEndsTheCall) {
  Serve();
  Client client(loop_, port_);
  const struct {
    std::string bytes;
    int status;
    std::string_view message;
  } kCases[] = {
      {"\2", -1, ""},  // not yet a prefix
      {std::string("\2\0\0\0\1x", 6), 13, "malformed message prefix"},
      {GrpcFrame("x", true), 12, "messages may be compressed with gzip only (grpc-encoding)"},
      {GrpcFrame("abc").substr(0, 3), 13, "the last message is cut off"},
      {GrpcFrame("abc").substr(0, 6), 13, "the last message is cut off"},
  };
  for (const auto& c : kCases) {
    auto& stream = client.Open("/test.Echo/Chat");
    client.SendBytes(stream, c.bytes);
    if (c.status == -1) {
      client.Pump();
      TurnABit(loop_);
      EXPECT_FALSE(stream.closed);
      client.Reset(stream);
      continue;
    }
    client.HalfClose(stream);
    ASSERT_TRUE(client.WaitForEnd(stream));
    EXPECT_EQ(stream.grpc_status, c.status);
    EXPECT_EQ(stream.grpc_message, c.message);
    EXPECT_EQ(service_.last().end, GrpcEnd::kBadMessage);
    EXPECT_EQ(service_.last().ends, 1);
  }
  EXPECT_EQ(stats().bad_messages, 4u);
  ExpectStillServed(client);
}

TEST_F(GrpcAbuseTest, GzipMessagesAreInflatedWithinBounds) {
  Serve({.message_bytes_max = 1 << 20});
  Client client(loop_, port_);
  const std::string text(300'000, 'z');
  const struct {
    std::string bytes;
    int status;
  } kCases[] = {
      {GrpcFrame(Gzip(text), true), 0},
      {GrpcFrame(Gzip(""), true), 0},
      {GrpcFrame(Gzip(std::string(1 << 20, 'z')), true), 0},
      {GrpcFrame(Gzip(std::string((1 << 20) + 1, 'z')), true), 8},
      {GrpcFrame("not gzip at all", true), 13},
      {GrpcFrame(Gzip(text) + "tail", true), 13},
      {GrpcFrame(Gzip(text).substr(0, 100), true), 13},
      {GrpcFrame("", true), 13},
  };
  for (const auto& c : kCases) {
    for (size_t frame : {16'384, 1}) {
      auto& stream = client.Open("/test.Echo/Chat", {{"grpc-encoding", "gzip"}});
      stream.frame_max = frame;
      client.SendBytes(stream, c.bytes);
      client.SendBytes(stream, GrpcFrame("plain"));
      client.HalfClose(stream);
      ASSERT_TRUE(client.WaitForEnd(stream));
      EXPECT_EQ(stream.grpc_status, c.status) << &c - kCases;
      if (c.status == 0) {
        ASSERT_EQ(stream.messages.size(), 2u);
        EXPECT_EQ(stream.messages[1], "plain");
      }
    }
  }
  EXPECT_TRUE(service_.handlers[0]->messages.at(0) == text);
  EXPECT_EQ(service_.handlers[2]->messages.at(0), "");
  EXPECT_EQ(stats().messages_too_large, 2u);
  EXPECT_EQ(stats().bad_messages, 8u);
}

// --- resets --------------------------------------------------------------------------------------

TEST_F(GrpcAbuseTest, RapidResetCostsTheConnection) {
  Serve({.reset_rate = {100, 1}});
  Client client(loop_, port_);
  for (int i = 0; i < 300 && client.Pump(); ++i) {
    auto& stream = client.Open("/test.Echo/Chat", {}, i % 2 == 0);
    service_.prepare = [](EchoHandler& h) { h.on_half_close = {}; };
    client.Pump();
    client.Reset(stream);
    loop_.Turn({});
  }
  ExpectCalm(client);
  EXPECT_EQ(stats().reset_floods, 1u);
  EXPECT_GE(stats().early_resets, 100u);
  EXPECT_LE(service_.calls, 110);
}

TEST_F(GrpcAbuseTest, ResetsBeforeTheServiceIsAskedCountToo) {
  Serve({.reset_rate = {100, 1}});
  Client client(loop_, port_);
  // HEADERS and RST_STREAM of each stream arrive in one read.
  for (int i = 0; i < 300; ++i) client.Reset(client.Open("/test.Echo/Chat"));
  std::vector<Client::Stream*> streams;
  for (int i = 0; i < 300; ++i) {
    auto& stream = client.Open("/test.None/None");
    client.Pump();
    client.Reset(stream);
  }
  ExpectCalm(client);
  EXPECT_EQ(stats().reset_floods, 1u);
}

// Envoy ends every ext_proc stream with RST_STREAM, code 2, when it has the last answer.
TEST_F(GrpcAbuseTest, ResetsAfterAnAnswerAreNoAbuse) {
  Serve({.reset_rate = {10, 1}});
  Client client(loop_, port_);
  for (int batch = 0; batch < 30; ++batch) {
    std::vector<Client::Stream*> streams;
    for (int i = 0; i < 100; ++i) {
      streams.push_back(&client.Open("/test.Echo/Chat"));
      client.Send(*streams.back(), "x");
    }
    for (auto* stream : streams) ASSERT_TRUE(client.WaitForMessages(*stream, 1));
    for (auto* stream : streams) client.Reset(*stream, NGHTTP2_INTERNAL_ERROR);
  }
  ASSERT_TRUE(client.WaitFor([&] { return stats().client_resets == 3000; }));
  EXPECT_EQ(stats().early_resets, 0u);
  ExpectStillServed(client);
  EXPECT_EQ(server_->connection_count(), 1u);
}

// A client can also make the server reset streams, with frames that are wrong.
TEST_F(GrpcAbuseTest, ResetsThatTheClientProvokesCount) {
  Serve({.control_frame_rate = {100, 1}});
  Client client(loop_, port_);
  for (int i = 0; i < 300 && client.Pump(); ++i) {
    auto& stream = client.Open("/test.Echo/Chat");
    client.SendRaw("");
    client.SendRaw(
        Http2Frame(NGHTTP2_WINDOW_UPDATE, 0, stream.id, std::string("\x7f\xff\xff\xff", 4)));
    loop_.Turn({});
  }
  ExpectCalm(client);
  EXPECT_GE(stats().bad_frames, 99u);
}

// --- floods --------------------------------------------------------------------------------------

// The error code of the first GOAWAY in raw frames; -1 when there is none.
int GoawayCode(std::string_view bytes) {
  while (bytes.size() >= 9) {
    const auto* p = reinterpret_cast<const unsigned char*>(bytes.data());
    const size_t size = size_t{p[0]} << 16 | size_t{p[1]} << 8 | p[2];
    if (bytes.size() < 9 + size) break;
    if (p[3] == NGHTTP2_GOAWAY) return p[9 + 7];
    bytes.remove_prefix(9 + size);
  }
  return -1;
}

TEST_F(GrpcAbuseTest, ControlFrameFloodsCostTheConnection) {
  const std::pair<std::string, std::string> kFrames[] = {
      {"ping", Http2Frame(NGHTTP2_PING, 0, 0, "12345678")},
      {"settings", Http2Frame(NGHTTP2_SETTINGS, 0, 0, "")},
      {"empty data", Http2Frame(NGHTTP2_DATA, 0, 1, "")},
  };
  for (const auto& [name, frame] : kFrames) {
    SCOPED_TRACE(name);
    Serve({.control_frame_rate = {200, 1}});
    RawPeer peer = RawPeer::ConnectTo(loop_, port_);
    std::string few(kPreface);
    few += Http2Frame(NGHTTP2_SETTINGS, 0, 0, "");
    few += Http2Frame(NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 1, kRequest);
    for (int i = 0; i < 150; ++i) few += frame;
    ASSERT_TRUE(peer.Send(few));
    TurnABit(loop_, 5);
    peer.Poll();
    EXPECT_FALSE(peer.ended);
    std::string many;
    for (int i = 0; i < 150; ++i) many += frame;
    ASSERT_TRUE(peer.Send(many));
    ASSERT_TRUE(peer.WaitForEnd());
    EXPECT_EQ(GoawayCode(peer.received), NGHTTP2_ENHANCE_YOUR_CALM);
    EXPECT_EQ(stats().control_floods, 1u);
    TearDown();
  }
}

TEST_F(GrpcAbuseTest, PriorityFramesAreSteppedOver) {
  Serve({.control_frame_rate = {10, 1}});
  Client client(loop_, port_);
  std::string many;
  for (int i = 0; i < 10'000; ++i) {
    many += Http2Frame(NGHTTP2_PRIORITY, 0, 1 + 2 * i, std::string("\0\0\0\0\1", 5));
  }
  client.SendRaw(many);
  ExpectStillServed(client);
}

TEST_F(GrpcAbuseTest, WindowUpdatesAreCountedAgainstAnswers) {
  Serve({.window_update_rate = {200, 1}});
  Client client(loop_, port_);
  auto& stream = client.Open("/test.Echo/Chat");
  client.Send(stream, "x");
  ASSERT_TRUE(client.WaitForMessages(stream, 1));
  const std::string one =
      Http2Frame(NGHTTP2_WINDOW_UPDATE, 0, stream.id, std::string("\0\0\0\1", 4));
  // Four for each answer may go on for ever.
  for (size_t i = 2; i < 200; ++i) {
    client.SendRaw(one + one + one + one);
    client.Send(stream, "x");
    ASSERT_TRUE(client.WaitForMessages(stream, i));
  }
  std::string many;
  for (int i = 0; i < 300; ++i) many += one;
  client.SendRaw(many);
  ExpectCalm(client);
  EXPECT_EQ(stats().window_update_floods, 1u);
}

TEST_F(GrpcAbuseTest, LargeHeaderListsAreRefused) {
  Serve({.header_list_bytes_max = 8 << 10});
  Client client(loop_, port_);
  auto& fits = client.Open("/test.Echo/Chat", {{"x-large", std::string(7000, 'x')}}, true);
  auto& one = client.Open("/test.Echo/Chat", {{"x-large", std::string(9000, 'x')}}, true);
  Client::Fields many;
  for (int i = 0; i < 300; ++i) many.emplace_back("x-" + std::to_string(i), "y");
  auto& lots = client.Open("/test.Echo/Chat", many, true);
  for (auto* stream : {&fits, &one, &lots}) ASSERT_TRUE(client.WaitForEnd(*stream));
  EXPECT_EQ(fits.grpc_status, 0);
  EXPECT_EQ(one.grpc_status, 8);
  EXPECT_EQ(lots.grpc_status, 8);
  EXPECT_EQ(stats().header_lists_too_large, 2u);
  EXPECT_EQ(service_.calls, 1);
  // The server said so beforehand (SETTINGS_MAX_HEADER_LIST_SIZE).
  EXPECT_THAT(client.settings,
              ::testing::Contains(std::pair<std::string, std::string>("6", "8192")));
}

TEST_F(GrpcAbuseTest, EndlessContinuationsCostTheConnection) {
  Serve({.linger_timeout = milliseconds(20)});
  Client client(loop_, port_);
  client.Pump();
  std::string flood = Http2Frame(NGHTTP2_HEADERS, 0, 1, "\x83");
  for (int i = 0; i < 1000; ++i) flood += Http2Frame(NGHTTP2_CONTINUATION, 0, 1, "");
  client.SendRaw(flood);
  ASSERT_TRUE(client.WaitForClose());
  ASSERT_TRUE(TurnUntil(loop_, [&] { return server_->connection_count() == 0; }));
  EXPECT_EQ(stats().protocol_errors, 1u);
  EXPECT_EQ(service_.calls, 0);
}

TEST_F(GrpcAbuseTest, HeadersThatNeverEndTimeOut) {
  Serve({.header_timeout = milliseconds(30)});
  Client client(loop_, port_);
  ASSERT_TRUE(client.WaitFor([&] { return !client.settings.empty(); }));
  client.SendRaw(Http2Frame(NGHTTP2_HEADERS, 0, 1, "\x83"));
  ASSERT_TRUE(client.WaitForClose());
  EXPECT_EQ(stats().header_timeouts, 1u);
}

TEST_F(GrpcAbuseTest, StreamsBeyondTheLimitAreRefused) {
  Serve({.streams_max = 10});
  Client client(loop_, port_);
  std::vector<Client::Stream*> streams;
  for (int i = 0; i < 10; ++i) streams.push_back(&client.Open("/test.Echo/Chat"));
  ASSERT_TRUE(WaitForCalls(client, 10));
  // nghttp2's client keeps to the limit; a raw one does not.
  client.SendRaw(Http2Frame(NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 101, kRequest));
  ASSERT_TRUE(client.WaitForClose());
  EXPECT_EQ(service_.calls, 10);
  EXPECT_EQ(stats().protocol_errors, 1u);
}

// --- windows and slow readers --------------------------------------------------------------------

TEST_F(GrpcAbuseTest, AnswersThatNobodyTakesAreDropped) {
  Serve({.stall_timeout = milliseconds(40)});
  Client client(loop_, port_, {.stream_window = 0, .give_window = false});
  auto& stalls = client.Open("/test.Echo/Chat");
  client.Send(stalls, "never taken");
  ASSERT_TRUE(WaitForCalls(client, 1));
  ASSERT_TRUE(client.WaitForEnd(stalls));
  EXPECT_EQ(stalls.error_code, NGHTTP2_CANCEL);
  EXPECT_EQ(service_.last().end, GrpcEnd::kStalled);
  EXPECT_EQ(service_.last().ends, 1);
  EXPECT_EQ(stats().stalled_calls, 1u);
  EXPECT_EQ(server_->connection_count(), 1u);
}

TEST_F(GrpcAbuseTest, AConnectionThatIsNotReadIsClosed) {
  Serve({.stall_timeout = milliseconds(100)});
  service_.prepare = [](EchoHandler& h) {
    h.echo = false;
    h.on_message = [](EchoHandler& self) { self.call->Send(std::string(16 << 20, 'x')); };
  };
  Client client(loop_, port_, {.stream_window = 1u << 30});
  client.Open("/test.Echo/Chat");
  ASSERT_TRUE(client.WaitFor([&] { return !client.settings.empty(); }));
  auto& stream = client.Open("/test.Echo/Chat");
  client.GiveWindow(stream, 1 << 30);
  client.Send(stream, "go");
  client.Pump();
  client.SetRead(false);
  ASSERT_TRUE(client.WaitFor([&] { return server_->connection_count() == 0; }));
  EXPECT_EQ(stats().stalled_connections + stats().stalled_calls, 1u);
  EXPECT_EQ(service_.last().end, GrpcEnd::kStalled);
}

TEST_F(GrpcAbuseTest, TooManyUnsentAnswersRefuseNewStreams) {
  Serve({.unsent_bytes_max = 300'000});
  Client client(loop_, port_, {.stream_window = 0, .give_window = false});
  std::vector<Client::Stream*> streams;
  for (int i = 0; i < 4; ++i) {
    streams.push_back(&client.Open("/test.Echo/Chat"));
    client.Send(*streams.back(), std::string(100'000, 'x'));
  }
  ASSERT_TRUE(client.WaitFor(
      [&] { return service_.calls == 4 && service_.last().call->unsent_bytes() > 0; }));
  auto& refused = client.Open("/test.Echo/Chat");
  ASSERT_TRUE(client.WaitForEnd(refused));
  EXPECT_EQ(refused.error_code, NGHTTP2_REFUSED_STREAM);
  EXPECT_EQ(stats().streams_refused, 1u);
  // Taking some of it opens the door again.
  client.Reset(*streams[0]);
  client.Reset(*streams[1]);
  ASSERT_TRUE(client.WaitFor([&] { return server_->active_call_count() == 2; }));
  auto& accepted = client.Open("/test.Echo/Chat", {}, true);
  ASSERT_TRUE(client.WaitForEnd(accepted));
  EXPECT_EQ(accepted.grpc_status, 0);
}

TEST_F(GrpcAbuseTest, WindowsHeldForUnsentAnswersAreGivenLater) {
  Serve({.unsent_bytes_max = 300'000});
  Client client(loop_, port_, {.stream_window = 0, .give_window = false});
  std::vector<Client::Stream*> streams;
  for (int i = 0; i < 4; ++i) {
    streams.push_back(&client.Open("/test.Echo/Chat"));
    for (int m = 0; m < 50; ++m) client.Send(*streams.back(), std::string(100'000, 'x'));
  }
  size_t unsent_max = 0;
  auto all_came = [&] {
    size_t unsent = 0;
    for (auto& handler : service_.handlers) unsent += handler->call->unsent_bytes();
    unsent_max = std::max(unsent_max, unsent);
    return std::all_of(streams.begin(), streams.end(),
                       [](auto* stream) { return stream->messages.size() == 50; });
  };
  for (int i = 0; i < 3000 && !all_came(); ++i) {
    if (i > 100) client.GiveWindow(*streams[i % 4], 20'000);
    client.Pump();
    loop_.Turn({});
  }
  EXPECT_TRUE(all_came());
  // What the limit and one window of each stream allow.
  EXPECT_LE(unsent_max, 300'000u + 4 * (1 << 20) + 4 * 100'000);
}

// --- what is not HTTP/2 --------------------------------------------------------------------------

TEST_F(GrpcAbuseTest, OtherProtocolsAreClosed) {
  Serve();
  for (std::string_view text :
       {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\x16\x03\x01\x02", "PRI * NO"}) {
    RawPeer peer = RawPeer::ConnectTo(loop_, port_);
    ASSERT_TRUE(peer.Send(std::string(text) + std::string(100, '\0')));
    ASSERT_TRUE(peer.WaitForEnd()) << text;
  }
  EXPECT_EQ(stats().bad_prefaces, 3u);
  EXPECT_EQ(server_->connection_count(), 0u);
}

TEST_F(GrpcAbuseTest, ForbiddenFramesCostTheConnection) {
  const std::pair<std::string, std::string> kFrames[] = {
      {"data on an idle stream", Http2Frame(NGHTTP2_DATA, 0, 7, "abc")},
      {"an even stream", Http2Frame(NGHTTP2_HEADERS, 4, 2, "\x83")},
      {"a frame over the limit", Http2Frame(NGHTTP2_DATA, 0, 1, std::string(16'385, 'x'))},
      {"a window update of nothing", Http2Frame(NGHTTP2_WINDOW_UPDATE, 0, 0, std::string(4, '\0'))},
      {"a window beyond 2^31",
       Http2Frame(NGHTTP2_WINDOW_UPDATE, 0, 0, std::string("\x7f\xff\xff\xff", 4))},
      {"broken header compression", Http2Frame(NGHTTP2_HEADERS, 4, 9, "\xff\xff\xff\xff\xff\xff")},
      {"a settings frame with a wrong length", Http2Frame(NGHTTP2_SETTINGS, 0, 0, "abc")},
      {"a push promise", Http2Frame(NGHTTP2_PUSH_PROMISE, 4, 1, std::string("\0\0\0\2\x83", 5))},
      {"a continuation of nothing", Http2Frame(NGHTTP2_CONTINUATION, 4, 1, "\x83")},
  };
  for (const auto& [name, frame] : kFrames) {
    Serve();
    Client client(loop_, port_);
    auto& stream = client.Open("/test.Echo/Chat");
    ASSERT_EQ(stream.id, 1);
    client.Send(stream, "x");
    ASSERT_TRUE(client.WaitForMessages(stream, 1));
    client.SendRaw(frame);
    ASSERT_TRUE(client.WaitForClose()) << name;
    EXPECT_TRUE(client.goaway) << name;
    EXPECT_EQ(service_.last().end, GrpcEnd::kConnectionLost) << name;
    EXPECT_EQ(stats().protocol_errors, 1u) << name;
    TearDown();
  }
}

TEST_F(GrpcAbuseTest, SilentClientsTimeOut) {
  Serve({.handshake_timeout = milliseconds(30)});
  RawPeer silent = RawPeer::ConnectTo(loop_, port_);
  RawPeer half = RawPeer::ConnectTo(loop_, port_);
  ASSERT_TRUE(half.Send(kPreface));  // without SETTINGS
  ASSERT_TRUE(silent.WaitForEnd());
  ASSERT_TRUE(half.WaitForEnd());
  EXPECT_EQ(stats().handshake_timeouts, 2u);
}

}  // namespace
}  // namespace llmd::net
