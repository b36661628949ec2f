// The client against a real redis-server. Everything of ours runs on one thread; waiting means
// turning the loop.
#include "net/redis.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/strings.h"
#include "net/redis_testing.h"

namespace llmd::net {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class RedisTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!RedisServer::Installed()) GTEST_SKIP() << "redis-server is not installed";
  }
  void Connect(const std::string& url) { Connect(FastRedisOptions(url)); }
  void Connect(RedisOptions options) {
    client_ = std::make_unique<RedisClient>(loop_, lookups_, std::move(options));
  }
  template <class Done>
  bool Until(Done done) {
    return TurnUntil(loop_, done);
  }
  bool Ready() {
    return Until([&] { return client_->status().ok(); });
  }
  // Runs until it is over.
  base::Status Perform(RedisScript& script, base::Duration timeout = std::chrono::seconds(3)) {
    const auto run = client_->Run(script, script, timeout);
    if (!run) return run.error();
    EXPECT_EQ(script.ended, 0) << "told from inside Run";
    EXPECT_TRUE(Until([&] { return script.ended > 0; }));
    return script.status;
  }
  std::vector<std::string> Ask(std::vector<RedisScript::Command> commands) {
    RedisScript script({std::move(commands)});
    const base::Status status = Perform(script);
    EXPECT_TRUE(status.ok()) << status.ToString();
    return script.replies;
  }

  runtime::EventLoop loop_;
  runtime::ThreadPool lookups_{1, 16, "lookup"};
  std::unique_ptr<RedisClient> client_;
};

TEST_F(RedisTest, Tutorial) {
  RedisServer server;
  Connect(server.url());
  ASSERT_TRUE(Ready());
  RedisScript script({{{"HSET", "h", "field", ""}, {"HKEYS", "h"}, {"HKEYS", "none"}},
                      {{"GET", "none"}, {"HLEN", "h"}}});
  ASSERT_TRUE(Perform(script).ok());
  EXPECT_THAT(script.replies, ElementsAre("1", "[field]", "[]", "(nil)", "1"));
  EXPECT_EQ(script.ended, 1);
  EXPECT_EQ(client_->stats().commands, 5u);
}

TEST_F(RedisTest, RunsWaitForTheFirstConnectionInOrder) {
  RawListener listener(loop_);
  RedisOptions options = FastRedisOptions("redis://127.0.0.1:" + std::to_string(listener.port()));
  options.waiting_max = 3;
  Connect(options);
  RawPeer peer = listener.Accept();
  ASSERT_TRUE(peer.WaitFor("PING"));
  RedisScript scripts[3];
  for (RedisScript& script : scripts) {
    script.rounds = {{{std::to_string(&script - scripts)}}};
    ASSERT_TRUE(client_->Run(script, script, std::chrono::seconds(3)));
  }
  RedisScript more({{{"4"}}});
  EXPECT_EQ(Perform(more).code(), base::StatusCode::kResourceExhausted);
  peer.Take();
  ASSERT_TRUE(peer.Send("+PONG\r\n"));
  ASSERT_TRUE(peer.WaitFor("$1\r\n2\r\n"));
  EXPECT_EQ(peer.received, "*1\r\n$1\r\n0\r\n*1\r\n$1\r\n1\r\n*1\r\n$1\r\n2\r\n");
  ASSERT_TRUE(peer.Send(":0\r\n:1\r\n:2\r\n"));
  ASSERT_TRUE(Until([&] { return scripts[2].ended > 0; }));
  for (RedisScript& script : scripts) {
    EXPECT_THAT(script.replies, ElementsAre(std::to_string(&script - scripts)));
  }
}

TEST_F(RedisTest, EveryKindOfReply) {
  RedisServer server;
  Connect(server.url());
  ASSERT_TRUE(Ready());
  const std::string binary("\r\n\0$5", 5);
  const std::string big(1 << 20, 'x');
  EXPECT_THAT(Ask({{"SET", "binary", binary}, {"GET", "binary"}, {"SET", "big", big}}),
              ElementsAre("OK", binary, "OK"));
  EXPECT_EQ(Ask({{"GET", "big"}}).at(0), big);
  EXPECT_THAT(Ask({{"HKEYS", "big"}, {"NONSENSE"}}),
              ElementsAre(HasSubstr("!WRONGTYPE"), HasSubstr("!ERR unknown command")));
  EXPECT_EQ(client_->stats().error_replies, 2u);
  EXPECT_THAT(Ask({{"EVAL", "return {1, {'a', {}, false}, {err='no'}}", "0"}}),
              ElementsAre("[1, [a, [], (nil)], !no]"));
  EXPECT_TRUE(Ask({}).empty()) << "a program of nothing ends well";
}

TEST_F(RedisTest, ManyCommandsInOneRoundAndManyRuns) {
  RedisServer server;
  Connect(server.url());
  ASSERT_TRUE(Ready());
  std::vector<RedisScript::Command> commands;
  for (int i = 0; i < 20'000; ++i) commands.push_back({"HSET", std::to_string(i), "f", ""});
  EXPECT_EQ(Ask(commands).size(), 20'000u);
  EXPECT_THAT(Ask({{"DBSIZE"}}), ElementsAre("20000"));
}

TEST_F(RedisTest, UnixSocketAndDatabase) {
  RedisServer server;
  Connect(base::Concat("unix://", server.socket(), "?db=3"));
  ASSERT_TRUE(Ready()) << client_->status().ToString();
  EXPECT_THAT(Ask({{"SET", "a", "1"}}), ElementsAre("OK"));
  Connect(server.url() + "/3");
  ASSERT_TRUE(Ready());
  EXPECT_THAT(Ask({{"GET", "a"}}), ElementsAre("1"));
  Connect(server.url());
  ASSERT_TRUE(Ready());
  EXPECT_THAT(Ask({{"GET", "a"}}), ElementsAre("(nil)"));
}

TEST_F(RedisTest, Passwords) {
  RedisServer server({"--requirepass", "se:cret/@"});
  const std::string at = base::Concat("127.0.0.1:", std::to_string(server.port()));
  Connect("redis://:se%3Acret%2F%40@" + at);
  ASSERT_TRUE(Ready());
  EXPECT_THAT(Ask({{"ACL", "SETUSER", "epp", "on", ">pw", "~*", "+@all"}}), ElementsAre("OK"));
  Connect("redis://epp:pw@" + at);
  ASSERT_TRUE(Ready());
  EXPECT_THAT(Ask({{"ACL", "WHOAMI"}}), ElementsAre("epp"));

  for (const char* wrong : {"redis://:hush@", "redis://epp:hush@", "redis://"}) {
    Connect(wrong + at);
    ASSERT_TRUE(
        Until([&] { return client_->status().code() == base::StatusCode::kUnauthenticated; }))
        << client_->status().ToString();
    EXPECT_THAT(client_->status().ToString(), HasSubstr(at));
    EXPECT_THAT(client_->status().ToString(), Not(HasSubstr("hush")));
    RedisScript script({{{"PING"}}});
    EXPECT_EQ(Perform(script).code(), base::StatusCode::kUnavailable);
  }
}

TEST_F(RedisTest, Tls) {
  RedisServer plain;  // its directory is used
  const std::string certificate = plain.directory() + "/c", key = plain.directory() + "/k";
  const std::string command = base::Concat(
      "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "
      "/CN=r -addext subjectAltName=IP:127.0.0.1 -keyout ", key, " -out ", certificate,
      " 2>/dev/null");
  ASSERT_EQ(std::system(command.c_str()), 0) << "is the openssl program installed?";
  const int fd = *runtime::ListenTcp(runtime::SocketAddress::Ipv4(kLoopback, 0));
  const std::string port = std::to_string(runtime::LocalAddress(fd)->port());
  runtime::CloseFd(fd);
  RedisServer server({"--tls-port", port, "--tls-cert-file", certificate, "--tls-key-file", key,
                      "--tls-ca-cert-file", certificate, "--tls-auth-clients", "no"});
  RedisOptions options = FastRedisOptions("rediss://127.0.0.1:" + port);
  options.ca_file = certificate;
  Connect(options);
  ASSERT_TRUE(Ready()) << client_->status().ToString();
  EXPECT_THAT(Ask({{"SET", "a", "1"}, {"GET", "a"}}), ElementsAre("OK", "1"));
  Connect("rediss://127.0.0.1:" + port + "?skip_verify=true");
  ASSERT_TRUE(Ready()) << client_->status().ToString();
  Connect("rediss://127.0.0.1:" + port);
  ASSERT_TRUE(Until([&] { return client_->stats().failures > 0; }));
  EXPECT_THAT(client_->status().ToString(), HasSubstr("certificate"));
}

TEST_F(RedisTest, AServerThatDiesAndComesBack) {
  RedisServer server;
  Connect(server.url());
  int connections = 0;
  client_->SetConnectedHook([&] { ++connections; });
  ASSERT_TRUE(Ready());
  server.Freeze();
  RedisScript caught({{{"PING"}}, {{"PING"}}});
  ASSERT_TRUE(client_->Run(caught, caught, std::chrono::seconds(3)));
  TurnABit(loop_);
  server.Kill();
  ASSERT_TRUE(Until([&] { return caught.ended > 0; }));
  EXPECT_EQ(caught.status.code(), base::StatusCode::kUnavailable);
  EXPECT_FALSE(client_->status().ok());

  // Nobody waits for a server that is known to be gone.
  ASSERT_TRUE(Until([&] {
    RedisScript refused({{{"PING"}}});
    const auto run = client_->Run(refused, refused, std::chrono::seconds(3));
    if (run) client_->Cancel(*run);  // an attempt was under way
    return !run && run.error().code() == base::StatusCode::kUnavailable;
  }));
  server.Start();
  ASSERT_TRUE(Ready());
  EXPECT_THAT(Ask({{"PING"}}), ElementsAre("PONG"));
  EXPECT_EQ(connections, 2);
  EXPECT_EQ(client_->stats().connects, 2u);
}

TEST_F(RedisTest, ASlowScriptTimesOutAndLaterRunsGoOn) {
  RedisServer server;
  Connect(server.url());
  ASSERT_TRUE(Ready());
  RedisScript slow({{{"EVAL", "local n = 0 while n < 2e7 do n = n + 1 end return n", "0"}}});
  EXPECT_EQ(Perform(slow, milliseconds(5)).code(), base::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(slow.replies.empty());
  EXPECT_EQ(client_->stats().timeouts, 1u);
  EXPECT_THAT(Ask({{"ECHO", "next"}}), ElementsAre("next")) << "the late reply is not mistaken";
  EXPECT_TRUE(slow.replies.empty());
  EXPECT_EQ(client_->stats().connects, 1u) << "slow is not dead";
}

TEST_F(RedisTest, AServerThatStallsIsLeft) {
  RedisServer server;
  RedisOptions options = FastRedisOptions(server.url());
  options.stall_timeout = milliseconds(30);
  options.connect_timeout = milliseconds(30);
  Connect(options);
  ASSERT_TRUE(Ready());
  server.Freeze();
  RedisScript script({{{"PING"}}});
  EXPECT_EQ(Perform(script).code(), base::StatusCode::kUnavailable);
  EXPECT_THAT(script.status.ToString(), HasSubstr("does not answer"));
  server.Resume();
  ASSERT_TRUE(Ready());
}

TEST_F(RedisTest, CancelledRunsHearNothing) {
  RedisServer server;
  Connect(server.url());
  ASSERT_TRUE(Ready());
  RedisScript gone({{{"PING"}}}), stays({{{"ECHO", "a"}}});
  const auto run = client_->Run(gone, gone, std::chrono::seconds(1));
  ASSERT_TRUE(client_->Run(stays, stays, std::chrono::seconds(1)));
  client_->Cancel(*run);
  client_->Cancel(*run);
  ASSERT_TRUE(Until([&] { return stays.ended > 0; }));
  EXPECT_THAT(stays.replies, ElementsAre("a"));
  EXPECT_EQ(gone.ended, 0);
  EXPECT_TRUE(gone.replies.empty());
}

TEST_F(RedisTest, WaitersMayStartAndCancelRuns) {
  RedisServer server;
  Connect(server.url());
  ASSERT_TRUE(Ready());
  RedisScript first({{{"ECHO", "1"}}}), other({{{"ECHO", "2"}}}), last({{{"ECHO", "3"}}});
  RedisRunId cancelled = 0;
  first.on_end = [&] {
    client_->Cancel(cancelled);
    ASSERT_TRUE(client_->Run(last, last, std::chrono::seconds(1)));
  };
  ASSERT_TRUE(client_->Run(first, first, std::chrono::seconds(1)));
  cancelled = *client_->Run(other, other, std::chrono::seconds(1));
  ASSERT_TRUE(Until([&] { return last.ended > 0; }));
  EXPECT_EQ(other.ended, 0);
  EXPECT_THAT(last.replies, ElementsAre("3"));
}

TEST_F(RedisTest, Limits) {
  RedisServer server;
  RedisOptions options = FastRedisOptions(server.url());
  options.commands_max = 3;
  options.unsent_bytes_max = 1000;
  options.reply_bytes_max = 100'000;
  Connect(options);
  ASSERT_TRUE(Ready());
  RedisScript three({{{"ECHO", "1"}, {"ECHO", "2"}, {"ECHO", "3"}}}), one({{{"PING"}}});
  RedisScript large({{{"ECHO", std::string(2000, 'x')}}});
  EXPECT_EQ(Perform(large).code(), base::StatusCode::kResourceExhausted);
  ASSERT_TRUE(client_->Run(three, three, std::chrono::seconds(1)));
  EXPECT_EQ(Perform(one).code(), base::StatusCode::kResourceExhausted);
  ASSERT_TRUE(Until([&] { return three.ended > 0; }));
  one.next = 0;
  EXPECT_TRUE(Perform(one).ok()) << "there is room again";
  // A later round that is too much.
  RedisScript grows({{{"PING"}}, {{"PING"}, {"PING"}, {"PING"}, {"PING"}}});
  EXPECT_EQ(Perform(grows).code(), base::StatusCode::kResourceExhausted);
  EXPECT_EQ(client_->stats().refused, 3u);
  // A reply that is too much costs the connection.
  RedisScript huge({{{"EVAL", "return string.rep('x', 200000)", "0"}}});
  EXPECT_EQ(Perform(huge).code(), base::StatusCode::kUnavailable);
  EXPECT_THAT(huge.status.ToString(), HasSubstr("limit"));
  ASSERT_TRUE(Ready());
}

// A peer that speaks something else, and one that sends what nobody asked for.
TEST_F(RedisTest, PeersThatAreNotRedis) {
  for (const std::string_view nonsense :
       {"HTTP/1.1 400 Bad Request\r\n\r\n", "+PONG\r\n+PONG\r\n", "*99999999\r\n", "$-7\r\n",
        "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n"}) {
    RawListener listener(loop_);
    RedisOptions options =
        FastRedisOptions("redis://127.0.0.1:" + std::to_string(listener.port()));
    options.reconnect_min = options.reconnect_max = std::chrono::seconds(60);
    Connect(options);
    RawPeer peer = listener.Accept();
    ASSERT_TRUE(peer.WaitFor("PING"));
    ASSERT_TRUE(peer.Send(nonsense));
    EXPECT_TRUE(peer.WaitForEnd()) << nonsense;
    EXPECT_EQ(client_->status().code(), base::StatusCode::kDataLoss) << nonsense;
  }
}

// Replies cut at every byte.
TEST_F(RedisTest, RepliesInPieces) {
  RawListener listener(loop_);
  Connect("redis://127.0.0.1:" + std::to_string(listener.port()));
  RawPeer peer = listener.Accept();
  ASSERT_TRUE(peer.WaitFor("PING") && peer.Send("+PONG\r\n"));
  ASSERT_TRUE(Ready());
  RedisScript script({{{"A"}, {"B"}}});
  ASSERT_TRUE(client_->Run(script, script, std::chrono::seconds(3)));
  for (const char c : std::string_view("*3\r\n$2\r\nab\r\n:12\r\n*-1\r\n-ERR x\r\n")) {
    ASSERT_TRUE(peer.Send({&c, 1}));
    TurnABit(loop_, 1);
  }
  ASSERT_TRUE(Until([&] { return script.ended > 0; }));
  EXPECT_THAT(script.replies, ElementsAre("[ab, 12, (nil)]", "!ERR x"));
}

TEST(RedisAddress, Forms) {
  struct Case {
    const char* text;
    const char* where;
    bool tls = false;
    const char* user = "";
    const char* password = "";
    int database = 0;
  };
  for (const Case& c : {
           Case{"10.0.0.1", "10.0.0.1:6379"},
           Case{"redis.svc:7000", "redis.svc:7000"},
           Case{"redis://127.0.0.1:6379", "127.0.0.1:6379"},
           Case{"redis://", "localhost:6379"},
           Case{"redis://:7000", "localhost:7000"},
           Case{"redis://u:p@h:1/2", "h:1", false, "u", "p", 2},
           Case{"redis://:p%40%3a@h/0", "h:6379", false, "", "p@:"},
           Case{"redis://u@h", "h:6379", false, "u"},
           Case{"redis://h/2?db=3&pool_size=5", "h:6379", false, "", "", 3},
           Case{"rediss://h?skip_verify=true", "h:6379", true},
           Case{"valkey://h", "h:6379"},
           Case{"valkeys://h", "h:6379", true},
           Case{"redis://[::1]:7000", "[::1]:7000"},
           Case{"redis://[::1]", "[::1]:6379"},
           Case{"unix:///run/r.sock", "/run/r.sock"},
           Case{"unix://u:p@/run/r.sock?db=1", "/run/r.sock", false, "u", "p", 1},
       }) {
    const auto address = RedisAddress::Parse(c.text);
    ASSERT_TRUE(address) << c.text << ": " << address.error().ToString();
    EXPECT_EQ(address->Where(), c.where) << c.text;
    EXPECT_EQ(address->tls, c.tls) << c.text;
    EXPECT_EQ(address->user, c.user) << c.text;
    EXPECT_EQ(address->password, c.password) << c.text;
    EXPECT_EQ(address->database, c.database) << c.text;
  }
}

TEST(RedisAddress, WhatIsRefusedAndThatPasswordsStaySecret) {
  for (const char* text :
       {"http://h", "redis://u:hush@h:99999", "redis://u:hush@h/x", "redis://u:hush@h/1/2",
        "unix://", "redis://u:hush@h?no=1", "redis://u:hush%g@h", "redis://::1", "redis://[::1",
        "redis://u:hush@h?db=-1", "redis://[::1]7", "redis://u:hush@h?skip_verify=true"}) {
    const auto address = RedisAddress::Parse(text);
    ASSERT_FALSE(address) << text;
    EXPECT_EQ(address.error().code(), base::StatusCode::kInvalidArgument);
    EXPECT_THAT(address.error().ToString(), Not(HasSubstr("hush"))) << text;
  }
}

}  // namespace
}  // namespace llmd::net
