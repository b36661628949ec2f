#include "net/scrape.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "net/net_testing.h"

namespace llmd::net {
namespace {

using std::chrono::milliseconds;

struct Sink final : ScrapeSink {
  void OnScrape(ScrapeId id, int status, std::string_view page, base::TimePoint sent_at) override {
    ++pages[id];
    last_status = status;
    last_page = page;
    last_sent_at = sent_at;
    if (on_page) on_page(id);
  }
  void OnScrapeFailed(ScrapeId id, const ClientError& error) override {
    ++failures[id];
    last_error = error;
    if (on_failure) on_failure(id);
  }
  std::map<ScrapeId, int> pages, failures;
  int last_status = 0;
  std::string last_page;
  base::TimePoint last_sent_at{};
  ClientError last_error{};
  std::function<void(ScrapeId)> on_page, on_failure;
};

class ScrapeTest : public ::testing::Test {
 protected:
  void Serve(std::string page) {
    service_.answer_at_once = [page = std::move(page)](ServerExchange& x) {
      x.Respond(200, "text/plain", page);
    };
    server_ = std::make_unique<HttpServer>(loop_, service_);
    port_ = server_->Listen(runtime::SocketAddress::Ipv4(kLoopback, 0)).value();
  }
  ScrapeTargetSpec Spec() const {
    return {.target = {.address = runtime::SocketAddress::Ipv4(kLoopback, port_)},
            .host = "engine",
            .extra_lines = "Authorization: Bearer t\r\n"};
  }

  runtime::EventLoop loop_;
  TestService service_;
  std::unique_ptr<HttpServer> server_;
  uint16_t port_ = 0;
  Sink sink_;
};

// The tutorial: three targets, each scraped once per interval over its own kept connection.
TEST_F(ScrapeTest, ScrapesEachTargetOncePerInterval) {
  Serve(std::string(20'000, 'm'));
  Scraper scraper(loop_, {.interval = milliseconds(20), .tick = milliseconds(5)});
  const base::TimePoint start = runtime::Now();
  ScrapeId ids[3];
  for (ScrapeId& id : ids) id = scraper.Add(Spec(), sink_);
  ASSERT_TRUE(TurnUntil(loop_, [&] { return sink_.pages[ids[0]] >= 6; }));
  const double intervals = base::ToSeconds(runtime::Now() - start) / 0.020;
  for (ScrapeId id : ids) {
    EXPECT_GE(sink_.pages[id], 4);
    EXPECT_LE(sink_.pages[id], intervals + 2);
  }
  EXPECT_EQ(sink_.last_page, std::string(20'000, 'm'));
  EXPECT_GE(sink_.last_sent_at, start);
  EXPECT_EQ(server_->stats().accepted, 3u);
  EXPECT_EQ(service_.seen[0], "GET /metrics");
  EXPECT_EQ(scraper.stats().failed, 0u);
}

TEST_F(ScrapeTest, AnEmptyPageAndAnErrorStatusAreReplies) {
  service_.answer_at_once = [](ServerExchange& x) { x.Respond(404, "", ""); };
  server_ = std::make_unique<HttpServer>(loop_, service_);
  port_ = server_->Listen(runtime::SocketAddress::Ipv4(kLoopback, 0)).value();
  Scraper scraper(loop_);
  scraper.Add(Spec(), sink_);
  ASSERT_TRUE(TurnUntil(loop_, [&] { return sink_.last_status == 404; }));
  EXPECT_EQ(sink_.last_page, "");
}

// Chunked and multi-read pages are gathered.
TEST_F(ScrapeTest, GathersPagesThatComeInPieces) {
  std::string page;
  for (int i = 0; i < 60'000; ++i) page += "metric_" + std::to_string(i) + " 1\n";
  service_.answer_at_once = [&](ServerExchange& x) {
    x.SendHead("HTTP/1.1 200 OK\r\n", ResponseFraming::kChunked);
    for (size_t at = 0; at < page.size(); at += 3000) {
      x.SendBody(std::string_view(page).substr(at, 3000));
    }
    x.Finish();
  };
  server_ = std::make_unique<HttpServer>(loop_, service_);
  port_ = server_->Listen(runtime::SocketAddress::Ipv4(kLoopback, 0)).value();
  Scraper scraper(loop_, {.interval = milliseconds(10)});
  const ScrapeId id = scraper.Add(Spec(), sink_);
  for (int n = 1; n <= 3; ++n) {
    ASSERT_TRUE(TurnUntil(loop_, [&] { return sink_.pages[id] >= n; }));
    ASSERT_TRUE(sink_.last_page == page);
  }
}

TEST_F(ScrapeTest, TheSinkMayFallBackToAnotherPathOrLeave) {
  service_.answer_at_once = [](ServerExchange& x) {
    const bool filtered = x.head().query.starts_with("name");
    x.Respond(filtered ? 400 : 200, "", filtered ? "no filters" : "whole page");
  };
  server_ = std::make_unique<HttpServer>(loop_, service_);
  port_ = server_->Listen(runtime::SocketAddress::Ipv4(kLoopback, 0)).value();
  Scraper scraper(loop_, {.interval = milliseconds(5)});
  ScrapeTargetSpec spec = Spec();
  spec.path = "/metrics?name[]=a";
  const ScrapeId id = scraper.Add(spec, sink_);
  sink_.on_page = [&](ScrapeId which) {
    if (sink_.last_status == 400) {
      scraper.SetPath(which, "/metrics");
    } else {
      scraper.Remove(which);
    }
  };
  ASSERT_TRUE(TurnUntil(loop_, [&] { return scraper.size() == 0; }));
  TurnABit(loop_, 10);
  EXPECT_EQ(sink_.pages[id], 2);
  EXPECT_EQ(service_.seen.back(), "GET /metrics");
}

TEST_F(ScrapeTest, ASlowTargetIsLateAndTimesOutWithoutHoldingUpOthers) {
  Serve("fast");
  RawListener silent(loop_);
  Scraper scraper(loop_, {.interval = milliseconds(5), .timeout = milliseconds(250)});
  ScrapeTargetSpec slow = Spec();
  slow.target.address = runtime::SocketAddress::Ipv4(kLoopback, silent.port());
  const ScrapeId slow_id = scraper.Add(slow, sink_);
  const ScrapeId fast_id = scraper.Add(Spec(), sink_);
  ASSERT_TRUE(TurnUntil(loop_, [&] { return sink_.failures[slow_id] == 1; }));
  EXPECT_EQ(sink_.last_error.kind, ClientErrorKind::kHeadTimeout);
  EXPECT_GE(scraper.stats().late, 3u);
  EXPECT_GE(scraper.stats().timeouts, 1u);
  EXPECT_GE(sink_.pages[fast_id], 4);
}

TEST_F(ScrapeTest, PagesOverTheLimitFail) {
  Serve(std::string(100'000, 'x'));
  Scraper scraper(loop_, {.page_bytes_max = 50'000});
  const ScrapeId id = scraper.Add(Spec(), sink_);
  ASSERT_TRUE(TurnUntil(loop_, [&] { return sink_.failures[id] == 1; }));
  EXPECT_EQ(sink_.last_error.kind, ClientErrorKind::kBadReply);
  EXPECT_EQ(sink_.pages[id], 0);
}

TEST_F(ScrapeTest, AKeptConnectionThatDiedIsReplacedSilently) {
  RawListener engine(loop_);
  port_ = engine.port();
  Scraper scraper(loop_, {.interval = milliseconds(30)});
  const ScrapeId id = scraper.Add(Spec(), sink_);
  {
    RawPeer first = engine.Accept();
    ASSERT_TRUE(first.WaitFor("\r\n\r\n"));
    ASSERT_TRUE(first.Send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"));
    ASSERT_TRUE(TurnUntil(loop_, [&] { return sink_.pages[id] == 1; }));
    first.Take();
    ASSERT_TRUE(first.WaitFor("\r\n\r\n"));
  }  // closed while the second scrape waits for its reply
  RawPeer second = engine.Accept();
  ASSERT_TRUE(second.WaitFor("\r\n\r\n"));
  ASSERT_TRUE(second.Send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\ny"));
  ASSERT_TRUE(TurnUntil(loop_, [&] { return sink_.pages[id] == 2; }));
  EXPECT_EQ(sink_.failures[id], 0);
}

TEST_F(ScrapeTest, TargetsComeAndGoWhileScrapesRun) {
  Serve("page");
  Scraper scraper(loop_, {.interval = milliseconds(4), .tick = milliseconds(1)});
  std::vector<ScrapeId> live;
  for (int round = 0; round < 200; ++round) {
    if (round % 3 != 2 || live.empty()) {
      live.push_back(scraper.Add(Spec(), sink_));
    } else {
      scraper.Remove(live.front());
      live.erase(live.begin());
    }
    if (round == 100) scraper.SetInterval(milliseconds(9));
    loop_.Turn(milliseconds(1));
  }
  EXPECT_EQ(scraper.size(), live.size());
  ASSERT_TRUE(TurnUntil(loop_, [&] { return sink_.pages[live.back()] > 0; }));
  EXPECT_EQ(scraper.stats().failed, 0u);
}

}  // namespace
}  // namespace llmd::net
