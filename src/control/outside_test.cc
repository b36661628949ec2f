#include "control/outside.h"

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <mutex>

#include "control/errands.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "net/grpc_server.h"
#include "net/http_server.h"
#include "net/redis_testing.h"
#include "plugin/redis.h"
#include "runtime/clock.h"

namespace llmd::control {
namespace {

using plugin::OutsideCall;
using plugin::OutsideJob;
using ::testing::HasSubstr;

struct Waiter final : OutsideWaiter {
  void OnOutsideEnd() override {
    ++told;
    if (then) then();
  }
  int told = 0;
  std::function<void()> then;
};

struct Job final : OutsideJob {
  explicit Job(std::function<base::Status()> w) : work(std::move(w)) {}
  base::Status Run() override { return work(); }
  std::function<base::Status()> work;
};

// Holds up whoever comes through.
class Gate {
 public:
  void Open() {
    std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void Pass() {
    std::unique_lock lock(mutex_);
    ++waiting;
    changed_.wait(lock, [&] { return open_; });
  }
  std::atomic<int> waiting{0};

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
};

// Answers "/echo" with the request's body, "/slow" never, "/big" with 100 KB, all else with 404.
class EchoHttp final : public net::HttpService {
 public:
  net::ExchangeHandler* OnRequest(net::ServerExchange& exchange) override {
    ++requests;
    return new Exchange(exchange);
  }
  int requests = 0;

 private:
  struct Exchange final : net::ExchangeHandler {
    explicit Exchange(net::ServerExchange& e) : exchange(e) {}
    void OnBody(base::Slice piece) override { body += piece.view(); }
    void OnBodyEnd() override {
      const auto path = exchange.head().path;
      if (path == "/slow") return;
      if (path == "/big") body.assign(100'000, 'x');
      exchange.Respond(path == "/echo" || path == "/big" ? 200 : 404, "text/plain", body);
    }
    void OnWritable() override {}
    void OnFinished() override { delete this; }
    void OnClientGone(net::GoneReason) override { delete this; }
    net::ServerExchange& exchange;
    std::string body;
  };
};

class EchoGrpc final : public net::GrpcService {
 public:
  net::GrpcHandler* OnCall(net::GrpcCall& call) override { return new Echo(call); }

 private:
  struct Echo final : net::GrpcHandler {
    explicit Echo(net::GrpcCall& c) : call(c) {}
    void OnMessagePiece(base::Slice piece, bool) override { message += piece.view(); }
    void OnHalfClose() override {
      if (message == "fail") return call.Finish(base::StatusCode::kNotFound, "no such model");
      call.Send(base::Slice::Unowned(message));
      call.Finish(base::StatusCode::kOk);
    }
    void OnEnd(net::GrpcEnd) override { delete this; }
    net::GrpcCall& call;
    std::string message;
  };
};

class OutsideTest : public ::testing::Test {
 protected:
  template <class Done>
  bool TurnUntil(Done done) {
    const base::TimePoint limit = runtime::Now() + std::chrono::seconds(5);
    while (!done()) {
      if (runtime::Now() > limit) return false;
      loop.Turn(std::chrono::milliseconds(2));
    }
    return true;
  }
  std::string ServeHttp() {
    http_server = std::make_unique<net::HttpServer>(loop, http, net::HttpServerOptions());
    return "127.0.0.1:" + std::to_string(*http_server->Listen(
                              runtime::SocketAddress::Ipv4(0x7f000001, 0)));
  }
  static std::shared_ptr<OutsideCall> Call(std::string server, std::string path,
                                           std::string body = "") {
    auto call = std::make_shared<OutsideCall>();
    call->server = std::move(server);
    call->path = std::move(path);
    call->body = std::move(body);
    return call;
  }
  double Total(std::string_view kind, std::string_view result) {
    return metrics.ValueOf(telemetry::MetricId::kOutsideTotal, {kind, result});
  }

  runtime::EventLoop loop;
  telemetry::Metrics metrics{1};
  OutsidePools pools{1};
  EchoHttp http;
  std::unique_ptr<net::HttpServer> http_server;
  Outside outside{loop, pools, metrics, 0};
  Waiter waiter;
};

TEST_F(OutsideTest, AJobRunsElsewhereAndItsWaiterIsTold) {
  std::thread::id ran_on;
  const auto job = std::make_shared<Job>([&] {
    ran_on = std::this_thread::get_id();
    return base::OkStatus();
  });
  ASSERT_TRUE(outside.Begin(job, waiter));
  ASSERT_TRUE(TurnUntil([&] { return waiter.told > 0; }));
  EXPECT_TRUE(job->ended());
  EXPECT_TRUE(job->status().ok());
  EXPECT_NE(ran_on, std::this_thread::get_id());
  EXPECT_EQ(Total("job", "ok"), 1);
}

TEST_F(OutsideTest, AJobGetsItsFiles) {
  const std::string path = ::testing::TempDir() + "/outside_test_file";
  FILE* file = fopen(path.c_str(), "w");
  fputs("content", file);
  fclose(file);
  std::string read;
  std::string complaint;
  auto job = std::make_shared<Job>([&] { return base::OkStatus(); });
  job->files = {{.path = path, .bytes_max = 100}, {.path = path + ".none", .bytes_max = 100}};
  job->work = [&, raw = job.get()] {
    read = raw->files[0].content.value_or("");
    complaint = raw->files[1].content.error().message();
    return base::OkStatus();
  };
  ASSERT_TRUE(outside.Begin(job, waiter));
  ASSERT_TRUE(TurnUntil([&] { return waiter.told > 0; }));
  EXPECT_EQ(read, "content");
  EXPECT_THAT(complaint, HasSubstr("outside_test_file.none"));
}

TEST_F(OutsideTest, WhoWasForgottenIsNotToldAndAJobThatWaitsIsNotRun) {
  Gate gate;
  Waiter first, second;
  const auto running = std::make_shared<Job>([&] {
    gate.Pass();
    return base::OkStatus();
  });
  std::atomic<int> runs{0};
  const auto waiting = std::make_shared<Job>([&] {
    ++runs;
    return base::OkStatus();
  });
  ASSERT_TRUE(outside.Begin(running, first));
  ASSERT_TRUE(TurnUntil([&] { return gate.waiting > 0; }));
  ASSERT_TRUE(outside.Begin(waiting, second));
  outside.Forget(first);
  outside.Forget(second);
  outside.Forget(second);  // once more is nothing
  EXPECT_TRUE(waiting->cancelled());
  gate.Open();
  ASSERT_TRUE(TurnUntil([&] { return running->ended() && waiting->ended(); }));
  loop.Turn({});
  EXPECT_EQ(runs, 0);
  EXPECT_EQ(first.told + second.told, 0);
  EXPECT_EQ(waiting->status().code(), base::StatusCode::kCancelled);
  EXPECT_EQ(Total("job", "cancelled"), 2);
}

TEST_F(OutsideTest, AFullQueueTurnsAwayAtOnce) {
  Gate gate;
  std::vector<std::unique_ptr<Waiter>> waiters;
  std::shared_ptr<Job> last;
  bool taken = true;
  for (size_t i = 0; i < OutsidePools::kJobsWaitingMax + 2 && taken; ++i) {
    waiters.push_back(std::make_unique<Waiter>());
    last = std::make_shared<Job>([&] {
      gate.Pass();
      return base::OkStatus();
    });
    taken = outside.Begin(last, *waiters.back());
  }
  EXPECT_FALSE(taken);
  EXPECT_TRUE(last->ended());
  EXPECT_EQ(last->status().code(), base::StatusCode::kResourceExhausted);
  EXPECT_EQ(Total("job", "full"), 1);
  gate.Open();
  const auto told = [&] {
    int sum = 0;
    for (const auto& w : waiters) sum += w->told;
    return sum;
  };
  ASSERT_TRUE(TurnUntil([&] { return told() + 1 == static_cast<int>(waiters.size()); }));
}

TEST_F(OutsideTest, WhatEndsAfterThePerformerIsGoneIsDropped) {
  Gate gate;
  auto own = std::make_unique<Outside>(loop, pools, metrics, 0);
  const auto job = std::make_shared<Job>([&] {
    gate.Pass();
    return base::OkStatus();
  });
  ASSERT_TRUE(own->Begin(job, waiter));
  ASSERT_TRUE(TurnUntil([&] { return gate.waiting > 0; }));
  own.reset();
  gate.Open();
  ASSERT_TRUE(TurnUntil([&] { return job->ended(); }));
  loop.Turn({});
  EXPECT_EQ(waiter.told, 0);
}

TEST_F(OutsideTest, CallsOverHttpKeepTheirConnection) {
  const std::string server = ServeHttp();
  for (int i = 1; i <= 3; ++i) {
    const auto call = Call(server, "/echo", "{\"n\":1}");
    ASSERT_TRUE(outside.Begin(call, waiter));
    ASSERT_TRUE(TurnUntil([&] { return waiter.told == i; }));
    ASSERT_TRUE(call->status().ok()) << call->status().ToString();
    EXPECT_EQ(call->http_status, 200);
    EXPECT_EQ(call->reply, "{\"n\":1}");
  }
  EXPECT_EQ(http_server->stats().accepted, 1u);
  const auto lost = Call(server, "/nowhere");
  ASSERT_TRUE(outside.Begin(lost, waiter));
  ASSERT_TRUE(TurnUntil([&] { return waiter.told == 4; }));
  EXPECT_TRUE(lost->status().ok());  // any status is an answer
  EXPECT_EQ(lost->http_status, 404);
}

TEST_F(OutsideTest, ACallEndsInTimeWithinItsSizeAndWhenForgotten) {
  const std::string server = ServeHttp();
  const auto slow = Call(server, "/slow");
  slow->timeout = std::chrono::milliseconds(30);
  ASSERT_TRUE(outside.Begin(slow, waiter));
  ASSERT_TRUE(TurnUntil([&] { return waiter.told == 1; }));
  EXPECT_EQ(slow->status().code(), base::StatusCode::kDeadlineExceeded);

  const auto big = Call(server, "/big");
  big->reply_bytes_max = 1000;
  ASSERT_TRUE(outside.Begin(big, waiter));
  ASSERT_TRUE(TurnUntil([&] { return waiter.told == 2; }));
  EXPECT_EQ(big->status().code(), base::StatusCode::kResourceExhausted);

  const auto left = Call(server, "/slow");
  ASSERT_TRUE(outside.Begin(left, waiter));
  ASSERT_TRUE(TurnUntil([&] { return http.requests == 3; }));
  outside.Forget(waiter);
  for (int i = 0; i < 5; ++i) loop.Turn(std::chrono::milliseconds(1));
  EXPECT_EQ(waiter.told, 2);
  EXPECT_EQ(http_server->connection_count(), 0u);

  const auto nobody = Call("127.0.0.1:1", "/echo");
  ASSERT_TRUE(outside.Begin(nobody, waiter));
  ASSERT_TRUE(TurnUntil([&] { return waiter.told == 3; }));
  EXPECT_EQ(nobody->status().code(), base::StatusCode::kUnavailable);
  EXPECT_FALSE(outside.Begin(Call("no port", "/"), waiter));
}

TEST_F(OutsideTest, AWaiterMayGoOnWithAnotherTask) {
  const std::string server = ServeHttp();
  const auto second = Call(server, "/echo", "second");
  waiter.then = [&] {
    if (waiter.told == 1) EXPECT_TRUE(outside.Begin(second, waiter));
  };
  ASSERT_TRUE(outside.Begin(Call(server, "/echo", "first"), waiter));
  ASSERT_TRUE(TurnUntil([&] { return waiter.told == 2; }));
  EXPECT_EQ(second->reply, "second");
}

TEST_F(OutsideTest, CallsOverUnixSockets) {
  std::string folder = ::testing::TempDir() + "llmd-outside-XXXXXX";
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  const std::string path = folder + "/s";
  EchoGrpc echo;
  net::GrpcServer server(loop);
  server.AddService("/test.Echo/Once", echo);
  net::GrpcListener listener(loop, {&server});
  ASSERT_TRUE(listener.Listen(runtime::SocketAddress::Unix(path).value()).has_value());
  http_server = std::make_unique<net::HttpServer>(loop, http, net::HttpServerOptions());
  ASSERT_TRUE(http_server->Listen(runtime::SocketAddress::Unix(path + "h").value()).has_value());

  auto rpc = Call(path, "/test.Echo/Once", "abc");
  rpc->protocol = OutsideCall::Protocol::kGrpc;
  ASSERT_TRUE(outside.Begin(rpc, waiter));
  ASSERT_TRUE(TurnUntil([&] { return waiter.told == 1; }));
  EXPECT_TRUE(rpc->status().ok()) << rpc->status().message();
  EXPECT_EQ(rpc->reply, "abc");

  auto post = Call(path + "h", "/echo", "{}");
  ASSERT_TRUE(outside.Begin(post, waiter));
  ASSERT_TRUE(TurnUntil([&] { return waiter.told == 2; }));
  EXPECT_EQ(post->http_status, 200);
  EXPECT_EQ(post->reply, "{}");

  auto nobody = Call(path + "none", "/test.Echo/Once", "abc");
  nobody->protocol = OutsideCall::Protocol::kGrpc;
  ASSERT_TRUE(outside.Begin(nobody, waiter));
  ASSERT_TRUE(TurnUntil([&] { return waiter.told == 3; }));
  EXPECT_EQ(nobody->status().code(), base::StatusCode::kUnavailable);

  auto long_path = Call("/" + std::string(200, 'x'), "/test.Echo/Once", "abc");
  EXPECT_FALSE(outside.Begin(long_path, waiter));
  EXPECT_EQ(long_path->status().code(), base::StatusCode::kInvalidArgument);
  std::filesystem::remove_all(folder);
}

TEST_F(OutsideTest, CallsOverGrpc) {
  EchoGrpc echo;
  net::GrpcServer server(loop);
  server.AddService("/test.Echo/Echo", echo);
  net::GrpcListener listener(loop, {&server});
  const std::string address =
      "127.0.0.1:" +
      std::to_string(*listener.Listen(runtime::SocketAddress::Ipv4(0x7f000001, 0)));
  const auto call = Call(address, "/test.Echo/Echo", "message");
  call->protocol = OutsideCall::Protocol::kGrpc;
  ASSERT_TRUE(outside.Begin(call, waiter));
  ASSERT_TRUE(TurnUntil([&] { return waiter.told == 1; }));
  ASSERT_TRUE(call->status().ok()) << call->status().ToString();
  EXPECT_EQ(call->reply, "message");

  const auto failing = Call(address, "/test.Echo/Echo", "fail");
  failing->protocol = OutsideCall::Protocol::kGrpc;
  ASSERT_TRUE(outside.Begin(failing, waiter));
  ASSERT_TRUE(TurnUntil([&] { return waiter.told == 2; }));
  EXPECT_EQ(failing->status().code(), base::StatusCode::kNotFound);
}

// ---- Redis -------------------------------------------------------------------------------------

struct RedisTask final : plugin::OutsideRedis {
  explicit RedisTask(std::string address, std::vector<net::RedisScript::Command> round)
      : script({std::move(round)}) {
    server = std::move(address);
  }
  wire::RespProgram& program() override { return script; }
  net::RedisScript script;
};

class OutsideRedisTest : public OutsideTest {
 protected:
  void SetUp() override {
    if (!net::RedisServer::Installed()) GTEST_SKIP() << "redis-server is not installed";
  }
  // Asks until there is a server.
  bool Connect(const std::string& url) {
    return TurnUntil([&] {
      const auto task = std::make_shared<RedisTask>(url, Commands({{"PING"}}));
      Waiter asked;
      return outside.Begin(task, asked) && TurnUntil([&] { return asked.told > 0; }) &&
             task->status().ok();
    });
  }
  static std::vector<net::RedisScript::Command> Commands(
      std::vector<net::RedisScript::Command> commands) {
    return commands;
  }
};

TEST_F(OutsideRedisTest, AProgramIsRunAndItsWaiterIsTold) {
  net::RedisServer server;
  ASSERT_TRUE(Connect(server.url()));
  const auto task =
      std::make_shared<RedisTask>(server.url(), Commands({{"SET", "a", "1"}, {"GET", "a"}}));
  ASSERT_TRUE(outside.Begin(task, waiter));
  ASSERT_TRUE(TurnUntil([&] { return waiter.told > 0; }));
  EXPECT_TRUE(task->status().ok());
  EXPECT_THAT(task->script.replies, ::testing::ElementsAre("OK", "1"));
  EXPECT_GE(Total("redis", "ok"), 2);
}

TEST_F(OutsideRedisTest, SlowDeadAndForgotten) {
  net::RedisServer server;
  ASSERT_TRUE(Connect(server.url()));
  server.Freeze();
  const auto slow = std::make_shared<RedisTask>(server.url(), Commands({{"PING"}}));
  slow->timeout = std::chrono::milliseconds(10);
  ASSERT_TRUE(outside.Begin(slow, waiter));
  ASSERT_TRUE(TurnUntil([&] { return waiter.told > 0; }));
  EXPECT_EQ(slow->status().code(), base::StatusCode::kDeadlineExceeded);

  auto forgotten = std::make_shared<RedisTask>(server.url(), Commands({{"PING"}}));
  ASSERT_TRUE(outside.Begin(forgotten, waiter));
  outside.Forget(waiter);
  EXPECT_TRUE(forgotten->cancelled());
  forgotten.reset();
  server.Kill();
  // Who asks for a server that is gone is told so at once, and does not wait.
  ASSERT_TRUE(TurnUntil([&] {
    const auto task = std::make_shared<RedisTask>(server.url(), Commands({{"PING"}}));
    Waiter asked;
    if (outside.Begin(task, asked)) {
      outside.Forget(asked);
      return false;
    }
    return task->status().code() == base::StatusCode::kUnavailable;
  }));
  EXPECT_EQ(waiter.told, 1);
  server.Start();
  ASSERT_TRUE(Connect(server.url()));
}

TEST_F(OutsideRedisTest, ServersAreBounded) {
  net::RedisServer server;
  for (size_t i = 0; i < 2 * Outside::kRedisServersMax; ++i) {
    const std::string url = server.url() + "/" + std::to_string(i);
    ASSERT_TRUE(Connect(url)) << "the one longest unused goes";
  }
  server.Freeze();
  std::vector<Waiter> waiters(Outside::kRedisServersMax + 1);
  for (size_t i = 0; i < waiters.size(); ++i) {
    const auto task = std::make_shared<RedisTask>(server.url() + "/" + std::to_string(i),
                                                  Commands({{"PING"}}));
    const bool begun = outside.Begin(task, waiters[i]);
    EXPECT_EQ(begun, i < Outside::kRedisServersMax) << i;
    if (!begun) EXPECT_EQ(task->status().code(), base::StatusCode::kResourceExhausted);
  }
  for (Waiter& w : waiters) outside.Forget(w);
  auto bad = std::make_shared<RedisTask>("http://x", Commands({{"PING"}}));
  EXPECT_FALSE(outside.Begin(bad, waiter));
  EXPECT_EQ(bad->status().code(), base::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace llmd::control
