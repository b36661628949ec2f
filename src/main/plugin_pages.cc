#include "main/plugin_pages.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "base/strings.h"
#include "config/document.h"

namespace llmd {
namespace {

using base::Concat;
using config::Node;
using plugin::PluginType;

std::string_view MarkOf(const PluginType& type) {
  switch (type.stability) {
    case plugin::Stability::kStable: return "";
    case plugin::Stability::kAlpha: return "alpha";
    case plugin::Stability::kDeprecated: return "deprecated";
  }
  return "";
}

// Types in the order of their names.
std::vector<const PluginType*> Sorted(const plugin::Catalogue& catalogue, bool built) {
  std::vector<const PluginType*> types;
  for (const PluginType& type : catalogue.types()) {
    if (static_cast<bool>(type.factory) == built) types.push_back(&type);
  }
  std::sort(types.begin(), types.end(),
            [](const PluginType* a, const PluginType* b) { return a->type < b->type; });
  return types;
}

// "string", "integer from 1", "a, b or c", "list of ...".
std::string TypeText(const Node& schema) {
  if (const Node names = schema.Find("enum")) {
    std::vector<std::string> words;
    for (size_t i = 0; i < names.size(); ++i) words.emplace_back(names.at(i).text());
    return base::Join(words, ", ");
  }
  std::string text(schema.Find("type").text());
  if (text == "array") return Concat("list of ", TypeText(schema.Find("items")));
  if (const Node min = schema.Find("minimum")) text += Concat(" from ", min.text());
  if (const Node max = schema.Find("maximum")) text += Concat(" to ", max.text());
  return text.empty() ? "any" : text;
}

std::string DefaultText(const Node& schema) {
  const Node value = schema.Find("default");
  if (!value || value.kind() == config::NodeKind::kMap ||
      value.kind() == config::NodeKind::kList || value.is_null()) {
    return "";
  }
  return value.text().empty() ? "" : Concat("`", value.text(), "`");
}

bool IsRequired(const Node& object, std::string_view name) {
  const Node required = object.Find("required");
  for (size_t i = 0; required && i < required.size(); ++i) {
    if (required.at(i).text() == name) return true;
  }
  return false;
}

// Rows of the object's fields; fields of objects inside follow theirs, with the path in front.
void AppendFields(const Node& object, const std::string& prefix, std::string* out) {
  const Node properties = object.Find("properties");
  for (size_t i = 0; properties && i < properties.size(); ++i) {
    const Node field = properties.at(i);
    const std::string name = Concat(prefix, properties.key(i));
    const std::string type = TypeText(field);
    *out += Concat("| `", name, "` | ", type, " | ",
                   IsRequired(object, properties.key(i)) ? "required" : DefaultText(field), " | ",
                   field.Find("description").text(), " |\n");
    const bool is_list = field.Find("items").operator bool();
    AppendFields(is_list ? field.Find("items") : field, Concat(name, is_list ? "[]." : "."), out);
  }
}

}  // namespace

std::string PluginList(const plugin::Catalogue& catalogue) {
  std::string text;
  for (const PluginType* type : Sorted(catalogue, true)) {
    const std::string_view mark = MarkOf(*type);
    std::string line = type->type;
    line.append(std::max<size_t>(38, line.size() + 1) - line.size(), ' ');
    line += type->kinds;
    line.append(std::max<size_t>(66, line.size() + 1) - line.size(), ' ');
    text += Concat(line, type->help, mark.empty() ? "" : Concat(" (", mark, ")"), "\n");
  }
  return text;
}

std::string PluginPage(const plugin::Catalogue& catalogue) {
  std::string text =
      "# Plugins\n\n"
      "Every plugin type of the configuration (`plugins[].type`) with its parameters. Made from "
      "the\n"
      "catalogue; `llmd config plugins` prints it. Names of parameters match in any case. Types\n"
      "marked alpha need `--allow-experimental-plugins`.\n";
  for (const PluginType* type : Sorted(catalogue, true)) {
    const std::string_view mark = MarkOf(*type);
    text += Concat("\n## ", type->type, "\n\n", type->help, " (", type->kinds,
                   mark.empty() ? "" : Concat(", ", mark),
                   type->default_producer_of.empty()
                       ? ""
                       : Concat(", the default producer of ", type->default_producer_of),
                   ")\n");
    if (type->parameters_schema.empty()) continue;
    config::ErrorList errors;
    const auto schema = config::Document::Parse(type->parameters_schema, type->type, &errors);
    if (!schema) continue;
    text += "\n| parameter | values | default | |\n|---|---|---|---|\n";
    AppendFields(schema->root(), "", &text);
  }
  text += "\n## Known and not built yet\n\nA configuration that names one of these is refused:\n";
  for (const PluginType* type : Sorted(catalogue, false)) text += Concat("`", type->type, "`\n");
  return text;
}

}  // namespace llmd
