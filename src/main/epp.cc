#include <CLI/CLI.hpp>
#include <cstdio>

#include "base/strings.h"
#include "epp/endpoint_picker.h"
#include "main/cli.h"
#include "main/commands.h"
#include "main/config.h"
#include "main/epp_flags.h"
#include "main/serve.h"
#include "main/tracing.h"
#include "telemetry/log.h"

namespace llmd {
namespace {

// The scheduling profiles as they run, for people: filters, scorers with weights, the picker.
std::string DescribeProfiles(const director::Generation& generation) {
  const auto name_of = [&](uint32_t plugin) -> const std::string& {
    return generation.plugins()[plugin].object->name();
  };
  std::string text;
  for (const scheduling::Profile& profile : generation.profiles()) {
    text += base::Concat("# profile ", profile.name, ":");
    for (const auto& step : profile.filters) text += base::Concat(" ", name_of(step.plugin), ";");
    for (const auto& scorer : profile.scorers) {
      char weight[32];
      std::snprintf(weight, sizeof(weight), " x %.9g;", scorer.weight);
      text += base::Concat(" ", name_of(scorer.plugin), weight);
    }
    text += base::Concat(" ", name_of(profile.picker_plugin), "\n");
  }
  for (const director::ProducerStep& step : generation.producers()) {
    text += base::Concat("# producer ", name_of(step.plugin), "\n");
  }
  return text;
}

int Check(const epp::EppOptions& options, const plugin::Catalogue& catalogue) {
  fleet::Fleet fleet(1);
  const auto generation =
      CompileConfig({.file = options.config_file,
                     .text = options.config_text,
                     .allow_experimental = options.allow_experimental_plugins},
                    catalogue, fleet);
  if (!generation) {
    std::fprintf(stderr, "%s\n", std::string(generation.error().message()).c_str());
    return 1;
  }
  for (const std::string& warning : (*generation)->warnings()) {
    std::fprintf(stderr, "warning: %s\n", warning.c_str());
  }
  std::fputs((*generation)->effective_yaml().c_str(), stdout);
  std::fputs(DescribeProfiles(**generation).c_str(), stdout);
  return 0;
}

// "-v=4", as Go writes it, in two words.
std::vector<std::string> SplitShortFlags(int argc, char** argv) {
  std::vector<std::string> arguments;
  for (int i = 0; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument.starts_with("-v=")) {
      arguments.emplace_back("-v");
      arguments.emplace_back(argument.substr(3));
    } else {
      arguments.emplace_back(argument);
    }
  }
  return arguments;
}

}  // namespace

int EppMain(int argc, char** argv, const plugin::Catalogue& catalogue) {
  const AppPtr app_ptr = NewApp(
      "Endpoint Picker: tells Envoy (ext_proc) which model server gets a request. Takes the place "
      "of\nllm-d's epp: same flags, config, wire behaviour and metrics.\n\n"
      "  llmd epp --config-file epp.yaml                   endpoints from its file-discovery "
      "plugin\n"
      "  llmd epp --config-file epp.yaml --check           what the config amounts to\n"
      "  llmd epp --config-file epp.yaml --secure-serving=false --metrics-endpoint-auth=false",
      "llmd epp");
  CLI::App& app = *app_ptr;
  EppFlags flags;
  AddEppFlags(app, &flags);
  std::vector<std::string> arguments = SplitShortFlags(argc, argv);
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  const int count = static_cast<int>(pointers.size());
  if (const int status = ParseFlags(app, count, pointers.data()); status >= 0) return status;
  if (const base::Status complete = CompleteEppFlags(&flags); !complete.ok()) {
    return Fail("epp", complete);
  }
  const epp::EppOptions& options = flags.options;
  if (flags.check) return Check(options, catalogue);
  return Serve("epp",
               {.access_log = options.access_log,
                .log_format = options.log_format,
                .drain_timeout = options.drain_timeout},
               [&](const ServeLogs& logs) -> StartedRole {
                 if (options.tracing) flags.options.traces = TracingFromEnvironment("llm-d-epp");
                 LLMD_ASSIGN_OR_RETURN(auto picker, epp::EndpointPicker::Start(
                                                        options, catalogue, logs.access,
                                                        logs.dropped));
                 LLMD_LOG(kInfo, "serving ext_proc", {"port", picker->port()},
                          {"health_port", picker->health_port()},
                          {"metrics_port", picker->metrics_port()},
                          {"tls", options.secure_serving},
                          {"workers", picker->worker_count()});
                 return picker;
               });
}

}  // namespace llmd
