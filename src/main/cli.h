// What the subcommands share: values as flags write them, the log, and running until a signal.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"
#include "base/time.h"
#include "gateway/options.h"
#include "main/serve.h"

namespace CLI {
class App;
}

namespace llmd {

// The one place that makes and destroys a CLI::App: its code, all in headers, is compiled once.
struct DeleteApp {
  void operator()(CLI::App* app) const;
};
using AppPtr = std::unique_ptr<CLI::App, DeleteApp>;
AppPtr NewApp(const std::string& description, const std::string& name);
CLI::App& AddSubcommand(CLI::App& app, const std::string& name, const std::string& help);

// Adds a flag that takes a Go duration ("30s", "1m30s").
void AddDuration(CLI::App& app, const std::string& flag, base::Duration* value,
                 const std::string& help);
// Adds a flag that takes bytes as a number or a Kubernetes quantity ("64Mi", "1G").
void AddBytes(CLI::App& app, const std::string& flag, uint64_t* value, const std::string& help);
// --kv-index-snapshot, --kv-index-peer and what belongs to them.
void AddKvSnapshotFlags(CLI::App& app, control::HostOptions* options);
ServeOptions ServeOptionsOf(const gateway::GatewayOptions& options);
// Every flag of the gateway but --endpoints, for `gateway` and `up`.
void AddGatewayFlags(CLI::App& app, gateway::GatewayOptions* options);

// Parses; prints help or the error. Negative: go on; else the exit status.
int ParseFlags(CLI::App& app, int argc, char** argv);

// Prints "llmd NAME: error" and returns 1.
int Fail(std::string_view command, const base::Status& status);

}  // namespace llmd
