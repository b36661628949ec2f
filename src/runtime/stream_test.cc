#include "runtime/stream.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/random.h"
#include "runtime/loop.h"
#include "runtime/runtime_testing.h"
#include "runtime/socket.h"

namespace llmd::runtime {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// A stream and the raw socket at its other end.
class StreamTest : public ::testing::TestWithParam<IoEngine> {
 protected:
  struct Owner final : IoHandler {
    void OnIo(IoEvents events) override {
      ++events_seen;
      writable |= events.writable();
      failed |= events.failed();
      if (events.readable()) can_read = true;
      if (stream && !paused) ReadAll();
    }
    void ReadAll() {
      std::vector<char> room(room_bytes);
      while (can_read && !ended) {
        const IoResult result = stream->Read(room);
        read.append(room.data(), result.bytes);
        if (result.status == IoStatus::kDrained && (!peer_closed || result.bytes == 0)) {
          can_read = false;
        }
        if (result.status == IoStatus::kEnd || result.status == IoStatus::kError) {
          ended = true;
          failed |= result.status == IoStatus::kError;
        }
      }
    }
    std::unique_ptr<Stream> stream;
    std::string read;
    size_t room_bytes = 16 << 10;
    int events_seen = 0;
    bool paused = false, can_read = false, writable = false, peer_closed = false;
    bool ended = false, failed = false;
  };
  struct Link {
    Owner owner;
    int peer = -1;
    ~Link() {
      if (peer >= 0) ::close(peer);
    }
  };

  std::unique_ptr<Link> Connect(int peer_buffer_bytes = 0) {
    auto link = std::make_unique<Link>();
    const int listener =
        ListenTcp(SocketAddress::Ipv4(0x7f000001, 0),
                  {.receive_buffer_bytes = peer_buffer_bytes})
            .value();
    const SocketAddress address = LocalAddress(listener).value();
    link->owner.stream = NewTcpStream(loop_, ConnectTcp(address).value(), link->owner).value();
    EXPECT_TRUE(TurnUntil(loop_, [&] {
      if (link->peer < 0) link->peer = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK);
      return link->peer >= 0 && link->owner.writable;
    }));
    EXPECT_EQ(SocketError(link->owner.stream->fd()), 0);
    CloseFd(listener);
    link->owner.can_read = true;  // streams may be read at any time
    link->owner.ReadAll();
    return link;
  }
  static IoResult Write(Link& link, std::string_view bytes) {
    iovec part{const_cast<char*>(bytes.data()), bytes.size()};
    return link.owner.stream->Write({&part, 1});
  }
  // Reads what has come to the raw socket; false once it has ended.
  static bool PeerRead(Link& link, std::string& into) {
    char room[64 << 10];
    while (true) {
      const ssize_t n = ::recv(link.peer, room, sizeof(room), 0);
      if (n <= 0) return n < 0 && errno == EAGAIN;
      into.append(room, static_cast<size_t>(n));
    }
  }
  static std::string Noise(size_t bytes, uint64_t seed) {
    base::Random random(seed);
    std::string noise(bytes, 0);
    for (char& c : noise) c = static_cast<char>(random.Below(256));
    return noise;
  }

  EventLoop loop_{GetParam()};
};

TEST_P(StreamTest, MovesBytesAndReportsEndAndReset) {
  EventLoop loop(GetParam());
  const int listener = ListenTcp(SocketAddress::Ipv4(0x7f000001, 0)).value();
  const SocketAddress address = LocalAddress(listener).value();
  CountingHandler client_events, server_events;
  auto client = NewTcpStream(loop, ConnectTcp(address).value(), client_events).value();
  int accepted = -1;
  ASSERT_TRUE(TurnUntil(loop, [&] {
    if (accepted < 0) accepted = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK);
    return accepted >= 0 && client_events.last.writable();
  }));
  EXPECT_EQ(SocketError(client->fd()), 0);
  auto server = NewTcpStream(loop, accepted, server_events).value();
  iovec parts[2] = {{const_cast<char*>("hel"), 3}, {const_cast<char*>("lo"), 2}};
  EXPECT_EQ(client->Write(parts).bytes, 5u);
  char room[16];
  ASSERT_TRUE(TurnUntil(loop, [&] { return server_events.last.readable(); }));
  IoResult result = server->Read(room);
  EXPECT_EQ(std::string_view(room, result.bytes), "hello");
  EXPECT_EQ(result.status, IoStatus::kDrained);
  client->ShutdownWrite();
  ASSERT_TRUE(TurnUntil(loop, [&] { return server_events.last.peer_closed(); }));
  EXPECT_EQ(server->Read(room).status, IoStatus::kEnd);
  server->ResetOnClose();
  server.reset();
  ASSERT_TRUE(TurnUntil(loop, [&] { return client_events.last.failed(); }));
  EXPECT_EQ(client->Read(room).status, IoStatus::kError);
  EXPECT_EQ(client->error(), ECONNRESET);
  CloseFd(listener);
}

// Writes of every size, with a peer that reads now and then: nothing is lost, doubled or swapped.
TEST_P(StreamTest, KeepsTheOrderOfSmallAndLargeWrites) {
  auto link = Connect(16 << 10);
  const std::string all = Noise(4 << 20, 1);
  base::Random random(2);
  std::string got;
  size_t written = 0;
  bool blocked = false;
  ASSERT_TRUE(TurnUntil(loop_, [&] {
    if (link->owner.writable) blocked = false;
    link->owner.writable = false;
    for (int i = 0; i < 8 && !blocked && written < all.size(); ++i) {
      const size_t most = random.Below(3) == 0 ? 200'000 : 3000;
      const size_t size = std::min<size_t>(1 + random.Below(most), all.size() - written);
      const IoResult result = Write(*link, std::string_view(all).substr(written, size));
      written += result.bytes;
      blocked = result.status == IoStatus::kDrained;
    }
    if (random.Below(4) == 0 || written == all.size()) PeerRead(*link, got);
    return got.size() == all.size();
  }));
  EXPECT_TRUE(got == all);
}

TEST_P(StreamTest, ReceivesSmallAndLargeMessagesInOrder) {
  auto link = Connect();
  const std::string all = Noise(4 << 20, 3);
  base::Random random(4);
  size_t sent = 0;
  const base::TimePoint until = Now() + seconds(5);
  while (link->owner.read.size() < all.size() && Now() < until) {
    // Bulk for a while, then messages one by one, and rooms of every size.
    const bool bulk = sent / 500'000 % 2 == 1;
    link->owner.room_bytes = 1 + random.Below(bulk ? 200'000 : 20'000);
    const size_t size =
        std::min<size_t>(1 + random.Below(bulk ? 300'000 : 2000), all.size() - sent);
    if (random.Below(40) == 0) link->owner.stream->SetReadLowWater(bulk ? 64 << 10 : 1);
    if (sent == all.size()) link->owner.stream->SetReadLowWater(1);
    if (size > 0) {
      const ssize_t n = ::send(link->peer, all.data() + sent, size, MSG_NOSIGNAL);
      if (n > 0) sent += static_cast<size_t>(n);
    }
    link->owner.can_read = true;
    loop_.Turn(base::Duration::zero());
    if (random.Below(3) > 0) link->owner.ReadAll();
  }
  EXPECT_TRUE(link->owner.read == all) << sent << " sent, " << link->owner.read.size() << " read";
  ::close(std::exchange(link->peer, -1));
  EXPECT_TRUE(TurnUntil(loop_, [&] { return link->owner.ended; }));
}

// While its owner pauses, a stream does not take in all that a peer sends, nor does it starve the
// others.
TEST_P(StreamTest, APausedOwnerHoldsThePeerBack) {
  auto link = Connect();
  auto other = Connect();
  link->owner.paused = true;
  const std::string much = Noise(1 << 20, 5);
  std::string sent;
  const auto send_more = [&] {
    const ssize_t n = ::send(link->peer, much.data(), much.size(), MSG_NOSIGNAL);
    if (n > 0) sent.append(much, 0, static_cast<size_t>(n));
    return n > 0;
  };
  const base::TimePoint until = Now() + seconds(5);
  for (int idle = 0; idle < 5 && Now() < until;) {
    idle = send_more() ? 0 : idle + 1;
    loop_.Turn(milliseconds(2));
  }
  EXPECT_FALSE(send_more());
  EXPECT_LT(sent.size(), 64u << 20);
  ASSERT_EQ(::send(other->peer, "hello", 5, 0), 5);
  ASSERT_TRUE(TurnUntil(loop_, [&] { return other->owner.read == "hello"; }));
  link->owner.paused = false;
  link->owner.ReadAll();
  ASSERT_TRUE(TurnUntil(loop_, [&] { return link->owner.read.size() == sent.size(); }));
  EXPECT_TRUE(link->owner.read == sent);
}

TEST_P(StreamTest, BytesWrittenBeforeTheStreamIsDestroyedStillGoOut) {
  for (const bool turns : {false, true}) {
    auto link = Connect();
    ASSERT_EQ(Write(*link, "last words").bytes, 10u);
    if (turns) loop_.Turn(base::Duration::zero());
    link->owner.stream.reset();
    std::string got;
    ASSERT_TRUE(TurnUntil(loop_, [&] { return !PeerRead(*link, got); }));
    EXPECT_EQ(got, "last words");
  }
}

// Without a turn of the loop: who destroys a stream may not come back to it.
TEST_P(StreamTest, DestroyingAStreamClosesItAtOnce) {
  for (const bool reset : {false, true}) {
    auto link = Connect();
    loop_.Turn(base::Duration::zero());
    if (reset) link->owner.stream->ResetOnClose();
    link->owner.stream.reset();
    char byte;
    EXPECT_EQ(::recv(link->peer, &byte, 1, 0), reset ? -1 : 0);
    if (reset) EXPECT_EQ(errno, ECONNRESET);
  }
}

// The peer reads nothing until the stream is gone with bytes that did not fit.
TEST_P(StreamTest, BytesThatDidNotFitOutliveTheStream) {
  auto link = Connect(4096);
  const std::string piece = Noise(4000, 6);
  std::string sent;
  IoResult result;
  const base::TimePoint until = Now() + seconds(5);
  do {
    result = Write(*link, piece);
    sent.append(piece, 0, result.bytes);
    loop_.Turn(base::Duration::zero());
  } while (result.status == IoStatus::kOk && Now() < until);
  ASSERT_EQ(result.status, IoStatus::kDrained);
  link->owner.stream.reset();
  std::string got;
  ASSERT_TRUE(TurnUntil(loop_, [&] { return !PeerRead(*link, got); }));
  EXPECT_TRUE(got == sent) << got.size() << " of " << sent.size();
}

TEST_P(StreamTest, FinFollowsTheBytesBeforeIt) {
  auto link = Connect(4096);
  std::string sent;
  IoResult result;
  do {
    const std::string piece = Noise(4000, sent.size());
    result = Write(*link, piece);
    sent.append(piece, 0, result.bytes);
    loop_.Turn(base::Duration::zero());
  } while (result.status == IoStatus::kOk && sent.size() < 100u << 20);
  link->owner.stream->ShutdownWrite();
  std::string got;
  ASSERT_TRUE(TurnUntil(loop_, [&] { return !PeerRead(*link, got); }));
  EXPECT_TRUE(got == sent) << got.size() << " of " << sent.size();
  ASSERT_EQ(::send(link->peer, "still heard", 11, 0), 11);
  ASSERT_TRUE(TurnUntil(loop_, [&] { return link->owner.read == "still heard"; }));
}

TEST_P(StreamTest, AWriteAfterAResetFailsInTheEnd) {
  auto link = Connect();
  const linger now{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(link->peer, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
  ::close(std::exchange(link->peer, -1));
  IoResult result;
  EXPECT_TRUE(TurnUntil(loop_, [&] {
    result = Write(*link, "x");
    return result.status == IoStatus::kError;
  }));
  EXPECT_NE(link->owner.stream->error(), 0);
  EXPECT_TRUE(TurnUntil(loop_, [&] { return link->owner.ended; }));
}

TEST_P(StreamTest, AFailedConnectShowsInTheSocketError) {
  const int listener = ListenTcp(SocketAddress::Ipv4(0x7f000001, 0)).value();
  const SocketAddress address = LocalAddress(listener).value();
  CloseFd(listener);
  Owner owner;
  owner.paused = true;
  owner.stream = NewTcpStream(loop_, ConnectTcp(address).value(), owner).value();
  ASSERT_TRUE(TurnUntil(loop_, [&] { return owner.writable; }));
  EXPECT_TRUE(owner.failed);
  EXPECT_EQ(SocketError(owner.stream->fd()), ECONNREFUSED);
}

// More streams than there are buffers to receive into, all at once.
TEST_P(StreamTest, ServesMoreStreamsThanBuffers) {
  std::vector<std::unique_ptr<Link>> links;
  for (int i = 0; i < 150; ++i) links.push_back(Connect());
  for (int round = 0; round < 6; ++round) {
    for (size_t i = 0; i < links.size(); ++i) {
      const std::string text = std::to_string(i) + ";";
      ASSERT_EQ(::send(links[i]->peer, text.data(), text.size(), 0),
                static_cast<ssize_t>(text.size()));
    }
    ASSERT_TRUE(TurnUntil(loop_, [&] {
      return std::ranges::all_of(links, [&](const auto& link) {
        return std::ranges::count(link->owner.read, ';') == round + 1;
      });
    }));
  }
  for (size_t i = 0; i < links.size(); ++i) {
    EXPECT_EQ(links[i]->owner.read.substr(0, links[i]->owner.read.find(';')), std::to_string(i));
  }
}

// A handler may destroy other streams, also such as have events in the same turn.
TEST_P(StreamTest, AHandlerMayDestroyOtherStreams) {
  struct Destroyer final : IoHandler {
    void OnIo(IoEvents) override {
      ++calls;
      if (armed) other->reset();
    }
    std::unique_ptr<Stream>* other = nullptr;
    int calls = 0;
    bool armed = false;
  };
  Destroyer handlers[2];
  int pairs[2][2];
  std::unique_ptr<Stream> streams[2];
  for (int i = 0; i < 2; ++i) {
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pairs[i]), 0);
    streams[i] = NewTcpStream(loop_, pairs[i][0], handlers[i]).value();
    handlers[i].other = &streams[1 - i];
  }
  ASSERT_TRUE(TurnUntil(loop_, [&] { return handlers[0].calls > 0 && handlers[1].calls > 0; }));
  for (int i = 0; i < 3; ++i) loop_.Turn(base::Duration::zero());
  const int before = handlers[0].calls + handlers[1].calls;
  for (int i = 0; i < 2; ++i) {
    handlers[i].armed = true;
    ASSERT_EQ(::write(pairs[i][1], "x", 1), 1);
  }
  for (int i = 0; i < 3; ++i) loop_.Turn(milliseconds(5));
  EXPECT_EQ(handlers[0].calls + handlers[1].calls, before + 1);
  EXPECT_NE(streams[0] == nullptr, streams[1] == nullptr);
  for (auto& pair : pairs) ::close(pair[1]);
}

// Between two runs a loop's streams may be used, and destroyed, by any thread.
TEST(Stream, SurvivesTheEndOfARunAndGoesOnInTheNext) {
  for (const IoEngine engine : Engines()) {
    EventLoop loop(engine);
    CountingHandler handler;
    int pair[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    auto stream = NewTcpStream(loop, pair[0], handler).value();
    std::string got;
    handler.then = [&] {
      char room[100];
      const IoResult result = stream->Read(room);
      got.append(room, result.bytes);
      if (got.ends_with(".")) {
        iovec part{got.data(), got.size()};
        stream->Write({&part, 1});
        loop.Stop();
      }
    };
    for (int round = 1; round <= 3; ++round) {
      std::thread thread([&] { loop.Run(); });
      ASSERT_EQ(::write(pair[1], "12.", 3), 3);
      thread.join();
      EXPECT_EQ(got.size(), 3u * static_cast<size_t>(round));
      char answer[100];
      EXPECT_EQ(::read(pair[1], answer, sizeof(answer)), 3 * round) << "written in the last turn";
    }
    stream.reset();
    char byte;
    EXPECT_EQ(::read(pair[1], &byte, 1), 0);
    ::close(pair[1]);
  }
}

INSTANTIATE_TEST_SUITE_P(Engines, StreamTest, ::testing::ValuesIn(Engines()), EngineName);

}  // namespace
}  // namespace llmd::runtime
