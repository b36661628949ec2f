#include "control/control.h"

#include "base/strings.h"
#include "director/config.h"
#include "director/objects.h"
#include "runtime/clock.h"
#include "runtime/files.h"
#include "telemetry/log.h"
#include "wire/http1.h"

namespace llmd::control {
namespace {

constexpr size_t kConfigBytesMax = 1u << 20;  // config/'s own limit
constexpr size_t kEngineHeaderBytesMax = 64u << 10;
constexpr size_t kLookupsWaitingMax = 4096;  // one per endpoint

// Of "Name: value" or "Name: @FILE".
base::Result<EngineHeader> ReadEngineHeader(const std::string& text) {
  EngineHeader header;
  if (text.empty()) return header;
  const size_t colon = text.find(':');
  header.name = std::string(base::Trim(std::string_view(text).substr(0, colon)));
  if (colon == std::string::npos || !wire::IsHttpToken(header.name)) {
    return std::unexpected(
        base::InvalidArgument("--engine-header: expected 'Name: value' or 'Name: @FILE'"));
  }
  std::string& value = header.value;
  value = std::string(base::Trim(std::string_view(text).substr(colon + 1)));
  if (value.starts_with('@')) {
    LLMD_ASSIGN_OR_RETURN(value, runtime::ReadFile(value.substr(1), kEngineHeaderBytesMax));
    while (value.ends_with('\n') || value.ends_with('\r')) value.pop_back();
  }
  if (!wire::IsHttpFieldValue(value)) {
    return std::unexpected(
        base::InvalidArgument("--engine-header: the value has bytes that no header may carry"));
  }
  return header;
}

}  // namespace

std::string EngineHeader::line() const {
  return name.empty() ? std::string() : base::Concat(name, ": ", value, "\r\n");
}

base::Result<std::vector<fleet::EndpointSpec>> ParseEndpoints(
    const std::vector<std::string>& endpoints) {
  std::vector<fleet::EndpointSpec> specs;
  for (const std::string& text : endpoints) {
    auto host_port = runtime::SplitHostPort(text);
    if (!host_port || host_port->host.empty()) {
      return std::unexpected(base::InvalidArgument(
          base::Concat("--endpoints: \"", text, "\" is not host:port, for example 10.0.0.1:8000")));
    }
    fleet::EndpointSpec spec;
    spec.name = base::Concat("endpoint-", std::to_string(specs.size()));
    spec.address = host_port->host;
    spec.port = host_port->port;
    specs.push_back(std::move(spec));
  }
  return specs;
}

Control::Control(runtime::EventLoop& loop, State& state, const HostOptions& options,
                 const plugin::Catalogue& catalogue,
                 std::function<void(std::shared_ptr<const Backends>)> publish)
    : loop_(loop),
      state_(state),
      options_(options),
      catalogue_(catalogue),
      publish_(std::move(publish)),
      writer_(state.worker_count),
      lookups_(2, kLookupsWaitingMax, "lookup"),
      resolver_(loop, lookups_),
      outside_(loop, *state.outside, state.metrics, writer_),
      errands_(loop, outside_),
      kv_events_(state.fleet, state.metrics, state.worker_count + 1, options.kv_index_snapshot) {}

Control::~Control() = default;

base::Status Control::Begin() {
  LLMD_RETURN_IF_ERROR(BeginEngines());
  LLMD_RETURN_IF_ERROR(BeginConfig());
  LLMD_RETURN_IF_ERROR(BeginObjects());
  LLMD_RETURN_IF_ERROR(BeginTracing());
  admin_ = std::make_unique<Admin>(state_, loop_, options_.metrics_staleness_threshold);
  net::HttpServerOptions server;
  if (!options_.metrics_cert_dir.empty()) {
    LLMD_ASSIGN_OR_RETURN(server.tls,
                          net::TlsServerContext::Load(
                              {.certificate_file = options_.metrics_cert_dir + "/tls.crt",
                               .key_file = options_.metrics_cert_dir + "/tls.key",
                               .client_ca_file = options_.metrics_client_ca_file}));
    WatchCertificate(server.tls);
  }
  admin_server_ = std::make_unique<net::HttpServer>(loop_, *admin_, std::move(server));
  auto address = runtime::SocketAddress::Parse(options_.metrics_listen);
  if (!address) return address.error().WithContext("metrics address");
  auto port = admin_server_->Listen(*address);
  if (!port) return port.error().WithContext("metrics port");
  metrics_port_ = *port;
  return base::OkStatus();
}

base::Status Control::BeginEngines() {
  LLMD_ASSIGN_OR_RETURN(engine_header_, ReadEngineHeader(options_.engine_header));
  FleetSource::EngineTls tls;
  if (options_.engine_tls) {
    LLMD_ASSIGN_OR_RETURN(tls.context,
                          net::TlsClientContext::Create(
                              {.ca_file = options_.engine_ca_file,
                               .insecure_skip_verify = options_.engine_insecure_skip_verify}));
  }
  load_scraper_ = std::make_unique<LoadScraper>(loop_, state_.fleet, state_.metrics, writer_,
                                                options_.refresh_metrics_interval);
  load_scraper_->SetExtraLines(engine_header_.line());
  outside_.SetEngineOptions(
      {.engine_tls = tls.context, .engine_lines = engine_header_.line()});
  fleet_source_ = std::make_unique<FleetSource>(loop_, resolver_, state_.fleet, std::move(tls),
                                                [this](std::shared_ptr<const Backends> backends) {
                                                  load_scraper_->SetBackends(backends);
                                                  kv_events_.OnMembers();
                                                  publish_(std::move(backends));
                                                });
  return base::OkStatus();
}

base::Status Control::BeginConfig() {
  LLMD_ASSIGN_OR_RETURN(KvPeers peers,
                        KvPeers::Load(options_.kv_index_peer, options_.kv_index_bytes));
  if (peers.server_tls) WatchCertificate(peers.server_tls);
  // Keys of blocks that were computed under another secret would match nothing.
  const auto secret = kv_events_.ReadSnapshot(std::move(peers), lookups_);
  if (secret) secret_ = *secret;
  if (!options_.endpoints.empty()) {
    LLMD_ASSIGN_OR_RETURN(auto specs, ParseEndpoints(options_.endpoints));
    LLMD_RETURN_IF_ERROR(fleet_source_->SetSpecs(std::move(specs)));
  }
  if (!options_.config_file.empty()) {
    return WatchFile(
        "config", options_.config_file, kConfigBytesMax,
        [this](std::string_view yaml) { return UseConfig(yaml, options_.config_file); });
  }
  return UseConfig(options_.config_text,
                   options_.config_text.empty() ? "built-in defaults" : "--config-text");
}

base::Status Control::BeginObjects() {
  const std::string& path = options_.objects_file;
  if (path.empty()) return base::OkStatus();
  return WatchFile(
      "objects", path, kConfigBytesMax, [this, &path](std::string_view yaml) -> base::Status {
        LLMD_ASSIGN_OR_RETURN(auto objects, director::ReadObjects(yaml, path, state_.pool_name));
        for (const std::string& warning : objects->warnings()) {
          LLMD_LOG(kWarn, "objects", {"warning", warning});
        }
        state_.objects.Publish(std::move(objects));
        return base::OkStatus();
      });
}

base::Status Control::BeginTracing() {
  if (!state_.tracer) return base::OkStatus();
  auto exporter = OtlpExporter::Create(loop_, resolver_, *state_.tracer, options_.traces->exporter,
                                       runtime::EntropySeed());
  if (!exporter) return exporter.error().WithContext("OTEL_EXPORTER_OTLP_*");
  exporter_ = std::move(*exporter);
  trace_counts_ = state_.metrics.AddCollector(
      [tracer = state_.tracer.get()](telemetry::ScrapeSeries& series) {
        using telemetry::MetricId;
        const telemetry::Tracer::Stats stats = tracer->stats();
        const auto set = [&](std::string_view result, uint64_t spans) {
          series.Set(MetricId::kTraceSpansTotal, {result}, static_cast<double>(spans));
        };
        set("exported", stats.exported);
        set("dropped", stats.dropped);
        set("failed", stats.failed);
      });
  return base::OkStatus();
}

void Control::FlushTraces(std::move_only_function<void()> done) {
  exporter_->Flush(std::move(done));
}

// Builds the whole new generation before anything changes, so a bad file leaves the old one in
// force.
base::Status Control::UseConfig(std::string_view yaml, std::string_view filename) {
  const director::LoadOptions load{
      .allow_experimental_plugins = options_.allow_experimental_plugins,
      .endpoints_given = !options_.endpoints.empty(),
      .kv_index_bytes = options_.kv_index_bytes,
      .secret = secret_};
  LLMD_ASSIGN_OR_RETURN(auto generation,
                        director::Compile(yaml, filename, catalogue_, state_.fleet, load,
                                          generation_.get()));
  LLMD_RETURN_IF_ERROR(kv_events_.SetGeneration(*generation));
  LLMD_RETURN_IF_ERROR(load_scraper_->SetGeneration(generation));
  for (const std::string& warning : generation->warnings()) {
    LLMD_LOG(kWarn, "configuration", {"warning", warning});
  }
  generation_ = generation;
  errands_.SetGeneration(*generation_);
  state_.generations.Publish(std::move(generation));
  state_.metrics.Gauge(telemetry::MetricId::kConfigGeneration)
      .Set(static_cast<double>(generation_->number()));
  return UseDiscovery();
}

base::Status Control::UseDiscovery() {
  discovery_ = options_.endpoints.empty() ? generation_->discovery() : nullptr;
  if (!discovery_) {
    endpoints_watch_.reset();
    return base::OkStatus();
  }
  endpoints_watch_ = std::make_unique<runtime::FileWatch>(
      loop_, discovery_->file().path, [this](base::Result<std::string> content) {
        if (discovery_->file().watch) {
          CountReload("endpoints", ReadEndpointFile(std::move(content)));
        }
      });
  return ReadEndpointFile(endpoints_watch_->initial());
}

base::Status Control::ReadEndpointFile(base::Result<std::string> content) {
  if (!content) return content.error();
  LLMD_ASSIGN_OR_RETURN(auto specs, discovery_->Read(*content));
  return fleet_source_->SetSpecs(std::move(specs)).WithContext(discovery_->file().path);
}

base::Status Control::WatchFile(std::string_view what, const std::string& path, size_t bytes_max,
                                std::function<base::Status(std::string_view content)> use) {
  auto checked = [path, bytes_max,
                  use = std::move(use)](const base::Result<std::string>& content) -> base::Status {
    if (!content) return content.error();
    if (content->size() > bytes_max) {
      return base::InvalidArgument(
          base::Concat(path, ": larger than ", std::to_string(bytes_max >> 10), " KiB"));
    }
    return use(*content);
  };
  watches_.push_back(std::make_unique<runtime::FileWatch>(
      loop_, path, [this, checked, what = std::string(what)](base::Result<std::string> content) {
        CountReload(what, checked(content));
      }));
  return checked(watches_.back()->initial());
}

void Control::WatchCertificate(std::shared_ptr<net::TlsServerContext> tls) {
  certificate_watches_.push_back(std::make_unique<net::TlsCertificateWatch>(
      loop_, std::move(tls),
      [this](const base::Status& status) { CountReload("certificate", status); }));
}

void Control::CountReload(std::string_view file, const base::Status& status) {
  state_.metrics
      .Counter(telemetry::MetricId::kConfigReloadsTotal, {file, status.ok() ? "ok" : "rejected"})
      .Add(writer_);
  if (status.ok()) {
    LLMD_LOG(kInfo, "reloaded", {"what", file});
  } else {
    LLMD_LOG(kError, "reload rejected, the old one stays", {"what", file}, {"error", status});
  }
}

}  // namespace llmd::control
