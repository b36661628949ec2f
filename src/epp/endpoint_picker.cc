#include "epp/endpoint_picker.h"


#include "base/strings.h"
#include "epp/door.h"
#include "net/grpc_health.h"
#include "net/grpc_server.h"
#include "net/tls.h"
#include "runtime/clock.h"

namespace llmd::epp {
namespace {

using net::HealthStatus;

constexpr std::string_view kProcess = "/envoy.service.ext_proc.v3.ExternalProcessor/Process";
// Names that probes ask for; every other one gets the same answer as readiness.
constexpr std::string_view kLiveness = "liveness";
constexpr std::string_view kReadiness[] = {"", "readiness", "inference-extension",
                                           "envoy.service.ext_proc.v3.ExternalProcessor"};

struct WorkerState {
  std::unique_ptr<Door> door;
  std::unique_ptr<net::GrpcHealthService> health;
  std::unique_ptr<net::GrpcServer> server;
};

base::Status CheckOptions(const EppOptions& options) {
  if (options.config_file.empty() && options.config_text.empty() && options.endpoints.empty()) {
    return base::InvalidArgument(
        "no endpoints: give a --config-file whose dataLayer.discovery names a file-discovery "
        "plugin");
  }
  return base::OkStatus();
}

base::Result<std::shared_ptr<net::TlsServerContext>> MakeTls(const EppOptions& options) {
  if (!options.secure_serving) return nullptr;
  net::TlsServerOptions tls{.alpn = "h2",
                            .min_version = options.tls_min_version,
                            .cipher_suites = options.tls_cipher_suites};
  if (options.cert_path.empty()) return net::TlsServerContext::SelfSigned({}, std::move(tls));
  tls.certificate_file = options.cert_path + "/tls.crt";
  tls.key_file = options.cert_path + "/tls.key";
  return net::TlsServerContext::Load(std::move(tls));
}

}  // namespace

// Members in the order of construction; the destructor takes them down in reverse.
struct EndpointPicker::Impl {
  Impl(const EppOptions& epp_options, const plugin::Catalogue& catalogue,
       telemetry::LogSink* access_log, std::function<uint64_t()> dropped_lines)
      : options(epp_options),
        // Envoy opens a handful of connections. A turn then has one message and nothing to gather,
        // and epoll takes less.
        host(options, catalogue, "epp", std::move(dropped_lines), runtime::IoEngine::kEpoll),
        shared{.state = host.state(), .options = options, .access_log = access_log} {}
  ~Impl() {
    host.Stop();
    listener.reset();
    health_listener.reset();
    health_server.reset();
    health_service.reset();
    for (WorkerState& state : states) {
      state.server.reset();
      state.health.reset();
      state.door.reset();
    }
  }

  base::Status Begin();
  base::Status BeginServers();
  base::Status BeginHealth();
  void SetReadiness(HealthStatus status);
  void Publish(const std::shared_ptr<const control::Backends>& backends);

  const EppOptions options;
  control::Host host;
  DoorShared shared;
  net::GrpcHealth health;
  std::vector<WorkerState> states;
  std::unique_ptr<net::GrpcHealthService> health_service;
  std::unique_ptr<net::GrpcServer> health_server;
  std::unique_ptr<net::GrpcListener> listener, health_listener;
  uint16_t port = 0;
  uint16_t health_port = 0;
};

base::Status EndpointPicker::Impl::Begin() {
  LLMD_RETURN_IF_ERROR(CheckOptions(options));
  runtime::WorkerPool& workers = host.workers();
  states.resize(workers.size());
  for (size_t i = 0; i < states.size(); ++i) {
    states[i].door = std::make_unique<Door>(shared, i, workers.loop(i), runtime::EntropySeed());
  }
  LLMD_RETURN_IF_ERROR(host.Begin([this](auto backends) { Publish(backends); }));
  LLMD_RETURN_IF_ERROR(BeginServers());
  LLMD_RETURN_IF_ERROR(BeginHealth());
  host.Start();
  // Configuration and endpoints have been read: from here on it can serve.
  SetReadiness(HealthStatus::kServing);
  return base::OkStatus();
}

base::Status EndpointPicker::Impl::BeginServers() {
  LLMD_ASSIGN_OR_RETURN(auto tls, MakeTls(options));
  if (tls && options.enable_cert_reload && !options.cert_path.empty()) {
    host.control().WatchCertificate(tls);
  }
  net::GrpcServerOptions server;
  if (options.message_bytes_max > 0) {
    server.message_bytes_max =
        static_cast<uint32_t>(std::min<uint64_t>(options.message_bytes_max, ~0u));
  }
  server.tls = tls;
  std::vector<net::GrpcServer*> servers;
  for (size_t i = 0; i < states.size(); ++i) {
    runtime::EventLoop& loop = host.workers().loop(i);
    WorkerState& state = states[i];
    state.server = std::make_unique<net::GrpcServer>(loop, server);
    state.server->AddService(std::string(kProcess), *state.door);
    if (options.health_checking) {
      state.health = std::make_unique<net::GrpcHealthService>(loop, health);
      state.server->AddService(std::string(net::GrpcHealthService::kPath), *state.health);
    }
    servers.push_back(state.server.get());
  }
  listener = std::make_unique<net::GrpcListener>(host.control_loop(), std::move(servers));
  auto address = runtime::SocketAddress::Parse(options.listen);
  if (!address) return address.error().WithContext("--grpc-port");
  auto bound = listener->Listen(*address);
  if (!bound) return bound.error().WithContext(base::Concat("--grpc-port, ", options.listen));
  port = *bound;
  return base::OkStatus();
}

base::Status EndpointPicker::Impl::BeginHealth() {
  health.Set(kLiveness, HealthStatus::kServing);
  SetReadiness(HealthStatus::kNotServing);
  runtime::EventLoop& loop = host.control_loop();
  health_service = std::make_unique<net::GrpcHealthService>(loop, health);
  health_server = std::make_unique<net::GrpcServer>(loop);
  health_server->AddService(std::string(net::GrpcHealthService::kPath), *health_service);
  health_listener = std::make_unique<net::GrpcListener>(
      loop, std::vector<net::GrpcServer*>{health_server.get()});
  auto address = runtime::SocketAddress::Parse(options.health_listen);
  if (!address) return address.error().WithContext("--grpc-health-port");
  auto bound = health_listener->Listen(*address);
  if (!bound) {
    return bound.error().WithContext(base::Concat("--grpc-health-port, ", options.health_listen));
  }
  health_port = *bound;
  return base::OkStatus();
}

void EndpointPicker::Impl::SetReadiness(HealthStatus status) {
  for (const std::string_view name : kReadiness) health.Set(name, status);
  health.SetOthers(status);
}

// From the control thread, or at start-up while no loop runs: then the posts wait for Start.
void EndpointPicker::Impl::Publish(const std::shared_ptr<const control::Backends>& backends) {
  for (size_t i = 0; i < states.size(); ++i) {
    host.workers().Post(i, [door = states[i].door.get(), backends] {
      door->SetBackends(*backends);
    });
  }
}

base::Result<std::unique_ptr<EndpointPicker>> EndpointPicker::Start(
    const EppOptions& options, const plugin::Catalogue& catalogue, telemetry::LogSink* access_log,
    std::function<uint64_t()> dropped_lines) {
  std::unique_ptr<EndpointPicker> picker(new EndpointPicker);
  picker->impl_ =
      std::make_unique<Impl>(options, catalogue, access_log, std::move(dropped_lines));
  LLMD_RETURN_IF_ERROR(picker->impl_->Begin());
  return picker;
}

EndpointPicker::~EndpointPicker() = default;

uint16_t EndpointPicker::port() const { return impl_->port; }
uint16_t EndpointPicker::health_port() const { return impl_->health_port; }
uint16_t EndpointPicker::metrics_port() const { return impl_->host.control().metrics_port(); }
size_t EndpointPicker::worker_count() const { return impl_->states.size(); }

void EndpointPicker::Drain() {
  Impl& impl = *impl_;
  impl.SetReadiness(HealthStatus::kNotServing);
  impl.host.state().draining.store(true);
  impl.host.Wait(impl.options.drain_timeout);
  impl.host.Drain([&impl](size_t worker, std::function<void()> drained) {
    impl.states[worker].server->Drain(impl.options.drain_timeout, std::move(drained));
  });
}

bool EndpointPicker::WaitForEndpoints(size_t count, base::Duration limit) {
  return impl_->host.WaitForEndpoints(count, limit);
}

}  // namespace llmd::epp
