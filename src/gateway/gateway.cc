#include "gateway/gateway.h"

#include "base/strings.h"
#include "control/host.h"
#include "gateway/door.h"
#include "gateway/models_source.h"
#include "net/tls.h"
#include "protocol/error.h"
#include "runtime/clock.h"

namespace llmd::gateway {
namespace {

constexpr size_t kKeyFileBytesMax = 1u << 20;  // kApiKeysMax lines of 130 bytes and comments

// Copies a worker's connection counts, which only its own thread may read, into its metric cells.
class ConnectionCounts {
 public:
  ConnectionCounts(runtime::EventLoop& loop, size_t worker, telemetry::Metrics& metrics,
                   const net::HttpServer& server, const net::HttpClient& client)
      : worker_(worker),
        server_(server),
        client_(client),
        open_(metrics.Gauge(telemetry::MetricId::kConnectionsOpen)),
        accepted_(metrics.Counter(telemetry::MetricId::kConnectionsTotal, {"client"})),
        connected_(metrics.Counter(telemetry::MetricId::kConnectionsTotal, {"endpoint"})),
        timer_(loop, [this] { Publish(); }) {
    timer_.ArmAfter(kInterval);
  }

 private:
  static constexpr base::Duration kInterval = std::chrono::milliseconds(500);

  void Publish() {
    const auto open = static_cast<double>(server_.connection_count());
    open_.Add(worker_, open - std::exchange(told_open_, open));
    const uint64_t accepted = server_.stats().accepted;
    accepted_.Add(worker_, accepted - std::exchange(told_accepted_, accepted));
    const uint64_t connected = client_.stats().connects;
    connected_.Add(worker_, connected - std::exchange(told_connected_, connected));
    timer_.ArmAfter(kInterval);
  }

  const size_t worker_;
  const net::HttpServer& server_;
  const net::HttpClient& client_;
  const telemetry::GaugeHandle open_;
  const telemetry::CounterHandle accepted_, connected_;
  double told_open_ = 0;
  uint64_t told_accepted_ = 0, told_connected_ = 0;
  runtime::Timer timer_;
};

struct WorkerState {
  std::unique_ptr<Door> door;
  std::unique_ptr<net::HttpServer> server;
  std::unique_ptr<ConnectionCounts> counts;
};

net::HttpServerOptions ServerOptions(const GatewayOptions& options,
                                     std::shared_ptr<net::TlsServerContext> tls) {
  net::HttpServerOptions server;
  server.body_bytes_max = options.max_body_bytes;
  server.head_timeout = options.header_timeout;
  server.body_timeout = options.body_timeout;
  server.idle_timeout = options.idle_timeout;
  server.tls = std::move(tls);
  server.error_body = [](int status, std::string_view code, std::string_view message) {
    return protocol::ErrorBody(status, message);
  };
  return server;
}

base::Status CheckOptions(const GatewayOptions& options) {
  if (!options.config_file.empty() && !options.config_text.empty()) {
    return base::InvalidArgument("--config-file and --config-text: give one of them");
  }
  if (options.tls_cert.empty() != options.tls_key.empty()) {
    return base::InvalidArgument("--tls-cert and --tls-key: give both or none");
  }
  if (options.config_file.empty() && options.config_text.empty() && options.endpoints.empty()) {
    return base::InvalidArgument(
        "no endpoints: give --endpoints host:port,... or a --config-file with file-discovery");
  }
  return base::OkStatus();
}

}  // namespace

// Members in the order of construction; the destructor takes them down in reverse.
struct Gateway::Impl {
  Impl(const GatewayOptions& gateway_options, const plugin::Catalogue& catalogue,
       std::function<uint64_t()> dropped_lines)
      : options(gateway_options),
        host(options, catalogue, "gateway", std::move(dropped_lines)),
        shared{.state = host.state()} {}
  ~Impl() {
    host.Stop();
    models.reset();
    for (WorkerState& state : states) {
      state.counts.reset();
      state.server.reset();
      state.door.reset();
    }
  }

  base::Status Begin(telemetry::LogSink* access_log);
  base::Status BeginControl();
  base::Status BeginWorkers(std::shared_ptr<net::TlsServerContext> tls);
  void Publish(std::shared_ptr<const control::Backends> backends);

  const GatewayOptions options;
  control::Host host;
  DoorShared shared;
  std::vector<WorkerState> states;
  std::unique_ptr<ModelsSource> models;
  std::shared_ptr<const control::Backends> backends;  // the last ones, until `models` is there
  uint16_t port = 0;
};

base::Status Gateway::Impl::Begin(telemetry::LogSink* access_log) {
  LLMD_RETURN_IF_ERROR(CheckOptions(options));
  shared.engine_timeouts = {.connect = options.connect_timeout,
                            .head = options.response_timeout,
                            .body_idle = options.response_timeout};
  shared.access_log = access_log;
  shared.log_format = options.log_format;
  std::shared_ptr<net::TlsServerContext> tls;
  if (!options.tls_cert.empty()) {
    LLMD_ASSIGN_OR_RETURN(tls, net::TlsServerContext::Load({.certificate_file = options.tls_cert,
                                                            .key_file = options.tls_key}));
  }
  runtime::WorkerPool& workers = host.workers();
  states.resize(workers.size());
  for (size_t i = 0; i < states.size(); ++i) {
    states[i].door = std::make_unique<Door>(shared, i, workers.loop(i), runtime::EntropySeed());
  }
  LLMD_RETURN_IF_ERROR(BeginControl());
  if (tls) host.control().WatchCertificate(tls);
  LLMD_RETURN_IF_ERROR(BeginWorkers(std::move(tls)));
  host.Start();
  return base::OkStatus();
}

base::Status Gateway::Impl::BeginControl() {
  LLMD_RETURN_IF_ERROR(host.Begin([this](auto published) { Publish(std::move(published)); }));
  shared.engine_header = host.control().engine_header();
  models = std::make_unique<ModelsSource>(host.control_loop(), shared.models_body,
                                          shared.engine_header.line());
  if (backends) models->SetBackends(*backends);
  if (options.api_key_file.empty()) return base::OkStatus();
  return host.control().WatchFile(
      "api-keys", options.api_key_file, kKeyFileBytesMax,
      [this](std::string_view content) -> base::Status {
        LLMD_ASSIGN_OR_RETURN(auto keys,
                              control::ApiKeys::Parse(content, options.api_key_file));
        shared.keys.Publish(std::make_shared<const control::ApiKeys>(std::move(keys)));
        return base::OkStatus();
      });
}

base::Status Gateway::Impl::BeginWorkers(std::shared_ptr<net::TlsServerContext> tls) {
  auto address = runtime::SocketAddress::Parse(options.listen);
  if (!address) return address.error().WithContext("--listen");
  runtime::WorkerPool& workers = host.workers();
  std::vector<net::HttpServer*> servers;
  for (size_t i = 0; i < states.size(); ++i) {
    states[i].server = std::make_unique<net::HttpServer>(workers.loop(i), *states[i].door,
                                                         ServerOptions(options, tls));
    servers.push_back(states[i].server.get());
  }
  for (size_t i = 0; i < states.size(); ++i) {
    states[i].server->ShareWith(servers);
    auto bound = states[i].server->Listen(*address);
    if (!bound) {
      return bound.error().WithContext(base::Concat(
          "--listen ", options.listen, " (is another program there? choose another port)"));
    }
    port = *bound;
    *address = address->WithPort(port);
    states[i].counts =
        std::make_unique<ConnectionCounts>(workers.loop(i), i, host.state().metrics,
                                           *states[i].server, states[i].door->client());
  }
  return base::OkStatus();
}

// From the control thread, or at start-up while no loop runs: then the posts wait for Start.
void Gateway::Impl::Publish(std::shared_ptr<const control::Backends> published) {
  backends = std::move(published);
  if (models) models->SetBackends(*backends);
  for (size_t i = 0; i < states.size(); ++i) {
    host.workers().Post(i, [door = states[i].door.get(), backends = backends] {
      door->SetBackends(*backends);
    });
  }
}

base::Result<std::unique_ptr<Gateway>> Gateway::Start(const GatewayOptions& options,
                                                      const plugin::Catalogue& catalogue,
                                                      telemetry::LogSink* access_log,
                                                      std::function<uint64_t()> dropped_lines) {
  std::unique_ptr<Gateway> gateway(new Gateway);
  gateway->impl_ = std::make_unique<Impl>(options, catalogue, std::move(dropped_lines));
  LLMD_RETURN_IF_ERROR(gateway->impl_->Begin(access_log));
  return gateway;
}

Gateway::~Gateway() = default;

uint16_t Gateway::port() const { return impl_->port; }
uint16_t Gateway::metrics_port() const { return impl_->host.control().metrics_port(); }
size_t Gateway::worker_count() const { return impl_->states.size(); }

void Gateway::Drain() {
  impl_->host.Drain([this](size_t worker, std::function<void()> drained) {
    impl_->states[worker].server->Drain(impl_->options.drain_timeout, std::move(drained));
  });
}

bool Gateway::WaitForEndpoints(size_t count, base::Duration limit) {
  return impl_->host.WaitForEndpoints(count, limit);
}

}  // namespace llmd::gateway
