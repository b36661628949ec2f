// The command line of `llmd epp`: upstream's flags with upstream's spelling and meaning
// (llm-d-router, pkg/epp/server/options.go), and a few of our own. Thread-safe, no state.
#pragma once

#include <memory>
#include <string>

#include "base/status.h"
#include "epp/options.h"

namespace CLI {
class App;
}

namespace llmd {

// What is said of the pool and the place in Kubernetes, which a picker with file discovery does not
// need. Checked like upstream's, then refused with one line as long as it cannot be done.
struct EppKubernetesFlags {
  std::string pool_group = "inference.networking.k8s.io";
  std::string pool_name, pool_namespace;
  std::string endpoint_selector;
  std::vector<int> endpoint_target_ports;
  bool leader_election = false;
};

struct EppFlags {
  epp::EppOptions options;
  EppKubernetesFlags kubernetes;
  int grpc_port = 9002, health_port = 9003, metrics_port = 9090;
  std::string max_recv, max_send;
  bool metrics_endpoint_auth = true;
  bool metrics_endpoint_auth_given = false;
  int verbosity = 2;
  std::string zap_log_level, zap_encoder;
  bool check = false;  // compile the config, print what came out, and stop
};

void AddEppFlags(CLI::App& app, EppFlags* flags);
// Checks what flags say together and completes `flags->options`.
base::Status CompleteEppFlags(EppFlags* flags);

}  // namespace llmd
