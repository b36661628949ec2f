#include "plugins/data_source/http_source.h"

#include "base/strings.h"

namespace llmd::plugins {

using std::chrono::hours;
using std::chrono::milliseconds;
using Parameters = HttpSourceParameters;

namespace {

class HttpSource final : public plugin::Plugin, public plugin::DataSource {
 public:
  explicit HttpSource(plugin::FetchSpec fetch) : fetch_(std::move(fetch)) {}
  const plugin::FetchSpec& fetch() const override { return fetch_; }

 private:
  const plugin::FetchSpec fetch_;
};

}  // namespace

config::ObjectBuilder<Parameters> HttpSourceFields(std::string name,
                                                   std::string_view default_path) {
  auto builder = config::Object<Parameters>(std::move(name));
  builder
      .Field("scheme", "How to connect.", &Parameters::scheme,
             config::Enum<Parameters::Scheme>({{"http", Parameters::Scheme::kHttp},
                                               {"https", Parameters::Scheme::kHttps}}))
      .Field("path", base::Concat("Path of the page [", default_path, "]."), &Parameters::path,
             config::Optional(config::String(1)))
      .Field("insecureSkipVerify", "Accept any certificate.", &Parameters::insecure_skip_verify)
      .Field("interval", "Time between two fetches from an endpoint.", &Parameters::interval,
             config::GoDuration(milliseconds(1), hours(24)));
  return builder;
}

std::unique_ptr<plugin::Plugin> MakeHttpSource(plugin::PluginContext& context,
                                               const config::ObjectType<Parameters>& type,
                                               std::string_view default_path,
                                               uint16_t default_port) {
  Parameters parameters;
  const size_t errors_before = context.errors().total();
  if (!context.ReadParameters(type, &parameters)) return nullptr;
  const config::Node& node = context.parameters();
  plugin::FetchSpec fetch;
  fetch.path = parameters.path.value_or(std::string(default_path));
  if (fetch.path[0] != '/') {
    context.errors().Add(node.FindOrSelf("path"), "must begin with a slash");
  }
  if (parameters.client_cert_path.empty() != parameters.client_key_path.empty()) {
    context.errors().Add(node, "clientCertPath and clientKeyPath belong together, one is missing");
  }
  if (parameters.use_node_address) {
    context.errors().Add(node.FindOrSelf("useNodeAddress"),
                         "node addresses come from Kubernetes, which is not built yet");
  }
  if (context.errors().total() != errors_before) return nullptr;
  fetch.scheme = parameters.scheme == Parameters::Scheme::kHttps ? "https" : "http";
  fetch.port = parameters.port.value_or(default_port);
  fetch.verify_server = !parameters.insecure_skip_verify;
  fetch.ca_file = parameters.ca_cert_path;
  fetch.client_cert_file = parameters.client_cert_path;
  fetch.client_key_file = parameters.client_key_path;
  fetch.interval = parameters.interval;
  return std::make_unique<HttpSource>(std::move(fetch));
}

}  // namespace llmd::plugins
