// Replay over real sockets; peers that misbehave are plain ROUTER sockets in the test's hands.
#include "net/zmq_replay.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "net/net_testing.h"
#include "net/zmq_socket.h"

namespace llmd::net {
namespace {

using std::chrono::milliseconds;

struct Store final : ZmqReplaySource {
  std::map<uint64_t, std::string> steps;
  bool FindReplay(uint64_t sequence, Message* message) override {
    const auto found = steps.lower_bound(sequence);
    if (found == steps.end()) return false;
    *message = {"kv@a@m", found->first, found->second};
    return true;
  }
};

struct Replayed final : ZmqReplaySink {
  std::vector<uint64_t> sequences;
  std::vector<std::string> topics, payloads;
  std::vector<ZmqReplayEnd> ends;
  uint64_t messages = 0;
  std::function<void()> on_message, on_end;

  void OnReplayMessage(std::string_view topic, uint64_t sequence,
                       std::string_view payload) override {
    topics.emplace_back(topic);
    sequences.push_back(sequence);
    payloads.emplace_back(payload);
    if (on_message) on_message();
  }
  void OnReplayEnd(ZmqReplayEnd end, uint64_t total) override {
    ends.push_back(end);
    messages = total;
    if (on_end) on_end();
  }
};

// A ROUTER that answers each request as the test says.
struct OddRouter final : ZmqSocketOwner {
  explicit OddRouter(ZmqContext& context) {
    ZmqSocketOptions options;
    options.bind = {"tcp://127.0.0.1:0"};
    socket = *ZmqSocket::Open(context, ZmqKind::kRouter, options, {}, *this);
  }
  void OnZmqFrames(std::span<const std::string_view> frames) override {
    requests.emplace_back(frames.back());
    identity = frames[0];
    if (answer) answer();
  }
  void Reply(std::vector<std::string> frames) {
    std::vector<std::string_view> views = {identity, ""};
    views.insert(views.end(), frames.begin(), frames.end());
    socket->Send(views);
    socket->LookAgain();
  }
  std::unique_ptr<ZmqSocket> socket;
  std::string identity;
  std::vector<std::string> requests;
  std::function<void()> answer;
};

std::string Be(uint64_t n) {
  std::string out(8, '\0');
  for (size_t i = 8; i-- > 0; n >>= 8) out[i] = static_cast<char>(n);
  return out;
}
const std::string kEnd = Be(~uint64_t{0});

class ZmqReplayTest : public testing::Test {
 protected:
  std::unique_ptr<ZmqReplayServer> Serve(bool with_topic = true) {
    auto server = ZmqReplayServer::Create(
        context_, {.bind = "tcp://127.0.0.1:0", .with_topic = with_topic}, store_);
    EXPECT_TRUE(server) << server.error().ToString();
    return *std::move(server);
  }
  std::unique_ptr<ZmqReplayClient> Client(const std::string& address) {
    auto client = ZmqReplayClient::Create(
        context_,
        {.address = address, .idle_timeout = milliseconds(30), .total_timeout = milliseconds(400),
         .retry_delay = milliseconds(2)},
        replayed_);
    EXPECT_TRUE(client) << client.error().ToString();
    return *std::move(client);
  }
  bool UntilEnd() {
    return TurnUntil(loop_, [&] { return !replayed_.ends.empty(); });
  }
  void Run(ZmqReplayClient& client, uint64_t from) {
    replayed_ = {};
    client.Start(from);
    EXPECT_TRUE(client.running());
    EXPECT_TRUE(UntilEnd());
  }

  runtime::EventLoop loop_;
  ZmqContext context_{loop_};
  Store store_;
  Replayed replayed_;
};

TEST_F(ZmqReplayTest, Tutorial) {
  for (uint64_t i = 5; i < 10; ++i) store_.steps[i] = "step " + std::to_string(i);
  const auto server = Serve();
  const auto client = Client(server->bound());
  Run(*client, 7);
  EXPECT_THAT(replayed_.ends, testing::ElementsAre(ZmqReplayEnd::kComplete));
  EXPECT_THAT(replayed_.sequences, testing::ElementsAre(7, 8, 9));
  EXPECT_EQ(replayed_.payloads[0], "step 7");
  EXPECT_EQ(replayed_.topics[0], "kv@a@m");
  EXPECT_EQ(replayed_.messages, 3u);
  EXPECT_FALSE(client->running());

  Run(*client, 0);  // what is gone is not replayed: the sink sees where it begins
  EXPECT_EQ(replayed_.sequences[0], 5u);
  Run(*client, 10);
  EXPECT_TRUE(replayed_.sequences.empty());
  EXPECT_EQ(replayed_.ends[0], ZmqReplayEnd::kComplete);
}

TEST_F(ZmqReplayTest, WithoutTopics) {
  store_.steps = {{1, "a"}, {2, "b"}};
  const auto server = Serve(false);
  const auto client = Client(server->bound());
  Run(*client, 0);
  EXPECT_THAT(replayed_.sequences, testing::ElementsAre(1, 2));
  EXPECT_EQ(replayed_.topics[0], "");
  EXPECT_EQ(replayed_.ends[0], ZmqReplayEnd::kComplete);
}

TEST_F(ZmqReplayTest, ALongReplayWaitsForItsClientAndForNobodyElse) {
  for (uint64_t i = 0; i < 5000; ++i) store_.steps[i] = std::string(1000, 'x');
  auto server = *ZmqReplayServer::Create(
      context_, {.bind = "tcp://127.0.0.1:0", .queue_messages_max = 10}, store_);
  // One client that does not read.
  runtime::EventLoop slow_loop;
  ZmqContext slow_context(slow_loop);
  OddRouter sink(context_);  // only an owner for a DEALER
  ZmqSocketOptions options;
  options.connect = {server->bound()};
  options.queue_messages_max = 10;
  auto slow = *ZmqSocket::Open(slow_context, ZmqKind::kDealer, options, {}, sink);
  const std::string start = Be(0);
  const std::string_view request[] = {"", start};
  slow->Send(request);
  ASSERT_TRUE(TurnUntil(loop_, [&] { return server->stats().requests == 1; }));

  const auto client = Client(server->bound());
  Run(*client, 0);
  EXPECT_EQ(replayed_.ends[0], ZmqReplayEnd::kComplete);
  EXPECT_EQ(replayed_.messages, 5000u);
  EXPECT_LT(server->stats().messages, 10'000u);
}

TEST_F(ZmqReplayTest, AnAttemptThatStopsIsResumedBehindItsLastMessage) {
  OddRouter router(context_);
  router.answer = [&] {
    const uint64_t from = static_cast<uint8_t>(router.requests.back()[7]);
    router.Reply({"t", Be(from), "x"});
    if (from == 3) router.Reply({"", kEnd, ""});
  };
  const auto client = Client(router.socket->bound()[0]);
  Run(*client, 0);
  EXPECT_THAT(replayed_.ends, testing::ElementsAre(ZmqReplayEnd::kComplete));
  EXPECT_THAT(replayed_.sequences, testing::ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(router.requests, testing::ElementsAre(Be(0), Be(1), Be(2), Be(3)));
}

TEST_F(ZmqReplayTest, GivesUpWhenNothingComes) {
  OddRouter router(context_);
  const auto client = Client(router.socket->bound()[0]);
  Run(*client, 9);
  EXPECT_EQ(replayed_.ends[0], ZmqReplayEnd::kNoProgress);
  EXPECT_THAT(router.requests, testing::ElementsAre(Be(9), Be(9), Be(9)));

  const auto nobody = Client("tcp://127.0.0.1:1");
  Run(*nobody, 0);
  EXPECT_EQ(replayed_.ends[0], ZmqReplayEnd::kNoProgress);
}

TEST_F(ZmqReplayTest, TimesOutAsAWhole) {
  OddRouter router(context_);
  router.answer = [&] { router.Reply({"t", router.requests.back(), "x"}); };
  const auto client = Client(router.socket->bound()[0]);
  Run(*client, 0);
  EXPECT_EQ(replayed_.ends[0], ZmqReplayEnd::kTimeout);
  EXPECT_GT(replayed_.messages, 3u);
}

TEST_F(ZmqReplayTest, WhatIsNoReplayEndsIt) {
  const std::vector<std::vector<std::string>> replies = {
      {"t", "short", "x"}, {"one frame"}, {"t", Be(1), "x", "more"}, {"t", Be(2), "x"},
      {"t", Be(7), ""}};
  for (const auto& reply : replies) {
    OddRouter router(context_);
    router.answer = [&] { router.Reply(reply); };
    const auto client = Client(router.socket->bound()[0]);
    Run(*client, 3);
    EXPECT_EQ(replayed_.ends[0], ZmqReplayEnd::kMalformed);
  }
}

TEST_F(ZmqReplayTest, CancelRestartAndDestroyFromWithinCalls) {
  for (uint64_t i = 0; i < 100; ++i) store_.steps[i] = "x";
  const auto server = Serve();
  auto client = Client(server->bound());
  replayed_.on_message = [&] { client->Cancel(); };
  client->Start(0);
  ASSERT_TRUE(TurnUntil(loop_, [&] { return !replayed_.sequences.empty(); }));
  TurnABit(loop_, 5);
  EXPECT_EQ(replayed_.sequences.size(), 1u);
  EXPECT_TRUE(replayed_.ends.empty());

  replayed_ = {};
  replayed_.on_message = [&] {
    if (replayed_.sequences.size() == 1) client->Start(98);
  };
  replayed_.on_end = [&] { client.reset(); };
  client->Start(0);
  ASSERT_TRUE(UntilEnd());
  EXPECT_THAT(replayed_.sequences, testing::ElementsAre(0, 98, 99));
  EXPECT_EQ(client, nullptr);
}

TEST_F(ZmqReplayTest, ServerIgnoresWhatIsNoRequest) {
  store_.steps = {{1, "a"}};
  const auto server = Serve();
  OddRouter owner(context_);
  ZmqSocketOptions options;
  options.connect = {server->bound()};
  const auto dealer = *ZmqSocket::Open(context_, ZmqKind::kDealer, options, {}, owner);
  const std::string_view garbage[] = {"", "abc"};
  const std::string_view longer[] = {"", "a", "b", "c"};
  dealer->Send(garbage);
  dealer->Send(longer);
  ASSERT_TRUE(TurnUntil(loop_, [&] { return server->stats().malformed == 2; }));
  const std::string_view bare[] = {std::string_view("\0\0\0\0\0\0\0\0", 8)};
  dealer->Send(bare);  // no delimiter: none comes back
  std::vector<std::vector<std::string>> got;
  ASSERT_TRUE(TurnUntil(loop_, [&] { return owner.requests.size() == 2; }));
  EXPECT_EQ(server->stats().messages, 1u);
}

TEST_F(ZmqReplayTest, CurveServer) {
  store_.steps = {{1, "a"}};
  const ZmqKeyPair keys = ZmqKeyPair::Generate();
  const auto server = *ZmqReplayServer::Create(
      context_,
      {.bind = "tcp://127.0.0.1:0", .security = {.server_secret_key = keys.secret_key}}, store_);
  ZmqReplayOptions options{.address = server->bound(), .idle_timeout = milliseconds(200)};
  options.security.server_public_key = keys.public_key;
  const auto client = *ZmqReplayClient::Create(context_, options, replayed_);
  Run(*client, 0);
  EXPECT_EQ(replayed_.ends[0], ZmqReplayEnd::kComplete);
  EXPECT_EQ(replayed_.messages, 1u);
}

}  // namespace
}  // namespace llmd::net
