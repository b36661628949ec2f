#include "gateway/control.h"

#include "base/strings.h"
#include "director/config.h"
#include "runtime/files.h"
#include "telemetry/log.h"

namespace llmd::gateway {
namespace {

constexpr size_t kConfigBytesMax = 1u << 20;   // config/'s own limit
constexpr size_t kKeyFileBytesMax = 1u << 20;  // kApiKeysMax lines of 130 bytes and comments
constexpr size_t kLookupsWaitingMax = 4096;    // one per endpoint

}  // namespace

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

base::Result<std::unique_ptr<Control>> Control::Create(runtime::EventLoop& loop, Context context,
                                                       std::shared_ptr<net::TlsServerContext> tls) {
  std::unique_ptr<Control> control(new Control(loop, std::move(context)));
  LLMD_RETURN_IF_ERROR(control->Begin(std::move(tls)));
  return control;
}

Control::Control(runtime::EventLoop& loop, Context context)
    : loop_(loop),
      context_(std::move(context)),
      lookups_(2, kLookupsWaitingMax, "lookup"),
      resolver_(loop, lookups_) {}

Control::~Control() = default;

base::Status Control::Begin(std::shared_ptr<net::TlsServerContext> tls) {
  LLMD_RETURN_IF_ERROR(BeginEngines());
  LLMD_RETURN_IF_ERROR(BeginConfig());
  LLMD_RETURN_IF_ERROR(BeginKeys());
  if (tls) {
    certificate_watch_ = std::make_unique<net::TlsCertificateWatch>(
        loop_, tls, [this](const base::Status& status) { CountReload("certificate", status); });
  }
  admin_ = std::make_unique<Admin>(context_.shared, loop_, context_.writer);
  admin_server_ = std::make_unique<net::HttpServer>(loop_, *admin_);
  auto address = runtime::SocketAddress::Parse(context_.options.metrics_listen);
  if (!address) return address.error().WithContext("metrics address");
  auto port = admin_server_->Listen(*address);
  if (!port) return port.error().WithContext("metrics port");
  metrics_port_ = *port;
  return base::OkStatus();
}

base::Status Control::BeginEngines() {
  const GatewayOptions& options = context_.options;
  FleetSource::EngineTls tls;
  if (options.engine_tls) {
    LLMD_ASSIGN_OR_RETURN(tls.context,
                          net::TlsClientContext::Create(
                              {.ca_file = options.engine_ca_file,
                               .insecure_skip_verify = options.engine_insecure_skip_verify}));
  }
  std::string extra_lines;
  if (const auto& header = context_.shared.engine_header; !header.name.empty()) {
    extra_lines = base::Concat(header.name, ": ", header.value, "\r\n");
  }
  load_scraper_ = std::make_unique<LoadScraper>(loop_, context_.shared.fleet,
                                                context_.shared.metrics, context_.writer,
                                                options.refresh_metrics_interval);
  load_scraper_->SetExtraLines(extra_lines);
  models_source_ =
      std::make_unique<ModelsSource>(loop_, context_.shared.models_body, std::move(extra_lines));
  fleet_source_ = std::make_unique<FleetSource>(
      loop_, resolver_, context_.shared.fleet, std::move(tls),
      [this](std::shared_ptr<const Backends> backends) {
        context_.publish(backends);
        load_scraper_->SetBackends(backends);
        models_source_->SetBackends(*backends);
      });
  return base::OkStatus();
}

base::Status Control::BeginConfig() {
  const GatewayOptions& options = context_.options;
  std::string yaml = options.config_text;
  std::string filename = options.config_text.empty() ? "built-in defaults" : "--config-text";
  if (!options.config_file.empty()) {
    filename = options.config_file;
    config_watch_ = std::make_unique<runtime::FileWatch>(
        loop_, options.config_file, [this](base::Result<std::string> content) {
          base::Status status = content ? base::OkStatus() : content.error();
          if (status.ok()) status = UseConfig(*content, context_.options.config_file);
          CountReload("config", status);
        });
    if (!config_watch_->initial()) return config_watch_->initial().error();
    yaml = *config_watch_->initial();
    if (yaml.size() > kConfigBytesMax) {
      return base::InvalidArgument(base::Concat(filename, ": larger than 1 MiB"));
    }
  }
  if (!options.endpoints.empty()) {
    LLMD_ASSIGN_OR_RETURN(auto specs, ParseEndpoints(options.endpoints));
    LLMD_RETURN_IF_ERROR(fleet_source_->SetSpecs(std::move(specs)));
  }
  return UseConfig(yaml, filename);
}

// Builds the whole new generation before anything changes, so a bad file leaves the old one in
// force.
base::Status Control::UseConfig(std::string_view yaml, std::string_view filename) {
  const director::LoadOptions options{
      .allow_experimental_plugins = context_.options.allow_experimental_plugins,
      .endpoints_given = !context_.options.endpoints.empty()};
  LLMD_ASSIGN_OR_RETURN(auto generation,
                        director::Compile(yaml, filename, context_.catalogue, context_.shared.fleet,
                                          options, generation_.get()));
  LLMD_RETURN_IF_ERROR(load_scraper_->SetGeneration(generation));
  for (const std::string& warning : generation->warnings()) {
    LLMD_LOG(kWarn, "configuration", {"warning", warning});
  }
  generation_ = generation;
  context_.generations.Publish(std::move(generation));
  context_.shared.metrics.Gauge(telemetry::MetricId::kConfigGeneration)
      .Set(static_cast<double>(generation_->number()));
  return UseDiscovery();
}

base::Status Control::UseDiscovery() {
  discovery_ = context_.options.endpoints.empty() ? generation_->discovery() : nullptr;
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

base::Status Control::BeginKeys() {
  const std::string& path = context_.options.api_key_file;
  if (path.empty()) return base::OkStatus();
  auto use = [this, path](const base::Result<std::string>& content) -> base::Status {
    if (!content) return content.error();
    if (content->size() > kKeyFileBytesMax) {
      return base::InvalidArgument(base::Concat(path, ": larger than 1 MiB"));
    }
    LLMD_ASSIGN_OR_RETURN(ApiKeys keys, ApiKeys::Parse(*content, path));
    context_.shared.keys.Set(std::make_shared<const ApiKeys>(std::move(keys)));
    return base::OkStatus();
  };
  keys_watch_ = std::make_unique<runtime::FileWatch>(
      loop_, path, [this, use](base::Result<std::string> content) {
        CountReload("api-keys", use(content));
      });
  return use(keys_watch_->initial());
}

void Control::CountReload(std::string_view file, const base::Status& status) {
  context_.shared.metrics
      .Counter(telemetry::MetricId::kConfigReloadsTotal, {file, status.ok() ? "ok" : "rejected"})
      .Add(context_.writer);
  if (status.ok()) {
    LLMD_LOG(kInfo, "reloaded", {"what", file});
  } else {
    LLMD_LOG(kError, "reload rejected, the old one stays", {"what", file}, {"error", status});
  }
}

}  // namespace llmd::gateway
