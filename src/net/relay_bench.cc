// What the data path costs without any decision: CPU of the relaying thread per request, and of the
// scraping thread as a share of one core. Engine and clients run on threads of their own. The
// number to beat is nginx in front of the same engine (docs/performance.md).
#include <benchmark/benchmark.h>

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "net/http_client.h"
#include "net/http_server.h"
#include "net/scrape.h"
#include "runtime/clock.h"
#include "runtime/worker.h"

namespace llmd::net {
namespace {

constexpr uint32_t kLoopback = 0x7f000001;

// Answers every request with the same bytes.
class FixedEngine final : public HttpService, private ExchangeHandler {
 public:
  explicit FixedEngine(size_t reply_bytes) : reply_(reply_bytes, 'r') {}
  ExchangeHandler* OnRequest(ServerExchange& exchange) override {
    if (exchange.body_ended()) {
      exchange.Respond(200, "text/plain", reply_);
      return nullptr;
    }
    return new Waiting(exchange, reply_);
  }

 private:
  struct Waiting final : ExchangeHandler {
    Waiting(ServerExchange& x, const std::string& r) : exchange(x), reply(r) {}
    void OnBodyEnd() override { exchange.Respond(200, "text/plain", reply); }
    void OnFinished() override { delete this; }
    void OnClientGone(GoneReason) override { delete this; }
    ServerExchange& exchange;
    const std::string& reply;
  };
  const std::string reply_;
};

// Forwards every request as it is once its body is complete.
class PlainRelay final : public HttpService {
 public:
  PlainRelay(runtime::EventLoop& loop, uint16_t port) : loop_(loop), client_(loop) {
    target_ = client_.AddTarget({.address = runtime::SocketAddress::Ipv4(kLoopback, port)});
  }
  ExchangeHandler* OnRequest(ServerExchange& exchange) override {
    if (spare_.empty()) {
      pairs_.push_back(std::make_unique<Pair>(*this));
      spare_.push_back(pairs_.back().get());
    }
    Pair* pair = spare_.back();
    spare_.pop_back();
    pair->down = &exchange;
    return pair;
  }

 private:
  struct Pair final : ExchangeHandler, ClientHandler {
    explicit Pair(PlainRelay& r) : relay(r) {}
    void OnBody(base::Slice piece) override { body.push_back(std::move(piece)); }
    void OnBodyEnd() override {
      base::Block* block = relay.loop_.buffers().Get(4096);
      wire::HeadWriter head({block->data(), block->capacity()});
      head.RequestLine(down->head().method_name, down->head().target);
      for (const wire::HttpField& f : down->head().fields) {
        if (!f.hop_by_hop) head.Field(f.name, f.value);
      }
      head.EndOfHead();
      up = relay.client_.Start(relay.target_, base::Slice(block, block->data(), head.size()), body,
                               *this);
      body.clear();
    }
    void OnResponseHead(const wire::ResponseHead& reply) override {
      char room[2048];
      wire::HeadWriter head(room);
      head.StatusLine(reply.status, reply.reason);
      for (const wire::HttpField& f : reply.fields) {
        if (!f.hop_by_hop && f.id != wire::HttpFieldId::kContentLength) head.Field(f.name, f.value);
      }
      const bool chunked = reply.framing == wire::HttpFraming::kChunked;
      down->SendHead(head.view(), chunked ? ResponseFraming::kRawChunked : ResponseFraming::kLength,
                     reply.content_length);
    }
    void OnResponseBody(const base::Slice& raw, std::span<const std::string_view>) override {
      down->SendBody(raw);
    }
    void OnResponseEnd() override {
      up = nullptr;
      down->Finish();
    }
    void OnResponseError(const ClientError& error) override {
      up = nullptr;
      down->Respond(502, "text/plain", error.detail);
    }
    void OnFinished() override { relay.spare_.push_back(this); }
    void OnClientGone(GoneReason) override {
      if (up) up->Cancel();
      up = nullptr;
      relay.spare_.push_back(this);
    }
    PlainRelay& relay;
    ServerExchange* down = nullptr;
    ClientExchange* up = nullptr;
    std::vector<base::Slice> body;
  };

  runtime::EventLoop& loop_;
  HttpClient client_;
  ClientTarget* target_;
  std::vector<std::unique_ptr<Pair>> pairs_;
  std::vector<Pair*> spare_;
};

// Sends the same request again and again.
class Load final : public ClientHandler {
 public:
  Load(HttpClient& client, ClientTarget* target, const base::Slice& request, size_t& done)
      : client_(client), target_(target), request_(request), done_(done) {
    Next();
  }
  void OnResponseHead(const wire::ResponseHead&) override {}
  void OnResponseBody(const base::Slice&, std::span<const std::string_view>) override {}
  void OnResponseEnd() override {
    ++done_;
    Next();
  }
  void OnResponseError(const ClientError&) override { Next(); }

 private:
  void Next() { client_.Start(target_, request_, {}, *this); }
  HttpClient& client_;
  ClientTarget* target_;
  base::Slice request_;
  size_t& done_;
};

void BM_Relay(benchmark::State& state) {
  const size_t body_bytes = static_cast<size_t>(state.range(0));
  runtime::WorkerPool engine_pool(1, "engine"), relay_pool(1, "relay");
  FixedEngine engine(300);
  HttpServer engine_server(engine_pool.loop(0), engine);
  const auto any = runtime::SocketAddress::Ipv4(kLoopback, 0);
  PlainRelay relay(relay_pool.loop(0), engine_server.Listen(any).value());
  HttpServer relay_server(relay_pool.loop(0), relay);
  const uint16_t port = relay_server.Listen(any).value();
  engine_pool.Start();
  relay_pool.Start();
  auto relay_cpu = [&] {
    base::Duration used{};
    relay_pool.ForEach([&](size_t, runtime::EventLoop&) { used = runtime::ThreadCpuTime(); });
    return used;
  };

  runtime::EventLoop loop;
  HttpClient client(loop);
  ClientTarget* target =
      client.AddTarget({.address = runtime::SocketAddress::Ipv4(kLoopback, port)});
  const std::string request = "POST /v1/completions HTTP/1.1\r\nHost: gateway\r\nContent-Length: " +
                              std::to_string(body_bytes) + "\r\n\r\n" +
                              std::string(body_bytes, 'b');
  size_t done = 0;
  std::deque<Load> loads;
  for (int64_t i = 0; i < state.range(1); ++i) {
    loads.emplace_back(client, target, base::Slice::Unowned(request), done);
  }
  const base::Duration cpu_before = relay_cpu();
  const size_t done_before = done;
  size_t wanted = done;
  for (auto _ : state) {
    ++wanted;
    while (done < wanted) loop.Turn(std::chrono::seconds(1));
  }
  const double requests = static_cast<double>(done - done_before);
  state.counters["relay_cpu_us"] = base::ToSeconds(relay_cpu() - cpu_before) * 1e6 / requests;
  relay_pool.Stop();
  engine_pool.Stop();
}
BENCHMARK(BM_Relay)
    ->ArgNames({"bytes", "connections"})
    ->Args({1 << 10, 16})
    ->Args({128 << 10, 16})
    ->Args({512 << 10, 1})
    ->UseRealTime();

class CountingSink final : public ScrapeSink {
 public:
  void OnScrape(ScrapeId, int, std::string_view page, base::TimePoint) override {
    bytes += page.size();
  }
  void OnScrapeFailed(ScrapeId, const ClientError&) override { ++failures; }
  size_t bytes = 0;
  size_t failures = 0;
};

// One iteration is one interval of 50 ms in which every target is scraped once.
void BM_Scrape(benchmark::State& state) {
  runtime::WorkerPool engine_pool(1, "engine");
  FixedEngine engine(20'000);
  HttpServer engine_server(engine_pool.loop(0), engine);
  const uint16_t port = engine_server.Listen(runtime::SocketAddress::Ipv4(kLoopback, 0)).value();
  engine_pool.Start();
  runtime::EventLoop loop;
  CountingSink sink;
  const ScrapeOptions options;
  Scraper scraper(loop, options);
  for (int64_t i = 0; i < state.range(0); ++i) {
    scraper.Add(
        {.target = {.address = runtime::SocketAddress::Ipv4(kLoopback, port)}, .host = "engine"},
        sink);
  }
  auto run_for = [&](base::Duration time) {
    const base::TimePoint until = runtime::Now() + time;
    while (runtime::Now() < until) loop.Turn(until - runtime::Now());
  };
  run_for(options.interval * 2);
  const base::Duration cpu_before = runtime::ThreadCpuTime();
  const base::TimePoint start = runtime::Now();
  const uint64_t scrapes_before = scraper.stats().completed;
  for (auto _ : state) run_for(options.interval);
  const base::Duration cpu = runtime::ThreadCpuTime() - cpu_before;
  state.counters["core_percent"] =
      100 * base::ToSeconds(cpu) / base::ToSeconds(runtime::Now() - start);
  state.counters["us_per_scrape"] =
      base::ToSeconds(cpu) * 1e6 / static_cast<double>(scraper.stats().completed - scrapes_before);
  state.counters["late"] = static_cast<double>(scraper.stats().late);
  state.counters["failed"] = static_cast<double>(scraper.stats().failed);
  engine_pool.Stop();
}
BENCHMARK(BM_Scrape)->ArgName("targets")->Arg(100)->Arg(1000)->UseRealTime();

}  // namespace
}  // namespace llmd::net
