// ZeroMQ on a loop, over real sockets. Everything runs on one thread; waiting means turning the
// loop.
#include "net/zmq.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "net/net_testing.h"
#include "net/zmq_auth.h"

namespace llmd::net {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

struct Inbox final : ZmqSink {
  std::vector<std::vector<std::string>> messages;
  int connected = 0, again = 0, disconnected = 0;

  void OnZmqMessage(std::span<const std::string_view> frames) override {
    messages.emplace_back(frames.begin(), frames.end());
  }
  void OnZmqConnected(bool was_there) override {
    ++connected;
    again += was_there;
  }
  void OnZmqDisconnected() override { ++disconnected; }
};

ZmqSocketOptions Bound(std::string address = "tcp://127.0.0.1:0") {
  ZmqSocketOptions options;
  options.bind = {std::move(address)};
  return options;
}

ZmqSocketOptions ConnectedTo(const std::string& address) {
  ZmqSocketOptions options;
  options.connect = {address};
  options.reconnect_min = std::chrono::milliseconds(5);
  options.reconnect_max = std::chrono::milliseconds(20);
  return options;
}

class ZmqTest : public testing::Test {
 protected:
  std::unique_ptr<ZmqSubscriber> Subscribe(const ZmqSocketOptions& options, ZmqSink& sink,
                                           std::vector<std::string> topics = {}) {
    auto made = ZmqSubscriber::Create(context_, options, topics, sink);
    EXPECT_TRUE(made) << made.error().ToString();
    return *std::move(made);
  }
  std::unique_ptr<ZmqPublisher> Publish(const ZmqSocketOptions& options) {
    auto made = ZmqPublisher::Create(context_, options);
    EXPECT_TRUE(made) << made.error().ToString();
    return *std::move(made);
  }
  template <class Done>
  bool Until(Done done) {
    return TurnUntil(loop_, done);
  }
  // Sends until something arrives: a publisher does not know when a subscription is in force.
  bool Join(ZmqPublisher& publisher, const Inbox& inbox, std::string_view topic = "kv@join") {
    return Until([&] {
      if (!inbox.messages.empty()) return true;
      const std::string_view frames[] = {topic, "join"};
      publisher.Send(frames);
      return false;
    });
  }

  runtime::EventLoop loop_;
  ZmqContext context_{loop_};
};

TEST_F(ZmqTest, Tutorial) {
  Inbox inbox;
  const auto subscriber = Subscribe(Bound(), inbox, {"kv@"});
  const auto publisher = Publish(ConnectedTo(subscriber->bound()[0]));
  ASSERT_TRUE(Join(*publisher, inbox));
  inbox.messages.clear();

  const std::string_view ours[] = {"kv@10.0.0.1:8000@m", "12345678", std::string_view("\0x", 2)};
  const std::string_view other[] = {"metrics", "1"};
  EXPECT_TRUE(publisher->Send(other));
  EXPECT_TRUE(publisher->Send(ours));
  ASSERT_TRUE(
      Until([&] { return !inbox.messages.empty() && inbox.messages.back()[0] != "kv@join"; }));
  EXPECT_THAT(inbox.messages.back(),
              ElementsAre("kv@10.0.0.1:8000@m", "12345678", std::string("\0x", 2)));
  EXPECT_EQ(inbox.connected, 1);
}

TEST_F(ZmqTest, NothingIsLostOrOutOfOrderInEitherDirectionOfConnecting) {
  for (const bool publisher_binds : {false, true}) {
    Inbox inbox;
    std::unique_ptr<ZmqSubscriber> subscriber;
    std::unique_ptr<ZmqPublisher> publisher;
    if (publisher_binds) {
      publisher = Publish(Bound());
      subscriber = Subscribe(ConnectedTo(publisher->bound()[0]), inbox);
    } else {
      subscriber = Subscribe(Bound(), inbox);
      publisher = Publish(ConnectedTo(subscriber->bound()[0]));
    }
    ASSERT_TRUE(Join(*publisher, inbox));
    constexpr size_t kCount = 20'000;  // many turns' worth
    std::string payload(300, 'x');
    for (size_t i = 0; i < kCount; ++i) {
      const std::string number = std::to_string(i);
      const std::string_view frames[] = {"t", number, payload};
      ASSERT_TRUE(publisher->Send(frames));
    }
    std::erase_if(inbox.messages, [](const auto& m) { return m[0] == "kv@join"; });
    ASSERT_TRUE(Until([&] { return !inbox.messages.empty() && inbox.messages.back()[1] ==
                                   std::to_string(kCount - 1); }));
    std::erase_if(inbox.messages, [](const auto& m) { return m[0] == "kv@join"; });
    ASSERT_EQ(inbox.messages.size(), kCount);
    for (size_t i = 0; i < kCount; ++i) ASSERT_EQ(inbox.messages[i][1], std::to_string(i));
    EXPECT_EQ(publisher->stats().overflows, 0u);
  }
}

TEST_F(ZmqTest, OneTurnTakesABoundedNumberOfMessages) {
  Inbox inbox;
  const auto subscriber = Subscribe(Bound(), inbox);
  const auto publisher = Publish(ConnectedTo(subscriber->bound()[0]));
  ASSERT_TRUE(Join(*publisher, inbox));
  for (int i = 0; i < 5000; ++i) {
    const std::string_view frames[] = {"t", "x"};
    publisher->Send(frames);
  }
  size_t before = inbox.messages.size();
  size_t most = 0;
  ASSERT_TRUE(Until([&] {
    most = std::max(most, inbox.messages.size() - before);
    before = inbox.messages.size();
    return before >= 5000;
  }));
  // Its descriptor's event and its timer may fall into the same turn.
  EXPECT_LE(most, size_t{2 * kZmqTurnMessagesMax});
  EXPECT_GT(most, 0u);
}

TEST_F(ZmqTest, AFullQueueIsCountedAndCostsOnlyItsOwnSubscriber) {
  // Two loops: the slow subscriber's is never turned.
  runtime::EventLoop slow_loop;
  ZmqContext slow_context(slow_loop);
  Inbox slow_inbox, inbox;
  ZmqSocketOptions bound = Bound();
  bound.queue_messages_max = 20;
  const auto publisher = Publish(bound);
  ZmqSocketOptions connected = ConnectedTo(publisher->bound()[0]);
  const auto subscriber = Subscribe(connected, inbox);
  connected.queue_messages_max = 10;
  auto slow = ZmqSubscriber::Create(slow_context, connected, {}, slow_inbox);
  ASSERT_TRUE(slow);
  ASSERT_TRUE(Join(*publisher, inbox));
  ASSERT_TRUE(TurnUntil(slow_loop, [&] {
    const std::string_view frames[] = {"kv@join", "join"};
    publisher->Send(frames);
    loop_.Turn(base::Duration(0));
    return !slow_inbox.messages.empty();
  }));

  const std::string payload(64 << 10, 'x');
  bool all_had_room = true;
  size_t sent = 0;
  auto send = [&] {
    const std::string number = std::to_string(sent++);
    const std::string_view frames[] = {"t", number, payload};
    all_had_room &= publisher->Send(frames);
    // The fast one reads along and misses nothing.
    return Until([&] { return inbox.messages.back()[1] == number; });
  };
  while (all_had_room && sent < 20'000) ASSERT_TRUE(send());
  EXPECT_EQ(publisher->stats().overflows, 1u);
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(send());

  // Once it reads, it gets what had been queued, then a gap, then what comes.
  const size_t resumed = sent;
  ASSERT_TRUE(TurnUntil(slow_loop, [&] {
    EXPECT_TRUE(send());
    const auto& last = slow_inbox.messages.back();
    return last[0] == "t" && std::stoul(last[1]) >= resumed;
  }));
  std::erase_if(slow_inbox.messages, [](const auto& m) { return m[0] != "t"; });
  EXPECT_LT(slow_inbox.messages.size(), sent);
  slow->reset();
}

TEST_F(ZmqTest, ALateJoinerMissesWhatWasBefore) {
  const auto publisher = Publish(Bound());
  for (int i = 0; i < 10; ++i) {
    const std::string_view frames[] = {"t", "early"};
    EXPECT_TRUE(publisher->Send(frames));
  }
  Inbox inbox;
  const auto subscriber = Subscribe(ConnectedTo(publisher->bound()[0]), inbox);
  ASSERT_TRUE(Join(*publisher, inbox));
  for (const auto& message : inbox.messages) EXPECT_EQ(message[1], "join");
}

TEST_F(ZmqTest, APeerThatComesBackIsReconnectedAndCounted) {
  auto publisher = Publish(Bound());
  const std::string address = publisher->bound()[0];
  Inbox inbox;
  const auto subscriber = Subscribe(ConnectedTo(address), inbox);
  ASSERT_TRUE(Join(*publisher, inbox));
  EXPECT_EQ(subscriber->stats().connected, 1u);
  for (int round = 1; round <= 2; ++round) {
    publisher.reset();
    ASSERT_TRUE(Until([&] { return inbox.disconnected == round; }));
    EXPECT_EQ(subscriber->stats().connected, 0u);
    // The kernel lets go of the port when libzmq's thread has closed it.
    ASSERT_TRUE(Until([&] {
      auto again = ZmqPublisher::Create(context_, Bound(address));
      if (again) publisher = *std::move(again);
      return again.has_value();
    }));
    inbox.messages.clear();
    ASSERT_TRUE(Join(*publisher, inbox));
    EXPECT_EQ(inbox.again, round);
    EXPECT_EQ(subscriber->stats().reconnections, static_cast<uint64_t>(round));
  }
  EXPECT_EQ(subscriber->stats().connections, 3u);
  EXPECT_EQ(subscriber->stats().disconnections, 2u);
}

TEST_F(ZmqTest, ManyPublishersAndAddressesThatComeAndGo) {
  Inbox inbox;
  const auto subscriber = Subscribe({}, inbox);
  std::vector<std::unique_ptr<ZmqPublisher>> publishers;
  for (int i = 0; i < 20; ++i) {
    publishers.push_back(Publish(Bound()));
    ASSERT_TRUE(subscriber->Connect(publishers.back()->bound()[0]).ok());
  }
  for (auto& publisher : publishers) {
    inbox.messages.clear();
    ASSERT_TRUE(Join(*publisher, inbox));
  }
  EXPECT_EQ(subscriber->stats().connected, 20u);
  subscriber->Disconnect(publishers[0]->bound()[0]);
  ASSERT_TRUE(Until([&] { return subscriber->stats().connected == 19; }));
}

TEST_F(ZmqTest, GarbageOnTheWireAndOversizedMessagesHarmNobody) {
  Inbox inbox;
  ZmqSocketOptions bound = Bound();
  bound.frame_bytes_max = 1000;
  const auto subscriber = Subscribe(bound, inbox);
  const std::string address = subscriber->bound()[0];
  const uint16_t port = static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1)));
  // To libzmq this is a peer of the first ZMTP version, with an odd name and odd messages.
  RawPeer http = RawPeer::ConnectTo(loop_, port);
  http.Send("GET / HTTP/1.1\r\nHost: x\r\n\r\n" + std::string(100, '\xff'));
  RawPeer odd = RawPeer::ConnectTo(loop_, port);
  odd.Send(std::string("\xff\0\0\0\0\0\0\0\1\x7f\3\0BOGUS", 17) + std::string(47, '\0'));
  ASSERT_TRUE(Until([&] { return subscriber->stats().handshakes_failed > 0; }));

  const auto publisher = Publish(ConnectedTo(address));
  ASSERT_TRUE(Join(*publisher, inbox));
  const std::vector<std::string_view> many(kZmqFramesMax + 1, "x");
  publisher->Send(many);
  ASSERT_TRUE(Until([&] { return subscriber->stats().malformed == 1; }));
  const std::vector<std::string_view> most(kZmqFramesMax, "y");
  publisher->Send(most);
  ASSERT_TRUE(Until([&] { return inbox.messages.back().size() == kZmqFramesMax; }));

  const std::string large(1001, 'x');
  const std::string_view too_large[] = {"t", large};
  publisher->Send(too_large);
  ASSERT_TRUE(Until([&] { return inbox.disconnected > 0; }));
  inbox.messages.clear();
  EXPECT_TRUE(Join(*publisher, inbox));  // it came back
}

TEST_F(ZmqTest, CurveLetsInWhoHasTheKeys) {
  const ZmqKeyPair server = ZmqKeyPair::Generate(), client = ZmqKeyPair::Generate();
  struct Case {
    const char* name;
    ZmqSecurity security;
    bool enters;
  };
  const Case cases[] = {
      {"right key, known client",
       {.server_public_key = server.public_key, .client = client}, true},
      {"right key, unknown client",
       {.server_public_key = server.public_key, .client = ZmqKeyPair::Generate()}, false},
      {"wrong key", {.server_public_key = client.public_key, .client = client}, false},
      {"no encryption", {}, false},
  };
  for (const Case& c : cases) {
    Inbox inbox;
    ZmqSocketOptions bound = Bound();
    bound.security = {.server_secret_key = server.secret_key, .client_keys = {client.public_key}};
    const auto subscriber = Subscribe(bound, inbox);
    ZmqSocketOptions connected = ConnectedTo(subscriber->bound()[0]);
    connected.security = c.security;
    const auto publisher = Publish(connected);
    if (c.enters) {
      EXPECT_TRUE(Join(*publisher, inbox)) << c.name;
      continue;
    }
    EXPECT_TRUE(Until([&] {
      return subscriber->stats().handshakes_failed + publisher->stats().handshakes_failed > 0;
    })) << c.name;
    EXPECT_EQ(subscriber->stats().connected, 0u) << c.name;
    EXPECT_TRUE(inbox.messages.empty()) << c.name;
  }
  EXPECT_GE(context_.refused(), 1u);
}

TEST_F(ZmqTest, AllowListRefusesOtherAddresses) {
  for (const auto& [allowed, enters] :
       {std::pair{"10.0.0.0/8", false}, std::pair{"127.0.0.0/8", true},
        std::pair{"127.0.0.1", true}, std::pair{"127.0.0.2", false}}) {
    for (const char* bind : {"tcp://127.0.0.1:0", "tcp://*:0"}) {
      Inbox inbox;
      ZmqSocketOptions bound = Bound(bind);
      bound.security.allowed_addresses = {"fd00::/8", allowed};
      const auto subscriber = Subscribe(bound, inbox);
      const std::string& address = subscriber->bound()[0];
      const uint64_t refused_before = context_.refused();
      const auto publisher =
          Publish(ConnectedTo("tcp://127.0.0.1" + address.substr(address.rfind(':'))));
      if (enters) {
        EXPECT_TRUE(Join(*publisher, inbox)) << allowed << " " << bind;
      } else {
        EXPECT_TRUE(Until([&] { return context_.refused() > refused_before; }))
            << allowed << " " << bind;
        EXPECT_EQ(inbox.connected, 0);
        EXPECT_EQ(subscriber->stats().connected, 0u);
      }
    }
  }
}

TEST(ZmqNetworkTest, Contains) {
  struct Case {
    const char *network, *ip;
    bool inside;
  };
  for (const Case& c : {Case{"10.0.0.0/8", "10.255.0.1", true}, {"10.0.0.0/8", "11.0.0.1", false},
                        {"10.1.2.3", "10.1.2.3", true}, {"10.1.2.3", "10.1.2.4", false},
                        {"10.1.2.0/23", "10.1.3.255", true}, {"10.1.2.0/23", "10.1.4.0", false},
                        {"0.0.0.0/0", "8.8.8.8", true}, {"0.0.0.0/0", "::1", false},
                        {"::/0", "8.8.8.8", true}, {"fd00::/9", "fd7f::1", true},
                        {"fd00::/9", "fd80::1", false}, {"10.0.0.0/8", "::ffff:10.0.0.1", true},
                        {"::1", "garbage", false}}) {
    EXPECT_EQ(ZmqNetwork::Parse(c.network)->Contains(c.ip), c.inside) << c.network << " " << c.ip;
  }
  for (const char* bad : {"", "10.0.0.0/33", "::1/129", "10.0.0/8", "a/8", "10.0.0.0/", "::1/-1"}) {
    EXPECT_FALSE(ZmqNetwork::Parse(bad)) << bad;
  }
}

TEST_F(ZmqTest, MistakesAreToldAtOnce) {
  Inbox inbox;
  const auto subscriber = Subscribe(Bound(), inbox);
  auto error = [&](const ZmqSocketOptions& options) {
    auto made = ZmqSubscriber::Create(context_, options, {}, inbox);
    EXPECT_FALSE(made);
    return made ? std::string() : made.error().ToString();
  };
  EXPECT_THAT(error(Bound(subscriber->bound()[0])), HasSubstr("in use"));
  EXPECT_THAT(error(Bound("nonsense")), HasSubstr("INVALID_ARGUMENT"));
  EXPECT_THAT(error(ConnectedTo("tcp://1.2.3.4")), HasSubstr("tcp://1.2.3.4"));
  ZmqSocketOptions keys = Bound();
  keys.security.server_secret_key = "short";
  EXPECT_THAT(error(keys), HasSubstr("secret key"));
  keys.security = {.client_keys = {ZmqKeyPair::Generate().public_key}};
  EXPECT_THAT(error(keys), HasSubstr("server of CURVE"));
  keys.security = {.allowed_addresses = {"10.0.0.0/99"}};
  EXPECT_THAT(error(keys), HasSubstr("10.0.0.0/99"));
}

TEST(ZmqKeysTest, FromBareFilesAndCertificates) {
  const ZmqKeyPair pair = ZmqKeyPair::Generate();
  const std::string path = testing::TempDir() + "/llmd_zmq_keys_test" + std::to_string(::getpid());
  auto write = [&](const std::string& text) { std::ofstream(path) << text; };
  write(pair.secret_key + "\n");
  EXPECT_EQ(LoadZmqKeyPair(path)->public_key, pair.public_key);
  write(pair.public_key);
  EXPECT_EQ(*LoadZmqPublicKey(path), pair.public_key);
  write("# made by hand\nmetadata\ncurve\n    public-key = \"" + pair.public_key +
        "\"\n    secret-key = \"" + pair.secret_key + "\"\n");
  EXPECT_EQ(LoadZmqKeyPair(path)->secret_key, pair.secret_key);
  EXPECT_EQ(*LoadZmqPublicKey(path), pair.public_key);
  write("curve\n    public-key = \"" + pair.public_key + "\"\n");
  EXPECT_FALSE(LoadZmqKeyPair(path));
  write("not a key");
  EXPECT_THAT(LoadZmqPublicKey(path).error().ToString(), HasSubstr("public-key"));
  std::filesystem::remove(path);
  EXPECT_FALSE(LoadZmqKeyPair(path));
}

}  // namespace
}  // namespace llmd::net
