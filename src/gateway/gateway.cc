#include "gateway/gateway.h"

#include <condition_variable>
#include <thread>

#include "base/check.h"
#include "base/strings.h"
#include "gateway/control.h"
#include "protocol/error.h"
#include "runtime/clock.h"
#include "runtime/files.h"
#include "runtime/machine.h"
#include "runtime/worker.h"
#include "telemetry/log.h"

namespace llmd::gateway {
namespace {

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

// What the page says of the process itself.
void CollectProcess(telemetry::ScrapeSeries& series) {
  using telemetry::MetricId;
  series.Set(MetricId::kProcessResidentBytes, {}, static_cast<double>(runtime::ResidentBytes()));
  series.Set(MetricId::kProcessCpuSeconds, {}, runtime::ProcessCpuSeconds(0));
  series.Set(MetricId::kProcessOpenFds, {}, static_cast<double>(runtime::OpenFileCount()));
  series.Set(MetricId::kProcessMaxFds, {}, static_cast<double>(runtime::OpenFileLimit()));
  for (const base::BugSite* site = base::FirstBugSite(); site; site = site->next) {
    series.Set(MetricId::kInternalBugTotal,
               {base::Concat(site->file, ":", std::to_string(site->line))},
               static_cast<double>(site->count.load(std::memory_order_relaxed)));
  }
}

base::Result<DoorShared::EngineHeader> ReadEngineHeader(const std::string& text) {
  DoorShared::EngineHeader header;
  if (text.empty()) return header;
  const size_t colon = text.find(':');
  header.name = std::string(base::Trim(std::string_view(text).substr(0, colon)));
  if (colon == std::string::npos || !wire::IsHttpToken(header.name)) {
    return std::unexpected(base::InvalidArgument(
        "--engine-header: expected 'Name: value' or 'Name: @FILE'"));
  }
  header.value = std::string(base::Trim(std::string_view(text).substr(colon + 1)));
  if (header.value.starts_with('@')) {
    LLMD_ASSIGN_OR_RETURN(header.value, runtime::ReadFile(header.value.substr(1), 64 << 10));
    while (header.value.ends_with('\n') || header.value.ends_with('\r')) header.value.pop_back();
  }
  if (!wire::IsHttpFieldValue(header.value)) {
    return std::unexpected(
        base::InvalidArgument("--engine-header: the value has bytes that no header may carry"));
  }
  return header;
}

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
  Impl(const GatewayOptions& gateway_options, const plugin::Catalogue& plugin_catalogue)
      : options(gateway_options),
        catalogue(plugin_catalogue),
        worker_count(options.workers ? options.workers : runtime::AvailableCpuCount()),
        fleet(worker_count + 1),
        metrics(worker_count + 1),
        budget(options.memory_budget_bytes ? options.memory_budget_bytes
                                           : runtime::MemoryLimitBytes() / 4,
               worker_count),
        records(worker_count),
        shared{.fleet = fleet,
               .metrics = metrics,
               .budget = budget,
               .generations = generations,
               .records = records,
               .pool_name = options.pool_name},
        control_loop(1, "control"),
        workers(worker_count, "gateway") {}
  ~Impl() {
    workers.Stop();
    control_loop.Stop();
    control.reset();
    for (WorkerState& state : states) {
      state.counts.reset();
      state.server.reset();
      state.door.reset();
    }
  }

  base::Status Begin(telemetry::LogSink* access_log);
  base::Status BeginWorkers(std::shared_ptr<net::TlsServerContext> tls);
  void PublishBackends(std::shared_ptr<const Backends> backends);

  const GatewayOptions options;
  const plugin::Catalogue& catalogue;
  const size_t worker_count;
  fleet::Fleet fleet;
  telemetry::Metrics metrics;
  MemoryBudget budget;
  director::GenerationSource generations;
  director::RecordRing records;
  DoorShared shared;
  std::unique_ptr<telemetry::Metrics::Registration> process_gauges;
  runtime::WorkerPool control_loop;
  runtime::WorkerPool workers;
  std::vector<WorkerState> states;
  std::unique_ptr<Control> control;
  uint16_t port = 0;
};

base::Status Gateway::Impl::Begin(telemetry::LogSink* access_log) {
  LLMD_RETURN_IF_ERROR(CheckOptions(options));
  LLMD_ASSIGN_OR_RETURN(shared.engine_header, ReadEngineHeader(options.engine_header));
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
  runtime::RaiseOpenFileLimit();

  states.resize(worker_count);
  for (size_t i = 0; i < worker_count; ++i) {
    states[i].door = std::make_unique<Door>(shared, i, workers.loop(i), runtime::EntropySeed());
  }
  LLMD_ASSIGN_OR_RETURN(
      control,
      Control::Create(control_loop.loop(0),
                      {.options = options,
                       .catalogue = catalogue,
                       .shared = shared,
                       .generations = generations,
                       .writer = worker_count,
                       .publish = [this](auto backends) { PublishBackends(std::move(backends)); }},
                      tls));
  LLMD_RETURN_IF_ERROR(BeginWorkers(std::move(tls)));
  workers.Start();
  control_loop.Start();
  return base::OkStatus();
}

base::Status Gateway::Impl::BeginWorkers(std::shared_ptr<net::TlsServerContext> tls) {
  auto address = runtime::SocketAddress::Parse(options.listen);
  if (!address) return address.error().WithContext("--listen");
  for (size_t i = 0; i < worker_count; ++i) {
    states[i].server = std::make_unique<net::HttpServer>(workers.loop(i), *states[i].door,
                                                         ServerOptions(options, tls));
    auto bound = states[i].server->Listen(*address);
    if (!bound) {
      return bound.error().WithContext(base::Concat(
          "--listen ", options.listen, " (is another program there? choose another port)"));
    }
    port = *bound;
    *address = address->WithPort(port);
    states[i].counts = std::make_unique<ConnectionCounts>(
        workers.loop(i), i, metrics, *states[i].server, states[i].door->client());
  }
  return base::OkStatus();
}

// From the control thread, or at start-up while no loop runs: then the posts wait for Start.
void Gateway::Impl::PublishBackends(std::shared_ptr<const Backends> backends) {
  for (size_t i = 0; i < worker_count; ++i) {
    workers.Post(i, [door = states[i].door.get(), backends] { door->SetBackends(*backends); });
  }
}

base::Result<std::unique_ptr<Gateway>> Gateway::Start(const GatewayOptions& options,
                                                      const plugin::Catalogue& catalogue,
                                                      telemetry::LogSink* access_log,
                                                      std::function<uint64_t()> dropped_lines) {
  std::unique_ptr<Gateway> gateway(new Gateway);
  gateway->impl_ = std::make_unique<Impl>(options, catalogue);
  Impl& impl = *gateway->impl_;
  impl.process_gauges =
      impl.metrics.AddCollector([dropped_lines, started = runtime::WallNow()](
                                    telemetry::ScrapeSeries& series) {
        CollectProcess(series);
        series.Set(telemetry::MetricId::kProcessStartSeconds, {},
                   static_cast<double>(started.unix_ns) * 1e-9);
        if (dropped_lines) {
          series.Set(telemetry::MetricId::kLogDroppedTotal, {},
                     static_cast<double>(dropped_lines()));
        }
      });
  LLMD_RETURN_IF_ERROR(impl.Begin(access_log));
  return gateway;
}

Gateway::~Gateway() = default;

uint16_t Gateway::port() const { return impl_->port; }
uint16_t Gateway::metrics_port() const { return impl_->control->metrics_port(); }
size_t Gateway::worker_count() const { return impl_->worker_count; }

void Gateway::Drain() {
  impl_->shared.draining.store(true);
  std::mutex mutex;
  std::condition_variable done;
  size_t left = impl_->worker_count;
  for (size_t i = 0; i < impl_->worker_count; ++i) {
    impl_->workers.Post(i, [&, server = impl_->states[i].server.get()] {
      server->Drain(impl_->options.drain_timeout, [&] {
        std::lock_guard lock(mutex);
        if (--left == 0) done.notify_one();
      });
    });
  }
  std::unique_lock lock(mutex);
  done.wait(lock, [&] { return left == 0; });
}

bool Gateway::WaitForEndpoints(size_t count, base::Duration limit) {
  const base::TimePoint deadline = runtime::Now() + limit;
  while (impl_->fleet.members()->numbers.size() < count) {
    if (runtime::Now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

}  // namespace llmd::gateway
