// Admin: the pages on the metrics port. /metrics, /healthz, /readyz, and /debug/* for people: what
// is configured, what is known of each endpoint, and why a request went where it went.
//
// Thread safety: belongs to the control loop's thread; reads the others' state through their
// thread-safe faces only.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "director/director.h"
#include "fleet/fleet.h"
#include "control/state.h"
#include "net/http_server.h"
#include "telemetry/metrics.h"

namespace llmd::control {

class Admin final : public net::HttpService {
 public:
  // Endpoints whose numbers are older than `staleness` are left out of the pool's gauges.
  // References outlive the object.
  Admin(State& state, runtime::EventLoop& loop, base::Duration staleness);
  ~Admin() override;

  net::ExchangeHandler* OnRequest(net::ServerExchange& exchange) override;

 private:
  struct Page {
    std::string_view path, help;
    void (Admin::*write)(net::ServerExchange&);
  };
  static std::span<const Page> Pages();

  void Index(net::ServerExchange& exchange);
  void Metrics(net::ServerExchange& exchange);
  void Healthz(net::ServerExchange& exchange);
  void Readyz(net::ServerExchange& exchange);
  void Decisions(net::ServerExchange& exchange);
  void Endpoints(net::ServerExchange& exchange);
  void Config(net::ServerExchange& exchange);
  void Plugins(net::ServerExchange& exchange);
  void KvEvents(net::ServerExchange& exchange);
  void LogLevel(net::ServerExchange& exchange);
  void CollectPool(telemetry::ScrapeSeries& series);

  State& state_;
  runtime::EventLoop& loop_;
  const base::Duration staleness_;
  fleet::View view_;
  std::string page_;  // reused between scrapes
  std::unique_ptr<telemetry::Metrics::Registration> pool_gauges_;
};

// Value of `key` in a query string, percent-decoded; "" when absent.
std::string QueryValue(std::string_view query, std::string_view key);
// All values of `key`.
std::vector<std::string> QueryValues(std::string_view query, std::string_view key);

}  // namespace llmd::control
