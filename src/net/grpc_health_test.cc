#include "net/grpc_health.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "net/grpc_testing.h"
#include "runtime/worker.h"

namespace llmd::net {
namespace {

using ::testing::ElementsAre;

std::string Request(std::string_view service) {
  if (service.empty()) return "";
  return "\x0a" + std::string(1, static_cast<char>(service.size())) + std::string(service);
}
std::string Response(int status) {
  return status == 0 ? "" : std::string("\x08") + static_cast<char>(status);
}

class GrpcHealthTest : public ::testing::Test {
 protected:
  GrpcHealthTest() : service_(loop_, health_), server_(loop_), listener_(loop_, {&server_}) {
    server_.AddService(std::string(GrpcHealthService::kPath), service_);
    port_ = listener_.Listen(runtime::SocketAddress::Ipv4(kLoopback, 0)).value();
  }
  GrpcTestClient::Stream& Ask(GrpcTestClient& client, std::string_view method,
                              std::string_view message) {
    auto& stream = client.Open("/grpc.health.v1.Health/" + std::string(method));
    client.Send(stream, message);
    client.HalfClose(stream);
    return stream;
  }

  runtime::EventLoop loop_;
  GrpcHealth health_;
  GrpcHealthService service_;
  GrpcServer server_;
  GrpcListener listener_;
  uint16_t port_ = 0;
};

// The tutorial: what is set is what Check answers.
TEST_F(GrpcHealthTest, CheckAnswersByName) {
  health_.Set("", HealthStatus::kServing);
  health_.Set("sick", HealthStatus::kNotServing);
  GrpcTestClient client(loop_, port_);
  const struct {
    std::string name;
    int grpc_status;
    int status;
  } kCases[] = {{"", 0, 1}, {"sick", 0, 2}, {"nobody", 5, -1}};
  for (const auto& c : kCases) {
    auto& stream = Ask(client, "Check", Request(c.name));
    ASSERT_TRUE(client.WaitForEnd(stream));
    EXPECT_EQ(stream.grpc_status, c.grpc_status) << c.name;
    if (c.status >= 0) EXPECT_THAT(stream.messages, ElementsAre(Response(c.status))) << c.name;
  }
  health_.SetOthers(HealthStatus::kServing);
  auto& other = Ask(client, "Check", Request("nobody"));
  ASSERT_TRUE(client.WaitForEnd(other));
  EXPECT_THAT(other.messages, ElementsAre(Response(1)));
}

TEST_F(GrpcHealthTest, WatchTellsEveryChangeAndNeverEnds) {
  GrpcTestClient client(loop_, port_);
  auto& stream = Ask(client, "Watch", Request("a"));
  ASSERT_TRUE(client.WaitForMessages(stream, 1));
  EXPECT_EQ(stream.messages[0], Response(3));  // SERVICE_UNKNOWN
  EXPECT_EQ(service_.watch_count(), 1u);
  health_.Set("a", HealthStatus::kServing);
  ASSERT_TRUE(client.WaitForMessages(stream, 2));
  health_.Set("a", HealthStatus::kServing);  // no change
  health_.Set("b", HealthStatus::kServing);  // not watched
  health_.Set("a", HealthStatus::kNotServing);
  ASSERT_TRUE(client.WaitForMessages(stream, 3));
  EXPECT_THAT(stream.messages, ElementsAre(Response(3), Response(1), Response(2)));
  EXPECT_FALSE(stream.closed);
  client.Reset(stream);
  ASSERT_TRUE(client.WaitFor([&] { return service_.watch_count() == 0; }));
}

TEST_F(GrpcHealthTest, WatchesOfOthersFollowTheDefault) {
  GrpcTestClient client(loop_, port_);
  auto& stream = Ask(client, "Watch", Request("any"));
  ASSERT_TRUE(client.WaitForMessages(stream, 1));
  health_.SetOthers(HealthStatus::kNotServing);
  ASSERT_TRUE(client.WaitForMessages(stream, 2));
  health_.SetOthers(HealthStatus::kServing);
  ASSERT_TRUE(client.WaitForMessages(stream, 3));
  EXPECT_THAT(stream.messages, ElementsAre(Response(3), Response(2), Response(1)));
}

TEST_F(GrpcHealthTest, ListNamesAll) {
  health_.Set("", HealthStatus::kServing);
  health_.Set("x", HealthStatus::kUnknown);
  GrpcTestClient client(loop_, port_);
  auto& stream = Ask(client, "List", "");
  ASSERT_TRUE(client.WaitForEnd(stream));
  // Entries {key = 1, value = 2: {status = 1}}.
  EXPECT_THAT(stream.messages, ElementsAre(std::string("\x0a\x06\x0a\x00\x12\x02\x08\x01"
                                                       "\x0a\x05\x0a\x01x\x12\x00",
                                                       15)));
}

TEST_F(GrpcHealthTest, WrongRequestsEndTheCall) {
  GrpcTestClient client(loop_, port_);
  auto& malformed = Ask(client, "Check", "\x0a\x7f");
  auto& wrong_type = Ask(client, "Check", "\x08\x01");
  auto& large = Ask(client, "Check", Request(std::string(100, 'x')) + std::string(5000, '\0'));
  auto& unknown = Ask(client, "Cheque", "");
  auto& none = client.Open("/grpc.health.v1.Health/Check", {}, true);
  auto& twice = client.Open("/grpc.health.v1.Health/Watch");
  client.Send(twice, "");
  client.Send(twice, "");
  for (auto* stream : {&malformed, &wrong_type, &large, &unknown, &none, &twice}) {
    ASSERT_TRUE(client.WaitForEnd(*stream));
  }
  EXPECT_EQ(malformed.grpc_status, 13);
  EXPECT_EQ(wrong_type.grpc_status, 13);
  EXPECT_EQ(large.grpc_status, 8);
  EXPECT_EQ(unknown.grpc_status, 12);
  EXPECT_EQ(none.grpc_status, 13);
  EXPECT_EQ(twice.grpc_status, 13);
  EXPECT_EQ(service_.watch_count(), 0u);
}

TEST(GrpcHealthThreadTest, AnyThreadMaySet) {
  GrpcHealth health;
  runtime::WorkerPool workers(2, "health-test");
  std::vector<std::unique_ptr<GrpcHealthService>> services;
  std::vector<std::unique_ptr<GrpcServer>> servers;
  std::vector<GrpcServer*> dealt;
  for (size_t i = 0; i < workers.size(); ++i) {
    services.push_back(std::make_unique<GrpcHealthService>(workers.loop(i), health));
    servers.push_back(std::make_unique<GrpcServer>(workers.loop(i)));
    servers.back()->AddService(std::string(GrpcHealthService::kPath), *services.back());
    dealt.push_back(servers.back().get());
  }
  GrpcListener listener(workers.loop(0), dealt);
  const uint16_t port = listener.Listen(runtime::SocketAddress::Ipv4(kLoopback, 0)).value();
  workers.Start();
  runtime::EventLoop loop;
  GrpcTestClient one(loop, port), two(loop, port);
  std::vector<GrpcTestClient::Stream*> streams;
  for (GrpcTestClient* client : {&one, &two}) {
    streams.push_back(&client->Open("/grpc.health.v1.Health/Watch"));
    client->Send(*streams.back(), Request("a"));
    ASSERT_TRUE(client->WaitForMessages(*streams.back(), 1));
  }
  for (int i = 0; i < 100; ++i) {
    health.Set("a", i % 2 ? HealthStatus::kServing : HealthStatus::kNotServing);
    health.Set("b", i % 2 ? HealthStatus::kServing : HealthStatus::kNotServing);
  }
  // What is said last is heard by all.
  for (auto* client : {&one, &two}) {
    auto& stream = *streams[client == &two];
    ASSERT_TRUE(client->WaitFor([&] { return stream.messages.back() == Response(1); }));
  }
  workers.Stop();
  servers.clear();
}

}  // namespace
}  // namespace llmd::net
