// What an operator can say to the gateway. Defaults are those of `llmd gateway --help`.
#pragma once

#include <cstdint>
#include <string>

#include "control/options.h"
#include "telemetry/log.h"

namespace llmd::gateway {

struct GatewayOptions : control::HostOptions {
  std::string listen = ":8080";

  uint64_t max_body_bytes = 32u << 20;

  base::Duration header_timeout = std::chrono::seconds(10);
  base::Duration body_timeout = std::chrono::seconds(60);
  base::Duration idle_timeout = std::chrono::seconds(75);
  base::Duration connect_timeout = std::chrono::seconds(5);
  base::Duration response_timeout =
      std::chrono::minutes(10);  // to the reply head, and between reads

  std::string tls_cert, tls_key;  // PEM files, both or none
  std::string api_key_file;

  std::string access_log = "-";  // "-": standard output, "": none, else a file
  telemetry::LogFormat log_format = telemetry::LogFormat::kText;
};

}  // namespace llmd::gateway
