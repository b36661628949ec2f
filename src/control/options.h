// What an operator can say to any door, whatever it speaks. Defaults are those of `--help`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/time.h"

namespace llmd::control {

// Where the index of KV blocks is kept (kv_snapshots.h).
struct KvSnapshotOptions {
  std::string file;  // "": nowhere
  base::Duration interval = std::chrono::seconds(30);  // between two, at least a second
};

// Pickers that hand one another the index of KV blocks (kv_peers.h).
struct KvPeerOptions {
  std::string listen;    // where it may be had; "": nowhere
  std::string from;      // host:port of who runs; "": nobody
  std::string cert_dir;  // folder of tls.crt, tls.key and ca.crt for both; "": plain
  base::Duration timeout = std::chrono::seconds(5);  // of fetching it, all in all
};

struct TracingOptions;  // otlp_exporter.h

struct HostOptions {
  std::string metrics_listen = "127.0.0.1:9090";
  std::string metrics_cert_dir;        // folder of tls.crt and tls.key: metrics over TLS
  std::string metrics_client_ca_file;  // PEM CA that metrics clients must be certified by
  base::Duration metrics_staleness_threshold = std::chrono::seconds(2);
  std::string
      config_file;  // at most one of config_file and config_text; neither: the default profile
  std::string config_text;
  std::string objects_file;            // InferenceObjective and InferenceModelRewrite manifests
  std::vector<std::string> endpoints;  // host:port each; with a config these replace its discovery
  bool allow_experimental_plugins = false;
  std::string pool_name = "default";

  uint64_t memory_budget_bytes = 0;  // 0: a quarter of the memory limit
  uint64_t kv_index_bytes = 0;       // of an index of KV blocks; 0: prefix::KvIndex's default
  KvSnapshotOptions kv_index_snapshot;
  KvPeerOptions kv_index_peer;
  size_t workers = 0;                // 0: one per CPU
  base::Duration drain_timeout = std::chrono::seconds(30);
  base::Duration refresh_metrics_interval = std::chrono::milliseconds(50);

  bool engine_tls = false;     // engines speak HTTPS
  std::string engine_ca_file;  // "": the system's
  bool engine_insecure_skip_verify = false;
  bool tracing = true;                          // as the OTEL_* environment says
  std::shared_ptr<const TracingOptions> traces;  // what it said; nullptr: none

  std::string engine_header;  // "Name: value" sent to engines; "Name: @FILE" reads the value
};

}  // namespace llmd::control
