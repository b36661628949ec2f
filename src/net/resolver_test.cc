#include "net/resolver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "net/net_testing.h"

namespace llmd::net {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;

std::string Print(const base::Result<Addresses>& result) {
  if (!result) return "<" + std::string(StatusCodeName(result.error().code())) + ">";
  std::string text;
  for (const auto& address : *result) text += (text.empty() ? "" : " ") + address.ToString();
  return text;
}

// Names with answers that the test changes.
class FakeDns {
 public:
  Resolver::Lookup function() {
    return [this](const std::string& host, uint16_t port) -> base::Result<Addresses> {
      std::lock_guard lock(mutex_);
      ++lookups_;
      if (ips_.empty()) return std::unexpected(base::NotFound(host));
      Addresses out;
      for (const auto& ip : ips_) out.push_back(*runtime::SocketAddress::ParseIp(ip, port));
      return out;
    };
  }
  void Set(std::vector<std::string> ips) {
    std::lock_guard lock(mutex_);
    ips_ = std::move(ips);
  }
  int lookups() {
    std::lock_guard lock(mutex_);
    return lookups_;
  }

 private:
  std::mutex mutex_;
  std::vector<std::string> ips_;
  int lookups_ = 0;
};

class ResolverTest : public ::testing::Test {
 protected:
  runtime::EventLoop loop_;
  runtime::ThreadPool pool_{1, 16, "dns"};
  FakeDns dns_;
  std::vector<std::string> told_;
};

TEST_F(ResolverTest, LiteralAddressesNeedNoThread) {
  Resolver resolver(loop_, pool_, dns_.function());
  resolver.Resolve("::1", 80, [&](base::Result<Addresses> r) { told_.push_back(Print(r)); });
  EXPECT_TRUE(told_.empty()) << "never from inside Resolve";
  ASSERT_TRUE(TurnUntil(loop_, [&] { return told_.size() == 1; }));
  resolver.Resolve("/run/x.sock", 0, [&](base::Result<Addresses> r) { told_.push_back(Print(r)); });
  ASSERT_TRUE(TurnUntil(loop_, [&] { return told_.size() == 2; }));
  EXPECT_THAT(told_, ElementsAre("[::1]:80", "/run/x.sock"));
  EXPECT_EQ(dns_.lookups(), 0);
}

TEST_F(ResolverTest, AWatchTellsChangesOnly) {
  Resolver resolver(loop_, pool_, dns_.function());
  const Resolver::WatchId id =
      resolver.Watch("engine", 8000, milliseconds(3),
                     [&](base::Result<Addresses> r) { told_.push_back(Print(r)); });
  ASSERT_TRUE(TurnUntil(loop_, [&] { return told_.size() == 1; }));
  dns_.Set({"10.0.0.1"});
  ASSERT_TRUE(TurnUntil(loop_, [&] { return told_.back() == "10.0.0.1:8000"; }));
  const int before = dns_.lookups();
  ASSERT_TRUE(TurnUntil(loop_, [&] { return dns_.lookups() > before + 3; }));
  dns_.Set({});  // the last answer stands
  const int failing = dns_.lookups();
  ASSERT_TRUE(TurnUntil(loop_, [&] { return dns_.lookups() > failing + 3; }));
  dns_.Set({"10.0.0.1", "10.0.0.2"});
  ASSERT_TRUE(TurnUntil(loop_, [&] { return told_.back() == "10.0.0.1:8000 10.0.0.2:8000"; }));
  EXPECT_EQ(told_.front(), "<NOT_FOUND>");
  EXPECT_EQ(std::count(told_.begin(), told_.end(), "10.0.0.1:8000"), 1);
  resolver.Unwatch(id);
  dns_.Set({"10.0.0.3"});
  TurnABit(loop_, 10);
  EXPECT_NE(told_.back(), "10.0.0.3:8000");
}

TEST_F(ResolverTest, AWatchMayEndInsideItsCall) {
  Resolver resolver(loop_, pool_, dns_.function());
  dns_.Set({"10.0.0.1"});
  Resolver::WatchId id = 0;
  int calls = 0;
  id = resolver.Watch("engine", 1, milliseconds(1), [&](base::Result<Addresses>) {
    ++calls;
    resolver.Unwatch(id);
  });
  ASSERT_TRUE(TurnUntil(loop_, [&] { return calls == 1; }));
  dns_.Set({"10.0.0.2"});
  TurnABit(loop_, 10);
  EXPECT_EQ(calls, 1);
}

TEST_F(ResolverTest, ADestroyedResolverIsSilent) {
  dns_.Set({"10.0.0.1"});
  {
    Resolver resolver(loop_, pool_, dns_.function());
    resolver.Resolve("engine", 1, [&](base::Result<Addresses>) { told_.push_back("late"); });
    resolver.Watch("engine", 1, milliseconds(1),
                   [&](base::Result<Addresses>) { told_.push_back("late"); });
  }
  ASSERT_TRUE(TurnUntil(loop_, [&] { return dns_.lookups() == 2; }));
  TurnABit(loop_, 5);
  EXPECT_TRUE(told_.empty());
}

TEST_F(ResolverTest, AFullPoolIsToldAsSuch) {
  runtime::ThreadPool none(0, 0, "none");
  Resolver resolver(loop_, none, dns_.function());
  resolver.Resolve("engine", 1, [&](base::Result<Addresses> r) { told_.push_back(Print(r)); });
  ASSERT_TRUE(TurnUntil(loop_, [&] { return told_.size() == 1; }));
  EXPECT_THAT(told_, ElementsAre("<RESOURCE_EXHAUSTED>"));
}

TEST(LookupHost, KnowsLocalhost) {
  auto result = LookupHost("localhost", 80);
  ASSERT_TRUE(result.has_value()) << result.error().ToString();
  EXPECT_TRUE(result->front().is_loopback());
  EXPECT_EQ(result->front().port(), 80);
  EXPECT_FALSE(LookupHost("no-such-name.invalid", 80).has_value());
}

}  // namespace
}  // namespace llmd::net
