// What an operator can say to the gateway. Defaults are those of `llmd gateway --help`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/time.h"
#include "telemetry/log.h"

namespace llmd::gateway {

struct GatewayOptions {
  std::string listen = ":8080";
  std::string metrics_listen = "127.0.0.1:9090";
  std::string
      config_file;  // at most one of config_file and config_text; neither: the default profile
  std::string config_text;
  std::vector<std::string> endpoints;  // host:port each; with a config these replace its discovery
  bool allow_experimental_plugins = false;
  std::string pool_name = "default";

  uint64_t max_body_bytes = 32u << 20;
  uint64_t memory_budget_bytes = 0;  // 0: a quarter of the memory limit
  size_t workers = 0;                // 0: one per CPU
  base::Duration drain_timeout = std::chrono::seconds(30);
  base::Duration refresh_metrics_interval = std::chrono::milliseconds(50);

  base::Duration header_timeout = std::chrono::seconds(10);
  base::Duration body_timeout = std::chrono::seconds(60);
  base::Duration idle_timeout = std::chrono::seconds(75);
  base::Duration connect_timeout = std::chrono::seconds(5);
  base::Duration response_timeout =
      std::chrono::minutes(10);  // to the reply head, and between reads

  std::string tls_cert, tls_key;  // PEM files, both or none
  bool engine_tls = false;        // engines speak HTTPS
  std::string engine_ca_file;     // "": the system's
  bool engine_insecure_skip_verify = false;
  std::string engine_header;      // "Name: value" sent to engines; "Name: @FILE" reads the value
  std::string api_key_file;

  std::string access_log = "-";  // "-": standard output, "": none, else a file
  telemetry::LogFormat log_format = telemetry::LogFormat::kText;
};

}  // namespace llmd::gateway
