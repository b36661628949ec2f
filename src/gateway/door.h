// Door: the gateway's face on one worker. Takes requests from the HTTP server, turns away what must
// not pass, answers what it knows itself, and gives the rest to a Relay.
//
// Thread safety: belongs to one worker. What workers share (DoorShared) is thread-safe or
// immutable.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "base/snapshot.h"
#include "control/control.h"
#include "control/outside.h"
#include "control/state.h"
#include "director/director.h"
#include "fleet/fleet.h"
#include "control/api_keys.h"
#include "gateway/relay.h"
#include "net/http_client.h"
#include "net/http_server.h"
#include "telemetry/access_log.h"
#include "telemetry/metrics.h"

namespace llmd::gateway {

// Limits whose hits are counted in llmd_limit_hits_total.
enum class Limit : uint8_t { kMemoryBudget, kBodyBytes, kHead, kTimeout, kCount };

struct DoorShared {
  control::State& state;
  base::Snapshot<control::ApiKeys> keys;             // null: no keys asked for
  base::Snapshot<std::string> models_body;  // reply to GET /v1/models; null: not known yet
  control::EngineHeader engine_header;
  net::ClientTimeouts engine_timeouts;
  telemetry::LogSink* access_log = nullptr;  // nullptr: no access lines
  telemetry::LogFormat log_format = telemetry::LogFormat::kText;
};

class Door final : public net::HttpService {
 public:
  // `shared` and `loop` outlive the door; `seed` is this worker's chance.
  Door(DoorShared& shared, size_t worker, runtime::EventLoop& loop, uint64_t seed);
  ~Door() override;

  net::ExchangeHandler* OnRequest(net::ServerExchange& exchange) override;
  void OnBadRequest(int status, std::string_view reason) override;
  // Connects to what the control thread resolved; unchanged targets keep their connections.
  void SetBackends(const control::Backends& backends);

  // For relays.
  director::Director& director() { return director_; }
  net::HttpClient& client() { return client_; }
  control::BudgetLease& budget() { return lease_; }
  control::Outside& outside() { return outside_; }
  // nullptr when the endpoint cannot be reached (it just left).
  net::ClientTarget* TargetOf(fleet::EndpointNumber number) const {
    return number < targets_.size() ? targets_[number].target : nullptr;
  }
  const control::EngineHeader& engine_header() const { return shared_.engine_header; }
  const net::ClientTimeouts& engine_timeouts() const { return shared_.engine_timeouts; }
  std::string_view KeyName(size_t key);
  uint64_t NextSeed() { return random_.Next(); }
  void CountLimit(Limit limit);
  // A request is over: access line, outcome and key counters.
  void Finished(const telemetry::AccessRecord& record, std::optional<size_t> key);
  void TakeBack(Relay* relay);
  size_t active_relays() const { return relays_.size() - idle_relays_.size(); }

 private:
  struct Target {
    net::ClientTarget* target = nullptr;
    runtime::SocketAddress address;
    uint64_t generation = 0;
  };
  struct KeyCounters {
    telemetry::CounterHandle requests, input_tokens, output_tokens;
  };

  bool Refuse(net::ServerExchange& exchange, std::optional<size_t>* key);
  void Respond(net::ServerExchange& exchange, int status, std::string_view message,
               std::string_view extra_lines = "");
  void RespondModels(net::ServerExchange& exchange);
  const telemetry::CounterHandle& OutcomeCounter(std::string_view outcome, int status);

  DoorShared& shared_;
  const size_t worker_;
  base::Random random_;
  net::HttpClient client_;
  director::Director director_;
  control::BudgetLease lease_;
  control::Outside outside_;
  std::vector<Target> targets_;  // by endpoint number
  std::vector<std::unique_ptr<Relay>> relays_;
  std::vector<Relay*> idle_relays_;
  base::Snapshot<control::ApiKeys>::Reader keys_;
  base::Snapshot<std::string>::Reader models_body_;
  const control::ApiKeys* counted_keys_ = nullptr;  // whose counters key_counters_ holds
  std::vector<KeyCounters> key_counters_;
  telemetry::CounterHandle limits_[static_cast<size_t>(Limit::kCount)];
  telemetry::CounterHandle key_missing_, key_unknown_;
  struct OutcomeEntry {
    std::string_view outcome;
    int status_class;
    telemetry::CounterHandle counter;
  };
  std::vector<OutcomeEntry> outcomes_;
};

}  // namespace llmd::gateway
