// SimServer: one simulated vLLM server on one loop: the engine model in real time behind HTTP.
//
// Requests that arrive in one turn of the loop enter the same step; the text of all streams that a
// step feeds leaves in one write per connection.
// Thread safety: none; everything happens on the loop. Created and destroyed when the loop does not
// run, or on its thread.
// Limits: one engine queue (waiting_max), bodies (body_bytes_max), connections (net's).
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "engine/engine.h"
#include "net/http_server.h"
#include "runtime/loop.h"
#include "sim/completion.h"
#include "sim/kv_events.h"
#include "sim/metrics.h"
#include "sim/options.h"
#include "sim/request.h"

namespace llmd::sim {

class SimServer final : public net::HttpService, private runtime::TurnHook {
 public:
  // `config` came from Resolve.
  static base::Result<std::unique_ptr<SimServer>> Create(runtime::EventLoop& loop,
                                                         const ServerConfig& config);
  ~SimServer() override;

  base::Result<uint16_t> Listen(const runtime::SocketAddress& address);
  // From now on tells what the engine caches; before the loop runs. See KvEventPublisher::Create.
  base::Status PublishKvEvents(net::ZmqContext& context, uint32_t index, std::string topic);
  net::HttpServer& http() { return *http_; }
  // nullptr: no events.
  const KvEventPublisher* kv_events() const { return kv_events_.get(); }

  net::ExchangeHandler* OnRequest(net::ServerExchange& exchange) override;

  // --- for Completion ---
  const ServerConfig& config() const { return config_; }
  engine::Engine& engine() { return *engine_; }
  ServerMetrics& metrics() { return metrics_; }
  RequestReader& reader() { return reader_; }
  base::Random& random() { return random_; }
  std::string& scratch() { return scratch_; }
  const std::string& fingerprint() const { return fingerprint_; }
  runtime::EventLoop& loop() { return loop_; }
  // The engine's time now. Takes the steps that are due before.
  base::TimePoint CatchUp();
  // Takes due steps at the end of this turn.
  void StepSoon() { loop_.AtTurnEnd(*this); }
  // Destroys `completion`, whose exchange has ended.
  void Release(Completion* completion);
  // Simulated to real seconds.
  double time_scale() const { return 1 / config_.speedup; }
  bool Serves(std::string_view model) const;
  std::string ValidAliases() const;
  // If this request is to fail.
  bool DrawFailure(ApiError* error);
  // Field lines that every reply has. Valid until the next call.
  std::string_view ReplyLines(const net::ServerExchange& exchange);
  // The id that the client gave, or a new one of `digits` hex digits.
  std::string RequestIdOf(const net::ServerExchange& exchange, int digits);
  void Respond(net::ServerExchange& exchange, int status, std::string_view json);

 private:
  struct RouteRow;

  SimServer(runtime::EventLoop& loop, const ServerConfig& config,
            std::unique_ptr<engine::Engine> engine);
  void OnTurnEnd() override;
  void RunDueSteps(base::TimePoint now);
  void HandleStep(const engine::StepResult& step);
  void ArmTimer();
  base::TimePoint ToVirtual(base::TimePoint real) const;
  base::TimePoint ToReal(base::TimePoint simulated) const;

  void ServeHealth(net::ServerExchange& exchange);
  void ServeReady(net::ServerExchange& exchange);
  void ServeVersion(net::ServerExchange& exchange);
  void ServeModels(net::ServerExchange& exchange);
  void ServeLoad(net::ServerExchange& exchange);
  void ServeMetrics(net::ServerExchange& exchange);
  void ServeKvEventSources(net::ServerExchange& exchange);
  void ServeResetPrefixCache(net::ServerExchange& exchange);

  runtime::EventLoop& loop_;
  const ServerConfig config_;
  std::unique_ptr<engine::Engine> engine_;
  const base::TimePoint origin_;
  const base::WallTime started_wall_;
  ServerMetrics metrics_;
  MetricsPage page_;
  RequestReader reader_;
  base::Random random_;
  std::string scratch_;
  std::string lines_;
  std::string fingerprint_;
  std::vector<std::unique_ptr<Completion>> completions_;  // each knows its index
  std::vector<Completion*> dirty_;                        // to be pumped
  runtime::Timer timer_;
  std::unique_ptr<KvEventPublisher> kv_events_;
  // Last: its end aborts the exchanges, whose completions still use the rest.
  std::unique_ptr<net::HttpServer> http_;
};

}  // namespace llmd::sim
