#include "plugins/data_source/metrics_data_source.h"

#include "plugins/factory.h"

namespace llmd::plugins {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;

enum class Scheme { kHttp, kHttps };

struct Parameters {
  Scheme scheme = Scheme::kHttp;
  std::string path = "/metrics";
  std::optional<uint16_t> port;
  bool insecure_skip_verify = true;
  std::string ca_cert_path, client_cert_path, client_key_path;
  base::Duration interval = milliseconds(50);
};

const config::ObjectType<Parameters>& ParametersType() {
  static const auto type =
      config::Object<Parameters>("MetricsDataSourceParameters")
          .Field("scheme", "How to connect.", &Parameters::scheme,
                 config::Enum<Scheme>({{"http", Scheme::kHttp}, {"https", Scheme::kHttps}}))
          .Field("path", "Path of the metrics page.", &Parameters::path, config::String(1))
          .Field("port", "Port of the metrics page; the endpoint's own when absent.",
                 &Parameters::port, config::Optional(config::Int<uint16_t>(1)))
          .Field("insecureSkipVerify", "Accept any certificate.", &Parameters::insecure_skip_verify)
          .Field("caCertPath", "PEM file of the authorities to trust.", &Parameters::ca_cert_path)
          .Field("clientCertPath", "PEM file of the certificate to show.",
                 &Parameters::client_cert_path)
          .Field("clientKeyPath", "PEM file of its key.", &Parameters::client_key_path)
          .Field("interval", "Time between two scrapes of an endpoint.", &Parameters::interval,
                 config::GoDuration(milliseconds(1), hours(24)))
          .Build();
  return *type;
}

class MetricsDataSource final : public plugin::Plugin, public plugin::DataSource {
 public:
  MetricsDataSource(const Parameters& parameters, plugin::PluginContext& context) {
    const config::Node& node = context.parameters();
    if (parameters.path[0] != '/') {
      context.errors().Add(node.FindOrSelf("path"), "must begin with a slash");
    }
    if (parameters.client_cert_path.empty() != parameters.client_key_path.empty()) {
      context.errors().Add(node,
                           "clientCertPath and clientKeyPath belong together, one is missing");
    }
    fetch_.scheme = parameters.scheme == Scheme::kHttps ? "https" : "http";
    fetch_.path = parameters.path;
    fetch_.port = parameters.port.value_or(0);
    fetch_.verify_server = !parameters.insecure_skip_verify;
    fetch_.ca_file = parameters.ca_cert_path;
    fetch_.client_cert_file = parameters.client_cert_path;
    fetch_.client_key_file = parameters.client_key_path;
    fetch_.interval = parameters.interval;
  }
  const plugin::FetchSpec& fetch() const override { return fetch_; }

 private:
  plugin::FetchSpec fetch_;
};

}  // namespace

plugin::PluginType MetricsDataSourceType() {
  return MakeType<MetricsDataSource>("metrics-data-source",
                                     "Fetches the metrics page of every endpoint.", ParametersType);
}

}  // namespace llmd::plugins
