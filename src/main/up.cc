#include <CLI/CLI.hpp>
#include <cstdio>

#include "base/strings.h"
#include "config/document.h"
#include "gateway/gateway.h"
#include "main/cli.h"
#include "main/commands.h"
#include "main/serve.h"
#include "main/tracing.h"
#include "runtime/files.h"
#include "sim/server.h"

namespace llmd {
namespace {

std::string PortOf(uint16_t port) { return std::to_string(port); }

void PrintReady(const gateway::Gateway& gateway, const sim::SimServers& engines) {
  const std::string& model = engines.config().served.front();
  std::string text = base::Concat(
      "\n  OpenAI-compatible endpoint  http://127.0.0.1:", PortOf(gateway.port()), "/v1   model ",
      model, "\n  simulated servers           ");
  for (const uint16_t port : engines.ports()) text += base::Concat(":", PortOf(port), " ");
  text += base::Concat(
      "\n  metrics, decisions          http://127.0.0.1:", PortOf(gateway.metrics_port()), "/\n\n",
      "try: curl -N http://127.0.0.1:", PortOf(gateway.port()),
      "/v1/chat/completions -H 'Content-Type: application/json' \\\n"
      "       -d '{\"model\":\"",
      model,
      "\",\"stream\":true,\"max_tokens\":32,\"messages\":[{\"role\":\"user\",\"content\":\"Hello!"
      "\"}]}'\n"
      "     curl -s 'http://127.0.0.1:",
      PortOf(gateway.metrics_port()),
      "/debug/decisions?last=1'\n"
      "     llmd bench --url http://127.0.0.1:",
      PortOf(gateway.port()), " --concurrency 16 --stream --duration 10s\n\nCtrl-C stops.\n\n");
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

// argv with the flags of `--options FILE` in front, so that what was typed comes later and wins.
base::Result<std::vector<std::string>> ExpandOptionsFile(int argc, char** argv) {
  std::vector<std::string> arguments(argv, argv + argc);
  std::string path;
  for (size_t i = 1; i < arguments.size(); ++i) {
    if (arguments[i] == "--options" && i + 1 < arguments.size()) path = arguments[i + 1];
    if (arguments[i].starts_with("--options=")) path = arguments[i].substr(10);
  }
  if (path.empty()) return arguments;
  LLMD_ASSIGN_OR_RETURN(const std::string text, runtime::ReadFile(path, config::kDocumentBytesMax));
  config::ErrorList errors;
  const auto document = config::Document::Parse(text, path, &errors);
  if (!document) return std::unexpected(errors.ToStatus());
  const config::Node root = document->root();
  if (root.kind() != config::NodeKind::kMap) {
    return std::unexpected(base::InvalidArgument(path + ": expected a map of flags"));
  }
  std::vector<std::string> flags;
  for (size_t i = 0; i < root.size(); ++i) {
    const config::Node value = root.at(i);
    if (value.kind() == config::NodeKind::kList || value.kind() == config::NodeKind::kMap) {
      return std::unexpected(base::InvalidArgument(
          base::Concat(path, ":", std::to_string(value.position().line), ": ", root.key(i),
                       ": expected one value")));
    }
    flags.push_back(base::Concat("--", root.key(i), "=", value.text()));
  }
  arguments.insert(arguments.begin() + 1, flags.begin(), flags.end());
  return arguments;
}

}  // namespace

int UpMain(int argc, char** argv, const plugin::Catalogue& catalogue) {
  const AppPtr app_ptr = NewApp(
      "A gateway and simulated vLLM servers in one process: the quickest way to see llmd work.\n\n"
      "  llmd up                                       four servers, calibrated as Qwen3-32B on "
      "H100\n"
      "  llmd up --count 8 --profile instant           eight servers that answer at once\n"
      "  llmd up --options up.yaml                     flags from a file: `count: 8` and so on",
      "llmd up");
  CLI::App& app = *app_ptr;
  gateway::GatewayOptions options;
  options.workers = 1;  // beside the engines' own thread
  AddGatewayFlags(app, &options);
  sim::SimOptions engines;
  engines.host = "127.0.0.1";
  engines.port = 8001;
  engines.count = 4;
  engines.profile = "qwen3-32b-h100-tp2";
  app.add_option("--count", engines.count, "simulated servers")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app.add_option("--port", engines.port, "port of the first simulated server; 0: any free ones")
      ->capture_default_str();
  app.add_option("--profile", engines.profile, "what they are; `llmd sim --help` lists profiles")
      ->capture_default_str();
  app.add_option("--speedup", engines.speedup, "simulated time runs this much faster")
      ->capture_default_str();
  std::string file;
  app.add_option("--options", file, "YAML file with these flags as keys; the command line wins");
  auto arguments = ExpandOptionsFile(argc, argv);
  if (!arguments) return Fail("up", arguments.error());
  std::vector<char*> pointers;
  for (std::string& argument : *arguments) pointers.push_back(argument.data());
  const int count = static_cast<int>(pointers.size());
  if (const int status = ParseFlags(app, count, pointers.data()); status >= 0) return status;

  std::unique_ptr<sim::SimServers> servers;
  return Serve("up", ServeOptionsOf(options), [&](const ServeLogs& logs) -> StartedRole {
    if (options.tracing) options.traces = TracingFromEnvironment("llm-d-gateway");
    LLMD_ASSIGN_OR_RETURN(servers, sim::Start(engines));
    for (const uint16_t port : servers->ports()) {
      options.endpoints.push_back(base::Concat("127.0.0.1:", PortOf(port)));
    }
    LLMD_ASSIGN_OR_RETURN(auto gateway, gateway::Gateway::Start(options, catalogue, logs.access,
                                                                logs.dropped));
    PrintReady(*gateway, *servers);
    return gateway;
  });
}

}  // namespace llmd
