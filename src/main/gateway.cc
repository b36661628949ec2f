#include <CLI/CLI.hpp>

#include "gateway/gateway.h"
#include "main/cli.h"
#include "main/commands.h"
#include "main/serve.h"
#include "main/tracing.h"
#include "runtime/loop.h"
#include "telemetry/log.h"

namespace llmd {

int GatewayMain(int argc, char** argv, const plugin::Catalogue& catalogue) {
  const AppPtr app_ptr = NewApp(
      "OpenAI-compatible endpoint over many model servers: every request goes to the server with "
      "the\n"
      "best mix of prefix-cache match, queue and KV use, in one process.\n\n"
      "  llmd gateway --endpoints 10.0.0.1:8000,10.0.0.2:8000\n"
      "  llmd gateway --config-file epp.yaml --metrics-address 0.0.0.0\n\n"
      "The config is the EndpointPickerConfig of llm-d's Endpoint Picker, endpoints from its\n"
      "file-discovery plugin. Without one: queue-scorer 2, kv-cache-utilization-scorer 2,\n"
      "prefix-cache-scorer 3, max-score-picker.",
      "llmd gateway");
  CLI::App& app = *app_ptr;
  gateway::GatewayOptions options;
  AddGatewayFlags(app, &options);
  app.add_option("--endpoints", options.endpoints,
                 "host:port,... of the model servers, in place of discovery")
      ->delimiter(',');
  if (const int status = ParseFlags(app, argc, argv); status >= 0) return status;
  return Serve("gateway", ServeOptionsOf(options), [&](const ServeLogs& logs) -> StartedRole {
    if (options.tracing) options.traces = TracingFromEnvironment("llm-d-gateway");
    LLMD_ASSIGN_OR_RETURN(auto gateway, gateway::Gateway::Start(options, catalogue, logs.access,
                                                                logs.dropped));
    LLMD_LOG(kInfo, "serving", {"port", gateway->port()},
             {"metrics_port", gateway->metrics_port()}, {"workers", gateway->worker_count()},
             {"io", runtime::IoEngineText()});
    return gateway;
  });
}

}  // namespace llmd
