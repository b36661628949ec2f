#include "net/placement.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "net/net_testing.h"
#include "runtime/worker.h"

namespace llmd::net {
namespace {

constexpr size_t kFull = PlacementPolicy().packed_connections;

struct Case {
  const char* name;
  std::vector<ServerLoad> servers;
  size_t taken_by;
};

class Placement : public ::testing::TestWithParam<Case> {};

TEST_P(Placement, IsAsTheTableSays) {
  EXPECT_EQ(PlaceConnection(GetParam().servers, {}), GetParam().taken_by);
}

INSTANTIATE_TEST_SUITE_P(
    Table, Placement,
    ::testing::Values(Case{"TheOnlyOne", {{1000, 1.0}}, 0},
                      Case{"NothingThereYet", {{0, 0}, {0, 0}}, 0},
                      Case{"PackedWhileThereIsRoom", {{kFull - 1, 0.4}, {0, 0}}, 0},
                      Case{"TheNextWhenFull", {{kFull, 0}, {0, 0}, {0, 0}}, 1},
                      Case{"TheNextWhenBusy", {{3, 0.5}, {0, 0}}, 1},
                      Case{"RoomAgainInTheFirst", {{5, 0.1}, {kFull, 0.1}}, 0},
                      Case{"FewestWhenAllAreFull", {{kFull + 2, 0}, {kFull, 0}, {kFull + 1, 0}}, 1},
                      Case{"FewestWhenAllAreBusy", {{9, 0.9}, {8, 0.9}}, 1},
                      Case{"FirstOfEquals", {{kFull, 0}, {kFull, 0}}, 0}),
    [](const auto& info) { return info.param.name; });

// Placed one after the other, connections never differ by more than the packed number.
TEST(PlacementTest, KeepsCountsWithinThePackedNumber) {
  std::array<ServerLoad, 4> servers{};
  for (int i = 0; i < 1000; ++i) {
    ++servers[PlaceConnection(servers, {})].connections;
    const auto [least, most] = std::ranges::minmax(servers, {}, &ServerLoad::connections);
    ASSERT_LE(most.connections - least.connections, kFull);
  }
  for (const ServerLoad& load : servers) EXPECT_EQ(load.connections, 250u);
}

// Says on which loop a request was served.
class Named final : public HttpService {
 public:
  explicit Named(std::string name) : name_(std::move(name)) {}
  ExchangeHandler* OnRequest(ServerExchange& exchange) override {
    exchange.Respond(200, "text/plain", name_);
    return nullptr;
  }

 private:
  const std::string name_;
};

// Whichever listener the kernel chooses: the first server serves as many as it may, the next ones
// go to the second; a place that became free is taken again.
TEST(PlacementTest, ServersShareWhatTheyAccept) {
  runtime::WorkerPool pool(2, "place");
  Named first("first"), second("second");
  auto a = std::make_unique<HttpServer>(pool.loop(0), first);
  auto b = std::make_unique<HttpServer>(pool.loop(1), second);
  const auto any = runtime::SocketAddress::Ipv4(kLoopback, 0);
  const PlacementPolicy by_number{.packed_connections = 4, .packed_busy_share_max = 2};
  a->ShareWith({a.get(), b.get()}, by_number);
  b->ShareWith({a.get(), b.get()}, by_number);
  const uint16_t port = a->Listen(any).value();
  ASSERT_TRUE(b->Listen(any.WithPort(port)));
  pool.Start();
  runtime::EventLoop loop;
  std::vector<RawPeer> clients;
  const auto serve = [&] {
    clients.push_back(RawPeer::ConnectTo(loop, port));
    RawPeer& client = clients.back();
    EXPECT_TRUE(client.Send("GET / HTTP/1.1\r\nHost: h\r\n\r\n"));
    EXPECT_TRUE(TurnUntil(loop, [&] {
      client.Poll();
      return client.received.ends_with("first") || client.received.ends_with("second");
    }));
    return client.received.substr(client.received.rfind('\n') + 1);
  };
  for (int i = 0; i < 4; ++i) ASSERT_EQ(serve(), "first") << i;
  for (int i = 0; i < 4; ++i) ASSERT_EQ(serve(), "second") << i;
  clients.front().Close();
  ASSERT_TRUE(TurnUntil(loop, [&] { return a->connection_count() < 4; }));
  EXPECT_EQ(serve(), "first");
  pool.Stop();
  EXPECT_EQ(a->stats().accepted, 5u);
  EXPECT_EQ(b->stats().accepted, 4u);
}

}  // namespace
}  // namespace llmd::net
