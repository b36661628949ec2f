// What an operator can say to the Endpoint Picker. Defaults are those of `llmd epp --help`, which
// are upstream's where upstream has the flag (llm-d-router, pkg/epp/server/options.go).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "control/options.h"
#include "telemetry/log.h"

namespace llmd::epp {

enum class ErrorFormat {
  kJson,  // the OpenAI error shape
  kText,  // upstream's "inference error: CODE - MESSAGE"
};

struct EppOptions : control::HostOptions {
  std::string listen = ":9002";         // ext_proc
  std::string health_listen = ":9003";  // grpc.health.v1
  bool health_checking = false;         // also answer health checks on `listen`
  uint64_t message_bytes_max = 0;       // of one gRPC message received; 0: the memory budget alone

  bool secure_serving = true;
  std::string cert_path;  // folder of tls.crt and tls.key; "": a self-signed certificate
  bool enable_cert_reload = false;
  std::string tls_min_version;                 // "VersionTLS12", "VersionTLS13"; "": 1.2
  std::vector<std::string> tls_cipher_suites;  // Go's names; for TLS 1.2

  bool disable_endpoint_subset_filter = false;
  bool emit_endpoint_scores = false;
  size_t fallback_endpoints = 1;  // endpoints in every answer, the choice included
  ErrorFormat error_format = ErrorFormat::kJson;
  bool enable_grpc_stream_metrics = false;

  std::string access_log;  // "-": standard output, "": none, else a file
  telemetry::LogFormat log_format = telemetry::LogFormat::kText;
};

}  // namespace llmd::epp
