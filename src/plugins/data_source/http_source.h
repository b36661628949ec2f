// What the data sources that fetch a page over HTTP have in common: their parameters, and the
// plugin. They differ in defaults and in what reads the page.
//
// Parameters: scheme (http), path, port (the endpoint's own), insecureSkipVerify (true),
// caCertPath, clientCertPath, clientKeyPath, interval (50ms; never below
// --refresh-metrics-interval).
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "config/schema.h"
#include "plugin/catalogue.h"

namespace llmd::plugins {

struct HttpSourceParameters {
  enum class Scheme { kHttp, kHttps };
  Scheme scheme = Scheme::kHttp;
  std::optional<std::string> path;
  std::optional<uint16_t> port;
  bool insecure_skip_verify = true;
  std::string ca_cert_path, client_cert_path, client_key_path;
  base::Duration interval = std::chrono::milliseconds(50);
  bool use_node_address = false;  // dcgm-data-source only
};

// The fields that all have.
config::ObjectBuilder<HttpSourceParameters> HttpSourceFields(std::string name,
                                                             std::string_view default_path);

// A data source of that type, or nullptr with the reasons in context.errors(). `default_port` 0:
// the endpoint's own.
std::unique_ptr<plugin::Plugin> MakeHttpSource(
    plugin::PluginContext& context, const config::ObjectType<HttpSourceParameters>& type,
    std::string_view default_path, uint16_t default_port);

}  // namespace llmd::plugins
