#include <CLI/CLI.hpp>
#include <cstdio>

#include "base/strings.h"
#include "director/config.h"
#include "fleet/fleet.h"
#include "main/cli.h"
#include "main/commands.h"
#include "main/config.h"
#include "main/plugin_pages.h"
#include "runtime/files.h"

namespace llmd {
namespace {

void AddInput(CLI::App& app, ConfigInput* input) {
  auto* file = app.add_option("--config-file", input->file, "EndpointPickerConfig (YAML)");
  app.add_option("--config-text", input->text, "the same document as a text")->excludes(file);
  app.add_flag("--allow-experimental-plugins", input->allow_experimental,
               "let the config use plugins marked alpha");
  app.add_flag("--endpoints-given", input->endpoints_given,
               "as if --endpoints were given to the gateway: the document needs no discovery");
}

}  // namespace

base::Result<std::shared_ptr<const director::Generation>> CompileConfig(
    const ConfigInput& input, const plugin::Catalogue& catalogue, fleet::Fleet& fleet) {
  std::string yaml = input.text;
  std::string name = input.text.empty() ? "built-in defaults" : "--config-text";
  if (!input.file.empty()) {
    LLMD_ASSIGN_OR_RETURN(yaml, runtime::ReadFile(input.file, 1u << 20));
    name = input.file;
  }
  return director::Compile(
      yaml, name, catalogue, fleet,
      {.allow_experimental_plugins = input.allow_experimental,
       .endpoints_given = input.endpoints_given || (input.file.empty() && input.text.empty())},
      nullptr);
}

int ConfigMain(int argc, char** argv, const plugin::Catalogue& catalogue) {
  const AppPtr app_ptr = NewApp(
      "Checks, prints and describes the gateway's configuration.\n\n"
      "  llmd config check --config-file epp.yaml    all errors as file:line:col key: what; exit "
      "1\n"
      "  llmd config print --config-file epp.yaml    the effective config, defaults filled in\n"
      "  llmd config print                           the built-in default\n"
      "  llmd config plugins                         every plugin type in a line\n"
      "  llmd config schema > epp.schema.json        JSON schema, for editors",
      "llmd config");
  CLI::App& app = *app_ptr;
  ConfigInput input;
  CLI::App& check = AddSubcommand(app, "check", "validate; silent and 0 when all is well");
  CLI::App& print = AddSubcommand(app, "print", "print the effective configuration as YAML");
  CLI::App& plugins = AddSubcommand(app, "plugins", "list the plugin types");
  bool markdown = false;
  plugins.add_flag("--markdown", markdown, "as a page, with every parameter");
  CLI::App& schema = AddSubcommand(app, "schema", "print the JSON schema (draft 2020-12)");
  AddInput(check, &input);
  AddInput(print, &input);
  app.require_subcommand(1);
  if (const int status = ParseFlags(app, argc, argv); status >= 0) return status;

  if (plugins) {
    std::fputs((markdown ? PluginPage(catalogue) : PluginList(catalogue)).c_str(), stdout);
    return 0;
  }
  if (schema) {
    std::fputs(director::ConfigSchema(catalogue).c_str(), stdout);
    return 0;
  }
  fleet::Fleet fleet(1);
  const auto generation = CompileConfig(input, catalogue, fleet);
  if (!generation) {
    std::fprintf(stderr, "%s\n", std::string(generation.error().message()).c_str());
    return 1;
  }
  if (print) std::fputs((*generation)->effective_yaml().c_str(), stdout);
  return 0;
}

}  // namespace llmd
