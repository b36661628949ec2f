#include "director/config.h"

#include <algorithm>

#include "config/document.h"
#include "config/value.h"
#include "director/generation_builder.h"
#include "director/picker_document.h"

namespace llmd::director {

using config::Value;

Generation::~Generation() = default;

protocol::Api Generation::ApiFor(std::string_view path) const {
  if (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  for (const plugin::Parser::Claim& claim : claims_) {
    if (claim.Matches(path)) return claim.api;
  }
  return protocol::Api::kOpaque;
}

bool Generation::ParsersSupport(std::string_view app_protocol) const {
  if (app_protocol.empty()) return true;
  return std::ranges::all_of(parsers_, [app_protocol](const plugin::Parser* parser) {
    const auto protocols = parser->protocols();
    return protocols.empty() || std::ranges::any_of(protocols, [app_protocol](auto protocol) {
             return plugin::AppProtocolName(protocol) == app_protocol;
           });
  });
}

base::Result<std::shared_ptr<const Generation>> Compile(
    std::string_view yaml, std::string_view filename, const plugin::Catalogue& catalogue,
    fleet::Fleet& fleet, const LoadOptions& options, const Generation* previous) {
  config::ErrorList errors;
  const bool none = yaml.find_first_not_of(" \t\r\n") == std::string_view::npos;
  const auto document =
      config::Document::Parse(none ? DefaultPickerYaml() : yaml,
                              none ? "built-in defaults" : std::string(filename), &errors);
  if (!document) return std::unexpected(errors.ToStatus());
  PickerDocument picker;
  std::vector<std::string> warnings;
  PickerDocumentType().Read(document->root(), {.errors = &errors}, &picker);
  const bool read = errors.ok();
  CheckAndNormalise(&picker, &errors, &warnings);
  GenerationBuilder builder(std::move(picker), catalogue, fleet, options, previous, errors,
                            std::move(warnings));
  if (!read) {  // what could not be read would be missed elsewhere and complained about again
    builder.MakeListed();
    return std::unexpected(errors.ToStatus());
  }
  std::shared_ptr<const Generation> generation = builder.Build();
  if (!errors.ok()) return std::unexpected(errors.ToStatus());
  return generation;
}

std::string ConfigSchema(const plugin::Catalogue& catalogue) {
  Value schema = PickerDocumentType().SchemaDocument();
  Value names = Value::EmptyList();
  Value cases = Value::EmptyList();
  for (const plugin::PluginType& type : catalogue.types()) {
    if (!type.factory) continue;
    names.Append(type.type);
    Value parameters = Value::EmptyMap().Set("type", "object").Set("maxProperties", 0);
    if (!type.parameters_schema.empty()) {
      config::ErrorList errors;
      const auto parsed = config::Document::Parse(type.parameters_schema, type.type, &errors);
      if (parsed) parameters = config::ToValue(parsed->root());
    }
    if (!type.help.empty()) parameters.Set("description", type.help);
    Value properties = Value::EmptyMap();
    properties.Set("type", Value::EmptyMap().Set("const", type.type));
    Value condition = Value::EmptyMap().Set("properties", properties);
    Value then = Value::EmptyMap().Set("properties",
                                       Value::EmptyMap().Set("parameters", std::move(parameters)));
    cases.Append(Value::EmptyMap().Set("if", std::move(condition)).Set("then", std::move(then)));
  }
  Value plugin = PluginEntryType().Describe();
  Value plugin_properties = *plugin.Find("properties");
  Value type = *plugin_properties.Find("type");
  plugin_properties.Set("type", std::move(type.Set("enum", std::move(names))));
  plugin.Set("properties", std::move(plugin_properties)).Set("allOf", std::move(cases));
  Value properties = *schema.Find("properties");
  Value plugins = *properties.Find("plugins");
  properties.Set("plugins", std::move(plugins.Set("items", std::move(plugin))));
  schema.Set("properties", std::move(properties));
  return config::ToJson(schema);
}

}  // namespace llmd::director
