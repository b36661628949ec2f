#include "plugins/data_source/metrics_data_source.h"

#include "plugins/data_source/http_source.h"

namespace llmd::plugins {
namespace {

using Parameters = HttpSourceParameters;

constexpr std::string_view kPath = "/metrics";

const config::ObjectType<Parameters>& ParametersType() {
  static const auto type =
      HttpSourceFields("MetricsDataSourceParameters", kPath)
          .Field("port", "Port of the page; the endpoint's own when absent.", &Parameters::port,
                 config::Optional(config::Int<uint16_t>(1)))
          .Field("caCertPath", "PEM file of the authorities to trust.", &Parameters::ca_cert_path)
          .Field("clientCertPath", "PEM file of the certificate to show.",
                 &Parameters::client_cert_path)
          .Field("clientKeyPath", "PEM file of its key.", &Parameters::client_key_path)
          .Build();
  return *type;
}

}  // namespace

plugin::PluginType MetricsDataSourceType() {
  plugin::PluginType type;
  type.type = "metrics-data-source";
  type.factory = [](plugin::PluginContext& context) {
    return MakeHttpSource(context, ParametersType(), kPath, 0);
  };
  type.kinds = "data source";
  type.help = "Fetches the metrics page of every endpoint.";
  type.parameters_schema = config::ToJson(ParametersType().Describe());
  return type;
}

}  // namespace llmd::plugins
