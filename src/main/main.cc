#include <cstdio>
#include <string>
#include <string_view>

#include "base/strings.h"
#include "main/commands.h"

namespace llmd {
namespace {

constexpr std::string_view kHelp = R"(llmd: one binary for the data plane of LLM serving

usage: llmd COMMAND [options]        llmd COMMAND --help explains one

  up        a gateway and simulated model servers in one process: try llmd in a second
  gateway   OpenAI-compatible endpoint over many model servers, routed by prefix cache and load
  epp       Endpoint Picker: tells Envoy (ext_proc) which model server gets a request
  index     the index of KV blocks as a service, for routers of other makes
  sim       simulated vLLM servers on real ports, with calibrated timing
  bench     load generator: open or closed loop, streaming, latency percentiles
  config    check, print and describe the configuration
  version   the version
)";

constexpr std::string_view kVersion = "llmd 0.1.0\n";

std::string_view BaseName(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

void Print(FILE* out, std::string_view text) { std::fwrite(text.data(), 1, text.size(), out); }

}  // namespace

int Main(int argc, char** argv, const plugin::Catalogue& catalogue) {
  if (BaseName(argv[0]) == "llm-d-inference-sim") return SimMain(argc, argv);
  if (BaseName(argv[0]) == "epp") return EppMain(argc, argv, catalogue);
  const std::string_view command = argc > 1 ? argv[1] : "";
  if (command == "up") return UpMain(argc - 1, argv + 1, catalogue);
  if (command == "gateway") return GatewayMain(argc - 1, argv + 1, catalogue);
  if (command == "epp") return EppMain(argc - 1, argv + 1, catalogue);
  if (command == "index") return IndexMain(argc - 1, argv + 1, catalogue);
  if (command == "config") return ConfigMain(argc - 1, argv + 1, catalogue);
  if (command == "sim") return SimMain(argc - 1, argv + 1);
  if (command == "bench") return BenchMain(argc - 1, argv + 1);
  if (command == "version" || command == "--version") {
    Print(stdout, kVersion);
    return 0;
  }
  if (command == "help" || command == "--help" || command == "-h") {
    Print(stdout, kHelp);
    return 0;
  }
  static constexpr std::string_view kCommands[] = {"up",  "gateway", "epp",    "index",
                                                   "sim", "bench",   "config", "version"};
  if (!command.empty()) {
    std::string text = base::Concat("llmd: unknown command \"", command, "\"");
    const std::string_view nearest = base::NearestWord(command, kCommands);
    if (!nearest.empty()) text += base::Concat("; did you mean \"", nearest, "\"?");
    Print(stderr, text + "\n\n");
  }
  Print(stderr, kHelp);
  return 2;
}

}  // namespace llmd
