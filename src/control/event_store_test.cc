#include "control/event_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "net/redis_testing.h"
#include "prefix/kv_redis_mirror.h"

namespace llmd::control {
namespace {

// A consumer with a mirror, as the precise producer is one.
struct Store final : plugin::EventStore {
  const std::string& store_address() const override { return address; }
  wire::RespProgram* NextStore() override { return mirror.pending() ? &mirror : nullptr; }
  void OnStoreConnected() override { ++connected; }
  void OnStoreEnd(const base::Status& status) override {
    last = status;
    mirror.OnEnd(status);
  }
  void Put(uint64_t block) { mirror.Store({.pod = "p", .tier = "gpu"}, {&block, 1}, {&block, 1}); }

  std::string address;
  prefix::KvRedisMirror mirror;
  base::Status last;
  int connected = 0;
};

class EventStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!net::RedisServer::Installed()) GTEST_SKIP() << "redis-server is not installed";
  }
  bool Written() {
    return net::TurnUntil(loop_, [&] {
      writer_->Write();
      return !store_.mirror.pending() && !writer_->is_writing();
    });
  }
  std::string Ask(const net::RedisServer& server, net::RedisScript::Command command) {
    net::RedisClient client(loop_, lookups_, net::FastRedisOptions(server.url()));
    net::RedisScript script({{std::move(command)}});
    net::TurnUntil(loop_, [&] { return client.status().ok(); });
    EXPECT_TRUE(client.Run(script, script, std::chrono::seconds(3)));
    net::TurnUntil(loop_, [&] { return script.ended > 0; });
    return script.replies.empty() ? "" : script.replies[0];
  }

  runtime::EventLoop loop_;
  runtime::ThreadPool lookups_{1, 16, "lookup"};
  Store store_;
  std::unique_ptr<EventStoreWriter> writer_;
};

TEST_F(EventStoreTest, WritesWhatThereIsAndRidesOutARestart) {
  net::RedisServer server;
  store_.address = server.url();
  writer_ = *EventStoreWriter::Create(loop_, lookups_, store_);
  store_.Put(1);
  ASSERT_TRUE(Written());
  EXPECT_EQ(Ask(server, {"DBSIZE"}), "2");

  server.Kill();
  ASSERT_TRUE(net::TurnUntil(loop_, [&] { return !writer_->client().status().ok(); }));
  for (uint64_t block = 10; block < 20; ++block) store_.Put(block);
  for (int i = 0; i < 5; ++i) {
    writer_->Write();
    loop_.Turn(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(store_.connected, 1);
  EXPECT_EQ(store_.mirror.stats().sent_again, 0u) << "nothing is given to a server that is away";
  server.Start();
  ASSERT_TRUE(Written());
  EXPECT_EQ(store_.connected, 2) << "it is told, since the server has forgotten all";
  EXPECT_EQ(Ask(server, {"DBSIZE"}), "20");
  store_.mirror.Clear("p");
  ASSERT_TRUE(Written());
  EXPECT_EQ(Ask(server, {"DBSIZE"}), "10") << "engine keys stay";
}

TEST_F(EventStoreTest, MoreThanOneRunHolds) {
  net::RedisServer server;
  store_.address = server.url();
  writer_ = *EventStoreWriter::Create(loop_, lookups_, store_);
  for (uint64_t block = 0; block < 50'000; ++block) store_.Put(block);
  ASSERT_TRUE(Written());
  EXPECT_EQ(Ask(server, {"DBSIZE"}), "100000");
  EXPECT_TRUE(store_.last.ok());
}

TEST_F(EventStoreTest, AnAddressThatCannotBe) {
  store_.address = "http://x";
  EXPECT_FALSE(EventStoreWriter::Create(loop_, lookups_, store_));
}

}  // namespace
}  // namespace llmd::control
