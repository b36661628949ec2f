#include "plugins/data_source/dcgm_data_source.h"

#include "plugins/data_source/http_source.h"

namespace llmd::plugins {
namespace {

using Parameters = HttpSourceParameters;

constexpr std::string_view kPath = "/metrics";
constexpr uint16_t kPort = 9400;  // of NVIDIA's DCGM exporter

const config::ObjectType<Parameters>& ParametersType() {
  static const auto type =
      HttpSourceFields("DcgmDataSourceParameters", kPath)
          .Field("port", "Port of the page; 9400 when absent.", &Parameters::port,
                 config::Optional(config::Int<uint16_t>(1)))
          .Field("useNodeAddress", "Fetch from the node, not from the endpoint's own address.",
                 &Parameters::use_node_address)
          .Build();
  return *type;
}

}  // namespace

plugin::PluginType DcgmDataSourceType() {
  plugin::PluginType type;
  type.type = "dcgm-data-source";
  type.stability = plugin::Stability::kAlpha;
  type.factory = [](plugin::PluginContext& context) {
    return MakeHttpSource(context, ParametersType(), kPath, kPort);
  };
  type.kinds = "data source";
  type.help = "Fetches GPU metrics of every endpoint from NVIDIA's DCGM exporter.";
  type.parameters_schema = config::ToJson(ParametersType().Describe());
  return type;
}

}  // namespace llmd::plugins
